"""What a file of measured values tells of itself, and how its pixels are read.

A photograph is 8-bit RGB whatever file it lies in (`selfseg.data.reading.decoding`). Other images are measurements:
(H, W, C) of any number of channels, of integers or floats, on several pages, and larger than memory. They are read as
they are stored; what values mean (`selfseg.data.reading.channels`) is a matter of the whole collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Window(NamedTuple):
    """A part of an image, in its pixels: rows y to y + height, columns x to x + width."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class Place:
    """Where a raster lies on the earth.

    Attributes:
        crs: the coordinate reference system, as WKT.
        transform: a, b, c, d, e, f of x = a column + b row + c and y = d column + e row + f, where (0, 0) is the outer
            corner of the first pixel; GDAL's and rasterio's frame.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Layout:
    """What a file says of its pixels, known without reading them.

    Attributes:
        kind: the format as people call it, e.g. "OME-TIFF".
        height: H of every page, in pixels.
        width: W of every page.
        channels: a name for each of the C channels, "" where the file has none.
        dtype: of the values, in the machine's byte order: unsigned or signed integers, or floats.
        pages: a name for each page; ("",) for a file of one page. Names are safe parts of file names.
        nodata: the value that stands for "nothing was measured" in every channel; None if there is none. Of floats,
            not-a-number always stands for that, too.
        masked: whether `PixelFile.valid` has more to tell than `nodata`: a mask band or an alpha channel.
        colour: whether the channels are red, green and blue as of a photograph.
        place: where it lies, of rasters.
        details: further facts worth telling, e.g. {"pixel size": "0.65 µm"}.
    """

    kind: str
    height: int
    width: int
    channels: tuple[str, ...]
    dtype: np.dtype[Any]
    pages: tuple[str, ...] = ("",)
    nodata: float | None = None
    masked: bool = False
    colour: bool = False
    place: Place | None = None
    details: dict[str, str] = field(default_factory=dict)


class PixelFile(Protocol):
    """An open file. Methods may be called from several threads, one after the other."""

    @property
    def layout(self) -> Layout:
        """What the file says of itself."""

    def read(self, page: int = 0, window: Window | None = None, channels: Sequence[int] | None = None) -> NDArray[Any]:
        """Values as they are stored.

        Args:
            page: index in `layout.pages`.
            window: the part that is wanted, inside of the page; None = all. Of a tiled file no more than the tiles that
                the window touches are read.
            channels: which ones, in this order; None = all.

        Returns:
            (h, w, C) of `layout.dtype`, contiguous and writable.

        Raises:
            Damage: if the pixels can't be read.
        """

    def valid(self, page: int = 0, window: Window | None = None) -> NDArray[np.bool_] | None:
        """Where something was measured, by the file's mask band or alpha channel; `nodata` isn't looked at.

        Returns:
            (h, w) bool; None if the file has neither.
        """

    def close(self) -> None:
        """Let go of the file; twice does no harm."""


def check_header(height: int, width: int, channels: int, max_pixels: int | None, least: int = 8) -> None:
    """Refuse what must not be read, by what the header says.

    Args:
        height: of a page, in pixels.
        width: of a page.
        channels: C.
        max_pixels: the largest height * width; None = any, where only windows are read.
        least: the smallest side.

    Raises:
        Damage: "too-small", "too-large" or "unreadable".
    """
    from selfseg.data.reading.decoding import Damage

    if height < 1 or width < 1 or channels < 1:
        raise Damage("unreadable", f"{width}x{height} pixels of {channels} channels")
    if max_pixels is not None and height * width > max_pixels:
        raise Damage("too-large", f"{width}x{height} pixels; at most {max_pixels} pixels are decoded")
    if min(height, width) < least:
        raise Damage("too-small", f"{width}x{height} pixels; the shorter side must have {least}")
