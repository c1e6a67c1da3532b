"""A process that has died, was stopped or lost its network ends the others, instead of leaving them in a collective.

Every process gives signs of life, forty within the limit: a thread counts up a number in the store with
which torch.distributed began (of process 0, or of torchrun beside it), and reads those of all others. A second thread,
which no network can block, looks at when each was last seen. Whoever is slow, works alone or waits for a folder still
counts; whoever is stopped does not. A collective's own time limit can't tell these apart.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lightning.fabric import Fabric
from rich.console import Console

from selfseg.errors import Interrupted, RunError, SelfsegError
from selfseg.models.distributed import connect

SIGNS = 40
"""Signs of life within the limit."""

_console = Console(stderr=True)


@contextmanager
def watching(fabric: Fabric, limit: float) -> Iterator[None]:
    """While inside, this process ends when another one of the run gives no sign of life.

    Args:
        fabric: launched.
        limit: seconds without a sign of life; 0 = nobody is watched.

    Raises:
        RunError: in place of an error of a collective, with the process that caused it.
    """
    if fabric.world_size == 1 or limit == 0:
        yield
        return
    watch = Watch(fabric, limit)
    try:
        yield
    except SelfsegError as error:
        watch.leave("" if isinstance(error, Interrupted) else str(error))
        raise
    except RuntimeError as error:
        told = watch.explain(error)
        watch.leave(str(told or error))
        if told is not None:
            raise RunError(told) from error
        raise
    except BaseException as error:
        watch.leave(f"{type(error).__name__}: {error}")
        raise
    watch.leave("")


class Watch:
    """The signs of life of all processes, as this one sees them. Every process of the run makes one at the same time.

    Args:
        fabric: launched, with more than one process.
        limit: seconds without a sign of life after which this process ends.
    """

    def __init__(self, fabric: Fabric, limit: float) -> None:
        self._rank, self._world, self._limit = fabric.global_rank, fabric.world_size, limit
        self._interval = limit / SIGNS
        self._children: list[Any] = getattr(getattr(fabric.strategy, "launcher", None), "procs", [])
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = connect(address, port, max(limit, 60))
        # Of this start alone: a store of torchrun outlives its processes.
        name = fabric.broadcast(uuid.uuid4().hex)
        self._keys = [f"selfseg/alive/{name}/{rank}" for rank in range(self._world)]
        self._count = 0
        self._left: str | None = None
        self._leaving = threading.Event()
        self._ended = threading.Event()
        self._sign()
        fabric.barrier()  # now all have given theirs
        now = time.monotonic()
        self._contact = now
        self._signs: list[dict[str, Any]] = [{} for _ in range(self._world)]
        self._seen = [now] * self._world
        self._look()
        self._pulse = threading.Thread(target=self._beat, daemon=True, name="selfseg-pulse")
        self._pulse.start()
        threading.Thread(target=self._guard, daemon=True, name="selfseg-guard").start()

    def leave(self, problem: str) -> None:
        """Stop watching, and being watched.

        Args:
            problem: why this process leaves the others; "" if all leave.
        """
        self._left = problem
        self._leaving.set()
        self._pulse.join(timeout=5)
        self._ended.set()

    def explain(self, error: RuntimeError) -> str | None:
        """Which process an error of a collective is due to; None of another error, or if all are alive."""
        if not any(word in str(error) for word in ("gloo", "Gloo", "NCCL", "Connection", "c10d", "peer")):
            return None
        # The last sign of who is dead may be seen up to an interval later; those alive are seen within two.
        since = time.monotonic() + 1.5 * self._interval
        end = since + 4 * self._interval
        others = [rank for rank in range(self._world) if rank != self._rank]
        while time.monotonic() < end and self._pulse.is_alive():
            if found := self._dead():
                return found
            if all(self._seen[rank] > since for rank in others):
                return None
            time.sleep(self._interval / 4)
        silent = [0] if self._contact < since else [rank for rank in others if self._seen[rank] < since]
        return self._dead() or (f"{self._name(silent[0])} has ended or can't be reached" if silent else None)

    def _dead(self) -> str | None:
        """Of a process that has told so, or that this one has started."""
        for place, child in enumerate(self._children):
            if child.poll():
                how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
                return f"{self._name(place + 1)} has ended with {how}"
        for rank, sign in enumerate(self._signs):
            if rank != self._rank and sign.get("left"):
                return f"{self._name(rank)} has ended: {sign['left']}"
        return None

    def _name(self, rank: int) -> str:
        return f"process {rank} on {self._signs[rank].get('host', 'an unknown machine')}"

    def _sign(self) -> None:
        self._count += 1
        sign = {"count": self._count, "host": socket.gethostname(), "left": self._left}
        self._store.set(self._keys[self._rank], json.dumps(sign))

    def _look(self) -> None:
        values = self._store.multi_get(self._keys)
        now = time.monotonic()
        for rank, value in enumerate(values):
            sign = json.loads(value)
            if sign != self._signs[rank]:
                self._signs[rank], self._seen[rank] = sign, now
        self._contact = now

    def _beat(self) -> None:
        """Give signs and look at those of the others; the store's machine may hold it up for any time."""
        with suppress(RuntimeError):  # of torch's network: the guard sees that there is no contact
            while not self._leaving.wait(self._interval):
                self._sign()
                self._look()
            self._sign()
            # Process 0 may have the store: it is the last of those alive to go.
            end = time.monotonic() + 3
            while self._rank == 0 and time.monotonic() < end and self._somebody_stays():
                time.sleep(0.02)
                self._look()

    def _somebody_stays(self) -> bool:
        late = time.monotonic() - 2.5 * self._interval
        return any(s["left"] is None and seen > late for s, seen in list(zip(self._signs, self._seen, strict=True))[1:])

    def _guard(self) -> None:
        """Judge by this process's own clock; nothing here waits for anybody."""
        before = time.monotonic()
        while not self._ended.wait(self._interval):
            now = time.monotonic()
            if now - before > self._limit / 2:  # this process itself was stopped: look anew before judging others
                self._seen, self._contact = [now] * self._world, now
            before = now
            if self._leaving.is_set():
                continue
            if now - self._contact > self._limit:
                self._end(f"{self._name(0)} gives no sign of life for {self._limit:g} s, and with it nobody else's")
            for rank in range(self._world):
                left, silent = self._signs[rank]["left"], now - self._seen[rank]
                if rank == self._rank or left == "":
                    continue
                if left and silent > min(self._limit, 10):
                    self._end(f"{self._name(rank)} has ended: {left}")
                if silent > self._limit:
                    self._end(
                        f"{self._name(rank)} gives no sign of life for {self._limit:g} s: it was killed or stopped, or "
                        "its machine or network is gone"
                    )

    def _end(self, why: str) -> None:
        """End this process from outside of its main thread, which is in a collective that nobody will answer."""
        with suppress(Exception):
            _console.print(
                f"error: process {self._rank} on {socket.gethostname()} stops, because {why}. The same command goes on "
                "from the newest checkpoint",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            sys.stderr.flush()
        for child in self._children:  # a stopped one heeds no other signal
            with suppress(OSError):
                child.send_signal(signal.SIGKILL)
        os._exit(RunError.exit_code)
