"""What the priors look at: an image reduced to a working size, in CIELAB, and the graph of its superpixels.

Of measured channels (`selfseg.ops.levels`) the channels take the place of CIELAB's, on its scale (`colour_like`). Void
pixels look as the nearest measured ones do, so that they have no edge, and are cut out of what comes out.

Letters in shapes: h w pixels at the working size, N superpixels, C channels (3 of photographs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError
from selfseg.ops.levels import among_measured, check_image, colour_like, fill_void, resize
from selfseg.ops.regions.slic import slic
from selfseg.ops.regions.smoothing import neighbours

Array = NDArray[np.float32]

LONGEST = 400
"""Longer side of the working size in pixels: that of the MSRA images which the papers' parameters were chosen on."""

SUPERPIXELS = 300
"""About how many superpixels an image gets. The papers take 200 to 300."""

_STEEPNESS = 10.0
_WIDEST = 0.15  # of a bar or frame, share of the side
_SAME = 24  # how much a channel may differ within a frame, of 255; JPEG rings beside it
_SOFT = 2  # lines over which its edge is blurred


@dataclass(frozen=True)
class Scene:
    """An image as the priors see it.

    Attributes:
        lab: (h, w, C) float32 CIELAB, L in 0..100, or channels on its scale.
        regions: (h, w) int32, ids of superpixels, dense from 0.
        colours: (N, C) float32, mean of `lab` in each superpixel.
        centres: (N, 2) float32, mean (x, y) of each, as a share of the longer side.
        areas: (N,) float32, share of the image.
        sides: (4, N) bool, whether it touches the top, bottom, left, right side.
        adjacent: (N, N) bool, whether two share an edge; symmetric, False on the diagonal.
        near: (N, N) bool, whether they share an edge or a neighbour; symmetric, False on the diagonal.
    """

    lab: Array
    regions: NDArray[np.int32]
    colours: Array
    centres: Array
    areas: Array
    sides: NDArray[np.bool_]
    adjacent: NDArray[np.bool_]
    near: NDArray[np.bool_]

    @property
    def at_frame(self) -> NDArray[np.bool_]:
        """(N,) whether a superpixel touches the image's frame."""
        return np.asarray(self.sides.any(0), np.bool_)

    @property
    def linked(self) -> NDArray[np.bool_]:
        """(N, N) `near`, or both at the frame: a background that the object cuts in two stays one."""
        links = self.near | (self.at_frame[:, None] & self.at_frame)
        np.fill_diagonal(links, False)
        return links

    @property
    def is_plain(self) -> bool:
        """Whether all superpixels have the same colour (but for rounding), so that only their places differ."""
        return float(np.ptp(self.colours, axis=0).max()) < 1e-3

    def spread(self, values: NDArray[np.floating]) -> Array:
        """(N,) values of superpixels to (h, w) float32 values of pixels."""
        return values.astype(np.float32)[self.regions]


def shrink(image: NDArray[np.uint8], longest: int = LONGEST, rgb: bool = True) -> NDArray[np.uint8]:
    """The image at the working size.

    Args:
        image: (H, W, 3) uint8 RGB, any size from 1 x 1; or (H, W, C) levels.
        longest: larger images are reduced until their longer side has this many pixels.
        rgb: whether the image is a photograph; False for levels.

    Raises:
        ConfigError: if the array is no such image.
    """
    check_image(image, rgb)
    if 0 in image.shape:
        raise ConfigError(f"the image has no pixels: {image.shape[0]} x {image.shape[1]}")
    scale = longest / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        if rgb:
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        else:
            image = among_measured(image, lambda each: resize(each, size, cv2.INTER_AREA))
    return np.ascontiguousarray(image)


