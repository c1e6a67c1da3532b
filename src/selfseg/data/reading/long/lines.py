"""The lines of a long text file by their number, with one offset in memory for each 128 of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from selfseg.errors import DataError

BLOCK = 128
"""Lines that are read at once."""

_PIECE = 1 << 19  # bytes that are looked through at once
_LONGEST = 1 << 16  # bytes of a line: Linux has paths of up to 4096
_PART = 1 << 24  # bytes of a list whose names are compared with each other at once; 5 MB of numbers or so
_PARTS = 512  # at most: so many files are open
_FIRST = b"# \t\r\n"  # with what a line may begin that isn't a path as it stands


class Lines(Sequence[str]):
    """The lines of a file that say something: empty ones, and those that begin with #, are passed over.

    Lines end with a line feed, with or without a carriage return before it. Reading them one after another is as fast
    as going through the file; a line by its number costs the reading of its block.

    Args:
        path: of the file, which must not change meanwhile.
        read: what is made of some whole lines of the file, a value for each that says something; without blanks around
            them if None.

    Attributes:
        stamp: the file's bytes, and when it was last modified, in nanoseconds.

    Raises:
        DataError: here if it can't be read; later if it has changed.
    """

    def __init__(self, path: Path, read: Callable[[str], list[str]] | None = None) -> None:
        self.path, self._read = path, read or said
        self._held: tuple[int, list[str]] = (-1, [])
        with _reading(path), path.open("rb") as file:
            self.stamp = _stamp(file)
            starts, self._count = [], 0
            for begin, piece in pieces(file):
                found = _starts(piece) + begin
                starts.append(found[(-self._count) % BLOCK :: BLOCK].copy())  # not a view, which would hold all
                self._count += len(found)
        self._starts: NDArray[np.int64] = np.concatenate([*starts, [self.stamp[0]]])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        number, place = divmod(range(self._count)[index], BLOCK)
        return self.block(number)[place]

    def __iter__(self) -> Iterator[str]:
        for number in range(-(-self._count // BLOCK)):
            yield from self.block(number)

    def block(self, number: int) -> list[str]:
        """Lines `BLOCK` * number and those after it, at most `BLOCK` of them."""
        held = self._held  # another thread may put another one there
        if held[0] == number:
            return held[1]
        with _reading(self.path), self.path.open("rb") as file:
            if _stamp(file) != self.stamp:
                raise DataError(f"the list {self.path} has changed while it was gone through; run the command again")
            file.seek(int(self._starts[number]))
            text = file.read(int(self._starts[number + 1] - self._starts[number])).decode("utf-8", "surrogateescape")
        found = self._read(text)
        self._held = (number, found)
        return found


def said(text: str) -> list[str]:
    """The lines of a text that say something, without blanks around them."""
    text = text.removeprefix("\ufeff")  # a byte order mark
    return [stripped for line in text.split("\n") if (stripped := line.strip()) and line[0] != "#"]


def pieces(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a file, some megabytes at a time, each with the place where they begin."""
    begin, rest = 0, b""
    while piece := file.read(_PIECE):
        piece = rest + piece
        end = piece.rfind(b"\n") + 1
        rest = piece[end:]
        if len(rest) > _LONGEST:
            raise DataError(f"{file.name} has a line of more than {_LONGEST} bytes; it is no list of paths")
        if end:
            yield begin, piece[:end]
            begin += end
    if rest:
        yield begin, rest


def _starts(piece: bytes) -> NDArray[np.int64]:
    """Where lines that say something begin."""
    values = np.frombuffer(piece, np.uint8)
    ends = np.flatnonzero(values == ord("\n"))
    starts = np.concatenate([[0], ends + 1])
    if len(starts) and starts[-1] == len(piece):
        starts = starts[:-1]
    odd = np.isin(values[starts], np.frombuffer(_FIRST, np.uint8)) | (values[starts] < 32) | (values[starts] > 126)
    keep = np.ones(len(starts), bool)
    for place in np.flatnonzero(odd).tolist():
        end = starts[place + 1] if place + 1 < len(starts) else len(piece)
        keep[place] = bool(said(piece[starts[place] : end].decode("utf-8", "replace")))
    return starts[keep].astype(np.int64)


class Twice:
    """Finds numbers that were given twice, in files: memory doesn't grow with how many there are.

    A context manager.

    Args:
        bytes_: about, of the names that the numbers are of.
    """

    def __init__(self, bytes_: int) -> None:
        self._bits = (min(_PARTS, -(-bytes_ // _PART)) - 1).bit_length()
        self._held = ExitStack()
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Twice:
        folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="selfseg-names-")))
        for number in range(1 << self._bits):
            self._files.append(self._held.enter_context((folder / str(number)).open("w+b")))
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def add(self, numbers: NDArray[np.uint64]) -> None:
        """Take some; spread evenly over 64 bits, as hashes are."""
        if not self._bits:
            self._files[0].write(numbers.tobytes())
            return
        numbers = np.sort(numbers)
        ends = np.arange(1, 1 << self._bits, dtype=np.uint64) << np.uint64(64 - self._bits)
        for file, part in zip(self._files, np.split(numbers, np.searchsorted(numbers, ends)), strict=True):
            file.write(part.tobytes())

    def found(self, most: int = 1000) -> set[int]:
        """Those that came twice, or some of them."""
        twice: set[int] = set()
        for file in self._files:
            file.seek(0)
            numbers = np.fromfile(file, np.uint64)
            numbers.sort()
            twice.update(numbers[1:][numbers[1:] == numbers[:-1]][: most - len(twice)].tolist())
            if len(twice) >= most:
                break
        return twice


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of a list's file into DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"can't read the list {path}: {error}") from error
