"""Segments of an image at every size: its regions, joined as far as a person wants."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfseg.ops.regions.region_tree import cut_regions


def cut(tree: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """The segment of each region when an image is cut into so many; more than regions: each region is one.

    Args:
        tree: (n - 1, 3), see `selfseg.ops.regions.region_tree`.
        count: segments.

    Returns:
        (n,) int64 numbers from 0.
    """
    return cut_regions(tree, min(max(count, 1), len(tree) + 1))
