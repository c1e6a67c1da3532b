"""Two random crops of an image that overlap, each with colours of its own.

The views of SlotCon: X. Wen et al., "Self-Supervised Visual Representation Learning with Semantic Grouping", NeurIPS
2022 (arXiv 2205.15288); their appearance is BYOL's: J.-B. Grill et al., "Bootstrap your own latent", NeurIPS 2020
(arXiv 2006.07733), appendix B.

Where ours differs
- a pair always overlaps: if no crop of `tries` does, the last one is moved onto the first one's centre. The reference
  then takes crops without any overlap.
- in an image too long for any crop of the wanted shape, the largest crop that keeps within `ratio` lies anywhere along
  it, where torchvision's always lies in the middle.
- crops are resized by `resize_crop`, which comes near Pillow's antialiased bicubic, and blurred by a true Gaussian.

The other plans of random crops share `CropPlan`, `draw_crop` and `cut_view`.

Frames: boxes are (x0, y0, x1, y1) in whole pixels of the prepared image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from selfseg.data.regions import AnyRegions, NoRegions
from selfseg.data.views import augment
from selfseg.data.views.base import Crop, Ids, Image, without_void
from selfseg.data.views.settings import check_jitter, check_settings, check_two_appearances
from selfseg.errors import ConfigError
from selfseg.ops.geometry import Box, crop_affine
from selfseg.ops.levels import among_measured, flip, resize

NO_IDS: Ids = np.zeros((0, 0), np.int32)
"""The region ids of a plan without regions."""
_ATTEMPTS = 10  # to fit a crop of random area and shape into the image, as torchvision's RandomResizedCrop


class CropPlan:
    """What plans of random resized crops share. Each is a frozen dataclass and says what its settings mean."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    short_side: int | None
    longest: int | None
    flip_probability: float
    jitter: tuple[float, float, float, float]
    jitter_probability: float
    gray_probability: float
    blur_sigma: tuple[float, float]

    def __post_init__(self) -> None:
        check_settings(
            self,
            counts=("size",),
            lengths=("short_side", "longest"),
            fractions=("flip_probability", "jitter_probability", "gray_probability"),
            shares=("scale",),
            ranges=("ratio", "blur_sigma"),
        )
        check_jitter(self.jitter)

    def prepare(self, image: Image, rgb: bool = True) -> Image:
        """The source image of the views: reduced as configured, never enlarged and never cut, so that masks fit.

        Args:
            image: (H, W, 3) RGB uint8 of any size, or (H, W, C) levels.
            rgb: whether it is a photograph.

        Returns:
            (H', W', 3 or C) uint8, at least one pixel; `image` itself if it is small enough.
        """
        return reduce_image(image, self.short_side, self.longest, rgb)


