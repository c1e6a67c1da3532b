"""Object proposals by hierarchical segmentation: superpixels merged bottom-up into several objects of an image.

Van Gansbeke et al., "Unsupervised Semantic Segmentation by Contrasting Object Mask Proposals", ICCV 2021, compare such
proposals with saliency (table 2a). Nothing here asks what stands out: a proposal is a region that hangs together and
does not run out of the image.

Neighbours are merged in the order of

    cost(a, b) = 2 A_a A_b / (A_a + A_b) * |c_a - c_b| * e_ab

with A the share of the image, c the mean CIELAB colour, and e the mean difference in colour across their common border,
of the superpixels there. The first two factors are Ward's (1963), the increase of the squared error, which takes the
small ones first; the border's strength in place of the second |c_a - c_b| lets what changes gradually, as a sky, stay
one, after Arbelaez et al. (TPAMI 2011), whose detector of contours learns from labels and is therefore no choice here.

The segments at the level `CUT` are the proposals, without those that hang on the frame: with a boundary connectivity
(length on the frame over the root of the area, Zhu et al., CVPR 2014) from `FRAME` on they are background.

Letters in shapes: N superpixels, E pairs of neighbours.
"""

from __future__ import annotations

import heapq

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError
from selfseg.masks.priors.scene import Scene, look_at, picture_inside, shrink
from selfseg.ops.levels import fill_void, measured

CUT = 25.0
"""The largest cost of a merger, in squared units of CIELAB: two halves of an image that differ by 7 cost 24.5."""

FRAME = 1.0
"""From which boundary connectivity on a segment is background; a square that fills the image has 4."""

VERSION = 1
"""Raised whenever the same image would get other proposals."""

Ids = NDArray[np.int64]


