"""A tree over an image's regions: neighbours that are most alike are joined first, until one region is left.

What joining two regions costs is what it adds to the sum of squared differences from the regions' means (Ward, 1963),
so that small regions join before large ones that differ as much.

Letters in shapes: n regions of an image, F features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError


def region_tree(
    regions: NDArray[np.integer], features: NDArray[np.floating], areas: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Join neighbours until one region is left.

    Args:
        regions: (H, W) ids 0 to n - 1, each of them there.
        features: (n, F), by which regions differ.
        areas: (n,) above 0.

    Returns:
        (n - 1, 3) float32, in order: the two that are joined, each as a region 0 to n - 1 or as n + the number of the
        merge that made it, and the highest cost so far.

    Example:
        >>> region_tree(np.array([[0, 1, 2]]), np.array([[0.0], [0.1], [1.0]]), np.ones(3))[:, :2].tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """
    count = len(areas)
    tree = np.zeros((max(count - 1, 0), 3), np.float32)
    if count > 1:
        from selfseg.ops.kernels.region_tree import merge_neighbours  # compiling takes seconds, once

        merge_neighbours(
            np.ascontiguousarray(features, np.float32).copy(),
            np.ascontiguousarray(areas, np.float32).copy(),
            _edges(regions, count),
            tree,
        )
    return tree


def cut_regions(tree: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """The regions' groups when so many are left; fewer groups are unions of more.

    Args:
        tree: (n - 1, 3) of `region_tree`.
        count: groups, from 1 to n.

    Returns:
        (n,) int64 numbers of the groups, from 0 in the order of their first region.

    Raises:
        ConfigError: for another count.

    Example:
        >>> cut_regions(np.array([[0, 1, 0.1], [2, 3, 1.0]]), 2).tolist()
        [0, 0, 1]
    """
    n = len(tree) + 1
    if not 1 <= count <= n:
        raise ConfigError(f"{n} regions are cut into 1 to {n} groups, not {count}")
    merges = n - count
    above = np.arange(2 * n - 1)
    pairs = tree[:merges, :2].astype(np.int64)
    above[pairs] = n + np.arange(merges)[:, None]
    while True:  # each turn doubles the way up
        higher = above[above]
        if (higher == above).all():
            break
        above = higher
    _, first, group = np.unique(above[:n], return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    found: NDArray[np.int64] = order[group]
    return found


def _edges(regions: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """(E, 2) pairs of regions that touch, once each, the smaller first."""
    pairs = [
        np.stack([one.ravel(), two.ravel()], 1)
        for one, two in ((regions[:, :-1], regions[:, 1:]), (regions[:-1], regions[1:]))
    ]
    both = np.concatenate(pairs).astype(np.int64)
    both = both[both[:, 0] != both[:, 1]]
    codes = np.unique(both.min(1) * count + both.max(1))
    return np.ascontiguousarray(np.stack(np.divmod(codes, count), 1))
