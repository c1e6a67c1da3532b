"""The merge tree of an image's regions, compiled for the CPU; `selfseg.ops.regions.region_tree` calls it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.ops.kernels.slic_cpu import compiled


@compiled("float32(float32[:, ::1], float32[::1], int64, int64)")
def _loss(features: NDArray[Any], areas: NDArray[Any], a: int, b: int) -> Any:
    """What joining two regions adds to the sum of squares (Ward)."""
    square = np.float32(0)
    for f in range(features.shape[1]):
        difference = features[a, f] - features[b, f]
        square += difference * difference
    return square * areas[a] * areas[b] / (areas[a] + areas[b])


@compiled("void(float32[:, ::1], float32[::1], int64[:, ::1], float32[:, ::1])")
def merge_neighbours(features: NDArray[Any], areas: NDArray[Any], edges: NDArray[Any], tree: NDArray[Any]) -> None:
    """Join the two neighbours that lose least, until one region is left.

    Args:
        features: (n, F) float32; overwritten.
        areas: (n,) float32, above 0; overwritten.
        edges: (E, 2) int64 of neighbours; overwritten. They connect all regions.
        tree: (n - 1, 3) float32, written: the two that are joined, as 0 to n - 1 or n + number of the merge, and the
            loss.
    """
    count, width = features.shape
    stands_for = np.arange(count)
    cost = np.empty(len(edges), np.float32)
    for e in range(len(edges)):
        cost[e] = _loss(features, areas, edges[e, 0], edges[e, 1])
    highest = np.float32(0)
    alive = len(edges)
    for merge in range(count - 1):
        best = 0
        for e in range(1, alive):
            if cost[e] < cost[best]:
                best = e
        kept, gone = edges[best, 0], edges[best, 1]
        highest = max(highest, cost[best])
        tree[merge, 0], tree[merge, 1] = (
            min(stands_for[kept], stands_for[gone]),
            max(stands_for[kept], stands_for[gone]),
        )
        tree[merge, 2] = highest
        total = areas[kept] + areas[gone]
        for f in range(width):
            features[kept, f] = (areas[kept] * features[kept, f] + areas[gone] * features[gone, f]) / total
        areas[kept] = total
        stands_for[kept] = count + merge
        e = 0
        while e < alive:
            a, b = edges[e, 0], edges[e, 1]
            if a == gone:
                a = kept
            if b == gone:
                b = kept
            if a == b:  # inside of the new region: the last edge takes its place
                alive -= 1
                edges[e, 0], edges[e, 1], cost[e] = edges[alive, 0], edges[alive, 1], cost[alive]
                continue
            edges[e, 0], edges[e, 1] = a, b
            if a == kept or b == kept:
                cost[e] = _loss(features, areas, a, b)
            e += 1
