"""How a verb goes through a long list: shard by shard, with memory that doesn't grow with the images.

Shards are the list's blocks, in their order, whoever works on them, and are made when somebody is free for one. What is
kept of a finished one is a line of OUT/progress.shards.jsonl, with a digest of its images' names and versions: when the
call goes on, a shard is looked at when its turn comes, and done again if one of its images is another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.long.images import LongList
from selfseg.data.reading.long.lines import BLOCK
from selfseg.data.reading.skipping import SkipCount
from selfseg.errors import EmptyCollection
from selfseg.storage.shard_progress import ShardProgress
from selfseg.telling import tell
from selfseg.telling.bars import Bars
from selfseg.workers.gathering import Skipped
from selfseg.workers.plan import Job, Lost, Shard, Where, Workers

Entry = dict[str, Any]
Work = Callable[[Any], Iterator[Entry | Skipped]]
There = Callable[[ImageCollection, int, Mapping[str, Any]], bool]

FILE = "progress.shards.jsonl"


class _One(NamedTuple):
    """What became of an image.

    Attributes:
        number: in the list.
        name: its.
        version: of the file that was looked at (`ImageCollection.version`).
        entry: what the job gave; or
        skipped: why it can't be used.
    """

    number: int
    name: str
    version: Any
    entry: Entry | None = None
    skipped: Skipped | None = None


@dataclass(frozen=True)
class _ByShard:
    """A job that gives the values of a shard together, with the images that they are of."""

    job: Job[Entry | Skipped]

    def open(self) -> Callable[[Shard[ImageCollection]], Iterator[list[_One]]]:
        """Open the job."""
        return together(self.job.open())


def together(work: Work) -> Callable[[Shard[ImageCollection]], Iterator[list[_One]]]:
    """What an opened job makes of a shard, as one value."""

    def all_of(shard: Shard[ImageCollection]) -> Iterator[list[_One]]:
        images, values = shard.images, dict[str, Entry | Skipped]()
        for value in work(shard):
            values[value.name if isinstance(value, Skipped) else value["name"]] = value
        found = []
        for place, (index, name) in enumerate(zip(shard.indices, images.names, strict=True)):
            value = values.get(name, Skipped(name, "unreadable", "nothing came of it"))
            if isinstance(value, Skipped):
                found.append(_One(index, name, images.version(place), skipped=value))
            else:
                found.append(_One(index, name, value["source"], value))
        yield found

    return all_of


class LongWork:
    """A long list, and what a verb has done of it; a context manager.

    Args:
        images: the list.
        out: the verb's folder.
        key: as of `ShardProgress`.
        maker: as there.
        max_bad: share of unreadable images that is an error, in [0, 1].
        there: whether an image's files are there, of its collection and number in it, and its shard's line.
        keep: what of a shard's values its line keeps.
        before_again: called before a shard is done again that was finished earlier.

    Raises:
        StorageError: if the progress can't be read.
    """

    def __init__(
        self,
        images: LongList,
        out: Path,
        key: str,
        maker: str,
        max_bad: float,
        there: There,
        keep: Callable[[Sequence[Entry]], Entry] = lambda _: {},
        before_again: Callable[[], object] = lambda: None,
    ) -> None:
        self.images, self._there, self._keep, self._before_again = images, there, keep, before_again
        size, modified = images.lines.stamp
        source = {"images": len(images), "bytes": size, "modified": modified, "shard": BLOCK}
        self.progress = ShardProgress(out / FILE, key, maker, -(-len(images) // BLOCK), source)
        self.log = SkipCount(out / "skipped.jsonl", len(images), max_bad)
        self.kept = self.again = 0

    def do(self, job: Job[Entry | Skipped], opened: Work, crew: Workers, where: Where, what: str, shown: bool) -> None:
        """Let workers do what is left.

        Args:
            job: what is done; gives for each image a value with its "name" and "source".
            opened: what `job.open()` gave in this process.
            crew: who do it, not at work yet.
            where: they are.
            what: for the progress bar.
            shown: whether there is one.

        Raises:
            TooManyBadImages: if more images can't be used than is allowed.
            EmptyCollection: if none could be used.
        """
        left = min(len(self.images), (len(self.progress) - self.progress.begun()) * BLOCK)
        bar = Bars(shown=where.here and shown)
        parts: dict[int, list[_One]] = {}  # of shards that were given out image by image, as workers died over them
        with self.progress, crew as workers, bar:
            task = bar.add_task(what, total=left)
            values = workers.map(_ByShard(job), self._todo(), together(opened), images=left)
            with closing(values):
                for value in values:
                    found = [self._lost(value)] if isinstance(value, Lost) else value
                    number = found[0].number // BLOCK
                    whole = min(BLOCK, len(self.images) - number * BLOCK)
                    if len(found) < whole:
                        parts[number] = found = parts.get(number, []) + found
                    if len(found) == whole:
                        parts.pop(number, None)
                        self._note(number, sorted(found, key=lambda one: one.number))
                        bar.advance(task, whole)
        if self.again:
            tell(f"{self.again} of {self.kept + self.again} shards that were finished earlier had to be done again")
        if self.log.count == len(self.images):
            raise EmptyCollection(f"none of the {len(self.images)} images of {self.images.lines.path} can be read")

    def made(self) -> Iterator[int]:
        """The numbers of the images that something was made of."""
        for line in self.progress.entries():
            first, skipped = line["shard"] * BLOCK, dict(line["skipped"])
            yield from (i for i in range(first, min(first + BLOCK, len(self.images))) if i - first not in skipped)

    def skipped(self) -> Iterator[str]:
        """The names of the images that can't be used."""
        for line in self.progress.entries():
            if line["skipped"]:
                names = self.images.block(line["shard"]).names
                yield from (names[place] for place, _ in line["skipped"])

    def foreign(self) -> Iterator[str]:
        """The names of the images whose files another maker made."""
        for number in self.progress.foreign():
            yield from self.images.block(number).names

    def _todo(self) -> Iterator[Shard[ImageCollection]]:
        """The shards that are not done, each made when it is asked for."""
        for number in range(len(self.progress)):
            indices = tuple(range(number * BLOCK, min(len(self.images), (number + 1) * BLOCK)))
            images = self.images.block(number)
            if not self._is_done(number, images):
                yield Shard(images, indices, f"{images.names[0]} to {images.names[-1]}")

    def _is_done(self, number: int, images: ImageCollection) -> bool:
        line = self.progress.of(number)
        if line is None:
            return False
        versions = [images.version(i) for i in range(len(images))]
        skipped = dict(line["skipped"])
        done = line["of"] == _digest(images.names, versions) and all(
            self._there(images, i, line) for i in range(len(images)) if i not in skipped
        )
        if not done:
            self._before_again()
            self.again += 1
            return False
        self.kept += 1
        for place, reason in skipped.items():
            self.log.take(images.names[place], reason)
        return True

    def _lost(self, lost: Lost) -> _One:
        images = self.images.subset([lost.image])
        name = images.names[0]
        return _One(lost.image, name, images.version(0), skipped=Skipped(name, "crashed", lost.reason))

    def _note(self, number: int, found: Sequence[_One]) -> None:
        """A shard is finished; what is skipped is listed first, so that a kill in between can't lose it."""
        skipped = [(place, one.skipped) for place, one in enumerate(found) if one.skipped is not None]
        self.log.add_all([why for _, why in skipped])
        made = [one.entry for one in found if one.entry is not None]
        # Of an image whose file went while it was looked at, nothing tells later whether the result is its.
        sure = all(one.version is not None for one in found if one.entry is not None)
        of = _digest([one.name for one in found], [one.version for one in found]) if sure else ""
        line = {"of": of, "skipped": [[place, why.reason] for place, why in skipped], **self._keep(made)}
        self.progress.add(number, line)


def entry_of(line: Mapping[str, Any], place: int) -> Entry:
    """What a line that keeps its shard's values as "entries" has of the image at a place in the shard."""
    entry: Entry = line["entries"][place - sum(skipped < place for skipped, _ in line["skipped"])]
    return entry


def _digest(names: Sequence[str], versions: Sequence[Any]) -> str:
    """What changes when an image of a shard does, or comes to another place."""
    text = json.dumps([[*names], [version and sorted(version.items()) for version in versions]])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