@dataclass(frozen=True)
class OverlappingCrops(CropPlan):
    """Two random resized crops that overlap; no regions.

    A pair of numbers in `blur_probability` and `solarise_probability` is for the first and the second view.

    Attributes:
        size: side of both views in pixels.
        scale: range of a crop's area as a fraction of the image's, within (0, 1].
        ratio: range of a crop's width / height; its logarithm is uniform.
        min_overlap: the least part of the second crop's area that the first one covers too, but for the rounding to
            whole pixels. It must be above 0 and no more than can always be had, 0.08 with the default `scale`: the
            smallest crop covers no more of the largest.
        same_crop: both views are of one crop, mirrored alike, and differ in their colours alone ("no geometric
            augmentations", SlotCon's table 8e).
        tries: crops that are drawn for the second view before the last one is moved onto the first.
        short_side: an image with a longer short side is reduced to this many pixels first, which bounds the work on
            large photographs; None keeps them. Smaller images are never enlarged: their crops are.
        longest: after that, images with a longer long side are reduced to this many px. None keeps them.
        flip_probability: probability of mirroring a view left to right, independently.
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_probability: probability of changing a view's colours.
        gray_probability: probability of taking a view's colours away.
        blur_probability: probability of blurring each of the two views.
        blur_sigma: range of the blur's standard deviation in pixels of the view.
        solarise_probability: probability of inverting the bright levels of each of the two views.
        solarise_threshold: the least level of 0..255 that is inverted.

    Raises:
        ConfigError: if a value can't work.

    Example:
        >>> plan = OverlappingCrops(size=32)
        >>> image = plan.prepare(np.zeros((60, 80, 3), np.uint8))
        >>> first, second = plan.make(image, plan.regions.compute(image), np.random.default_rng(0))
        >>> first.image.shape, first.to_image.shape, first.regions.shape
        ((32, 32, 3), (2, 3), (0, 0))
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    min_overlap: float = 0.01
    tries: int = 10
    short_side: int | None = None
    longest: int | None = 2048
    flip_probability: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    gray_probability: float = 0.2
    blur_probability: tuple[float, float] = (1.0, 0.1)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise_probability: tuple[float, float] = (0.0, 0.2)
    solarise_threshold: int = 128
    same_crop: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, counts=("tries",))
        # A small first crop inside of a large second one, or a narrow one across a wide one.
        share = self.scale[0] / self.scale[1]
        most = min(share, math.sqrt(share * self.ratio[0] / self.ratio[1]))
        if not 0 < self.min_overlap <= most * (1 + 1e-9):
            raise ConfigError(
                f"min_overlap must be above 0 and at most {most:.3g}, which two crops of this scale and ratio can "
                f"always have in common, not {self.min_overlap}; for more, narrow scale {self.scale}"
            )
        check_two_appearances(self)

    @property
    def regions(self) -> AnyRegions:
        """None: what two views share is told by their `to_image`."""
        return NoRegions()

    def make(self, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool = True) -> tuple[Crop, Crop]:
        """The two views of one image, a pure function of `rng`.

        Args:
            image: (H, W, 3) RGB uint8 from `prepare`, or (H, W, C) levels.
            regions: not looked at.
            rng: the only source of chance.
            rgb: whether the image is a photograph.

        Returns:
            Two crops of `size` x `size` pixels with `regions` of shape (0, 0) and without noise.
        """
        height, width = image.shape[:2]
        boxes = self.place((height, width), rng)
        flips = rng.random(2) < self.flip_probability
        if self.same_crop:
            flips[1] = flips[0]
        first, second = (
            cut_view(
                image,
                box,
                self.size,
                bool(flip),
                partial(self.change_appearance, which=which, rng=rng, rgb=rgb),
                rgb=rgb,
            )
            for which, (box, flip) in enumerate(zip(boxes, flips, strict=True))
        )
        return first, second

    def place(self, image_size: tuple[int, int], rng: np.random.Generator) -> tuple[Box, Box]:
        """The two crops.

        Args:
            image_size: (H, W).
            rng: the source of chance.

        Returns:
            Two boxes inside of the image, which overlap.
        """
        first = draw_crop(image_size, self.scale, self.ratio, rng)
        second = first
        if self.same_crop:
            return first, second
        for _ in range(self.tries):
            second = draw_crop(image_size, self.scale, self.ratio, rng)
            area = (second[2] - second[0]) * (second[3] - second[1])
            if _common_area(first, second) >= self.min_overlap * area:
                return first, second
        return first, _centre_on(first, second, image_size)

    def change_appearance(self, view: Image, which: int, rng: np.random.Generator, rgb: bool = True) -> Image:
        """Colour jitter, gray, blur and solarisation, each with its probability.

        Args:
            view: (H, W, 3) RGB uint8, or (H, W, C) levels.
            which: 0 for the first view, 1 for the second.
            rng: the source of chance.
            rgb: whether the view is of a photograph.

        Returns:
            As `view`; may be `view` itself.
        """
        blur, solarise = self.blur_probability[which], self.solarise_probability[which]
        return change_as_byol(view, self, blur, solarise, self.solarise_threshold, rng, rgb)


def change_as_byol(
    view: Image,
    plan: CropPlan,
    blur: float,
    solarise: float,
    threshold: int,
    rng: np.random.Generator,
    rgb: bool = True,
) -> Image:
    """BYOL's change of appearance: colour jitter, gray, blur and solarisation, each with its probability.

    Args:
        view: (H, W, 3) RGB uint8, or (H, W, C) levels.
        plan: has the settings of the colours, and the range of the blur.
        blur: its probability for this view.
        solarise: its probability for this view.
        threshold: the least level of 0..255 that solarisation inverts.
        rng: the source of chance.
        rgb: whether the view is of a photograph; measured channels have no gray.

    Returns:
        As `view`; may be `view` itself.
    """
    with_jitter, with_gray, with_blur, sigma, with_solarise = rng.random(5).tolist()
    if with_jitter < plan.jitter_probability:
        view = augment.jitter(view, plan.jitter, rng, rgb)
    if with_gray < plan.gray_probability and rgb:
        view = augment.to_gray(view)
    if with_blur < blur:
        low, high = plan.blur_sigma
        view = augment.blur(view, low + (high - low) * sigma, rgb)
    if with_solarise < solarise:
        view = augment.solarise(view, threshold, rgb)
    return view


def draw_crop(
    image_size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Box:
    """A crop of random area, shape and place, as torchvision's RandomResizedCrop; see "Where ours differs" above.

    Args:
        image_size: (H, W).
        scale: range of the crop's area as a fraction of the image's, within (0, 1].
        ratio: range of width / height; its logarithm is uniform.
        rng: the source of chance.

    Returns:
        A box inside of the image.
    """
    height, width = image_size
    low, high = math.log(ratio[0]), math.log(ratio[1])
    draws: list[list[float]] = rng.random((_ATTEMPTS, 2)).tolist()
    for share, shape in draws:
        area = (scale[0] + (scale[1] - scale[0]) * share) * height * width
        wanted = math.exp(low + (high - low) * shape)
        w, h = max(1, round(math.sqrt(area * wanted))), max(1, round(math.sqrt(area / wanted)))
        if w <= width and h <= height:
            break
    else:
        # The largest crop with a ratio as near to the image's as may be.
        wanted = min(max(width / height, ratio[0]), ratio[1])
        w, h = min(width, max(1, round(height * wanted))), min(height, max(1, round(width / wanted)))
    across, down = rng.random(2).tolist()
    x0, y0 = int(across * (width - w + 1)), int(down * (height - h + 1))
    return x0, y0, x0 + w, y0 + h


def cut_view(
    image: Image,
    box: Box,
    size: int,
    mirrored: bool,
    change: Callable[[Image], Image] | None,
    regions: Ids = NO_IDS,
    rgb: bool = True,
) -> Crop:
    """A crop as a view: resized, mirrored if wanted, then changed in appearance; without noise.

    Args:
        image: (H, W, 3) RGB uint8, prepared, or (H, W, C) levels.
        box: inside of the image.
        size: side of the view in pixels.
        mirrored: whether it is mirrored left to right.
        change: of its appearance, (size, size, 3 or C) uint8 to the same; None = none.
        regions: the view's ids, mirrored as it is.
        rgb: whether the image is a photograph.
    """
    x0, y0, x1, y1 = box
    view = resize_crop(image[y0:y1, x0:x1], size, size, rgb)
    if mirrored:
        view = flip(view)
    if change is not None:
        view = change(view)
    regions = without_void(regions, view, rgb)
    affine = crop_affine(box, (image.shape[0], image.shape[1]), mirrored)
    return Crop(view, affine, regions, np.zeros((size, size), np.bool_))


def reduce_image(image: Image, short_side: int | None, longest: int | None, rgb: bool = True) -> Image:
    """An image whose sides are no longer than wanted; never enlarged.

    Args:
        image: (H, W, 3) RGB uint8 of any size, or (H, W, C) levels.
        short_side: the most pixels of the shorter side; None = any.
        longest: the most pixels of the longer side; None = any.
        rgb: whether the image is a photograph.

    Returns:
        (H', W', 3 or C) uint8, at least one pixel; `image` itself if it is small enough.
    """
    height, width = image.shape[:2]
    scale = 1.0
    if short_side is not None:
        scale = min(scale, short_side / min(height, width))
    if longest is not None:
        scale = min(scale, longest / max(height, width))
    if scale == 1:
        return np.ascontiguousarray(image)
    return resize_crop(image, max(1, round(width * scale)), max(1, round(height * scale)), rgb)


def resize_crop(image: Image, width: int, height: int, rgb: bool = True) -> Image:
    """A crop at another size, near to Pillow's antialiased bicubic.

    Cubic where it is enlarged; where it is reduced, the mean of four samples per pixel, or of all pixels where four
    would leave too many out. `benchmarks/crops.py` measures the distance to Pillow and the times.

    Args:
        image: (H, W, 3) RGB uint8, or (H, W, C) levels, of which measured ones mix with each other only.
        width: of the result, in pixels.
        height: of the result, in pixels.
        rgb: whether the image is a photograph.

    Returns:
        (height, width, 3 or C) uint8.
    """
    if not rgb:
        return among_measured(image, lambda each: resize_crop(each, width, height))
    old_height, old_width = image.shape[:2]
    resized: Image
    if width >= old_width and height >= old_height:
        resized = resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        return resized
    reduction = max(old_width / width, old_height / height)
    if reduction <= 2.4:
        # Distance to Pillow's result on photographs (r.m.s., levels of 255): cubic samples 0.7 to 1.2 up to a reduction
        # of 1.5 and 2 at 1.6, linear ones 2 at 1.8, 3 at 2.4. INTER_AREA on everything: 1.2 to 2.7, in two to three
        # times the time; INTER_CUBIC alone, which aliases: up to 12.
        samples = cv2.INTER_CUBIC if reduction <= 1.6 else cv2.INTER_LINEAR
        image = resize(image, (2 * width, 2 * height), interpolation=samples)
        resized = resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return resized
    # One side may still have to grow, which INTER_AREA would not do along with the other.
    size = min(width, old_width), min(height, old_height)
    resized = resize(image, size, interpolation=cv2.INTER_AREA)
    return resized if size == (width, height) else resize_crop(resized, width, height)


def _common_area(first: Box, second: Box) -> int:
    """Pixels in both boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0, width) * max(0, height)


def _centre_on(fixed: Box, moved: Box, image_size: tuple[int, int]) -> Box:
    """`moved` with its centre as near to the other's as the image allows: no place has more in common."""
    corner = []
    for low, high, start, end, length in zip(fixed[:2], fixed[2:], moved[:2], moved[2:], image_size[::-1], strict=True):
        side = end - start
        corner.append(min(max((low + high - side) // 2, 0), length - side))
    x0, y0 = corner
    return x0, y0, x0 + moved[2] - moved[0], y0 + moved[3] - moved[1]
