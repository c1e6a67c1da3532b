"""TIFF files of every kind, by `tifffile`: of a window no more is read than the strips or tiles that it touches.

tifffile finds what the pages are (OME, ImageJ, LSM, pyramids, ...) and decodes strips and tiles. Which of them a window
needs is worked out here, and values that lie in the file as they are wanted are mapped into memory, not read.

    axes C and S             channels
    T, Z, all others         pages
    pages without axes       pages, "unnamed": `--pages channels` takes them for channels
    alpha of gray or RGB     where something was measured: not at 0
    internal masks (GDAL)    where something was measured
    tiles left out (GDAL)    nothing was measured there
    palettes                 their colours; ImageJ's only colour a measured value, which is kept
    white is zero            inverted, so that larger values are brighter
    pyramids, thumbnails     the largest picture
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.codestreams import check_codestream
from selfseg.data.reading.formats.axes import Axes, guess_letters
from selfseg.data.reading.formats.base import (
    Layout,
    Window,
    check_block,
    check_claim,
    check_dtype,
    check_header,
    inside,
)
from selfseg.data.reading.formats.tiff_header import channel_names, check_directories, nodata_of, place_of
from selfseg.data.reading.sniffing import Damage, words_of

_JPEG = {6, 7, 34892, 33007}
_BOUNDED = {1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000, 50013}  # decoded into a buffer of the tile's size
_JPEG_2000 = {33003, 33004, 33005, 34712}
_MINISWHITE, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said by our own errors


class TiffImage:
    """An open TIFF.

    Args:
        path: the file.
        max_pixels: the largest H * W; None = any.

    Raises:
        Damage: if it can't be read.
    """

    def __init__(self, path: Path, max_pixels: int | None) -> None:
        import tifffile

        with open(path, "rb") as stream:
            check_directories(stream)
        self._lock = threading.Lock()
        self._map: NDArray[np.uint8] | None = None
        self._path = path
        try:
            self._tif: Any = tifffile.TiffFile(path, _multifile=False, is_ndtiff=False)
        except OSError:
            raise
        except Exception as error:
            raise Damage("unreadable", words_of(error)) from error
        try:
            with _as_damage():
                self.layout = self._look(max_pixels)
        except BaseException:
            self.close()
            raise

    def _look(self, max_pixels: int | None) -> Layout:
        found = list(self._tif.series)
        whole = [i for i, one in enumerate(found) if not (one.keyframe.is_reduced or one.keyframe.is_mask)]
        if not whole:
            raise Damage("unreadable", "a TIFF without a full picture")
        number = whole[0]
        series = self._series = found[number]
        key = self._key = series.keyframe
        if series.dtype is None or series.dtype.kind not in "buif":
            raise Damage("unreadable", f"{key.bitspersample}-bit values of sample format {key.sampleformat}")
        letters, shape = _letters(series)
        self._axes = Axes(letters, shape)
        axes, dtype = self._axes, check_dtype(series.dtype)
        photometric = int(key.photometric)
        self._lookup = _colours(key, dtype) if photometric == _PALETTE and not self._tif.is_imagej else None
        self._invert = photometric == _MINISWHITE and dtype.kind in "ui"
        samples = shape[letters.index("S")] if "S" in letters else 1
        extra = tuple(int(kind) for kind in key.extrasamples)
        own = axes.channels == samples and len(extra) == 1 and extra[0] in (1, 2)
        self._alpha = (
            samples - 1 if own and samples in (2, 4) and samples - 1 == (3 if photometric == _RGB else 1) else None
        )
        channels = 3 if self._lookup is not None else axes.channels - (self._alpha is not None)
        check_header(axes.height, axes.width, axes.channels, max_pixels, itemsize=dtype.itemsize)
        self._source = self._find_source(series, letters, shape)
        if self._source == "pages":
            stored = sum(series.pages[0].databytecounts) if series.pages[0] is not None else 0
            size = axes.height * axes.width * axes.channels * dtype.itemsize
            check_claim(size, stored, f"{axes.width}x{axes.height} pixels")
        if self._source == "whole":
            check_block(prod(shape) * series.dtype.itemsize, "TIFF that can only be read as a whole,")
        masks = [one for one in found if one.keyframe.is_mask and not one.keyframe.is_reduced]
        self._mask = next((one.keyframe for one in masks if one.shape[-2:] == (axes.height, axes.width)), None)
        sparse = any(page is None or 0 in page.databytecounts for page in list(series.pages)[:1])
        colour = (photometric in (_RGB, _YCBCR) and samples >= 3 and channels == 3) or self._lookup is not None
        names = channel_names(self._tif, number, axes.channels)[:channels] if self._lookup is None else ("",) * 3
        return Layout(
            kind=self._kind(),
            height=axes.height,
            width=axes.width,
            channels=names,
            dtype=np.dtype(np.uint8) if self._lookup is not None else dtype,
            pages=axes.pages,
            unnamed="Q" in letters and len(axes.pages) > 1 and channels == 1,
            nodata=nodata_of(key),
            masked=self._alpha is not None or self._mask is not None or sparse,
            colour=colour,
            place=place_of(key, self._path),
            details=self._details(letters, len(whole) - 1),
        )

    def _kind(self) -> str:
        tif = self._tif
        kinds = (("OME-TIFF", tif.is_ome), ("ImageJ TIFF", tif.is_imagej), ("LSM", tif.is_lsm))
        named = next((name for name, there in kinds if there), "GeoTIFF" if self._key.is_geotiff else "TIFF")
        return f"{named} (BigTIFF)" if tif.is_bigtiff and named != "LSM" else named

    def _details(self, letters: str, others: int) -> dict[str, str]:
        details = {"dimensions": letters}
        if int(self._key.compression) != 1:
            details["compression"] = str(getattr(self._key.compression, "name", self._key.compression)).lower()
        if others:
            details["not read"] = f"{others} further pictures of other sizes or types"
        return details

    def _find_source(self, series: Any, letters: str, shape: tuple[int, ...]) -> str:
        """How pixels are reached: "map" (they lie in one piece), "pages" (strips and tiles) or "whole"."""
        key = series.keyframe
        size = self._tif.filehandle.size
        offset = series.dataoffset
        if offset is not None and int(key.compression) == 1 and series.dtype.kind != "b":
            if offset + prod(shape) * series.dtype.itemsize > size:
                raise Damage("truncated", f"{size} of {offset + prod(shape) * series.dtype.itemsize} bytes")
            return "map"
        _, depth, height, width, samples = key.shaped
        y, x = letters.index("Y"), letters.index("X")
        plain = (prod(shape[x + 1 :]), prod(shape[y + 1 :])) == (samples, samples * width) and y + 1 == x
        if depth != 1 or not plain or (shape[y], shape[x]) != (height, width):
            return "whole"
        if len(series.pages) * key.size != prod(shape):
            raise Damage("truncated", f"{len(series.pages)} pages for dimensions {letters} of {shape}")
        block = (key.tilelength if key.is_tiled else min(key.rowsperstrip, height)) * prod(
            (key.tilewidth if key.is_tiled else width, samples, series.dtype.itemsize)
        )
        if not _raw(key):
            check_block(block, "tile" if key.is_tiled else "strip")
        self._block = block
        return "pages"

    def read(self, page: int = 0, window: Window | None = None, channels: Sequence[int] | None = None) -> NDArray[Any]:
        """(h, w, C) values; see `PixelFile.read`."""
        window = inside(self.layout, page, window, channels)
        chosen = list(range(len(self.layout.channels)) if channels is None else channels)
        with self._lock, _as_damage():
            values = self._values(page, window, [0] if self._lookup is not None else chosen)
        if self._invert:
            top = np.iinfo(values.dtype).max if self._key.bitspersample >= 8 else 2**self._key.bitspersample - 1
            values = values.dtype.type(top) - values if values.dtype.kind == "u" else ~values
        if self._lookup is not None:
            values = self._lookup[np.minimum(values[:, :, 0], len(self._lookup) - 1)][:, :, chosen]
        return np.ascontiguousarray(values)

    def valid(self, page: int = 0, window: Window | None = None) -> NDArray[np.bool_] | None:
        """(h, w) bool, by alpha, internal mask and tiles that were left out; None if there are none."""
        window = inside(self.layout, page, window, None)
        found: NDArray[np.bool_] | None = None
        with self._lock, _as_damage():
            if self._alpha is not None:
                found = self._values(page, window, [self._alpha])[:, :, 0] != 0
            if self._mask is not None and page == 0:
                mask = np.empty((window.height, window.width, 1), self._mask.dtype)
                _from_page(self._mask, window, {0: (0, 0)}, mask, self._bytes)
                found = mask[:, :, 0] != 0 if found is None else found & (mask[:, :, 0] != 0)
            if self._source == "pages":
                there = np.ones((window.height, window.width), np.bool_)
                for part in {part for part, _, _ in self._parts(page, range(self._axes.channels))}:
                    _without_gaps(self._series.pages[part], self._key, window, there)
                if not there.all():
                    found = there if found is None else found & there
        return found

    def _values(self, page: int, window: Window, channels: Sequence[int]) -> NDArray[Any]:
        dtype = check_dtype(self._series.dtype)
        if self._source != "pages":
            array = self._whole() if self._source == "whole" else self._mapped()
            return self._axes.take(array, page, window, channels).astype(dtype, copy=False)
        out = np.zeros((window.height, window.width, len(channels)), dtype)
        parts = self._parts(page, channels)
        for number in dict.fromkeys(number for number, _, _ in parts):
            wanted = {i: (s, c) for i, (part, s, c) in enumerate(parts) if part == number}
            if (piece := self._series.pages[number]) is not None:
                _from_page(piece, window, wanted, out, self._bytes)
        return out

    def _parts(self, page: int, channels: Sequence[int]) -> list[tuple[int, int, int]]:
        """For each channel the TIFF page that it lies in, and its separate and its interleaved sample there."""
        _, _, height, width, samples = self._key.shaped
        found = []
        for channel in channels:
            flat = int(np.ravel_multi_index(self._axes.index(page, channel), self._axes.shape))
            number, rest = divmod(flat, self._key.size)
            separate, rest = divmod(rest, height * width * samples)
            found.append((number, separate, rest))
        return found

    def _bytes(self) -> NDArray[np.uint8]:
        if self._map is None:
            self._map = np.memmap(self._path, np.uint8, "r")
        return self._map

    def _mapped(self) -> NDArray[Any]:
        dtype = self._series.dtype.newbyteorder(self._tif.byteorder)
        start = self._series.dataoffset
        piece = self._bytes()[start : start + prod(self._axes.shape) * dtype.itemsize]
        return np.asarray(piece.view(dtype).reshape(self._axes.shape))

    def _whole(self) -> NDArray[Any]:
        return np.asarray(self._series.asarray()).reshape(self._axes.shape)

    def close(self) -> None:
        """Let go of the file."""
        self._map = None
        self._tif.close()

    def __del__(self) -> None:
        if (tif := getattr(self, "_tif", None)) is not None:
            tif.close()


class _as_damage:
    """Whatever tifffile and its codecs raise of broken bytes becomes `Damage`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, Damage | MemoryError) or not isinstance(error, Exception):
            return
        if isinstance(error, OSError) and error.errno is not None:
            return
        raise Damage("unreadable", words_of(error)) from error


