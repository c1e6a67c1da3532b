"""The images of a long list: their paths and names are read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.long.lines import Lines, Twice, pieces, said
from selfseg.data.reading.long.paths import ODD, PathList, listed
from selfseg.data.reading.sniffing import MEASURED, SUFFIXES, WINDOWED, stem_of
from selfseg.errors import DataError, EmptyCollection

LONG = 1 << 26
"""Bytes of a list from which on it isn't held in memory: about a million paths."""

_KNOWN = SUFFIXES | MEASURED


class _Names(Sequence[str]):
    """The names of paths, of which so many characters are those of the root."""

    def __init__(self, lines: Lines, begin: int) -> None:
        self._lines, self.begin = lines, begin

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        return stem_of(self._lines[index][self.begin :])

    def __iter__(self) -> Iterator[str]:
        return (stem_of(path[self.begin :]) for path in self._lines)


@dataclass(frozen=True, eq=False)
class LongList(ImageCollection):
    """The images of a list that is read piece by piece; a `subset` is an ordinary collection.

    `paths` and `names` are sequences without slices: an image by its number costs the reading of its block of the list,
    images one after another nothing of the kind.

    Attributes:
        lines: of the list, as absolute paths.
        kinds: the suffixes that are read, "" among them where there are others.
    """

    names: _Names
    lines: Lines = field(kw_only=True)
    kinds: frozenset[str] = field(kw_only=True)

    def block(self, number: int) -> ImageCollection:
        """The images of a block of the list, as `subset` would give them."""
        paths = self.lines.block(number)
        begin = self.names.begin
        names = tuple(stem_of(path[begin:]) for path in paths)
        return ImageCollection(self.root, PathList(tuple(paths)), names, channels=self.channels)

    @property
    def suffixes(self) -> frozenset[str]:
        """As of `ImageCollection`."""
        return self.kinds


def open_long_list(source: Path) -> LongList:
    """The images of a list file, one path a line, without holding them.

    The order, and the names wherever no two images share one, are those of `selfseg.data.reading.listing.list_images`.
    What can't be told with flat memory is refused: two images that would share a name.

    Args:
        source: the file; relative paths are relative to its folder.

    Raises:
        DataError: if it can't be read; if a path is there twice or two images share a name; for measured images, whose
            pages and windows would have to be held.
        EmptyCollection: if it names no image.
    """
    folder = os.path.abspath(source.parent)
    lines = Lines(source, partial(all_absolute, folder))
    if not len(lines):
        raise EmptyCollection(f"the list {source} names no image; put one path on each line")
    first = last = lines[0]
    kinds: set[str] = set()
    with Twice(lines.stamp[0]) as twice, source.open("rb") as file:
        for _, piece in pieces(file):
            if b"\0" in piece:
                raise DataError(f"can't read the list {source}: it holds zero bytes; is it UTF-16? Save it as UTF-8")
            files = all_absolute(folder, piece.decode("utf-8", "surrogateescape"))
            if not files:
                continue
            first, last = min(first, *files), max(last, *files)
            parted = [os.path.splitext(path) for path in files]
            kinds.update(suffix if suffix in _KNOWN else "" for suffix in {suffix.lower() for _, suffix in parted})
            twice.add(np.fromiter((hash(stem) for stem, _ in parted), np.int64, len(parted)).view(np.uint64))
        suspects = twice.found()
    if measured := kinds & WINDOWED:
        raise DataError(
            f"{source} has {LONG >> 20} MiB or more and names files {' '.join(sorted(measured))}; a list that long can "
            "only be of photographs, since other files may have pages and windows. Cut it into shorter lists"
        )
    if suspects:
        _refuse_twice(source, lines, suspects)
    root = os.path.commonpath([os.path.dirname(first), os.path.dirname(last)])  # all others lie between them
    begin = len(root.rstrip("/")) + 1
    return LongList(
        Path(root),
        PathList(lines),
        _Names(lines, begin),
        lines=lines,
        kinds=frozenset(kinds),
    )


def absolute(folder: str, line: str) -> str:
    """The path that a line names."""
    return os.path.abspath(listed(folder, line))


def all_absolute(folder: str, text: str) -> list[str]:
    """Those of all lines of a text that say something."""
    lines = said(text)
    odd = "//" in text or "/." in text or "/\n" in text or text.endswith("/") or "./" in text or "~" in text
    odd = odd or any(sign in text for sign in ODD)
    if odd or any(line[0] == "." for line in lines):
        return [absolute(folder, line) for line in lines]
    before = folder.rstrip("/") + "/"
    return [line if line[0] == "/" else before + line for line in lines]


def _refuse_twice(source: Path, lines: Lines, suspects: set[int]) -> None:
    """Raise DataError for the first two lines that share a name, if there are some among those of the same hash."""
    seen: dict[str, tuple[int, str]] = {}
    for number, path in enumerate(lines, 1):
        stem = os.path.splitext(path)[0]
        if hash(stem) & ((1 << 64) - 1) not in suspects:
            continue
        if stem in seen:
            before, other = seen[stem]
            way = "sort -u removes what is there twice" if other == path else "rename one, or put it in another list"
            raise DataError(
                f"the list {source} has {LONG >> 20} MiB or more, and its images {before} and {number} would share a "
                f"name: {other} and {path}; {way}"
            )
        seen[stem] = (number, path)
