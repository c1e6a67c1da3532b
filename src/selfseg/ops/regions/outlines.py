"""Outlines of the regions of a label image, along the edges of pixels: they keep every pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Ring = NDArray[np.int32]
"""(n, 2) int32, x and y of corners of pixels, in [0, W] and [0, H]; closed, the first isn't repeated at the end."""

# The sides of a pixel in the order in which its outline is walked (to the right along its top, y pointing down): where
# the side begins, where it leads, and the neighbour behind it.
_START = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.int32)  # x, y
_AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], np.int64)  # x, y
_BEHIND = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)], np.int64)  # x, y


@dataclass(frozen=True)
class Polygon:
    """A region of pixels that touch at their sides.

    Attributes:
        outer: its outline, clockwise on the screen (a positive area by the shoelace formula, as y points down).
        holes: the outlines of its holes, the other way around. Rings touch one another in single corners at most, and
            themselves nowhere, so the polygon is valid in the sense of OGC's Simple Features.
    """

    outer: Ring
    holes: tuple[Ring, ...] = ()


def components(labels: NDArray[Any], ignored: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Regions of equal labels whose pixels touch at their sides (not only at a corner).

    Args:
        labels: (H, W) whole numbers from 0 on.
        ignored: a label that makes no region.

    Returns:
        ids (H, W) int32, 0 = ignored, regions from 1 on: by label, then from the top; and (n + 1,) int64 the label of
        each, `ignored` for 0.

    Example:
        >>> components(np.array([[3, 9, 3], [9, 3, 9]], np.uint8), ignored=9)[0].tolist()
        [[1, 0, 2], [0, 3, 0]]
    """
    ids = np.zeros(labels.shape, np.int32)
    owner = [ignored]
    values = [int(value) for value in np.flatnonzero(np.bincount(labels.reshape(-1))) if value != ignored]
    if not values:
        return ids, np.array(owner)
    dense = np.searchsorted(values, labels) + 1
    dense[labels == ignored] = 0
    for value, window in zip(values, ndimage.find_objects(dense), strict=True):
        inside = labels[window] == value
        count, found = cv2.connectedComponents(inside.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
        ids[window][inside] = found[inside] + (len(owner) - 1)
        owner += [value] * (count - 1)
    return ids, np.array(owner)


def polygons(ids: NDArray[np.int32]) -> list[Polygon]:
    """The outline of each region that `components` found.

    Args:
        ids: (H, W) int32, 0 = none, 1 to n: regions whose pixels touch at their sides.

    Returns:
        n polygons, of region 1 first.

    Example:
        >>> polygons(np.ones((2, 3), np.int32))[0].outer.tolist()
        [[0, 0], [3, 0], [3, 2], [0, 2]]
    """
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for region, area, ring in _rings(ids):
        if area > 0:
            outer[region] = ring
        else:
            holes.setdefault(region, []).append(ring)
    return [Polygon(outer[region], tuple(holes.get(region, ()))) for region in sorted(outer)]


def without_holes(polygon: Polygon, inset: float = 0.0) -> NDArray[np.float64]:
    """One ring that encloses the same pixels: each hole is joined to what lies left of it by a line there and back.

    The line has no width and runs through the middles of pixels of the region, so neither the even-odd nor the winding
    rule sees it. The ring touches itself and is not valid in the sense of OGC's Simple Features.

    Args:
        polygon: of a region.
        inset: how far the outline lies inside of the region's pixels, in [0, .5) pixels. Whoever cuts the fractions off
            has the pixels along the edge then.

    Returns:
        (n, 2) float64 x and y.
    """
    ring = _inset(polygon.outer, inset)
    leftmost = [hole[np.lexsort((hole[:, 1], hole[:, 0]))[0]] for hole in polygon.holes]
    for i in sorted(range(len(leftmost)), key=lambda i: (leftmost[i][0], leftmost[i][1])):
        middle = leftmost[i][1] + 0.5
        hole = _inset(polygon.holes[i], inset)
        edge, x = _edge_beside(hole, middle, np.inf, np.argmin)
        hole = np.roll(hole, -edge - 1, 0)
        start = np.array([[x, middle]])
        edge, x = _edge_beside(ring, middle, x, np.argmax)
        landing = np.array([[x, middle]])
        ring = np.concatenate([ring[: edge + 1], landing, start, hole, start, landing, ring[edge + 1 :]])
    return ring


def _edge_beside(
    ring: NDArray[np.float64], y: float, limit: float, choose: Callable[[NDArray[Any]], np.intp]
) -> tuple[int, float]:
    """Where a ring's upright edge at the height y begins, and its x: that of all up to `limit` that is chosen."""
    after = np.roll(ring, -1, 0)
    low, high = np.minimum(ring[:, 1], after[:, 1]), np.maximum(ring[:, 1], after[:, 1])
    found = np.flatnonzero((ring[:, 0] == after[:, 0]) & (ring[:, 0] <= limit) & (low < y) & (y < high))
    edge = int(found[choose(ring[found, 0])])
    return edge, float(ring[edge, 0])


def _inset(ring: Ring, by: float) -> NDArray[np.float64]:
    """A ring whose every edge is moved to its right, which is where the region is."""
    before, after = np.sign(ring - np.roll(ring, 1, 0)), np.sign(np.roll(ring, -1, 0) - ring)
    step = before + after  # one of them is along x and one along y
    return ring + by * np.stack([-step[:, 1], step[:, 0]], 1)


def _rings(ids: NDArray[np.int32]) -> Iterator[tuple[int, int, Ring]]:
    """(region, twice the area by the shoelace formula, ring) for each simple ring."""
    height, width = ids.shape
    padded = np.zeros((height + 2, width + 2), np.int32)  # one line of nothing around: no index is outside
    padded[1:-1, 1:-1] = ids
    flat, stride = padded.ravel(), width + 2
    step = _AHEAD[:, 1] * stride + _AHEAD[:, 0]
    behind = _BEHIND[:, 1] * stride + _BEHIND[:, 0]

    there = slice(stride + 1, -stride - 1)  # a line further in there is a pixel on every side
    inner = flat[there]
    others = [flat[there.start + offset : flat.size + there.stop + offset] for offset in behind]
    pixels = [np.flatnonzero((inner != other) & (inner != 0)) + there.start for other in others]  # by side
    state = np.concatenate([4 * pixel + side for side, pixel in enumerate(pixels)])
    state.sort()
    pixel, side = state // 4, state % 4
    ahead = pixel + step[side]
    beyond = ahead + behind[side]
    own = flat[pixel]
    # At the end of a side: on along the same pixel, unless the next one is ours too, or also the one at its left.
    turned = 4 * pixel + (side + 1) % 4
    straight = 4 * ahead + side
    back = 4 * beyond + (side + 3) % 4
    following = np.where(flat[ahead] != own, turned, np.where(flat[beyond] != own, straight, back))
    succ = np.searchsorted(state, following)
    is_corner = np.zeros(len(state), bool)
    is_corner[succ[following != straight]] = True

    y, x = np.divmod(pixel, stride)
    point = np.stack([x - 1, y - 1], 1).astype(np.int32) + _START[side]
    loops = _walk(
        succ.tolist(), is_corner.tolist(), (point[:, 1].astype(np.int64) * (width + 1) + point[:, 0]).tolist()
    )
    if not loops:
        return
    order = np.concatenate([np.array(loop) for loop in loops])
    ends = np.cumsum([len(loop) for loop in loops])
    starts = np.append(0, ends[:-1])
    x, y = point[order].astype(np.int64).T
    after = np.arange(1, order.size + 1)
    after[ends - 1] = starts
    areas = np.add.reduceat(x * y[after] - x[after] * y, starts)
    regions, rings = own[order[starts]].tolist(), np.split(point[order], ends[:-1])
    yield from zip(regions, areas.tolist(), rings, strict=True)


def _walk(succ: list[int], is_corner: list[bool], place: list[int]) -> list[list[int]]:
    """The corners of each simple ring.

    Args:
        succ: what follows each side of a pixel.
        is_corner: whether the outline turns where a side begins.
        place: where a side begins, as a number.
    """
    loops: list[list[int]] = []
    seen = bytearray(len(succ))
    for first in range(len(succ)):
        if seen[first]:
            continue
        path: list[int] = []  # of the ring that is being walked
        at: dict[int, int] = {}  # where in it each corner is
        here = first
        while not seen[here]:
            seen[here] = 1
            if is_corner[here]:
                if (before := at.get(place[here])) is not None:  # it touches itself here: what lies between is a ring
                    loop, path[before:] = path[before:], []
                    loops.append(loop)
                    for one in loop:
                        del at[place[one]]
                at[place[here]] = len(path)
                path.append(here)
            here = succ[here]
        loops.append(path)
    return loops
