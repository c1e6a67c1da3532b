"""Pictures that are decoded in one piece, by Pillow, OpenCV and imagecodecs: PNG, JPEG, JPEG 2000, AVIF, PNM, ...

Values are given as the file has them: 16-bit PNG and PNM, 10 and 12-bit AVIF and JPEG 2000 of any depth are not reduced
to 8 bits, and gray stays one channel. Palettes become their colours, alpha becomes `valid` (nothing was measured where
it is 0), and EXIF orientation is undone as it is of photographs.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.codestreams import check_whole_jpeg2000, jpeg2000_size
from selfseg.data.reading.decoding import decode_as_stored, open_image, orientation, quiet, stored_as
from selfseg.data.reading.formats.base import Layout, Place, Window, check_header, inside
from selfseg.data.reading.sniffing import MAX_PIXELS, Damage, words_of
from selfseg.storage.regular import read_whole

_NAMES = {"JPEG2000": "JPEG 2000", "PPM": "PNM", "WEBP": "WebP"}
_GEO_JP2 = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")
_PNM = re.compile(rb"(P[2356])(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")


class WholeImage:
    """An open picture; it is decoded when its pixels are first asked for.

    Args:
        path: the file.
        kind: the format that `sniffing.sniff` found.
        max_pixels: the largest H * W. Without a bound it is Pillow's own, because these formats can't be read in parts.

    Raises:
        Damage: if it can't be read.
    """

    def __init__(self, path: Path, kind: str, max_pixels: int | None) -> None:
        self._path, self._kind = path, kind
        self._pixels: NDArray[Any] | None = None
        self._valid: NDArray[np.bool_] | None = None
        most = MAX_PIXELS if max_pixels is None else max_pixels
        with open(path, "rb") as stream, quiet():
            try:
                height, width, channels, dtype, alpha = _facts(stream, kind, most)
            except Damage:
                raise
            except Exception as error:
                raise Damage("unreadable", words_of(error)) from error
        check_header(height, width, channels + alpha, most, itemsize=dtype.itemsize)
        self.layout = Layout(
            kind=_NAMES.get(kind, kind),
            height=height,
            width=width,
            channels=("",) * channels,
            dtype=dtype,
            masked=alpha,
            colour=channels == 3,
            place=_place(path) if kind == "JPEG2000" else None,
        )

    def _decode(self) -> NDArray[Any]:
        if self._pixels is None:
            try:
                data = read_whole(self._path, 16 * MAX_PIXELS)
            except OSError as error:
                if error.errno == errno.EFBIG:  # a header of a few pixels, and more bytes than any image has
                    raise Damage("too-large", error.strerror or "") from error
                raise
            try:
                with quiet():
                    pixels = _pixels(data, self._kind, self.layout.dtype)
            except (Damage, MemoryError):
                raise
            except Exception as error:
                words = words_of(error)
                raise Damage("truncated" if "runcated" in words else "unreadable", words) from error
            pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
            channels = len(self.layout.channels)
            if pixels.shape != (self.layout.height, self.layout.width, channels + self.layout.masked):
                raise Damage("unreadable", f"pixels of shape {pixels.shape}, and the header says {self.layout}")
            if self.layout.masked:
                self._valid = pixels[:, :, channels] != 0
            self._pixels = pixels[:, :, :channels].astype(self.layout.dtype, copy=False)
        return self._pixels

    def read(self, page: int = 0, window: Window | None = None, channels: Sequence[int] | None = None) -> NDArray[Any]:
        """(h, w, C) values; see `PixelFile.read`."""
        y, x, height, width = inside(self.layout, page, window, channels)
        part = self._decode()[y : y + height, x : x + width]
        return np.array(part if channels is None else part[:, :, list(channels)], order="C")

    def valid(self, page: int = 0, window: Window | None = None) -> NDArray[np.bool_] | None:
        """(h, w) bool, where alpha isn't 0; None if there is none."""
        y, x, height, width = inside(self.layout, page, window, None)
        self._decode()
        return None if self._valid is None else self._valid[y : y + height, x : x + width].copy()

    def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = self._valid = None


