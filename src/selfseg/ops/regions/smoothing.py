"""Maps smoothed over an image's superpixels: like neighbours agree, and edges are the image's.

The graph is that of manifold ranking (Yang et al., CVPR 2013): two superpixels are joined if they touch or have a
common neighbour, by exp(-d / sigma^2), with d the mean of several distances, each divided by its largest along an edge.

Letters in shapes: N superpixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve
from torch import Tensor

from selfseg.ops.levels import colour_like, fill_void
from selfseg.ops.regions.slic import slic

Array = NDArray[np.float32]

REGIONS = 700
"""About how many superpixels an image gets."""

STRIDE = 4
"""Of a smoothed map, in px: finer than the superpixels."""

_SIGMA_SQUARED = 0.07


def smooth_map(
    values: Array,
    image: NDArray[np.uint8],
    strength: float,
    guides: Sequence[Array] = (),
    rgb: bool = True,
    spacing: int | None = None,
) -> Array:
    """A map whose like neighbours agree: least squares of the change, by area, and of the differences along the graph.

    Half of a distance in the graph is that of the mean colours in CIELAB, half that of the directions of what guides.

    Args:
        values: (D, h, w) float32 of the whole image, on whatever grid.
        image: (H, W, 3) uint8 RGB, or (H, W, C) levels, whose void pixels look as the nearest measured ones do.
        strength: of the graph against what was there; 0 leaves each superpixel its mean.
        guides: (C_i, h_i, w_i) float32 each, say a network's stages; the values themselves if there are none.
        rgb: whether the image is a photograph; of levels the channels take the place of CIELAB's.
        spacing: px between superpixels; None = as many an image as `REGIONS` says.

    Returns:
        (D, ceil(H / 4), ceil(W / 4)) float32, of unit length over D.

    Example:
        >>> image = np.zeros((32, 64, 3), np.uint8)
        >>> image[:, 36:] = 200
        >>> coarse = np.zeros((2, 2, 4), np.float32)  # cells of 16 px
        >>> coarse[0, :, :2], coarse[1, :, 2:] = 1, 1  # the edge is at 32 px, the image's at 36
        >>> smooth_map(coarse, image, 100)[1, 4, 7:10].round().tolist()
        [0.0, 0.0, 1.0]
    """
    height, width = image.shape[:2]
    image = image if rgb else fill_void(image)
    regions = slic(image, size=spacing or natural_spacing(height, width), rgb=rgb)
    areas = np.bincount(regions.ravel())
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) if rgb else colour_like(image)
    colours = np.stack([np.bincount(regions.ravel(), lab[..., c].ravel()) / areas for c in range(lab.shape[2])], 1)
    vectors = pool_map(values, regions)
    unit = _unit(vectors)
    if guides:
        unit = np.concatenate([_unit(_standardised(pool_map(each, regions), areas)) for each in guides], axis=1)
        unit /= math.sqrt(len(guides))
    square = np.square(colours).sum(1)
    colour = np.sqrt(np.maximum(square[:, None] + square - 2 * colours @ colours.T, 0))
    _, near = neighbours(regions)
    graph = affinity(near, (colour, np.maximum(1 - unit @ unit.T, 0)), _SIGMA_SQUARED)
    smoothed = _unit(smooth(graph, areas, vectors, strength).astype(np.float32))
    cells = regions[cell_places(height)[:, None], cell_places(width)]
    return np.ascontiguousarray(smoothed[cells].transpose(2, 0, 1))


def natural_spacing(height: int, width: int) -> int:
    """Of the superpixels of an image of so many px."""
    return max(2, round(math.sqrt(height * width / REGIONS)))


def cell_places(side: int) -> NDArray[np.int64]:
    """The rows, or columns, of a picture that the cells of a smoothed map are taken from, (ceil(side / 4),)."""
    return np.minimum(np.arange(math.ceil(side / STRIDE)) * STRIDE + STRIDE // 2, side - 1)


def smooth_batch(
    values: Tensor,
    image: Tensor,
    strength: float,
    guides: Sequence[Tensor] = (),
    rgb: bool = True,
    spacing: int | None = None,
) -> Tensor:
    """`smooth_map` of each image of a batch: on a CPU one by one, elsewhere all at once (`smoothing_together`).

    Args:
        values: (B, D, h, w) float, on any device.
        image: (B, 3, H, W) float, RGB in [0, 1], or (B, C, H, W) levels / 255.
        strength: as of `smooth_map`.
        guides: (B, C_i, h_i, w_i) float each.
        rgb: as of `smooth_map`.
        spacing: as of `smooth_map`.

    Returns:
        (B, D, ceil(H / 4), ceil(W / 4)) float32, of unit length over D, on the image's device.
    """
    if image.device.type != "cpu":
        from selfseg.ops.regions.smoothing_together import smooth_together

        px = spacing or natural_spacing(image.shape[2], image.shape[3])
        return smooth_together(values, image, strength, guides, rgb, px, STRIDE, _SIGMA_SQUARED)
    maps = [each.float().cpu().numpy() for each in (values, *guides)]
    pixels = np.ascontiguousarray((image * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    smoothed = [
        torch.from_numpy(smooth_map(vectors, seen, strength, beside, rgb, spacing))
        for seen, vectors, *beside in zip(pixels, *maps, strict=True)
    ]
    return torch.stack(smoothed).to(image.device)


def _unit(vectors: Array) -> Array:
    """With unit length: (N, D) to (N, D)."""
    unit: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit


def _standardised(vectors: Array, areas: NDArray[np.integer]) -> Array:
    """With mean 0 and deviation 1 over the image in each channel, so that none outweighs the others: (N, C)."""
    share = (areas / areas.sum()).astype(np.float32)
    centred = vectors - share @ vectors
    scaled: Array = centred / (np.sqrt(share @ np.square(centred)) + np.float32(1e-6))
    return scaled


def neighbours(regions: NDArray[np.integer]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which regions share an edge, and which an edge or a neighbour.

    Args:
        regions: (H, W) ids, dense from 0.

    Returns:
        adjacent, near: (N, N) bool each, symmetric, False on the diagonal.

    Example:
        >>> adjacent, near = neighbours(np.array([[0, 1, 2, 3]]))
        >>> adjacent[0].tolist(), near[0].tolist()
        ([False, True, False, False], [False, True, True, False])
    """
    count = int(regions.max()) + 1
    adjacent = np.zeros((count, count), np.bool_)
    adjacent[regions[:, :-1], regions[:, 1:]] = True
    adjacent[regions[:-1], regions[1:]] = True
    adjacent |= adjacent.T
    np.fill_diagonal(adjacent, False)
    steps = adjacent.astype(np.float32)
    near = adjacent | (steps @ steps > 0)
    np.fill_diagonal(near, False)
    return adjacent, near


