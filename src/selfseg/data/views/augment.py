"""Appearance changes on uint8 images: colour jitter, distortion, gray, blur, solarisation, noise.

The semantics are torchvision's (`ColorJitter`, `RandomGrayscale`, `GaussianBlur`), because the published recipes are
stated in them; the arithmetic is OpenCV's on uint8, which is 10 to 50 times as fast. Against torchvision on the same
factors, brightness, contrast and saturation agree within 2 levels of 255 at every pixel; hue, which passes through
8-bit HSV, within 3 levels on average (`tests/data/test_augment.py`).

Every image here is (H, W, 3) RGB uint8; no function changes its argument. Those with an argument `rgb` take measured
channels, too, (H, W, C) uint8 with `rgb` False: `selfseg.data.views.channels` says what they do to them.
"""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.data.views import channels
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD

Image = NDArray[np.uint8]

_LEVELS = np.arange(256, dtype=np.float32)


def _table(levels: NDArray[np.float32]) -> Image:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _map(image: Image, levels: NDArray[np.float32]) -> Image:
    mapped: Image = cv2.LUT(image, _table(levels))
    return mapped


def adjust_brightness(image: Image, factor: float) -> Image:
    """Scale every level.

    Args:
        image: (H, W, 3) uint8.
        factor: at least 0; 0 is black, 1 the same image.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> adjust_brightness(np.full((1, 1, 3), 100, np.uint8), 1.5)[0, 0].tolist()
        [150, 150, 150]
    """
    scaled: Image = cv2.convertScaleAbs(image, alpha=factor)  # as a table does it, in less than half of the time
    return scaled


def adjust_contrast(image: Image, factor: float) -> Image:
    """Move every level away from the image's mean gray level, or towards it.

    Args:
        image: (H, W, 3) uint8.
        factor: at least 0; 0 is a plain gray image, 1 the same image.

    Returns:
        (H, W, 3) uint8.
    """
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    moved: Image = cv2.addWeighted(image, factor, image, 0, (1 - factor) * mean)
    return moved


def adjust_saturation(image: Image, factor: float) -> Image:
    """Move every pixel away from its own gray level, or towards it.

    Args:
        image: (H, W, 3) uint8.
        factor: at least 0; 0 is the gray image, 1 the same image.

    Returns:
        (H, W, 3) uint8.
    """
    mixed: Image = cv2.addWeighted(image, factor, to_gray(image), 1 - factor, 0)
    return mixed


def adjust_hue(image: Image, shift: float) -> Image:
    """Turn the hue.

    Args:
        image: (H, W, 3) uint8.
        shift: in turns of the colour circle, in [-0.5, 0.5]; 0 is the same image up to the rounding of 8-bit HSV.

    Returns:
        (H, W, 3) uint8.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    # Only the hue wraps around; uint8 addition does that by itself. Whole rows of (hue, 0, 0) are added, because numpy
    # takes three times as long for every third value.
    rows = hsv.reshape(len(hsv), -1)
    turn = np.zeros(rows.shape[1], np.uint8)
    turn[::3] = round(shift * 256) % 256
    np.add(rows, turn, out=rows)
    turned: Image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return turned


def to_gray(image: Image) -> Image:
    """The gray image (ITU-R 601 luma), with three equal channels.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> to_gray(np.array([[[255, 0, 0]]], np.uint8)).tolist()
        [[[76, 76, 76]]]
    """
    gray: Any = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    repeated: Image = cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)
    return repeated


def blur(image: Image, sigma: float, rgb: bool = True) -> Image:
    """Gaussian blur.

    Args:
        image: (H, W, 3) uint8, or (H, W, C) levels.
        sigma: standard deviation in pixels, more than 0; the kernel reaches to 3 sigma.
        rgb: whether the image is a photograph; void pixels of levels take no part.

    Returns:
        As `image`; the border is mirrored.
    """
    radius = max(1, round(3 * sigma))
    kernel = cv2.getGaussianKernel(2 * radius + 1, sigma)
    if not rgb:
        return channels.blur(image, np.asarray(kernel))
    # Half of the time of cv2.GaussianBlur, and nearer to the exact sum, which that rounds to 1/256 on the way.
    blurred: Image = cv2.sepFilter2D(image, -1, kernel, kernel)
    return blurred


def solarise(image: Image, threshold: int = 128, rgb: bool = True) -> Image:
    """Invert the levels from a threshold on.

    Args:
        image: (H, W, 3) uint8, or (H, W, C) levels.
        threshold: the least level that is inverted, in [0, 256]; 256 inverts none.
        rgb: whether the image is a photograph; void pixels of levels stay void.

    Returns:
        As `image`.

    Example:
        >>> solarise(np.array([[[0, 127, 128]]], np.uint8)).tolist()
        [[[0, 127, 127]]]
    """
    if not rgb:
        return channels.solarise(image, threshold)
    return _map(image, np.where(_LEVELS >= threshold, 255 - _LEVELS, _LEVELS))


def jitter(
    image: Image, strength: tuple[float, float, float, float], rng: np.random.Generator, rgb: bool = True
) -> Image:
    """Change brightness, contrast, saturation and hue by random amounts, in random order.

    Args:
        image: (H, W, 3) uint8, or (H, W, C) levels.
        strength: of brightness, contrast, saturation, whose factors are uniform in [max(0, 1 - strength), 1 +
            strength]; and of hue, whose shift in turns is uniform in [-strength, strength].
        rng: eight numbers are drawn whatever the strengths are.
        rgb: whether the image is a photograph; of measured channels saturation and hue are left out.

    Returns:
        As `image`.
    """
    order = np.argsort(rng.random(4))
    draws = rng.random(4)
    adjusts = (adjust_brightness, adjust_contrast, adjust_saturation)
    if not rgb:
        adjusts = (channels.adjust_brightness, channels.adjust_contrast, adjust_saturation)
    for which in order:
        width = strength[which]
        if width == 0 or (which > 1 and not rgb):
            continue
        if which == 3:
            image = adjust_hue(image, float((2 * draws[3] - 1) * width))
        else:
            low = max(0.0, 1 - width)
            image = adjusts[which](image, float(low + draws[which] * (1 + width - low)))
    return image


class Appearance(Protocol):
    """The settings of `change_appearance`, which view plans have among their own."""

    @property
    def jitter(self) -> tuple[float, float, float, float]:
        """Strengths, see the function `jitter`."""

    @property
    def jitter_probability(self) -> float:
        """Of changing the colours."""

    @property
    def gray_probability(self) -> float:
        """Of taking the colours away."""

    @property
    def blur_probability(self) -> float:
        """Of blurring."""

    @property
    def blur_sigma(self) -> tuple[float, float]:
        """Range of the blur's standard deviation in pixels, uniform."""


