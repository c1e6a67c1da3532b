"""Open any file of pixels, by its content and suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.formats.base import Layout, PixelFile, Window, check_header

WINDOWED = frozenset((".tif", ".tiff", ".btf", ".tf8", ".npy", ".zarr", ".jp2", ".j2k", ".jpx", ".dcm"))
"""Suffixes of files of which a window can be read, or that may have several pages."""


class _Whole:
    def __init__(self, kind: str, pixels: NDArray[Any]) -> None:
        self.pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        h, w, c = self.pixels.shape
        self.layout = Layout(kind, h, w, ("",) * c, self.pixels.dtype, colour=c == 3 and self.pixels.dtype == np.uint8)

    def read(self, page: int = 0, window: Window | None = None, channels: Sequence[int] | None = None) -> NDArray[Any]:
        found = self.pixels
        if window is not None:
            found = found[window.y : window.y + window.height, window.x : window.x + window.width]
        return np.ascontiguousarray(found if channels is None else found[..., list(channels)])

    def valid(self, page: int = 0, window: Window | None = None) -> NDArray[np.bool_] | None:
        return None

    def close(self) -> None:
        pass


def open_pixels(path: Path, max_pixels: int | None) -> PixelFile:
    """Stand-in until the formats are there."""
    import cv2

    if path.suffix == ".npy":
        pixels = np.load(path)
    else:
        import tifffile

        pixels = tifffile.imread(path) if path.suffix.startswith(".tif") else cv2.imread(str(path), -1)
        if pixels.ndim == 3 and pixels.shape[0] < 16 and path.suffix.startswith(".tif"):
            pixels = pixels.transpose(1, 2, 0)
        elif pixels.ndim == 3 and path.suffix == ".png":
            pixels = pixels[..., ::-1]
    file = _Whole(path.suffix[1:].upper(), pixels)
    check_header(file.layout.height, file.layout.width, 1, max_pixels)
    return file


def pick_pages(layout: Layout, word: str) -> list[str]:
    """Stand-in."""
    if word == "all":
        return [str(i) for i in range(len(layout.pages))]
    return ["0"] if word == "first" else [word]


def read_page(
    file: PixelFile, word: str = "", window: Window | None = None, channels: Sequence[int] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Stand-in."""
    page = int(word) if word.isdigit() else 0
    return file.read(page, window, channels), file.valid(page, window)