def _letters(series: Any) -> tuple[str, tuple[int, ...]]:
    """A series' dimensions; of arrays whose writer took columns for samples, as they were meant."""
    letters, shape = series.axes, tuple(int(side) for side in series.shape)
    if letters.strip("Q") == "YX" and len(shape) >= 3 and shape[-1] < 8 <= shape[-2]:
        guessed = guess_letters(shape)  # (H, W, 5) without a photometric interpretation: H pages of W x 5 px
        return guessed.replace("I", "Q"), shape
    return letters, shape


def _colours(key: Any, dtype: np.dtype[Any]) -> NDArray[np.uint8] | None:
    """A palette's (N, 3) colours."""
    if key.colormap is None or dtype.kind != "u":
        return None
    palette = np.asarray(key.colormap)
    return np.ascontiguousarray((palette.T >> (8 if palette.max() > 255 else 0)).astype(np.uint8))


def _raw(key: Any) -> bool:
    """Whether values lie in strips and tiles as they are, but for the order of their bytes."""
    plain = int(key.compression) == 1 and int(key.predictor) == 1 and int(key.fillorder) == 1
    return plain and key.bitspersample in (8, 16, 32, 64) and int(key.photometric) != _YCBCR and key.dtype.kind != "b"


def _segments(key: Any, window: Window, separate: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(index, y, x, height, width) of the strips or tiles of one plane that a window touches."""
    _, _, height, width, _ = key.shaped
    tall, wide = (key.tilelength, key.tilewidth) if key.is_tiled else (min(key.rowsperstrip, height), width)
    down, across = -(-height // tall), -(-width // wide)
    for row in range(window.y // tall, (window.y + window.height - 1) // tall + 1):
        for column in range(window.x // wide, (window.x + window.width - 1) // wide + 1):
            yield separate * down * across + row * across + column, row * tall, column * wide, tall, wide


def _from_page(
    page: Any,
    window: Window,
    wanted: dict[int, tuple[int, int]],
    out: NDArray[Any],
    mapped: Callable[[], NDArray[np.uint8]],
) -> None:
    """Fill channels of `out` from one TIFF page.

    Args:
        page: tifffile's page or frame.
        window: the part of it that `out` is.
        wanted: by channel of `out`, the plane (of separate samples) and the sample in it.
        out: (h, w, C), zeros.
        mapped: gives the file's bytes.
    """
    key = page.keyframe
    raw, compression = _raw(key), int(key.compression)
    _, _, height, _, samples = key.shaped
    dtype = key.dtype.newbyteorder(page.parent.byteorder)
    extra: dict[str, Any] = {"_fullsize": False}
    if compression in _JPEG:
        extra |= {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
    for plane in dict.fromkeys(plane for plane, _ in wanted.values()):
        for index, y, x, tall, wide in _segments(key, window, plane):
            if index >= len(page.dataoffsets) or index >= len(page.databytecounts):
                raise Damage("truncated", f"strip or tile {index} is not in the file")
            start, length = int(page.dataoffsets[index]), int(page.databytecounts[index])
            if start == 0 or length == 0:
                continue
            rows = tall if key.is_tiled else min(tall, height - y)
            if raw:
                length = rows * wide * samples * dtype.itemsize
            if start + length > len(mapped()):
                raise Damage("truncated", f"strip or tile {index} lies beyond the end of the file")
            data = mapped()[start : start + length]
            if raw:
                block = data.view(dtype).reshape(rows, wide, samples)
            else:
                packed = data.tobytes()
                if compression not in _BOUNDED:
                    most = tall * wide * samples * max(1, dtype.itemsize)
                    check_codestream(packed, compression in _JPEG, compression in _JPEG_2000, max(4 * most, 1 << 22))
                decoded, _, shape = key.decode(packed, index, **extra)
                if decoded is None:
                    continue
                block = np.asarray(decoded).reshape(shape)[0]
            _place(block, y, x, window, {i: s for i, (p, s) in wanted.items() if p == plane}, out)


def _place(block: NDArray[Any], y: int, x: int, window: Window, wanted: dict[int, int], out: NDArray[Any]) -> None:
    """Copy what a strip or tile at (y, x) and a window share."""
    top, left = max(y, window.y), max(x, window.x)
    bottom = min(y + block.shape[0], window.y + window.height)
    right = min(x + block.shape[1], window.x + window.width)
    if top >= bottom or left >= right:
        return
    for i, sample in wanted.items():
        part = block[top - y : bottom - y, left - x : right - x, sample]
        out[top - window.y : bottom - window.y, left - window.x : right - window.x, i] = part


def _without_gaps(page: Any, key: Any, window: Window, there: NDArray[np.bool_]) -> None:
    """Mark where strips or tiles were left out."""
    if page is None:
        there[:] = False
        return
    for index, y, x, tall, wide in _segments(key, window, 0):
        if index < len(page.dataoffsets) and 0 in (page.dataoffsets[index], page.databytecounts[index]):
            top, left = max(0, y - window.y), max(0, x - window.x)
            there[top : max(0, y + tall - window.y), left : max(0, x + wide - window.x)] = False
