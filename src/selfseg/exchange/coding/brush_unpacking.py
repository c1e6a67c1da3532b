"""The way back from Label Studio's brush masks; `brush_rle` has the form.

A packed stream may also hold pieces that are no runs: a bit 0, two bits that choose a size, the number of values less
1, and the values themselves. Only the fourth channel, alpha, says where the mask is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.shapes import BadOutline, as_array

_CHANNELS = 4
_INSIDE = 128  # of an alpha of 255; brushes may have soft edges


def unpacked(stream: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask in a packed stream.

    Args:
        stream: a list of bytes.
        size: (H, W) of the image.

    Returns:
        (H, W) bool.

    Raises:
        BadOutline: if it is no such stream, or one of another size.
    """
    numbers = as_array(stream)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not numbers.size or not _are_bytes(numbers):
        raise BadOutline("its rle is no list of bytes")
    data = numbers.astype(np.uint8).tobytes() + bytes(8)
    end = 8 * numbers.size
    total = int.from_bytes(data[:4], "big")
    wanted = _CHANNELS * size[0] * size[1]
    if total != wanted:
        raise BadOutline(
            f"its rle holds {total} values, but an image of {size[1]}x{size[0]} pixels has {wanted} in its channels"
        )
    head = int.from_bytes(data[4:8], "big")
    word = (head >> 27) + 1
    sizes = [((head >> (23 - 4 * i)) & 15) + 1 for i in range(4)]
    at, done = 32 + 5 + 16, 0
    lengths: list[int] = []
    values: list[int] = []
    while done < total:
        ahead = int.from_bytes(data[at >> 3 : (at >> 3) + 8], "big") << (at & 7)  # 57 bits or more
        is_run, bits = ahead >> 63 & 1, sizes[ahead >> 61 & 3]
        count = (ahead >> (61 - bits) & ((1 << bits) - 1)) + 1
        at += 3 + bits
        if is_run:
            lengths.append(count)
            values.append(ahead >> (61 - bits - word) & ((1 << word) - 1))
            at += word
        else:
            literal = _literal(data, at, count, word)
            lengths += [1] * len(literal)
            values += literal
            at += word * count
        done += count
        if at > end:
            raise BadOutline("its rle ends in the middle of the mask")
        if done > total:
            raise BadOutline("its rle is longer than the mask")
    every = np.repeat(np.array(values, np.uint32), lengths)
    return np.asarray(every[_CHANNELS - 1 :: _CHANNELS].reshape(size) >= _INSIDE)


def _are_bytes(numbers: NDArray[Any]) -> bool:
    return int(numbers.min()) >= 0 and int(numbers.max()) <= 255


def _literal(data: bytes, at: int, count: int, word: int) -> list[int]:
    """`count` values of `word` bits from bit `at`; fewer where the data ends."""
    first, last = at >> 3, (at + count * word + 7) >> 3
    bits = np.unpackbits(np.frombuffer(data[first:last], np.uint8))[at & 7 :]
    whole = bits[: bits.size // word * word].reshape(-1, word)[:count]
    found: list[int] = (whole.astype(np.int64) @ (1 << np.arange(word - 1, -1, -1))).tolist()
    return found
