"""What a verb has finished of a long list, a line for each shard: where the lines are is all that is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from selfseg.storage.files import storage_errors
from selfseg.storage.reading import objects_of_lines
from selfseg.telling import tell


class ShardProgress:
    """The lines of OUT/progress.shards.jsonl; a context manager while lines are added.

    In memory are 8 bytes a shard, the place of its last line. A line that a kill cut off is none. Before the lines of a
    call stands one that says which list they are of, and who makes the files from here on. Lines before another maker's
    beginning don't count any more: it may have replaced their files, and have been killed before it said so.

    Args:
        path: of the file; none there is no error.
        key: which says in each line who made the shard's files: "embedder", "segmenter", ...
        maker: of the lines that are added.
        shards: how many there are.
        source: what tells this list, and how it is cut, from others; plain values. `shard` in it, the images of a
            shard, must be the same for lines to be of use.

    Attributes:
        changed: whether the lines that are there were written for another list.
    """

    def __init__(self, path: Path, key: str, maker: str, shards: int, source: Mapping[str, Any]) -> None:
        self.path, self.key, self.maker, self.source = path, key, maker, dict(source)
        self.changed = False
        self._places = np.full(shards, -1, np.int64)
        self._others_began = -1  # the place where another maker last did
        self._lines: IO[bytes] | None = None
        self._said = self._torn = False
        if path.is_file():
            with storage_errors(path):
                self._read()

    def __len__(self) -> int:
        return len(self._places)

    def _read(self) -> None:
        place, before, by, fits = 0, None, None, False
        with self.path.open("rb") as file:
            for line in file:
                entry = _parsed(line)
                if "list" in entry:
                    before, by = entry["list"], entry.get(self.key)
                    if by != self.maker:
                        self._others_began = place
                    fits = isinstance(before, dict) and before.get("shard") == self.source.get("shard")
                    if not fits:
                        self._places[:] = -1
                elif fits and isinstance(number := entry.get("shard"), int) and 0 <= number < len(self._places):
                    self._places[number] = place
                place += len(line)
                self._torn = not line.endswith(b"\n")
        self._said = before == self.source and by == self.maker
        self.changed = before is not None and before != self.source
        if self.changed:
            tell(
                f"{self.path} was written for another list of images, or the list has changed since then. Results are "
                "kept for images that are unchanged and at the same line of the list; all others are made again"
            )

    def begun(self) -> int:
        """How many shards have a line."""
        return int((self._places >= 0).sum())

    def of(self, shard: int) -> dict[str, Any] | None:
        """A shard's last line, if this maker wrote it, and no other has begun since."""
        place = int(self._places[shard])
        if place <= self._others_began:
            return None
        with storage_errors(self.path), self.path.open("rb") as file:
            file.seek(place)
            entry = _parsed(file.readline())
        return entry if entry.get(self.key) == self.maker and entry.get("shard") == shard else None

    def entries(self) -> Iterator[dict[str, Any]]:
        """The lines that this maker wrote, in the order of the shards."""
        for shard in range(len(self)):
            entry = self.of(shard)
            if entry is not None:
                yield entry

    def foreign(self) -> Iterator[int]:
        """The shards whose files another maker made, or may have."""
        return (shard for shard in range(len(self)) if self._places[shard] >= 0 and self.of(shard) is None)

    def __enter__(self) -> ShardProgress:
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = self.path.open("ab", buffering=0)
            if self._torn:
                self._lines.write(b"\n")
            if not self._said:
                self._lines.write(_line({"list": self.source, self.key: self.maker}))
                self._said = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()

    def add(self, shard: int, entry: Mapping[str, Any]) -> None:
        """A shard is done.

        Raises:
            StorageError: if the disk is full.
        """
        assert self._lines is not None, "use it as a context manager"
        line = _line({"shard": shard, self.key: self.maker, **entry})
        with storage_errors(self.path):
            rest = memoryview(line)
            while rest:
                rest = rest[self._lines.write(rest) or 0 :]
            self._places[shard] = self._lines.tell() - len(line)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any]:
    return next(objects_of_lines(line.decode("utf-8", "replace")), {})  # none of one that was cut off by a crash
