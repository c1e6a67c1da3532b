"""Parts of files: what lies between two offsets."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any

from selfseg.errors import BadImage


def read_part(path: Path, file: str, offset: int, size: int) -> bytes:
    """The bytes of an image that is a part of a file.

    Args:
        path: what the image is called in errors.
        file: the file.
        offset: of its first byte.
        size: in bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        BadImage: if it can't be read, or ends before the image does.
    """
    try:
        with open(file, "rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadImage(path, "unreadable", error.strerror or str(error)) from error
    if len(data) < size:
        raise BadImage(path, "truncated", "the shard ends before the image does")
    return data


class Slice(io.RawIOBase):
    """A part of a file as a file of its own.

    Args:
        file: the file; its position is moved.
        start: offset of the part's first byte.
        size: in bytes.
    """

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of every stream; before the start is the start."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As of every raw stream."""
        count = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