def map_to_size(values: NDArray[np.floating], height: int, width: int) -> Array:
    """A map at another size, bilinear: (h, w) float in [0, 1] to (height, width) float32 in [0, 1]."""
    if values.shape == (height, width):
        return np.asarray(values, np.float32)
    resized = cv2.resize(np.asarray(values, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.asarray(resized, np.float32), 0, 1)


def picture_inside(image: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Where the picture is, if a frame is drawn around it or bars lie beside it: (rows, columns).

    All priors hold what is at the frame for background; with a drawn one the whole picture stands out. From each side
    lines of one colour are left out if hardly anything of that colour follows: a plain background goes on beside its
    object, a drawn frame ends. (The code of Yang et al., CVPR 2013, is known to remove frames, too; the rule is ours.)

    Args:
        image: (h, w, 3) uint8 RGB, or (h, w, C) levels.
    """
    height, width = image.shape[:2]
    top, bottom = _bar(image), height - _bar(image[::-1])
    left, right = _bar(image.transpose(1, 0, 2)), width - _bar(image[:, ::-1].transpose(1, 0, 2))
    return slice(top, bottom), slice(left, right)


def _bar(image: NDArray[np.uint8]) -> int:
    """How many lines at the top belong to a bar or frame of one colour."""
    most = round(_WIDEST * len(image))
    lines = image[: most + _SOFT + 1].astype(np.int16)
    if most < 1 or len(lines) == len(image):
        return 0
    colour = np.median(lines[0], axis=0)
    alike = (np.abs(lines - colour).max(2) <= _SAME).mean(1)  # share of each line
    full = int((alike < 0.95).argmax()) if (alike < 0.95).any() else len(lines)
    if not 0 < full <= most:
        return 0
    after = np.flatnonzero(alike[full : full + _SOFT + 1] < 0.2)
    return full + int(after[0]) + _SOFT if len(after) else 0


def to_lab(image: NDArray[np.uint8], rgb: bool = True) -> Array:
    """(h, w, 3) uint8 RGB to float32 CIELAB, L in 0..100; of (h, w, C) levels the same on its scale."""
    if not rgb:
        return colour_like(fill_void(image))
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float32)


def look_at(image: NDArray[np.uint8], superpixels: int = SUPERPIXELS, rgb: bool = True) -> Scene:
    """Prepare an image.

    Args:
        image: (h, w, 3) uint8 RGB at the working size, or (h, w, C) levels.
        superpixels: about how many to make.
        rgb: whether the image is a photograph; False for levels.
    """
    height, width = image.shape[:2]
    image = image if rgb else fill_void(image)
    lab = to_lab(image, rgb)
    regions = slic(image, size=max(2, round(math.sqrt(height * width / superpixels))), rgb=rgb)
    flat = regions.ravel()
    areas = np.bincount(flat)
    count = len(areas)
    x, y = np.tile(np.arange(width), height), np.repeat(np.arange(height), width)

    def mean(values: NDArray[np.generic]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.bincount(flat, values.ravel(), count) / areas
        return total

    sides = np.zeros((4, count), bool)
    for side, line in zip(sides, (regions[0], regions[-1], regions[:, 0], regions[:, -1]), strict=True):
        side[line] = True
    adjacent, near = neighbours(regions)
    return Scene(
        lab=lab,
        regions=regions,
        colours=np.stack([mean(lab[..., c]) for c in range(lab.shape[2])], 1).astype(np.float32),
        centres=(np.stack([mean(x), mean(y)], 1) / max(height, width)).astype(np.float32),
        areas=(areas / flat.size).astype(np.float32),
        sides=sides,
        adjacent=adjacent,
        near=near,
    )


def distances(points: Array) -> Array:
    """Euclidean distances between all pairs: (N, D) to (N, N) float32, exactly symmetric and 0 on the diagonal."""
    difference = points[:, None].astype(np.float64) - points[None]
    return np.asarray(np.sqrt(np.square(difference).sum(2)), np.float32)


def unit_range(values: NDArray[np.floating]) -> Array:
    """Stretched to [0, 1]; all zeros where nothing differs (by more than rounding)."""
    low, high = float(values.min()), float(values.max())
    if not high - low > 1e-6 * max(1.0, abs(high)):
        return np.zeros(values.shape, np.float32)
    return ((values - low) / (high - low)).astype(np.float32)


def otsu(values: NDArray[np.floating]) -> float:
    """The threshold between two classes of least spread (Otsu 1979), for values in [0, 1] in steps of 1/255.

    Example:
        >>> round(otsu(np.array([0.1, 0.1, 0.2, 0.8, 0.9], np.float32)) * 255)
        51
    """
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8).reshape(-1, 1)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return float(threshold) / 255


def enhance(values: NDArray[np.floating]) -> Array:
    """More contrast, so that 0.5 parts what is salient from what is not: any values to [0, 1].

    A sigmoid about Otsu's threshold, after the sigmoid about 0.5 that ends Zhang et al. (ICCV 2015). The priors' maps
    have scales of their own: 0.5 of one is not 0.5 of another, and all of them are cut at one threshold and averaged.
    All zeros where nothing differs.
    """
    values = unit_range(values)
    return unit_range(1 / (1 + np.exp(-_STEEPNESS * (values - otsu(values)))))
