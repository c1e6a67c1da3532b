"""Minimum barrier distance (MB+): how much intensity has to change on the way to the image's frame.

Zhang, Sclaroff, Lin, Shen, Price, Mech, "Minimum Barrier Salient Object Detection at 80 FPS", ICCV 2015
(https://doi.org/10.1109/ICCV.2015.165), with the paper's parameters: the distance transform by three raster scans on
each channel of CIELAB, backgroundness, morphological smoothing, centredness, contrast.

Deviation: the sigmoid that ends it stands at Otsu's threshold, not at 0.5 (`enhance`): centredness darkens the rims of
large objects. On 71 images of bags the IoU at 0.5 rose from .49 to .64.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.masks.priors.scene import Array, enhance, map_to_size, shrink, to_lab, unit_range

_LONGEST = 300  # px, the paper's working size
_PASSES = 3
_RIM = 0.1  # width of the four boundary regions: the paper's 30 px of 300
_SMOOTHING = 50.0  # alpha


def barrier_distance(values: NDArray[np.floating], passes: int = _PASSES) -> Array:
    """Minimum barrier distance of each pixel to the frame, by raster scans.

    Args:
        values: (H, W), one channel.
        passes: how many scans. The result is never below the true distance, and seldom above it after 3.

    Returns:
        (H, W) float32, in units of `values`; 0 on the frame.

    Example:
        >>> barrier_distance(np.array([[0, 0, 0], [0, 9, 2], [0, 0, 0]])).tolist()
        [[0.0, 0.0, 0.0], [0.0, 7.0, 0.0], [0.0, 0.0, 0.0]]
    """
    from selfseg.ops.kernels import saliency_cpu as cpu

    channel = np.ascontiguousarray(values, np.float32)
    distance = np.empty_like(channel)
    cpu.barrier_distance(channel, distance, passes)
    return distance


def backgroundness(lab: Array) -> Array:
    """How unlike the colours near the frame a pixel is: (h, w) float32 in [0, 1].

    The Mahalanobis distances to the colours of the four sides, without the largest, because one side may hold the
    object.
    """
    height, width, channels = lab.shape
    rim = max(1, round(_RIM * max(height, width)))
    pixels = np.ascontiguousarray(lab.reshape(-1, channels).T)  # (C, h w)
    far = []
    for side in (lab[:rim], lab[-rim:], lab[:, :rim], lab[:, -rim:]):
        colours = side.reshape(-1, channels).astype(np.float64)
        mean = colours.mean(0)
        spread = (colours - mean).T @ (colours - mean) / len(colours)
        covariance = spread + 1e-2 * np.eye(channels)  # flat sides are singular
        # With covariance = L L', the Mahalanobis distance is the length of L^-1 (x - mean).
        whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        distance = cv2.sqrt(np.square(whiten.astype(np.float32) @ (pixels - mean[:, None].astype(np.float32))).sum(0))
        far.append(np.asarray(distance, np.float32).ravel() / max(float(distance.max()), 1e-6))
    stacked = np.stack(far)
    return unit_range((stacked.sum(0) - stacked.max(0)).reshape(height, width))


def mbd(image: NDArray[np.uint8], rgb: bool = True) -> Array:
    """Saliency by minimum barrier distance with all of the paper's extensions (MB+).

    Args:
        image: (h, w, 3) uint8 RGB, or (h, w, C) levels.
        rgb: whether the image is a photograph; False for levels.

    Returns:
        (h, w) float32 in [0, 1].
    """
    height, width = image.shape[:2]
    lab = to_lab(shrink(image, _LONGEST, rgb), rgb)
    barrier = np.zeros(lab.shape[:2], np.float32)
    for channel in range(lab.shape[2]):
        barrier += barrier_distance(lab[..., channel])
    saliency = unit_range(unit_range(barrier) + backgroundness(lab))
    saliency = enhance(_smooth(saliency) * _centredness(*saliency.shape))
    return map_to_size(saliency, height, width)


def _smooth(saliency: Array) -> Array:
    """Opening, then closing by reconstruction: small peaks and holes go, edges stay."""
    from selfseg.ops.kernels import saliency_cpu as cpu

    # The paper's width is for its working size; smaller images get less.
    width = round(_SMOOTHING * math.sqrt(float(saliency.mean())) * max(saliency.shape) / _LONGEST)
    if width < 2:
        return saliency
    around = np.ones((width, width), np.uint8)
    replicate = {"borderType": cv2.BORDER_REPLICATE}
    marker = np.ascontiguousarray(cv2.erode(saliency, around, **replicate), np.float32)
    cpu.reconstruct(marker, saliency)
    negative = -marker
    marker = -np.ascontiguousarray(cv2.dilate(marker, around, **replicate), np.float32)
    cpu.reconstruct(marker, negative)
    return -marker


def _centredness(height: int, width: int) -> Array:
    """1 at the image's centre, falling linearly to 0 in its corners."""
    y = np.arange(height, dtype=np.float32) - (height - 1) / 2
    x = np.arange(width, dtype=np.float32) - (width - 1) / 2
    corner = max(math.hypot((height - 1) / 2, (width - 1) / 2), 1e-6)
    return np.asarray(1 - np.hypot(y[:, None], x) / corner, np.float32)
