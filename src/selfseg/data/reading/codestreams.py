"""What a compressed picture inside of a file claims to be, before it is decoded: JPEG, JPEG 2000 and others."""

from __future__ import annotations

import struct

from selfseg.data.reading.sniffing import Damage


def jpeg_size(data: bytes) -> tuple[int, int, int, int] | None:
    """(height, width, components, bits) of a JPEG's frame header; None if there is none.

    Example:
        >>> jpeg_size(bytes.fromhex("ffd8 ffc0 000b 08 0010 0020 01 011100"))
        (16, 32, 1, 8)
    """
    position = 2
    while position + 10 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:  # F7: JPEG-LS
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            return height, width, components, bits
        if marker == 0xDA or marker == 0xD9:
            return None
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    return None


def jpeg2000_size(data: bytes) -> tuple[int, int, int, int] | None:
    """(height, width, components, bits) of a JPEG 2000 codestream or file; None if there is none.

    Source: ISO/IEC 15444-1, A.5.1: the marker SIZ follows the start of the codestream at once.
    """
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or start + 43 > len(data):
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    return bottom - top, right - left, components, (data[start + 42] & 0x7F) + 1


def check_codestream(data: bytes, jpeg: bool, jpeg2000: bool, most: int) -> None:
    """Refuse a tile whose own header claims far more than the tile holds.

    Args:
        data: the compressed bytes.
        jpeg: whether it is a JPEG.
        jpeg2000: whether it is a JPEG 2000.
        most: bytes that it may have once it is decoded.

    Raises:
        Damage: "too-large", or "unreadable" if other codecs were handed too much.
    """
    found = jpeg_size(data) if jpeg else jpeg2000_size(data) if jpeg2000 else None
    if found is not None:
        height, width, components, bits = found
        size = height * width * components * (1 if bits <= 8 else 2 if bits <= 16 else 4)
        if size > most:
            raise Damage("too-large", f"a tile claims {width}x{height} pixels of {components} channels of its own")
    elif len(data) > 1 << 30:
        raise Damage("too-large", f"a tile of {len(data)} bytes")


def check_whole_jpeg2000(data: bytes) -> None:
    """Refuse a JPEG 2000 that was cut short: boxes that end beyond the file, or no end of the codestream.

    Raises:
        Damage: "truncated".
    """
    position, size, end = 0, len(data), len(data)
    if data[:4] != b"\xff\x4f\xff\x51":
        while position + 8 <= size:
            length, kind = struct.unpack_from(">I4s", data, position)
            if length == 1 and position + 16 <= size:
                (length,) = struct.unpack_from(">Q", data, position + 8)
            following = size if length == 0 else position + max(8, length)
            if following > size:
                raise Damage("truncated", f"{size} of {following} bytes")
            if kind == b"jp2c":
                end = following
            position = following
    if b"\xff\xd9" not in data[max(0, end - 16) : end]:
        raise Damage("truncated", "the JPEG 2000 has no end marker")