def affinity(
    edges: NDArray[np.bool_], distances: Sequence[NDArray[np.floating]], sigma_squared: float
) -> NDArray[np.float64]:
    """The weights of a graph: exp(-d / sigma^2), with d the mean of distances whose largest along an edge is 1.

    Args:
        edges: (N, N) bool, symmetric.
        distances: (N, N) each, at least 0.
        sigma_squared: above 0.

    Returns:
        (N, N) float64, symmetric, 0 without an edge.
    """
    mean = np.zeros(edges.shape)
    for each in distances:
        mean += each / (len(distances) * max(float(each[edges].max(initial=0.0)), 1e-6))
    weights: NDArray[np.float64] = np.exp(-mean / sigma_squared) * edges
    return (weights + weights.T) / 2


def smooth(
    graph: NDArray[np.float64], areas: NDArray[np.number], values: NDArray[np.floating], strength: float
) -> NDArray[np.float64]:
    """Values that change little along a graph: the solution of (strength L + A) x = A values, with L its Laplacian.

    Args:
        graph: (N, N) weights, symmetric.
        areas: (N,) of the regions, in any unit: A has their mean for 1.
        values: (N,) or (N, D).
        strength: of the graph, at least 0.
    """
    share = areas / areas.mean()
    matrix = strength * (np.diag(graph.sum(1)) - graph) + np.diag(share)
    given = (share * values.T).T.astype(np.float64)
    found: NDArray[np.float64] = solve(matrix, given, assume_a="pos", overwrite_a=True, check_finite=False)
    return found


def pool_map(values: Array, regions: NDArray[np.integer]) -> Array:
    """The mean of a coarse map in each region, as if it were brought to the regions' size (bilinear) first.

    Args:
        values: (C, h, w) float32.
        regions: (H, W) ids, dense from 0.

    Returns:
        (N, C) float32.

    Example:
        >>> pool_map(np.array([[[0.0, 1.0]]], np.float32), np.array([[0, 0, 1, 1]])).tolist()
        [[0.125], [0.875]]
    """
    (above, below, down), (left, right, along) = (
        _between(large, small) for large, small in zip(regions.shape, values.shape[1:], strict=True)
    )
    count, cells = int(regions.max()) + 1, values.shape[1] * values.shape[2]
    share = np.zeros(count * cells)  # of each cell in each region
    for row, vertical in ((above, 1 - down), (below, down)):
        for column, horizontal in ((left, 1 - along), (right, along)):
            cell = row[:, None] * values.shape[2] + column[None]
            weight = vertical[:, None] * horizontal[None]
            share += np.bincount((regions * cells + cell).ravel(), weight.ravel(), count * cells)
    share = share.reshape(count, cells)
    share /= share.sum(1, keepdims=True)
    return share.astype(np.float32) @ values.reshape(len(values), cells).T


def _between(large: int, small: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each of `large` places the two of `small` cells that it lies between, and how far on the way."""
    place = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    first = np.minimum(place.astype(np.int64), small - 1)
    return first, np.minimum(first + 1, small - 1), place - first
