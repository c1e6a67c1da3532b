"""COCO's compressed run lengths: text in which each count is some characters of 6 bits.

The form (pycocotools' maskApi, rleToString): counts from the fourth on are kept as the difference to the count two
before; a number is cut into groups of 5 bits from the lowest, with a sixth bit where another group follows, and 48 is
added. Our text is, character for character, what pycocotools makes; this one goes through an image once for all
classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def compressed(counts: NDArray[np.int64]) -> str:
    """The text of the runs of a mask, columns first.

    Args:
        counts: (n,) int64, see `runs_of`.

    Example:
        >>> compressed(np.array([0, 4, 100, 3]))
        '04T3O'
    """
    left = counts.copy()
    left[3:] -= counts[1:-2]
    characters, places = [], []
    at = np.arange(left.size)
    for group in range(14):  # 64 bits
        bits = left & 31
        left = left >> 5
        more = np.where(bits & 16, left != -1, left != 0)
        characters.append(bits + 32 * more + 48)
        places.append(at * 14 + group)
        left, at = left[more], at[more]
        if not left.size:
            break
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(characters)[order].astype(np.uint8).tobytes().decode("ascii")
