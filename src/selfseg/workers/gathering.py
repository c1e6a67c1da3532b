"""What comes back from workers: values, and images that could not be used, which a verb's `SkipLog` takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import BadImage
from selfseg.storage.files import storage_errors
from selfseg.storage.progress import ProgressFile
from selfseg.workers.plan import Job, Lost, Shard, Where, Workers, cut

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


def small_then_large(
    images: ImageCollection,
    skips: SkipList,
    small: Callable[[Sequence[int]], Generator[T, None, None]],
    large: Callable[[int], T],
) -> Iterator[T | Skipped]:
    """What a worker makes of a shard: of images that are looked at whole, then of those that are looked at in windows.

    Args:
        images: of the shard.
        skips: what `small` can't use.
        small: makes the values of some images.
        large: makes the value of one; what it raises as BadImage is skipped.
    """
    in_windows = [images.is_large(i) for i in range(len(images))]
    yield from skips.among(small([i for i, windows in enumerate(in_windows) if not windows]))
    for i in (i for i, windows in enumerate(in_windows) if windows):
        try:
            yield large(i)
        except BadImage as error:
            yield Skipped(images.names[i], error.reason, error.detail)


def carry_out(
    job: Job[dict[str, Any] | Skipped],
    opened: Callable[[Any], Iterator[dict[str, Any] | Skipped]],
    crew: Workers,
    where: Where,
    collection: ImageCollection,
    todo: Sequence[int],
    done: ProgressFile,
    log: SkipLog,
) -> None:
    """Let workers do what is left of a collection, and note each image that is finished.

    Args:
        job: what is done; gives a line of progress.jsonl for each image.
        opened: what `job.open()` gave in this process.
        crew: who do it, not at work yet.
        where: they are.
        collection: all images.
        todo: indices of those that are left.
        done: takes the lines.
        log: of what is skipped.

    Raises:
        TooManyBadImages: see `SkipLog`.
    """
    shards = cut(collection, todo, where, [i for i in todo if collection.is_large(i)])
    place = {collection.names[i]: i for i in todo}
    with done, crew as workers, closing(gather(workers, job, shards, collection.names, log, opened)) as entries:
        for entry in entries:
            done.add({**entry, **file_of(collection, place[entry["name"]])})


def remove_outdated(
    done: ProgressFile,
    collection: ImageCollection,
    skipped: Collection[str],
    made: Callable[[str], Sequence[Path]],
    remove: Callable[[Path], object] = lambda path: path.unlink(missing_ok=True),
) -> None:
    """Remove what was made of the earlier picture of images that have changed and can't be used any more.

    Args:
        done: tells what they were.
        collection: all images.
        skipped: names of those that can't be used now.
        made: the places of what is made of an image, by its name.
        remove: removes one of these.

    Raises:
        StorageError: if something can't be removed.
    """
    for i, name in enumerate(collection.names):
        if name in skipped and name in done.known and done.made_from(name, collection.version(i)) is None:
            for path in made(name):
                with storage_errors(path):
                    remove(path)


def file_of(collection: ImageCollection, index: int) -> dict[str, str]:
    """What a line of progress.jsonl says of an image's place; nothing of one that is no file by itself."""
    path = os.path.abspath(collection.paths[index])
    return {"image": path} if os.path.lexists(path) else {}


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
