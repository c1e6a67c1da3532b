"""The program of a local worker; `selfseg.workers.processes` starts it."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn

from selfseg.threads import use_cores
from selfseg.workers.pipes import put, take, unpacked
from selfseg.workers.plan import Shard
from selfseg.workers.pool import Failure, Finished, Ready, perform
from selfseg.workers.processes import GRACE

Work = Callable[[Shard[Any]], Iterator[Any]]


def main() -> NoReturn:
    """Take jobs and shards from standard input, and answer on standard output, until the input ends."""
    requests = open(os.dup(0), "rb", buffering=0)  # a buffer would be locked by the thread that waits in it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    signal.signal(signal.SIGTERM, _leave)
    use_cores(int(sys.argv[1]))
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, waiting), daemon=True).start()
    try:
        put(answers, Ready())
        _work(waiting, answers)
    except (SystemExit, BrokenPipeError):
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _work(waiting: queue.SimpleQueue[bytes], answers: IO[bytes]) -> NoReturn:
    work: Work | None = None
    while True:
        answer, work = _answer(waiting.get(), work)
        try:
            put(answers, answer)
        except BrokenPipeError:
            raise
        except Exception as error:  # of any kind: a value that can't be pickled
            put(answers, Finished(Failure.of(error), answer.seconds))


def _answer(request: bytes, work: Work | None) -> tuple[Finished, Work | None]:
    """What comes of a request, and the opened job for the next one."""
    try:
        job, shard = unpacked(request)
    except Exception as error:  # of any kind: whatever a class does when it is rebuilt
        failure = Failure.of(error)
        reason = (
            f"a worker can't open what it was given ({error}); functions and classes that are passed on must be those "
            "of a module that can be imported, not of a script"
        )
        return Finished(failure._replace(kinds=("selfseg.errors.ConfigError",), message=reason), 0.0), None
    if job is not None:
        try:
            work = job.open()
        except Exception as error:
            return Finished(Failure.of(error), 0.0), None
    assert work is not None
    return perform(work, shard), work


def _read(requests: IO[bytes], waiting: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            waiting.put(take(requests))
    except EOFError:  # the parent is gone
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)


def _leave(_signal: int, _frame: object) -> NoReturn:
    sys.exit(0)  # by way of what is being written, so that it leaves no temporary file


if __name__ == "__main__":
    main()
