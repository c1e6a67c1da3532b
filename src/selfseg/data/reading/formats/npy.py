"""NumPy's .npy files: a window is read from a memory map. Pickled objects are refused unread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from selfseg.data.reading.formats.axes import Axes, guess_letters
from selfseg.data.reading.formats.base import Layout, Window, check_dtype, check_header, inside
from selfseg.data.reading.sniffing import Damage, words_of

_HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
_LONGEST_HEADER = 65_536


class NpyFile:
    """An array (H, W), (H, W, C), (pages, H, W) or (pages, ..., H, W, C); `guess_letters` says which.

    Args:
        source: a path, or an open file at its beginning.
        max_pixels: the largest H * W; None = any.

    Raises:
        Damage: if it can't be read.
    """

    def __init__(self, source: Path | IO[bytes], max_pixels: int | None) -> None:
        if isinstance(source, Path):
            with open(source, "rb") as stream:
                shape, dtype, fortran, start, size = _header(stream)
        else:
            shape, dtype, fortran, start, size = _header(source)
        self._axes = Axes(guess_letters(shape), shape)
        axes = self._axes
        native = check_dtype(dtype)
        check_header(axes.height, axes.width, axes.channels, max_pixels, itemsize=dtype.itemsize)
        if (needed := start + prod(shape) * dtype.itemsize) > size:
            raise Damage("truncated", f"{size} of {needed} bytes")
        order = "F" if fortran else "C"
        if isinstance(source, Path):
            self._array: NDArray[Any] = np.memmap(source, dtype, "r", start, shape, order)  # type: ignore[call-overload]
        else:
            source.seek(start)
            self._array = np.frombuffer(source.read(needed - start), dtype).reshape(shape, order=order)  # type: ignore[call-overload]
        self.layout = Layout(
            kind="NPY",
            height=axes.height,
            width=axes.width,
            channels=("",) * axes.channels,
            dtype=native,
            pages=axes.pages,
            colour=axes.channels == 3 and native in (np.dtype(np.uint8), np.dtype(np.uint16)),
            details={"dimensions": axes.letters},
        )

    def read(self, page: int = 0, window: Window | None = None, channels: Sequence[int] | None = None) -> NDArray[Any]:
        """(h, w, C) values; see `PixelFile.read`."""
        window = inside(self.layout, page, window, channels)
        chosen = range(self._axes.channels) if channels is None else channels
        return self._axes.take(self._array, page, window, chosen).astype(self.layout.dtype, copy=False)

    def valid(self, page: int = 0, window: Window | None = None) -> None:
        """None: the file has no mask."""

    def close(self) -> None:
        """Let go of the memory map."""
        self._array = np.empty(self._array.shape[:0] + (0,) * self._array.ndim, self._array.dtype)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool, int, int]:
    """Shape, dtype, whether in Fortran's order, where the values begin, and the file's size."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    try:
        version = npy_format.read_magic(stream)
        if version not in _HEADERS:  # 3.0 is for names of fields, which no image has
            raise Damage("unreadable", f"NPY of version {version[0]}.{version[1]}")
        place = stream.tell()
        length = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
        if length > _LONGEST_HEADER:  # NumPy would make room for it before it looks whether it is there
            raise Damage("unreadable", f"a header that claims {length} bytes")
        stream.seek(place)
        shape, fortran, dtype = _HEADERS[version](stream, max_header_size=_LONGEST_HEADER)
    except Damage:
        raise
    except MemoryError:
        raise
    except Exception as error:  # NumPy's parser raises whatever broken bytes make it raise
        raise Damage("truncated" if "EOF" in str(error) else "unreadable", words_of(error)) from error
    if dtype.hasobject:
        raise Damage("unreadable", "an array of pickled Python objects, which are never opened")
    shape = tuple(int(side) for side in shape)
    if any(side < 1 for side in shape):
        raise Damage("unreadable", f"an array of shape {shape} is no image")
    return shape, dtype, bool(fortran), stream.tell(), size
