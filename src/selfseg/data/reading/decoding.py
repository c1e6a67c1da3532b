"""From a file's bytes to RGB pixels, strictly: a damaged file is an error, never a picture with gray blocks.

Whatever the file holds becomes (H, W, 3) uint8 RGB, turned upright by its EXIF orientation:

    gray, 1-bit        the same value in the three channels
    palette            its colours
    CMYK, YCCK         converted plainly (no ink profile); Adobe's inverted values are recognised by Adobe's marker
    transparency       composited over white, as viewers show it
    16 and 32 bit      divided by the smallest range of 8, 10, 12, 14 or 16 bits that holds the file's largest value, so
                       that a microscope's 12 bits stored in 16 do not come out black; larger values by their maximum
    float              one channel; values within [0, 1] are multiplied by 255, others as above; not-a-number becomes 0
    negative values    stretched from the smallest to the largest value
    colour profile     ignored (the pixel values are taken as they stand)

Decoding is Pillow's, because it keeps quiet on damaged files where OpenCV writes to the terminal; a JPEG of 480x360
takes 1.3 times as long as with `cv2.imread` (`benchmarks/read_image.py`). Both accept a JPEG that was cut short and
closed again by an end marker. Here the end marker is replaced by a few bytes of padding, too few to fill a block row:
the decoder finishes a whole picture and starves on a cut one.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, UnidentifiedImageError

from selfseg.data.reading.sniffing import HEAD, MIN_SIDE, words_of
from selfseg.data.reading.sniffing import MAX_PIXELS as MAX_PIXELS
from selfseg.data.reading.sniffing import SUFFIXES as SUFFIXES
from selfseg.data.reading.sniffing import Damage as Damage
from selfseg.data.reading.sniffing import sniff as sniff
from selfseg.errors import BadImage

_MEASURED = "selfseg reads a collection of such files as measured images (--channels, --pages)"
_ORIENTATION = 0x0112
# Padding that stands in for a JPEG's end marker: 1-bits, which are no Huffman code. Enough for the decoder's look-ahead
# (8 bytes) at the end of a whole picture, too little for one more row of blocks.
_JPEG_PADDING = b"\xff\x00" * 16
_PNG_DRAWN = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

# glibc returns freed blocks of a picture's size to the system and then pays for every page of the next picture: 2.6 ms
# instead of 1.5 for a JPEG of 480x360. Its threshold rises to the largest block that was ever freed, so free one here.
# The block is never touched: it takes no memory.
np.empty(24 << 20, np.uint8)


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters: warnings.catch_warnings[None] | None = None
_quiet_truncated = False


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings off the terminal, and Pillow strict whatever `LOAD_TRUNCATED_IMAGES` was set to.

    Both are settings of the whole process: the first thread in changes them, the last one out restores them.
    """
    global _quiet_depth, _quiet_filters, _quiet_truncated
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.simplefilter("ignore")
            _quiet_truncated = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0 and _quiet_filters is not None:
                _quiet_filters.__exit__(None, None, None)
                ImageFile.LOAD_TRUNCATED_IMAGES = _quiet_truncated


def refuse_measured(kind: str) -> NoReturn:
    """Say that a format is no photograph's; raises Damage."""
    raise Damage("wrong-type", f"a {kind} file is not a photograph; {_MEASURED}")


