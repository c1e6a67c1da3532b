"""How good superpixels are, against a truth of segments.

Measures as in Stutz, Hermans & Leibe, "Superpixels: An Evaluation of the State-of-the-Art", CVIU 2018
(https://arxiv.org/abs/1612.01601), section 5. More superpixels score better in all of them: compare only at equal
numbers.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError

Ids = NDArray[np.integer[Any]]


def _overlaps(regions: Ids, truth: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of a region and a segment that share pixels, as (region, segment, pixels); ids become dense."""
    if regions.shape != truth.shape or regions.ndim != 2 or regions.size == 0:
        raise ConfigError(f"regions and truth must be (H, W) of one size, not {regions.shape} and {truth.shape}")
    _, region = np.unique(regions, return_inverse=True)
    names, segment = np.unique(truth, return_inverse=True)
    pair, pixels = np.unique(region.reshape(-1) * len(names) + segment.reshape(-1), return_counts=True)
    return pair // len(names), pair % len(names), pixels


def boundaries(ids: Ids) -> NDArray[np.bool_]:
    """The pixels whose right or lower neighbour has another id.

    Args:
        ids: (H, W) of any integer dtype.

    Returns:
        (H, W) bool.

    Example:
        >>> boundaries(np.array([[0, 0, 1], [0, 0, 1]])).tolist()
        [[False, True, False], [False, True, False]]
    """
    edge = np.zeros(ids.shape, bool)
    edge[:, :-1] = ids[:, :-1] != ids[:, 1:]
    edge[:-1] |= ids[:-1] != ids[1:]
    return edge


def boundary_recall(regions: Ids, truth: Ids, tolerance: int = 2) -> float:
    """The fraction of the truth's boundary pixels that have a superpixel boundary nearby (Stutz et al., eq. 1).

    Args:
        regions: (H, W) superpixel ids.
        truth: (H, W) segment ids.
        tolerance: how far away a boundary may be, in pixels along each axis.

    Returns:
        A fraction, higher is better; 1 if the truth has no boundary.

    Raises:
        ConfigError: if the sizes differ or the tolerance is negative.
    """
    if regions.shape != truth.shape:
        raise ConfigError(f"regions and truth must be (H, W) of one size, not {regions.shape} and {truth.shape}")
    if tolerance < 0:
        raise ConfigError(f"tolerance must be at least 0 pixels, not {tolerance}")
    wanted = boundaries(truth)
    if not wanted.any():
        return 1.0
    window = np.ones((2 * tolerance + 1, 2 * tolerance + 1), np.uint8)
    found = cv2.dilate(boundaries(regions).astype(np.uint8), window).astype(bool)
    return float(found[wanted].mean())


def undersegmentation_error(regions: Ids, truth: Ids) -> float:
    """How much superpixels reach over the truth's boundaries (Neubert & Protzel 2012; Stutz et al., eq. 3).

    The mean over pixels of min(inside, outside), summed over each segment and the superpixels that touch it, where a
    superpixel has `inside` pixels in the segment and `outside` beyond.

    Args:
        regions: (H, W) superpixel ids.
        truth: (H, W) segment ids.

    Returns:
        0 at best.

    Raises:
        ConfigError: if the sizes differ.

    Example:
        >>> truth = np.array([[0, 0, 0, 1]])
        >>> undersegmentation_error(np.array([[0, 0, 1, 1]]), truth)
        0.5
    """
    region, _, pixels = _overlaps(regions, truth)
    area = np.bincount(region, pixels)
    return float(np.minimum(pixels, area[region] - pixels).sum() / truth.size)


def achievable_segmentation_accuracy(regions: Ids, truth: Ids) -> float:
    """The accuracy if each superpixel got the segment it shares most pixels with (Liu et al. 2011).

    Args:
        regions: (H, W) superpixel ids.
        truth: (H, W) segment ids.

    Returns:
        A fraction of pixels, higher is better.

    Raises:
        ConfigError: if the sizes differ.

    Example:
        >>> achievable_segmentation_accuracy(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 1]]))
        0.75
    """
    region, _, pixels = _overlaps(regions, truth)
    most = np.zeros(region.max() + 1, np.int64)
    np.maximum.at(most, region, pixels)
    return float(most.sum() / truth.size)


def explained_variation(regions: Ids, image: NDArray[Any]) -> float:
    """The fraction of the image's variance that the superpixels' mean colours keep (Moore et al. 2008).

    Args:
        regions: (H, W) superpixel ids.
        image: (H, W, C) of any dtype and range.

    Returns:
        A fraction, higher is better; 1 for an image of one colour.

    Raises:
        ConfigError: if the sizes differ.
    """
    if regions.shape != image.shape[:2] or image.ndim != 3:
        raise ConfigError(f"regions must be (H, W) and image (H, W, C), not {regions.shape} and {image.shape}")
    names, region = np.unique(regions, return_inverse=True)
    region = region.reshape(-1)
    colour = image.reshape(-1, image.shape[2]).astype(np.float64)
    colour -= colour.mean(0)
    total = float((colour**2).sum())
    if total == 0:
        return 1.0
    area = np.bincount(region, minlength=len(names))
    kept = 0.0
    for channel in colour.T:
        kept += float((np.bincount(region, channel, len(names)) ** 2 / area).sum())
    return kept / total