def change_appearance(image: Image, settings: Appearance, rng: np.random.Generator, rgb: bool = True) -> Image:
    """Colour jitter, gray and blur, each with its probability (SimCLR's order).

    Args:
        image: (H, W, 3) uint8, or (H, W, C) levels.
        settings: strengths and probabilities, as of a view plan.
        rng: four numbers are drawn, and what the jitter draws.
        rgb: whether the image is a photograph; measured channels have no gray.

    Returns:
        As `image`; may be `image` itself.
    """
    with_jitter, with_gray, with_blur, sigma = rng.random(4)
    if with_jitter < settings.jitter_probability:
        image = jitter(image, settings.jitter, rng, rgb)
    if with_gray < settings.gray_probability and rgb:
        image = to_gray(image)
    if with_blur < settings.blur_probability:
        low, high = settings.blur_sigma
        image = blur(image, low + (high - low) * float(sigma), rgb)
    return image


def photometric_distortion(image: Image, rng: np.random.Generator, rgb: bool = True) -> Image:
    """The colour distortion of SSD that MMSegmentation's schedules have.

    Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, section 2.2, with the numbers of MMSegmentation's
    `PhotoMetricDistortion`: each with probability .5, up to 32 levels are added, contrast and saturation are scaled by
    U(.5, 1.5), and the hue is turned by up to 36 degrees. Contrast comes first or last. Unlike `adjust_contrast` it
    scales the levels themselves, and what falls between two levels becomes the lower one.

    Args:
        image: (H, W, 3) uint8, or (H, W, C) levels.
        rng: nine numbers are drawn.
        rgb: whether the image is a photograph; of measured channels saturation and hue are left out.

    Returns:
        As `image`; may be `image` itself.
    """
    changed, (added, contrast, saturation, hue) = rng.random(5) < 0.5, rng.random(4)
    scale = 0.5 + contrast
    if not rgb:
        offset = float(64 * added - 32) if changed[0] else 0.0
        return channels.distort(image, offset, float(scale) if changed[1] else 1.0)

    def contrasted(image: Image) -> Image:
        return _scaled(image, scale, 0) if changed[1] else image

    if changed[0]:
        image = _scaled(image, 1, 64 * added - 32)
    image = contrasted(image) if changed[4] else image
    if changed[2] or changed[3]:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue in [0, 180)
        if changed[2]:
            hsv[..., 1] = _scaled(np.ascontiguousarray(hsv[..., 1]), 0.5 + saturation, 0)
        if changed[3]:
            hsv[..., 0] = (hsv[..., 0] + np.int16(180 - 18 + int(36 * hue))) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image if changed[4] else contrasted(image)


def _scaled(image: Image, factor: float, added: float) -> Image:
    """Levels times a factor, and something added; cut off at [0, 255] and rounded down."""
    table = np.clip(_LEVELS * np.float32(factor) + np.float32(added), 0, 255).astype(np.uint8)
    scaled: Image = cv2.LUT(image, table)
    return scaled


def paint_noise(image: Image, where: NDArray[np.bool_], rng: np.random.Generator, rgb: bool = True) -> Image:
    """Replace pixels by noise that is U(-1, 1) after the normalisation by ImageNet's mean and standard deviation.

    Args:
        image: (H, W, 3) uint8, or (H, W, C) levels.
        where: (H, W) bool, which pixels.
        rng: numbers are drawn for those pixels only.
        rgb: whether the image is a photograph; the noise of measured channels is uniform over their levels.

    Returns:
        As `image`, and `image` itself if there is nothing to paint.

    Example:
        >>> painted = paint_noise(np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=bool), np.random.default_rng(0))
        >>> int((painted > 0).all(2).sum()), int(painted.max()) < 183
        (4, True)
    """
    if not rgb:
        return channels.paint_noise(image, where, rng)
    places = np.flatnonzero(where)
    if len(places) == 0:
        return image
    draws = rng.integers(0, 256, (len(places), 1, 3), np.uint8)
    painted = image.copy()
    painted.reshape(-1, 3)[places] = cv2.LUT(draws, _NOISE_TABLE)[:, 0]
    return painted


def _noise_table() -> Image:
    draws = (np.arange(256, dtype=np.float64)[:, None] + 0.5) / 128 - 1  # (256, 1) in (-1, 1)
    levels = np.array(IMAGENET_MEAN) + np.array(IMAGENET_STD) * draws
    return np.rint(255 * levels).astype(np.uint8)[None]


_NOISE_TABLE = _noise_table()  # (1, 256, 3): the level of each channel for each random byte
