"""Region contrast: how much a region's colours differ from those of all others, the near ones above all.

Cheng, Mitra, Huang, Torr, Hu, "Global Contrast Based Salient Region Detection", TPAMI 2015
(https://doi.org/10.1109/TPAMI.2014.2345401), first in CVPR 2011: contrast between the colour histograms of regions,
weighed by distance, size and a centre prior; then saliency is smoothed over like colours.

Deviations, and why:
- Regions are our superpixels, merged by the graph-based criterion that makes the paper's regions from pixels
  (Felzenszwalb, Huttenlocher, IJCV 2004). Unmerged, a large object has no contrast with itself and vanishes (F .66
  against .74 on 71 images of bags).
- Colours are cells of CIELAB of 100/12 a side, not 12 levels of each of R, G and B.
- What touches the frame is held down by how much of it lies there, in place of the paper's border regions of its own
  segmentation: F .73 to .76.
- `enhance` ends it, as all priors here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfseg.masks.priors.scene import Array, Scene, distances, enhance

_LEVEL = 100 / 12  # side of a cell of CIELAB
_COVERED = 0.95  # share of pixels whose colours are kept
_MERGE = 0.4  # Felzenszwalb's k in units of CIELAB, for sizes that are shares of the image
_SPACE_SQUARED = 0.4  # sigma_s^2
_CENTRE = 9.0
_FRAME = 0.1  # sigma, share of the frame
_LIKE = 4  # colours are smoothed over the nearest 1/4 of all


def quantise(scene: Scene) -> tuple[NDArray[np.int64], Array]:
    """The image in its most frequent colours.

    Returns:
        which: (h, w) int64, the colour of each pixel.
        palette: (C, 3) float32 CIELAB, the mean of the pixels of each colour.
    """
    channels = scene.lab.shape[2]
    if channels == 3:  # measured channels are at least 0, and fit, too
        cell = ((scene.lab + np.array((0, 128, 128), np.float32)) / np.float32(_LEVEL)).astype(np.int32)
        key = (cell[..., 0] * 32 + cell[..., 1]) * 32 + cell[..., 2]  # a and b give up to 30
    else:
        cell = (scene.lab / np.float32(_LEVEL)).astype(np.int32)
        key = np.unique(cell.reshape(-1, channels), axis=0, return_inverse=True)[1].reshape(cell.shape[:2])
    count = np.bincount(key.ravel())
    present = np.flatnonzero(count)
    # (P, channels)
    sums = np.stack([np.bincount(key.ravel(), scene.lab[..., c].ravel())[present] for c in range(channels)], 1)
    count = count[present]
    order = np.argsort(-count, kind="stable")
    frequent = order[: int(np.searchsorted(np.cumsum(count[order]), _COVERED * key.size)) + 1]
    mean = sums / count[:, None]
    nearest = np.square(mean[:, None] - mean[frequent]).sum(2).argmin(1)  # rare colours join the nearest frequent one
    lookup = np.zeros(key.max() + 1, np.int64)
    lookup[present] = nearest
    total = np.stack([np.bincount(nearest, sums[:, c], len(frequent)) for c in range(channels)], 1)
    palette = total / np.bincount(nearest, count, len(frequent))[:, None]
    return lookup[key], palette.astype(np.float32)


def merge(scene: Scene, scale: float = _MERGE) -> NDArray[np.int64]:
    """Superpixels merged into regions: two join where their edge is no larger than what both hold inside.

    Args:
        scene: N superpixels.
        scale: larger values give larger regions.

    Returns:
        (N,) int64, the region of each superpixel, dense from 0.
    """
    one, other = np.nonzero(np.triu(scene.adjacent))
    length = distances(scene.colours)[one, other]
    parent = list(range(len(scene.areas)))
    size = scene.areas.tolist()
    inside = [0.0] * len(parent)

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for edge in np.argsort(length, kind="stable").tolist():
        a, b, d = find(int(one[edge])), find(int(other[edge])), float(length[edge])
        if a != b and d <= min(inside[a] + scale / size[a], inside[b] + scale / size[b]):
            parent[b], size[a], inside[a] = a, size[a] + size[b], d
    regions: NDArray[np.int64] = np.unique([find(node) for node in range(len(parent))], return_inverse=True)[1]
    return regions


def contrast(scene: Scene) -> Array:
    """Saliency by region contrast: (h, w) float32 in [0, 1]. R regions and C colours below."""
    which, palette = quantise(scene)
    region = merge(scene)
    area = np.bincount(region, scene.areas)  # (R,)

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.bincount(region, scene.areas * values) / area
        return total

    pairs = np.bincount((region[scene.regions] * len(palette) + which).ravel(), minlength=len(area) * len(palette))
    pairs = pairs.reshape(len(area), len(palette))  # (R, C) pixels
    histogram = pairs / pairs.sum(1, keepdims=True)
    between = distances(palette)
    colour = histogram @ between @ histogram.T  # (R, R)
    centres = np.stack([mean(scene.centres[:, c]) for c in range(2)], 1)
    weight = np.exp(-distances(centres.astype(np.float32)) / _SPACE_SQUARED) * area
    np.fill_diagonal(weight, 0)  # a region has no contrast with itself
    middle = np.array(scene.regions.shape[::-1]) / (2 * max(scene.regions.shape))
    prior = np.exp(-_CENTRE * mean(np.square(scene.centres - middle).sum(1)))
    at_frame = np.bincount(region, scene.at_frame) / scene.at_frame.sum()
    saliency = (weight * colour).sum(1) * prior * np.exp(-np.square(at_frame / _FRAME) / 2)
    smooth = _smooth_over_colours((pairs * saliency[:, None]).sum(0) / pairs.sum(0), between)
    return scene.spread(enhance((saliency + histogram @ smooth)[region]))


def _smooth_over_colours(saliency: NDArray[np.float64], between: Array) -> NDArray[np.float64]:
    """Each colour's saliency as the mean over the nearest colours, weighed by nearness: (C,) from (C,) and (C, C)."""
    number = max(2, len(saliency) // _LIKE)
    if len(saliency) < number:
        return saliency
    nearest = np.argsort(between, axis=1, kind="stable")[:, :number]
    distance = np.take_along_axis(between, nearest, 1).astype(np.float64)
    weight = distance.sum(1, keepdims=True) - distance
    smooth: NDArray[np.float64] = (weight * saliency[nearest]).sum(1) / np.maximum(weight.sum(1), 1e-9)
    return smooth
