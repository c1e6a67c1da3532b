"""Workers that are processes of this machine.

Each is a fresh Python, `python -m selfseg.workers.child`, so that a script that calls a verb needs no guard around it;
it is spoken to through its standard input and output. One that dies closes them, which its listener notices. One whose
parent dies reads an end, and ends.
"""

from __future__ import annotations

import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from selfseg.ops.threads import usable_cores
from selfseg.workers.plan import Job, Shard
from selfseg.workers.pool import Died, Finished, Pool, Ready

_LENGTH = struct.Struct("<Q")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def put(stream: IO[bytes], value: Any) -> None:
    """Send a value to another process of ours."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def take(stream: IO[bytes]) -> Any:
    """The next value that was `put`; raises EOFError at the end."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


class Child:
    """A process, and the thread that listens to it.

    Args:
        cores: that it may use.
        news: where what it says goes, with itself.
    """

    def __init__(self, cores: int, news: queue.SimpleQueue[tuple[Child, Ready | Finished | Died]]) -> None:
        environment = {**os.environ, **dict.fromkeys(THREADS, str(cores))}
        command = [sys.executable, "-m", "selfseg.workers.child", str(cores)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self.job: Job[Any] | None = None
        self._news = news
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with suppress(EOFError, OSError, ValueError):
            while True:
                self._news.put((self, take(self.process.stdout)))
        code = self.process.wait()
        self._news.put((self, Died(f"signal {-code}" if code < 0 else f"exit status {code}")))


class ProcessWorkers(Pool[Child]):
    """So many processes, which share this machine's cores.

    Args:
        processes: how many.
        what: for the progress bar.
        progress: whether to show one on stderr.
    """

    def __init__(self, processes: int, what: str, progress: bool) -> None:
        super().__init__(what, progress)
        self._processes = processes
        self._cores = max(1, usable_cores() // processes)
        self._news: queue.SimpleQueue[tuple[Child, Ready | Finished | Died]] = queue.SimpleQueue()

    def names(self) -> list[str]:
        """As of every pool."""
        return [f"process {number}" for number in range(self._processes)]

    def start(self, name: str) -> Child:
        """As of every pool."""
        del name
        return Child(self._cores, self._news)

    def send(self, member: Child, job: Job[Any], shard: Shard[Any]) -> None:
        """As of every pool."""
        assert member.process.stdin is not None
        with suppress(BrokenPipeError):
            if member.job is not job:
                put(member.process.stdin, job)
                member.job = job
            put(member.process.stdin, shard)

    def listen(self) -> tuple[Child, Ready | Finished | Died]:
        """As of every pool."""
        return self._news.get()

    def end(self, member: Child) -> None:
        """As of every pool."""
        member.process.kill()
        member.process.wait()
        for stream in (member.process.stdin, member.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
