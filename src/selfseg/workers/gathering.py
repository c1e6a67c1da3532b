"""What comes back from workers: values, and images that could not be used, which a verb's `SkipLog` takes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple, TypeVar

from selfseg.data.reading.skipping import SkipLog
from selfseg.workers.plan import Job, Lost, Shard, Workers

T = TypeVar("T")


class Skipped(NamedTuple):
    """An image that can't be used, as a worker says it.

    Attributes:
        name: of the image.
        reason: a word of `selfseg.data.reading.images.REASONS`.
        detail: for people.
    """

    name: str
    reason: str
    detail: str = ""


class SkipList:
    """Takes what a worker can't use, in the place of a `SkipLog`, and gives it out between the values."""

    def __init__(self) -> None:
        self._waiting: list[Skipped] = []

    def add(self, name: str, reason: str, detail: str = "") -> None:
        """Take one."""
        self._waiting.append(Skipped(name, reason, detail))

    def taken(self) -> Iterator[Skipped]:
        """Those that came since the last look."""
        while self._waiting:
            yield self._waiting.pop(0)

    def among(self, values: Generator[T, None, None]) -> Iterator[T | Skipped]:
        """Values, and what was skipped while they were made."""
        with closing(values):
            for value in values:
                yield from self.taken()
                yield value
        yield from self.taken()


def gather(
    workers: Workers,
    job: Job[T | Skipped],
    shards: Sequence[Shard[Any]],
    names: Sequence[str],
    log: SkipLog,
    opened: Callable[[Any], Iterator[T | Skipped]] | None = None,
) -> Generator[T, None, None]:
    """The values of all shards, in any order; what is skipped goes to the log.

    Args:
        workers: who do the work.
        job: what is done.
        shards: with what.
        names: of the images of the whole collection.
        log: of what is skipped. An image over which workers died again and again is "crashed".
        opened: what `job.open()` gave in this process, if it was called already.

    Raises:
        TooManyBadImages: see `SkipLog`.
    """
    values = workers.map(job, shards, opened)
    with closing(values):
        for value in values:
            if isinstance(value, Lost):
                log.add(names[value.image], "crashed", value.reason)
            elif isinstance(value, Skipped):
                log.add(*value)
            else:
                yield value
