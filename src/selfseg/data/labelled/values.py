"""The values of a file of labels or masks, as they are stored: what both readers of such files begin with.

| file | values |
|---|---|
| PNG, TIFF, BMP, GIF, PGM, PPM, PBM, lossless WebP | gray of 1 to 16 bits (TIFF: 32), palette, or colours |
| NPY | (H, W), (1, H, W), (H, W, 1); (H, W, 3) and (H, W, 4) uint8 are colours |
| JPEG, lossy WebP, JPEG in a TIFF | read, but marked as `lossy`: near edges there are values that nobody wrote |

Sizes are bounded by what the header says, before anything is decoded, and nothing is unpickled.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from selfseg.data.reading.decoding import MAX_PIXELS, quiet
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.storage.regular import open_regular

LOSSLESS = (".png", ".npy", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".pbm", ".pnm")
"""Suffixes of label files, in the order in which they are looked for."""

_COLOURED = ("RGB", "RGBA", "LA", "PA")
_SPREAD = {2: 85, 4: 17}  # Pillow spreads gray of so many bits over 0..255
_BITS, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262  # tags of TIFF
_JPEG_IN_TIFF = (6, 7, 34892)


class NoValues(Exception):
    """Why a file's values can't be had, without its name; readers say which file it is."""


@dataclass(frozen=True)
class FileValues:
    """What a file holds.

    Attributes:
        path: the file.
        format: as people call it, e.g. "PNG".
        mode: Pillow's; of arrays "L" or "RGB", "RGBA".
        pixels: (H, W) of the stored type, or (H, W, 3) RGB or (H, W, 4) RGBA of uint8 or uint16.
        palette: (N, 3) RGB of the indices; N is 0 without one.
        lossy: whether its format changes values.
        pages: how many pictures it holds; the first one is read.
    """

    path: Path
    format: str
    mode: str
    pixels: NDArray[Any]
    palette: NDArray[np.uint8]
    lossy: bool = False
    pages: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def gray(self) -> NDArray[Any] | None:
        """(H, W): the values, of colours those of the three equal channels; None if a pixel has a colour.

        Transparency is not looked at.
        """
        if self.pixels.ndim == 2:
            return self.pixels
        colour = self.pixels[..., :3]
        return np.ascontiguousarray(colour[..., 0]) if bool((colour == colour[..., :1]).all()) else None


def read_values(path: Path, data: bytes | None = None) -> FileValues:
    """Read a file's values.

    Args:
        path: the file.
        data: its bytes, if they aren't to be read from `path`.

    Raises:
        NoValues: if it can't be read or is too large.
    """
    try:
        with open_regular(path) if data is None else io.BytesIO(data) as stream:
            if (size := stream.seek(0, io.SEEK_END)) > 16 * MAX_PIXELS:
                raise NoValues(f"a file of {size} bytes")
            stream.seek(0)
            if path.suffix.lower() == ".npy":
                return _array(path, _read_npy(stream))
            return _picture(path, stream)
    except NoValues:
        raise
    except Exception as error:  # parsers raise whatever broken bytes make them raise
        raise NoValues(" ".join(str(error).split()) or type(error).__name__) from error


def holds_colours(path: Path) -> bool:
    """Whether a label file has pixels that are not gray, in no palette; False if it can't be read."""
    if path.suffix.lower() != ".npy":
        try:
            with open_regular(path) as stream, quiet(), Image.open(stream) as image:
                if image.mode not in _COLOURED:
                    return False
        except Exception:  # whoever reads it will say so
            return False
    try:
        return read_values(path).gray() is None
    except NoValues:
        return False


