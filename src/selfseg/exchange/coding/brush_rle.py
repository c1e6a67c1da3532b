"""Label Studio's brush masks: a packed stream of bits.

The form (thi.ng/rle-pack): 32 bits, how many values follow; 5 bits, the bits of a value less 1; four times 4 bits, the
bits of a length less 1. Then for each run a bit 1, two bits that choose one of the four sizes, the length less 1 in so
many bits, and the value. The values are the R, G, B and alpha of each pixel, rows first, 255 where the mask is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIZES = np.array([3, 4, 8, 16])  # bits of a length
_LONGEST = 1 << 16
_CHANNELS = 4


def packed(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The bytes of a mask.

    Args:
        counts: (n,) int64 pixels outside and inside in turn, rows first, see `runs_of`.

    Returns:
        (m,) uint8.
    """
    lengths = counts * _CHANNELS
    inside = np.arange(counts.size) % 2
    pieces = -(-lengths // _LONGEST)  # a longer run than fits becomes several; one of no length becomes none
    last = np.cumsum(pieces) - 1
    part = np.full(int(pieces.sum()), _LONGEST)
    part[last[pieces > 0]] = ((lengths - 1) % _LONGEST + 1)[pieces > 0]
    value = np.repeat(inside, pieces) * 255

    kind = np.searchsorted(1 << _SIZES, part)  # the first size that the length fits
    size = _SIZES[kind]
    code = ((((4 | kind) << size) | (part - 1)) << 8) | value
    width = 3 + size + 8

    head = _bits(np.array([int(lengths.sum()), 7, *(_SIZES - 1)]), np.array([32, 5, 4, 4, 4, 4]))
    return np.packbits(np.concatenate([head, _bits(code, width)]))


def _bits(code: NDArray[np.int64], width: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The lowest `width` bits of each number, highest first, one after the other."""
    number = np.repeat(np.arange(code.size), width)
    place = np.arange(number.size) - np.repeat(np.cumsum(width) - width, width)
    return ((code[number] >> (width[number] - 1 - place)) & 1).astype(np.uint8)