def open_image(stream: IO[bytes], kind: str, max_pixels: int) -> Image.Image:
    """Read the header and refuse what must not be decoded; call it within `quiet()`.

    Args:
        stream: at the file's beginning.
        kind: the format that `sniff` found.
        max_pixels: the largest H * W.

    Returns:
        Pillow's image, not decoded yet.

    Raises:
        Damage: "too-small", "too-large", "animated" or "unreadable".
    """
    if kind not in SUFFIXES.values():
        refuse_measured(kind)
    try:
        # Straight to the class: `Image.open` would take a phone's multi-picture JPEG for an animation.
        image = JpegImagePlugin.JpegImageFile(stream) if kind == "JPEG" else Image.open(stream, formats=[kind])
    except Image.DecompressionBombError as error:
        raise Damage("too-large", str(error)) from error
    except UnidentifiedImageError as error:
        hint = f"; if it has many channels, {_MEASURED}" if kind == "TIFF" else ""
        raise Damage("unreadable", f"a {kind} of a kind that is not supported, or broken{hint}") from error
    except Exception as error:  # Pillow's parsers raise whatever broken bytes make them raise
        raise Damage("unreadable", words_of(error)) from error
    width, height = image.size
    if width * height > max_pixels:
        raise Damage("too-large", f"{width}x{height} pixels; at most {max_pixels} pixels are decoded")
    if min(width, height) < MIN_SIDE:
        raise Damage("too-small", f"{width}x{height} pixels; the shorter side must have {MIN_SIDE}")
    if kind != "JPEG" and (pages := _pages(image, kind)) > 1:
        hint = f"; {_MEASURED}" if kind == "TIFF" else ""
        raise Damage("animated", f"{pages} frames or pages{hint}")
    if kind == "TIFF" and _deep_colour(image, b"", kind) and (count := len(image.tag_v2[258])) > 4:  # type: ignore[attr-defined]
        raise Damage("unreadable", f"{count} channels; {_MEASURED}")  # Pillow opens some of them, and can't decode any
    return image


def _pages(image: Image.Image, kind: str) -> int:
    """How many pictures the file holds; a TIFF's thumbnails and pyramid levels are not counted."""
    try:
        pages = int(getattr(image, "n_frames", 1))
        if kind != "TIFF" or pages == 1:
            return pages
        full = 0
        for page in range(pages):
            image.seek(page)
            full += not image.tag_v2.get(254, 0) & 1  # type: ignore[attr-defined]  # NewSubfileType: reduced
        image.seek(0)
        return full
    except Exception as error:
        raise Damage("truncated", words_of(error)) from error