def same_proportions(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size may be the other's times some factor, rounded to a pixel.

    Args:
        one: (H, W) of a label or mask.
        other: (H, W) of its image.

    Example:
        >>> same_proportions((45, 60), (90, 121)), same_proportions((45, 60), (90, 90))
        (True, False)
    """
    small, large = sorted((one, other), key=lambda size: size[0] * size[1])
    low = max((s - 1) / i for s, i in zip(small, large, strict=True))
    high = min((s + 1) / i for s, i in zip(small, large, strict=True))
    return low < high and abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= _ASPECT


_ASPECT = 0.05  # how much the proportions may differ for rounding


def _picture(path: Path, stream: IO[bytes]) -> FileValues:
    head = stream.read(64)
    stream.seek(0)
    none = np.zeros((0, 3), np.uint8)
    deep = head.startswith(b"\x89PNG") and head[24] == 16 and head[25] in (2, 4, 6)
    with quiet():
        try:
            image = Image.open(stream)
        except UnidentifiedImageError:
            if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                raise
            stream.seek(0)
            return _array(path, _other_tiff(path, stream), "TIFF")  # kinds that Pillow doesn't know
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise NoValues(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
            kind, mode, pages = image.format or "", image.mode, getattr(image, "n_frames", 1)
            if deep:  # Pillow would cut these values to 8 bits
                stream.seek(0)
                return _array(path, _by_opencv(stream.read()), kind)
            lossy = kind == "JPEG" or (kind == "WEBP" and b"VP8 " in head)
            bits, white = head[24] if kind == "PNG" else 8, False
            if kind == "TIFF":
                tags: Any = image.tag_v2  # type: ignore[attr-defined]
                lossy = tags.get(_COMPRESSION) in _JPEG_IN_TIFF
                bits, white = int(tags.get(_BITS, (8,))[0]), tags.get(_PHOTOMETRIC) == 0
            if mode in _COLOURED:
                pixels = np.array(image.convert("RGB" if mode == "RGB" else "RGBA"))
                return FileValues(path, kind, mode, pixels, none, lossy, pages)
            if mode == "P":
                palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
                return FileValues(path, kind, mode, np.array(image), palette, lossy, pages)
            pixels = np.array(image)
            if pixels.ndim != 2:
                raise NoValues(f"colours of mode {mode}; save them as RGB")
            if mode == "L":
                pixels = pixels // _SPREAD.get(bits, 1)
            if white and mode in ("1", "L"):  # 0 is white to viewers, but a label is what is stored
                pixels = ~pixels if mode == "1" else np.uint8((1 << bits) - 1) - pixels
            return FileValues(path, kind, mode, pixels, none, lossy, pages)


def _other_tiff(path: Path, stream: IO[bytes]) -> NDArray[Any]:
    """(H, W) or (H, W, C); of a file that lies in a zip, only what OpenCV reads."""
    if not path.is_file():
        return _by_opencv(stream.read())
    file = open_pixels(path, MAX_PIXELS)
    try:
        if len(file.layout.pages) > 1:
            raise NoValues(f"{len(file.layout.pages)} pages of a kind that is read one by one only")
        pixels = file.read()
    finally:
        file.close()
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _by_opencv(data: bytes) -> NDArray[Any]:
    """(H, W) or (H, W, 3 or 4) RGB, whatever the depth."""
    found: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise NoValues("a picture of a kind that can't be read")
    if found.ndim == 3:
        found = cv2.cvtColor(found, cv2.COLOR_BGR2RGB if found.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return np.asarray(found)


def _array(path: Path, array: NDArray[Any], kind: str = "NPY") -> FileValues:
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    none = np.zeros((0, 3), np.uint8)
    if array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype in (np.uint8, np.uint16):
        return FileValues(path, kind, "RGB" if array.shape[2] == 3 else "RGBA", array, none)
    if array.ndim != 2 or not array.size:
        raise NoValues(f"an array of shape {array.shape}, not (H, W)")
    return FileValues(path, kind, "1" if array.dtype == np.bool_ else "L", array, none)


def _read_npy(stream: IO[bytes]) -> NDArray[Any]:
    """An array of plain numbers, no larger than the file."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = header(stream)
    if dtype.hasobject:
        raise NoValues("the array holds Python objects, which are never unpickled")
    if math.prod(shape) > 4 * MAX_PIXELS or math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise NoValues(f"an array of shape {shape} in a file of {size} bytes")
    flat = np.frombuffer(stream.read(), dtype)
    return flat.reshape(shape, order="F" if by_columns else "C").astype(dtype.newbyteorder("="))
