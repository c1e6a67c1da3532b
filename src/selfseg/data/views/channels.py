"""Appearance changes of measured channels, where `selfseg.data.views.augment` changes colours.

Each works on every channel by itself, with the same factor for all: brightness, contrast about the channel's own mean,
solarisation, noise. Blur mixes measured pixels only. There is no hue, no saturation and no gray, since channels are no
colours; their random numbers are drawn all the same (`augment.jitter`).

Level 0 stays 0 and a measured level, 1 to 255, stays one: a void pixel remains void and a measured one never
becomes void. Images are (H, W, C) uint8 with any C; no function changes its argument.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.ops.levels import among_measured, measured, with_channels

Image = NDArray[np.uint8]

_LEVELS = np.arange(256, dtype=np.float32)


def _mapped(image: Image, levels: NDArray[np.floating]) -> Image:
    """Each level by a table, (256,) for all channels or (256, C); level 0 stays, others are cut off at [1, 255]."""
    table = np.clip(np.rint(levels), 1, 255).astype(np.uint8)
    table[0] = 0
    mapped: Image = with_channels(cv2.LUT(image, table[None]), image)
    return mapped


def adjust_brightness(image: Image, factor: float) -> Image:
    """Scale every measured level.

    Args:
        image: (H, W, C) uint8.
        factor: at least 0.

    Returns:
        (H, W, C) uint8.

    Example:
        >>> adjust_brightness(np.array([[[0, 1, 100, 200]]], np.uint8), 1.5).tolist()
        [[[0, 2, 150, 255]]]
    """
    return _mapped(image, _LEVELS * np.float32(factor))


def channel_means(image: Image) -> NDArray[np.float64]:
    """The mean level of each channel over the measured pixels, (C,); 0 where nothing is measured."""
    height, width, channels = image.shape
    # Sums down the columns by OpenCV: numpy takes ten times as long over short last axes.
    columns = np.asarray(cv2.reduce(image.reshape(height, width * channels), 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S))
    where = measured(image)
    count = height * width if where is None else int(np.count_nonzero(where))
    means: NDArray[np.float64] = columns.reshape(width, channels).sum(0, dtype=np.float64) / max(1, count)
    return means


def adjust_contrast(image: Image, factor: float) -> Image:
    """Move the levels of each channel away from the channel's mean, or towards it.

    Args:
        image: (H, W, C) uint8.
        factor: at least 0; 0 leaves each channel its mean.

    Returns:
        (H, W, C) uint8.

    Example:
        >>> image = np.array([[[10, 100], [30, 100], [0, 0]]], np.uint8)  # the last pixel is void
        >>> adjust_contrast(image, 0.5).tolist()
        [[[15, 100], [25, 100], [0, 0]]]
    """
    moved = (1 - factor) * channel_means(image)
    return _mapped(image, factor * _LEVELS[:, None] + moved[None])


def distort(image: Image, added: float, contrast: float) -> Image:
    """What `augment.photometric_distortion` leaves of itself without hue and saturation.

    Args:
        image: (H, W, C) uint8.
        added: levels that are added first.
        contrast: what levels are scaled by then.

    Returns:
        (H, W, C) uint8.
    """
    return _mapped(image, np.clip(_LEVELS + np.float32(added), 1, 255) * np.float32(contrast))


def blur(image: Image, kernel: NDArray[np.floating]) -> Image:
    """Blurred by a separable kernel; the border is mirrored, and void pixels take no part.

    Args:
        image: (H, W, C) uint8.
        kernel: (2 r + 1, 1), its sum is 1.

    Returns:
        (H, W, C) uint8.
    """
    return among_measured(image, lambda each: with_channels(cv2.sepFilter2D(each, -1, kernel, kernel), each), stay=True)


def solarise(image: Image, threshold: int) -> Image:
    """Invert the measured levels from a threshold on: 255 becomes 1.

    Args:
        image: (H, W, C) uint8.
        threshold: the least level that is inverted.

    Returns:
        (H, W, C) uint8.
    """
    return _mapped(image, np.where(_LEVELS >= threshold, 256 - _LEVELS, _LEVELS))


def paint_noise(image: Image, where: NDArray[np.bool_], rng: np.random.Generator) -> Image:
    """Replace pixels by noise that is uniform over the measured levels, independent in every channel.

    Args:
        image: (H, W, C) uint8.
        where: (H, W) bool, which pixels.
        rng: numbers are drawn for those pixels only.

    Returns:
        (H, W, C) uint8, `image` itself if there is nothing to paint.

    Example:
        >>> painted = paint_noise(np.zeros((4, 4, 5), np.uint8), np.eye(4, dtype=bool), np.random.default_rng(0))
        >>> int((painted > 0).all(2).sum()), painted.dtype.name
        (4, 'uint8')
    """
    places = np.flatnonzero(where)
    if len(places) == 0:
        return image
    painted = image.copy()
    channels = image.shape[2]
    painted.reshape(-1, channels)[places] = rng.integers(1, 256, (len(places), channels), np.uint8)
    return painted