def _place(path: Path) -> Place | None:
    """Of a JPEG 2000 with GeoJP2 (a UUID box) or GMLJP2 (a box of XML), or with a file beside it that says it."""
    with open(path, "rb") as stream:
        head = stream.read(1 << 16)
    beside = [path.with_suffix(suffix) for suffix in (".j2w", ".wld")]
    told = _GEO_JP2 in head or b"gml.data" in head
    if not told and not any(file.is_file() for file in (*beside, path.with_name(path.name + ".aux.xml"))):
        return None
    from selfseg.data.reading.formats.rasters import place_by_gdal

    return place_by_gdal(path, "JP2OpenJPEG")


def _facts(stream: IO[bytes], kind: str, most: int) -> tuple[int, int, int, np.dtype[Any], bool]:
    """Height, width, channels, dtype and whether there is alpha, by the header."""
    head = stream.read(1 << 16)
    stream.seek(0)
    if kind == "PPM" and (found := _PNM.match(head)) and int(found[4]) > 255:
        return int(found[3]), int(found[2]), 3 if found[1] in (b"P3", b"P6") else 1, np.dtype(np.uint16), False
    if kind == "JPEG2000":
        return _facts_of_jpeg2000(head, stream, most)
    image = open_image(stream, kind, most)
    width, height = image.size
    if orientation(image) >= 5:
        width, height = height, width
    if kind == "PNG" and head[24] == 16:
        channels = {0: 1, 2: 3, 4: 1, 6: 3}[head[25]]
        return height, width, channels, np.dtype(np.uint16), head[25] in (4, 6)
    if kind == "AVIF" and _avif_depth(head) > 8:
        alpha = image.mode == "RGBA"
        return height, width, 3, np.dtype(np.uint16), alpha
    channels, dtype, alpha = stored_as(image)
    return height, width, channels, dtype, alpha


def _facts_of_jpeg2000(head: bytes, stream: IO[bytes], most: int) -> tuple[int, int, int, np.dtype[Any], bool]:
    size = jpeg2000_size(head)
    if size is None:  # long metadata before the codestream
        stream.seek(0)
        size = jpeg2000_size(stream.read(1 << 26))
    if size is None:
        raise Damage("unreadable", "a JPEG 2000 without a codestream")
    height, width, components, bits = size
    if bits > 16:
        raise Damage("unreadable", f"a JPEG 2000 of {bits} bits")
    check_header(height, width, components, most, itemsize=1 if bits <= 8 else 2)
    alpha = False
    if components in (2, 4):
        stream.seek(0)
        alpha = open_image(stream, "JPEG2000", most).mode in ("LA", "RGBA") and b"cdef" in head
    return height, width, components - alpha, np.dtype(np.uint8 if bits <= 8 else np.uint16), alpha


def _avif_depth(head: bytes) -> int:
    """Bits of a channel, by AV1's configuration (AV1 in ISOBMFF, 2.3.3)."""
    place = head.find(b"av1C")
    if place < 0 or place + 7 > len(head):
        return 8
    return 12 if head[place + 6] & 0x20 else 10 if head[place + 6] & 0x40 else 8


def _pixels(data: bytes, kind: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """(H, W) or (H, W, C + alpha)."""
    if kind == "JPEG2000":
        from imagecodecs import jpeg2k_decode

        check_whole_jpeg2000(data)
        return np.asarray(jpeg2k_decode(data))
    if kind == "PPM" and dtype == np.uint16:
        return _deep_pnm(data)
    if kind == "AVIF" and dtype == np.uint16:
        from imagecodecs import avif_decode

        return np.asarray(avif_decode(data))
    return decode_as_stored(data, kind)


def _deep_pnm(data: bytes) -> NDArray[np.uint16]:
    """A PNM of more than 8 bits; Pillow would stretch or reduce it (netpbm's ppm(5): big-endian)."""
    found = _PNM.match(data)
    if found is None:
        raise Damage("unreadable", "a broken PNM header")
    width, height, channels = int(found[2]), int(found[3]), 3 if found[1] in (b"P3", b"P6") else 1
    count = width * height * channels
    if found[1] in (b"P5", b"P6"):
        if len(data) < found.end() + 2 * count:
            raise Damage("truncated", f"{len(data)} of {found.end() + 2 * count} bytes")
        values = np.frombuffer(data, ">u2", count, found.end()).astype(np.uint16)
    else:
        words = data[found.end() :].split()
        if len(words) < count:
            raise Damage("truncated", f"{len(words)} of {count} values")
        values = np.array(words[:count], np.int64).astype(np.uint16)
    return values.reshape(height, width, channels)