def decode(data: bytes, suffix: str = "", max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode a whole file.

    Args:
        data: the file's bytes.
        suffix: the name's suffix, e.g. ".jpg": content of another format is refused.
        max_pixels: the largest H * W.

    Returns:
        (H, W, 3) uint8 RGB, contiguous and writable.

    Raises:
        Damage: with one of the reasons of `selfseg.data.reading.images`.
    """
    kind = sniff(data[:HEAD], suffix)
    with quiet():
        if kind == "JPEG":
            data = _whole_jpeg(data)
        else:
            _check_whole(data, kind)
        image = open_image(io.BytesIO(data), kind, max_pixels)
        try:
            return _pixels(image, data, kind)
        except Damage:
            raise
        except MemoryError:
            raise
        except Exception as error:
            words = words_of(error)
            reason = "truncated" if "truncated" in words or "Truncated" in words else "unreadable"
            raise Damage(reason, words) from error


def _whole_jpeg(data: bytes) -> bytes:
    """The JPEG up to its end marker; refuse one that has none. Trailing bytes (second pictures, zeros) are dropped."""
    position, components, sequential = 2, 0, False
    while True:
        if data[position : position + 1] != b"\xff" or position + 4 > len(data):
            raise Damage("truncated" if position + 4 > len(data) else "unreadable", "broken JPEG header")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0xD9:
            raise Damage("truncated", "the JPEG ends before its pixels")
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            components = data[position + 9] if position + 9 < len(data) else 0
            sequential = marker in (0xC0, 0xC1)
        if marker == 0xDA:
            break
        position += 2 + max(length, 2)
    # Inside of the compressed pixels every 0xff is followed by 0 or a restart marker, so this is the end marker.
    end = data.find(b"\xff\xd9", position)
    if end < 0:
        raise Damage("truncated", "the JPEG has no end marker")
    one_scan = sequential and position + 4 < len(data) and data[position + 4] == components
    if one_scan:
        return data[:end] + _JPEG_PADDING
    return data[: end + 2]  # a progressive JPEG is decoded only once its end was seen


def _check_whole(data: bytes, kind: str) -> None:
    """Refuse a file that is shorter than it says, or whose check sums are wrong."""
    size = len(data)
    if kind == "PNG":
        for _ in _png_chunks(data):
            pass
    elif kind == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > size:
        raise Damage("truncated", f"{size} of {int.from_bytes(data[4:8], 'little') + 8} bytes")
    elif kind == "BMP" and int.from_bytes(data[2:6], "little") > size:
        raise Damage("truncated", f"{size} of {int.from_bytes(data[2:6], 'little')} bytes")
    elif kind == "GIF" and b"\x3b" not in data[-64:]:
        raise Damage("truncated", "the GIF has no end mark")
    elif kind == "TIFF":
        order = "little" if data[:2] == b"II" else "big"
        big = data[2:4] in (b"+\x00", b"\x00+")
        first = int.from_bytes(data[8:16] if big else data[4:8], order)  # type: ignore[arg-type]
        if first + 2 > size:
            raise Damage("truncated", f"{size} bytes, but the directory is at byte {first}")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks (type, whole chunk) of a PNG that are needed to draw it, their check sums checked."""
    position = 8
    view = memoryview(data)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if name == b"acTL":
            raise Damage("animated", f"{struct.unpack_from('>I', data, position + 8)[0]} frames")
        if name in _PNG_DRAWN:
            expected = struct.unpack_from(">I", data, end - 4)[0]
            if zlib.crc32(view[position + 4 : end - 4]) != expected:
                raise Damage("unreadable", f"wrong check sum in {name.decode()}")
            yield name, data[position:end]
        if name == b"IEND":
            return
        position = end
    raise Damage("truncated", "the PNG has no end chunk")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a broken EXIF block counts as none."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo the EXIF orientation, 1 to 8, of (H, W) or (H, W, C)."""
    if orientation >= 5 and orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _pixels(image: Image.Image, data: bytes, kind: str) -> NDArray[np.uint8]:
    if _deep_colour(image, data, kind):
        return np.ascontiguousarray(upright(_decode_deep(data, kind), orientation(image)))
    return from_pillow(image)


def from_pillow(image: Image.Image) -> NDArray[np.uint8]:
    """What `decode` gives of a file, of the image that Pillow has made of it.

    Only where several channels have more than 8 bits it may differ: Pillow keeps the upper 8.
    """
    jpeg = image.format == "JPEG"
    image.load()  # turns a TIFF upright and forgets its orientation
    turned = orientation(image) if "exif" in image.info or not jpeg else 1
    inverted = jpeg and image.mode == "CMYK" and "adobe" not in image.info
    pixels = _rgb(image)
    if inverted:  # Pillow assumes Adobe's inverted inks in every CMYK JPEG
        pixels = _rgb(Image.frombytes("CMYK", image.size, image.tobytes()).point(lambda value: 255 - value))
    return np.ascontiguousarray(upright(pixels, turned))


def _deep_colour(image: Image.Image, data: bytes, kind: str) -> bool:
    """Whether the file has several channels of more than 8 bits, of which Pillow would keep the upper 8."""
    if kind == "PNG":
        return data[24] == 16 and data[25] in (2, 4, 6)
    if kind == "TIFF":
        bits: Any = image.tag_v2.get(258, (1,))  # type: ignore[attr-defined]
        return isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8
    return False


def _decode_deep(data: bytes, kind: str) -> NDArray[np.uint8]:
    pixels = _deep_values(data, kind)
    alpha = pixels[:, :, 3:4] if pixels.shape[2] == 4 else None
    colour = pixels[:, :, :3] if pixels.shape[2] >= 3 else np.repeat(pixels[:, :, :1], 3, axis=2)
    scaled = to_8_bit(colour)
    if alpha is None:
        return scaled
    top = 1.0 if alpha.dtype.kind == "f" else float(np.iinfo(alpha.dtype).max)
    opacity = alpha.astype(np.float32) / top
    composite: NDArray[np.uint8] = np.rint(scaled * opacity + 255 * (1 - opacity)).astype(np.uint8)
    return composite


def _deep_values(data: bytes, kind: str) -> NDArray[Any]:
    """(H, W, C) of several channels of more than 8 bits: red, green, blue and perhaps alpha."""
    if kind == "PNG":  # without the text and colour chunks, of which OpenCV's reader may complain on the terminal
        data = data[:8] + b"".join(chunk for _, chunk in _png_chunks(data))
    logging: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # before OpenCV 4.13
    level = logging.setLogLevel(0)  # silent
    try:
        pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        logging.setLogLevel(level)
    if pixels is None:
        raise Damage("truncated" if kind == "TIFF" else "unreadable", "the pixels can't be decoded")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]] if pixels.shape[2] >= 3 else pixels


