"""The compiled CPU kernels of the saliency priors; imported on the first call only, as `slic_cpu` is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfseg.ops.kernels.slic_cpu import compiled


@compiled("void(f4[:,::1])")
def shortest_paths(distance: NDArray[np.float32]) -> None:
    """Shortest paths between all pairs of nodes, in place (Floyd 1962).

    Args:
        distance: (N, N) lengths of edges, symmetric, 0 on the diagonal, infinite where there is no edge.
    """
    n = distance.shape[0]
    through = np.empty(n, np.float32)
    for k in range(n):
        through[:] = distance[k]
        for i in range(n):
            first = distance[i, k]
            if first < np.inf:
                row = distance[i]
                for j in range(n):
                    detour = first + through[j]
                    old = row[j]
                    row[j] = detour if detour < old else old


@compiled("void(f4[:,::1], f4[:,::1], i8)")
def barrier_distance(values: NDArray[np.float32], distance: NDArray[np.float32], passes: int) -> None:
    """Minimum barrier distance to the image's frame by raster scans (Zhang et al. 2015, algorithm 1).

    The barrier of a path is its largest value minus its smallest. Each pixel keeps the extremes of the best path found
    so far; odd passes look at the left and the upper neighbour, even ones at the right and the lower one.

    Args:
        values: (H, W), one channel.
        distance: (H, W), filled; 0 on the frame. Never below the true distance.
        passes: the paper takes 3.
    """
    height, width = values.shape
    high, low = values.copy(), values.copy()
    for y in range(height):
        for x in range(width):
            frame = y == 0 or x == 0 or y == height - 1 or x == width - 1
            distance[y, x] = np.float32(0) if frame else np.float32(np.inf)
    for scan in range(passes):
        step = 1 if scan % 2 == 0 else -1
        y = 1 if step == 1 else height - 2
        while 0 < y < height - 1:
            x = 1 if step == 1 else width - 2
            while 0 < x < width - 1:
                value, best = values[y, x], distance[y, x]
                for side in range(2):
                    v, u = (y - step, x) if side == 0 else (y, x - step)
                    top = value if value > high[v, u] else high[v, u]
                    bottom = value if value < low[v, u] else low[v, u]
                    if distance[v, u] < np.inf and top - bottom < best:
                        best = top - bottom
                        high[y, x], low[y, x] = top, bottom
                distance[y, x] = best
                x += step
            y += step


@compiled("void(f4[:,::1], f4[:,::1])")
def reconstruct(marker: NDArray[np.float32], mask: NDArray[np.float32]) -> None:
    """Morphological reconstruction by dilation, in place: `marker` grows under `mask` until nothing changes.

    8-connected, in alternating raster scans (Vincent 1993, "sequential reconstruction").

    Args:
        marker: (H, W), nowhere above `mask`.
        mask: (H, W).
    """
    height, width = mask.shape
    changed = True
    while changed:
        changed = False
        for step in (1, -1):
            y = 0 if step == 1 else height - 1
            while 0 <= y < height:
                x = 0 if step == 1 else width - 1
                while 0 <= x < width:
                    best = marker[y, x]
                    before = y - step
                    if 0 <= before < height:
                        for u in range(max(x - 1, 0), min(x + 2, width)):
                            if marker[before, u] > best:
                                best = marker[before, u]
                    if 0 <= x - step < width and marker[y, x - step] > best:
                        best = marker[y, x - step]
                    if best > mask[y, x]:
                        best = mask[y, x]
                    if best > marker[y, x]:
                        marker[y, x] = best
                        changed = True
                    x += step
                y += step
