"""Paths that are held as text, and what a line of a list names."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

ODD = "\t\\\"'"
"""Signs that a line may hold which isn't a path as it stands."""


class PathList(Sequence[Path]):
    """Paths that are held as text, a third of what `Path` objects take; equal to a tuple of the same paths.

    Args:
        texts: of paths, as `str(path)` gives them.

    Example:
        >>> paths = PathList.of([Path("a/b.jpg"), Path("c.jpg")])
        >>> paths[0].name, len(paths[1:]), paths == (Path("a/b.jpg"), Path("c.jpg"))
        ('b.jpg', 1, True)
    """

    __slots__ = ("texts",)

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    @classmethod
    def of(cls, paths: Iterable[Path]) -> PathList:
        """A list of paths."""
        return paths if isinstance(paths, PathList) else cls(tuple(map(str, paths)))

    def some(self, indices: Iterable[int]) -> PathList:
        """Those at `indices`."""
        return PathList(tuple(self.texts[i] for i in indices))

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> PathList: ...
    def __getitem__(self, index: int | slice) -> Path | PathList:
        return PathList(self.texts[index]) if isinstance(index, slice) else Path(self.texts[index])

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.texts)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PathList):
            return len(self) == len(other) and all(map(operator.eq, self.texts, other.texts))
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"PathList.of({list(self)!r})"


def listed(folder: str, line: str) -> str:
    """The file that a line of a list names; see `selfseg.data.reading.listing.read_list`.

    Args:
        folder: of the list, from which relative paths lead.
        line: without blanks around it.
    """
    path = os.path.join(folder, os.path.expanduser(line))
    if not any(sign in line for sign in ODD) or os.path.lexists(path):
        return path
    line = line.partition("\t")[0].strip()
    if len(line) > 2 and line[0] == line[-1] and line[0] in "\"'":
        line = line[1:-1]
    plain = os.path.join(folder, os.path.expanduser(line))
    return plain if os.path.lexists(plain) else os.path.join(folder, os.path.expanduser(line.replace("\\", "/")))
