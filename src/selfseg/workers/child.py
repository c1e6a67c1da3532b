"""The program of a local worker; `selfseg.workers.processes` starts it."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

from selfseg.ops.threads import use_cores
from selfseg.workers.plan import Shard
from selfseg.workers.pool import Failure, Finished, Ready, perform
from selfseg.workers.processes import put, take


def main() -> int:
    """Take jobs and shards from standard input, and answer on standard output, until the input ends."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    use_cores(int(sys.argv[1]))
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, waiting), daemon=True).start()
    put(answers, Ready())
    work: Callable[[Shard[Any]], Iterator[Any]] | Finished | None = None
    while True:
        value = waiting.get()
        if not isinstance(value, Shard):
            work = _open(value)
        elif isinstance(work, Finished):
            put(answers, work)
        else:
            assert work is not None
            put(answers, perform(work, value))


def _read(requests: IO[bytes], waiting: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            waiting.put(take(requests))
    except EOFError:
        os._exit(0)  # the parent is gone, or has no more use for this
    except Exception:
        import traceback

        traceback.print_exc()
        os._exit(1)


def _open(job: Any) -> Callable[[Shard[Any]], Iterator[Any]] | Finished:
    """The job's function; or what goes wrong, which is the answer to every shard of it."""
    import traceback

    try:
        return job.open()  # type: ignore[no-any-return]
    except Exception as error:
        return Finished(Failure(type(error).__name__, str(error), traceback.format_exc()), 0.0)


if __name__ == "__main__":
    sys.exit(main())