def stored_as(image: Image.Image) -> tuple[int, np.dtype[Any], bool]:
    """Channels, dtype and whether there is alpha, of what `decode_as_stored` gives."""
    mode = image.mode
    alpha = "transparency" in image.info or mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if mode in ("1", "L", "LA", "La"):
        return 1, np.dtype(np.uint8), alpha
    if mode.startswith("I;16"):
        return 1, np.dtype(np.uint16), False
    if mode in ("I", "F"):
        return 1, np.dtype(np.int32 if mode == "I" else np.float32), False
    return 3, np.dtype(np.uint8), alpha


def decode_as_stored(data: bytes, kind: str) -> NDArray[Any]:
    """Decode a whole file without reducing what it holds; call it within `quiet()`.

    Returns:
        (H, W, C) upright, of the channels that `stored_as` names and alpha behind them.

    Raises:
        Damage: as `decode` does.
    """
    if kind == "JPEG":
        data = _whole_jpeg(data)
    else:
        _check_whole(data, kind)
    image = open_image(io.BytesIO(data), kind, MAX_PIXELS)
    if kind == "PNG" and data[24] == 16:
        deep = _deep_values(data, kind)
        if data[25] == 4:  # OpenCV makes colours of gray with alpha
            deep = deep[:, :, [0, -1]]
        return np.ascontiguousarray(upright(deep, orientation(image)))
    channels, dtype, alpha = stored_as(image)
    if channels == 3 and not alpha:
        return from_pillow(image)
    image.load()
    if alpha:
        image = image.convert("RGBA" if channels == 3 else "LA")
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image).astype(dtype)
    return np.ascontiguousarray(upright(pixels if pixels.ndim == 3 else pixels[:, :, None], orientation(image)))


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of any Pillow mode; see the table at the top."""
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if mode in ("L", "1") and "transparency" not in image.info:
        gray = np.array(image.convert("L"))
        return np.repeat(gray[:, :, None], 3, axis=2)
    if mode.startswith("I") or mode == "F":
        gray = to_8_bit(np.array(image))
        return np.repeat(gray[:, :, None], 3, axis=2)
    if "transparency" in image.info or "A" in mode or "a" in mode:
        layers = image.convert("RGBA")
        if layers.getchannel("A").getextrema() != (255, 255):
            layers = Image.alpha_composite(Image.new("RGBA", layers.size, (255, 255, 255, 255)), layers)
        return np.array(layers.convert("RGB"))
    return np.array(image.convert("RGB"))


def to_8_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale deep pixel values to [0, 255] as the table at the top says.

    Args:
        values: any shape; integers or floats.

    Returns:
        uint8 of the same shape.

    Example:
        >>> to_8_bit(np.array([0, 2048, 4095], np.uint16)).tolist()  # 12 bits stored in 16
        [0, 128, 255]
        >>> to_8_bit(np.array([0.0, 0.5, 1.0])).tolist()
        [0, 128, 255]
    """
    floats = values.astype(np.float32)
    floats[~np.isfinite(floats)] = 0
    low, high = float(floats.min()), float(floats.max())
    if low < 0:
        floats, high = floats - low, high - low
        scale = 255 / high if high > 0 else 0.0
    elif values.dtype.kind == "f" and high <= 1:
        scale = 255.0
    else:
        ranges = (2.0**bits - 1 for bits in (8, 10, 12, 14, 16))
        scale = 255 / next((top for top in ranges if high <= top), high)
    scaled: NDArray[np.uint8] = np.rint(floats * scale).astype(np.uint8)
    return scaled


def as_bad_image(path: object, damage: Damage) -> BadImage:
    """The error that callers see."""
    return BadImage(path, damage.reason, damage.detail)
