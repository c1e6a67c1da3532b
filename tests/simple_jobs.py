"""Jobs for workers that need no network; a module of its own, as worker processes import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfseg.errors import BadImage, ConfigError
from selfseg.workers.gathering import Skipped
from selfseg.workers.plan import Shard


@dataclass(frozen=True)
class Numbers:
    """A collection whose images are numbers."""

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> Numbers:
        return Numbers(tuple(self.names[i] for i in indices))


def numbers(count: int) -> Numbers:
    return Numbers(tuple(f"image{i}" for i in range(count)))


@dataclass(frozen=True)
class Squares:
    """Gives (index, index squared, process) of each image; what it does besides, its fields say.

    Attributes:
        memory: folder with a file for each image that was begun, so that it is known how often.
        kills: the name of an image that kills its worker, every time.
        kills_once: one that does so the first time.
        skips: one that can't be used.
        raises: what `fail` raises at the image `at`.
        opens: whether `open` works.
        waits: seconds that each image takes.
    """

    memory: Path
    kills: str = ""
    kills_once: str = ""
    skips: str = ""
    raises: str = ""
    at: str = ""
    opens: bool = True
    waits: float = 0.0

    def open(self) -> Callable[[Shard[Numbers]], Iterator[Any]]:
        if not self.opens:
            raise ConfigError("nothing to open")
        return self.work

    def work(self, shard: Shard[Numbers]) -> Iterator[Any]:
        for index, name in zip(shard.indices, shard.images.names, strict=True):
            seen = self.memory / name
            first = not seen.exists()
            with seen.open("a") as stream:
                stream.write(f"{os.getpid()}\n")
            if name == self.kills or (name == self.kills_once and first):
                os.kill(os.getpid(), signal.SIGKILL)
            if name == self.at:
                self.fail()
            time.sleep(self.waits)
            if name == self.skips:
                yield Skipped(name, "truncated", "half of it")
            else:
                yield index, index**2, os.getpid()

    def fail(self) -> None:
        if self.raises == "bad":
            raise BadImage("some/path", "empty", "no bytes")
        if self.raises == "ours":
            raise ConfigError("this option can't work")
        if self.raises == "derived":
            raise OurOwn("too far")
        raise ZeroDivisionError("one by none")


class OurOwn(ConfigError):
    """An error of a plugin, with an __init__ of its own."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(f"it went {how}")


@dataclass(frozen=True)
class Unpicklable:
    """Gives a value that no process can send."""

    def open(self) -> Callable[[Shard[Numbers]], Iterator[Any]]:
        return lambda shard: iter([lambda: len(shard)])
