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

from selfseg.data.reading.sniffing import MAX_PIXELS, MIN_SIDE, Damage

MAX_BLOCK = 1 << 30
"""The largest tile, strip or chunk, in bytes once it is decoded."""

MOST_CLAIMED = 100_000
"""How many times what it holds a large file may claim to be: no compression makes that of pixels that tell anything."""

MOST_PAGES = 1_000_000
"""Files that claim more pages are refused."""

MOST_CHANNELS = 10_000
"""Files that claim more channels are refused: hyperspectral cameras have hundreds."""


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
        crs: the coordinate reference system, as WKT; without rasterio "EPSG:" and a number where the file has one, else
            "".
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
        unnamed: whether the pages are the first dimension of an array whose writer didn't say what it counts: they
            could as well be channels.
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
    unnamed: bool = False
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


def check_header(
    height: int,
    width: int,
    channels: int,
    max_pixels: int | None,
    least: int = MIN_SIDE,
    itemsize: int = 1,
) -> None:
    """Refuse what must not be read, by what the header says.

    Args:
        height: of a page, in pixels.
        width: of a page.
        channels: C.
        max_pixels: the largest height * width; None = any, where only windows are read.
        least: the smallest side.
        itemsize: bytes of a value. With `max_pixels` a page may take 16 bytes for each of them: as much as 4 channels
            of 32 bits.

    Raises:
        Damage: "too-small", "too-large" or "unreadable".
    """
    if height < 1 or width < 1 or channels < 1:
        raise Damage("unreadable", f"{width}x{height} pixels of {channels} channels")
    if max_pixels is not None and height * width > max_pixels:
        raise Damage("too-large", f"{width}x{height} pixels; at most {max_pixels} pixels are decoded")
    if max_pixels is not None and height * width * channels * itemsize > 16 * max_pixels:
        size = height * width * channels * itemsize
        raise Damage("too-large", f"{width}x{height} pixels of {channels} channels: {size} bytes")
    if min(height, width) < least:
        raise Damage("too-small", f"{width}x{height} pixels; the shorter side must have {least}")


def check_block(size: int, what: str) -> None:
    """Refuse a tile, strip or chunk that can only be decoded as a whole and is too large for that.

    Args:
        size: in bytes, once it is decoded.
        what: its name, e.g. "tile".

    Raises:
        Damage: "too-large".
    """
    if size > MAX_BLOCK:
        raise Damage("too-large", f"a {what} of {size} bytes once it is decoded; at most {MAX_BLOCK} are read at once")


def check_claim(claimed: int, stored: int, what: str) -> None:
    """Refuse a file that claims far more pixels than it can hold: looking at all of its windows would never end.

    Args:
        claimed: bytes of all pixels, by the header.
        stored: bytes of its strips, tiles or chunks; as many as are enough.
        what: its extent, e.g. "1000000x1000000 pixels".

    Raises:
        Damage: "too-large".
    """
    if claimed > MAX_PIXELS and claimed > MOST_CLAIMED * stored:
        raise Damage("too-large", f"{what}, of which {stored} bytes are there; the rest was never written")


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """The data type in the machine's byte order, if its values can be measurements.

    Raises:
        Damage: "unreadable" of anything but integers, floats and truth values.
    """
    try:
        known = np.dtype(dtype)
    except TypeError as error:
        raise Damage("unreadable", f"values of type {dtype}") from error
    if known.kind not in "uifb" or known.hasobject or known.itemsize > 8:
        raise Damage("unreadable", f"values of type {known}; images hold integers or floats of up to 64 bits")
    return np.dtype(np.uint8) if known.kind == "b" else known.newbyteorder("=")


def safe_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names from a file, without line ends and other control characters, and no longer than 80 characters.

    Example:
        >>> safe_names([" red", "near  infrared"])
        ('red', 'near infrared')
    """
    return tuple(" ".join("".join(c if c.isprintable() else " " for c in name).split())[:80] for name in names)


def inside(layout: Layout, page: int, window: Window | None, channels: Sequence[int] | None) -> Window:
    """The window, or the whole page; all that `PixelFile.read` is asked for must be there.

    Raises:
        IndexError: if page, window or a channel is outside of the file.
    """
    if not 0 <= page < len(layout.pages):
        raise IndexError(f"page {page} of {len(layout.pages)}")
    if channels is not None and not all(0 <= channel < len(layout.channels) for channel in channels):
        raise IndexError(f"channels {tuple(channels)} of {len(layout.channels)}")
    if window is None:
        return Window(0, 0, layout.height, layout.width)
    y, x, height, width = window
    if y < 0 or x < 0 or height < 1 or width < 1 or y + height > layout.height or x + width > layout.width:
        raise IndexError(f"{window} is not inside of {layout.width}x{layout.height} pixels")
    return window
