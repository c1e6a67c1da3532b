"""Workers that are processes of this machine.

Each is a fresh Python, `python -m selfseg.workers.child`, so that a script that calls a verb needs no guard around it;
it is spoken to through its standard input and output. One that dies closes them, which its listener notices. One whose
parent dies reads an end, and ends.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from selfseg.errors import ConfigError
from selfseg.threads import THREADS, usable_cores
from selfseg.workers.pipes import put, take, unpacked
from selfseg.workers.plan import Job, Shard
from selfseg.workers.pool import Died, Failure, Finished, Pool, Ready

GRACE = 5.0  # seconds that a worker has to leave no temporary file behind, before it is killed
_News = queue.SimpleQueue["tuple[Child, Ready | Finished | Died]"]


class Child:
    """A process, and the thread that listens to it.

    Args:
        cores: that it may use.
        news: where what it says goes, with itself.
    """

    def __init__(self, cores: int, news: _News) -> None:
        # It imports what this process can import, and no more: not what lies in the present folder (-P).
        folders = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        environment = {**os.environ, **dict.fromkeys(THREADS, str(cores)), "PYTHONPATH": folders}
        command = [sys.executable, "-P", "-m", "selfseg.workers.child", str(cores)]
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
                data = take(self.process.stdout)
                try:
                    said = unpacked(data)
                except Exception as error:  # of any kind; whoever waits for it must hear of it
                    said = Finished(Failure.of(error), 0.0)
                self._news.put((self, said))
        self._news.put((self, Died(_how(self.process.wait()))))


def _how(code: int) -> str:
    """What an exit status says."""
    if code >= 0:
        return f"exit status {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"{name}, as when memory runs out" if name == "SIGKILL" else name
    return f"signal {-code}"


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
        self._news: _News = queue.SimpleQueue()

    def names(self) -> list[str]:
        """As of every pool."""
        return [f"process {number}" for number in range(self._processes)]

    def start(self, name: str) -> Child:
        """As of every pool."""
        del name
        return Child(self._cores, self._news)

    def send(self, member: Child, job: Job[Any], shard: Shard[Any]) -> None:
        """As of every pool; raises ConfigError for a job that can't be pickled."""
        assert member.process.stdin is not None
        try:
            put(member.process.stdin, (None if member.job is job else job, shard))
        except OSError:  # it is dead, and its listener says so
            return
        except Exception as error:  # of any kind: objects say in their own ways that they can't be pickled
            raise ConfigError(
                f"what this call was given can't be handed to other processes ({error}); give folders and files "
                "instead of objects, or leave out --processes"
            ) from error
        member.job = job

    def listen(self) -> tuple[Child, Ready | Finished | Died]:
        """As of every pool."""
        return self._news.get()

    def end(self, members: Sequence[Child]) -> None:
        """As of every pool."""
        for member in members:
            member.process.terminate()
        until = time.monotonic() + GRACE
        for member in members:
            with suppress(subprocess.TimeoutExpired):
                member.process.wait(max(0.0, until - time.monotonic()))
            member.process.kill()
            member.process.wait()
            for stream in (member.process.stdin, member.process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
