"""The permutohedral lattice that the kernels of `selfseg.ops.crf` share: its dimensions, and how a vertex is packed."""

from __future__ import annotations

from functools import cache

import numpy as np

D = 5  # x, y, red, green, blue
FIELD, LOW = 12, 3  # bits of a packed coordinate, and of the remainder
HALF = 1 << (FIELD - 1)

_HASHED_LOW = 8  # bits of the remainder of a vertex in other dimensions


@cache
def packing(dimensions: int) -> tuple[tuple[int, ...], int]:
    """How the coordinates of a vertex become one number: the sum of each times its factor, modulo 2^64, and remainder.

    In five dimensions every coordinate has bits of its own. In more there are too few bits: the factors are random odd
    numbers there, and two vertices of an image of a million have the same number about once in 10^5 images.

    Returns:
        The factor of each coordinate, and how many of the low bits are the remainder's.

    Example:
        >>> factors, low = packing(5)
        >>> [factor.bit_length() - 1 for factor in factors], low
        ([51, 39, 27, 15, 3], 3)
    """
    if dimensions == D:
        return tuple(1 << (LOW + FIELD * (D - 1 - i)) for i in range(D)), LOW
    drawn = np.random.default_rng((18, dimensions)).integers(0, 2**54, dimensions, np.int64)
    return tuple((2 * int(each) + 1) << _HASHED_LOW for each in drawn), _HASHED_LOW