def proposals(image: NDArray[np.uint8], cut: float = CUT, frame: float = FRAME, rgb: bool = True) -> NDArray[np.int32]:
    """Several objects of an image.

    Args:
        image: (H, W, 3) uint8 RGB, any size from 1 x 1, or (H, W, C) levels; looked at with a longer side of 400 px.
        cut: the largest cost of a merger, >= 0; larger values give fewer and larger objects.
        frame: the boundary connectivity from which on a segment is background, > 0.
        rgb: whether the image is a photograph; False for levels of measured channels.

    Returns:
        (H, W) int32: 0 = background, or void, objects from 1 on, the largest first.

    Raises:
        ConfigError: for another array, or values that can't work.

    Example:
        >>> image = np.full((60, 80, 3), 90, np.uint8)
        >>> image[10:40, 10:30], image[20:50, 45:70] = (220, 60, 30), (40, 80, 220)
        >>> ids = proposals(image)
        >>> [int(ids[y, x]) for y, x in ((2, 2), (25, 20), (35, 55))]
        [0, 2, 1]
    """
    if not cut >= 0 or not frame > 0:
        raise ConfigError(f"cut {cut} must be at least 0 and frame {frame} above 0, e.g. {CUT} and {FRAME}")
    whole = shrink(image, rgb=rgb)
    there = None if rgb else measured(whole)
    whole = whole if there is None else fill_void(whole)
    inside = picture_inside(whole)
    scene = look_at(np.ascontiguousarray(whole[inside]), rgb=rgb)
    ids = np.zeros(whole.shape[:2], np.int32)
    ids[inside] = _objects(merge(scene, cut)[scene.regions], frame)
    if there is not None:
        ids[~there] = 0
    if ids.shape != image.shape[:2]:
        ids = np.asarray(cv2.resize(ids, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.int32)
    return ids


def merge(scene: Scene, cut: float) -> Ids:
    """Merge superpixels until the cheapest merger costs more than `cut`.

    Args:
        scene: N superpixels.
        cut: see `CUT`; infinite merges all.

    Returns:
        (N,) int64, the segment of each superpixel, dense from 0.
    """
    pairs, length = borders(scene.regions)
    area, colour = scene.areas.tolist(), [tuple(c) for c in scene.colours.astype(np.float64).tolist()]
    count = len(area)
    parent = list(range(count))  # of superpixels, then of what they are merged into
    around: list[dict[int, tuple[float, float]]] = [{} for _ in range(count)]  # neighbour: border, border * strength
    for (a, b), border in zip(pairs.tolist(), length.tolist(), strict=True):
        around[a][b] = around[b][a] = border, border * _far(colour[a], colour[b])
    heap: list[tuple[float, int, int]] = []

    def offer(a: int, b: int) -> None:
        border, strength = around[a][b]
        ward = 2 * area[a] * area[b] / (area[a] + area[b]) * _far(colour[a], colour[b])
        heapq.heappush(heap, (ward * strength / border, a, b))

    for a, b in pairs.tolist():
        offer(a, b)
    while heap:
        cost, a, b = heapq.heappop(heap)
        if cost > cut:
            break
        if parent[a] != a or parent[b] != b:
            continue
        new, total = len(parent), area[a] + area[b]
        parent[a] = parent[b] = new
        parent.append(new)
        area.append(total)
        colour.append(tuple((area[a] * x + area[b] * y) / total for x, y in zip(colour[a], colour[b], strict=True)))
        around.append({})
        for old in (a, b):
            for other, (border, strength) in around[old].items():
                if other not in (a, b):
                    has = around[new].get(other, (0.0, 0.0))
                    around[new][other] = around[other][new] = has[0] + border, has[1] + strength
                    del around[other][old]
        for other in around[new]:
            offer(other, new)
    for node in range(len(parent) - 1, -1, -1):  # a parent comes after its children
        parent[node] = parent[parent[node]]
    segments: Ids = np.unique(parent[:count], return_inverse=True)[1].astype(np.int64)
    return segments


def borders(regions: NDArray[np.integer]) -> tuple[Ids, Ids]:
    """Neighbouring regions and how long their common border is.

    Args:
        regions: (h, w) ids, dense from 0.

    Returns:
        pairs: (E, 2) int64, the lower id first, ascending.
        length: (E,) int64, in pixel edges.

    Example:
        >>> pairs, length = borders(np.array([[0, 0, 1], [0, 2, 2]]))
        >>> pairs.tolist(), length.tolist()
        ([[0, 1], [0, 2], [1, 2]], [1, 2, 1])
    """
    one = np.concatenate([regions[:, :-1].ravel(), regions[:-1].ravel()]).astype(np.int64)
    other = np.concatenate([regions[:, 1:].ravel(), regions[1:].ravel()]).astype(np.int64)
    differ = one != other
    one, other = one[differ], other[differ]
    count = int(regions.max()) + 1
    keys, length = np.unique(np.minimum(one, other) * count + np.maximum(one, other), return_counts=True)
    return np.stack([keys // count, keys % count], 1), length


def connectivity(segments: NDArray[np.integer]) -> NDArray[np.float64]:
    """How much segments hang on the frame: (S,) length on it over the root of the area, free of the image's size."""
    height, width = segments.shape
    count = int(segments.max()) + 1
    sides = np.zeros(count)
    for line in (segments[0], segments[-1]):
        sides += np.bincount(line, minlength=count) / width
    for line in (segments[:, 0], segments[:, -1]):
        sides += np.bincount(line, minlength=count) / height
    result: NDArray[np.float64] = sides / np.sqrt(np.bincount(segments.ravel(), minlength=count) / segments.size)
    return result


def _objects(segments: Ids, frame: float) -> NDArray[np.int32]:
    """Segments to ids of objects, the largest 1; 0 for those that hang on the frame."""
    size = np.bincount(segments.ravel())
    objects = connectivity(segments) < frame
    order = np.argsort(-size, kind="stable")
    order = order[objects[order]]
    ids = np.zeros(len(size), np.int32)
    ids[order] = np.arange(1, len(order) + 1)
    return np.asarray(ids[segments], np.int32)


def _far(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return float(sum((x - y) ** 2 for x, y in zip(one, other, strict=True)) ** 0.5)
