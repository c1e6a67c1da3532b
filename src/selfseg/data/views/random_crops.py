"""The views of the baselines: independent random crops of two sizes, and a crop within a crop.

`RandomCrops` are those of image-level contrast: MoCo v2's two (X. Chen, H. Fan, R. Girshick, K. He: "Improved Baselines
with Momentum Contrastive Learning", arXiv 2003.04297) and SwAV's two large and several small ones (M. Caron et al.:
"Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020, section 3.3). Their
appearance is SimCLR's.

`MultiCrops` are the same with BYOL's appearance, which is another for the first view, the second and the small ones
(J.-B. Grill et al., NeurIPS 2020, table 6; with small crops M. Caron et al.: DINO, ICCV 2021).

`NestedCrops` are those of methods that ask a network to commute with a geometric change G: one view of a place, and G
of the same place (X. Ji, J. Henriques, A. Vedaldi: IIC, ICCV 2019; J. H. Cho et al.: PiCIE, CVPR 2021). G, a crop and a
mirroring, is what `to_image` of the two views tells.

Crops are drawn and resized as SlotCon's, see `selfseg.data.views.overlapping_crops`. Frames: boxes are (x0, y0, x1,
y1) in whole pixels of the prepared image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from selfseg.data.regions import NoRegions
from selfseg.data.views import augment
from selfseg.data.views.base import Crop, Ids, Image
from selfseg.data.views.overlapping_crops import CropPlan, change_as_byol, cut_view, draw_crop
from selfseg.data.views.settings import check_settings, check_two_appearances
from selfseg.errors import ConfigError
from selfseg.ops.geometry import Box


@dataclass(frozen=True)
class _Crops(CropPlan):
    """What both plans have: the settings of a crop and of its appearance; their docstrings tell them."""

    size: int = 224
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    short_side: int | None = None
    longest: int | None = 2048
    flip_probability: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.8
    gray_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, fractions=("blur_probability",))

    @property
    def regions(self) -> NoRegions:
        """None: what two views share is told by their `to_image`."""
        return NoRegions()

    def _view(self, image: Image, box: Box, size: int, flip: bool, rng: np.random.Generator | None, rgb: bool) -> Crop:
        """The box at size x size pixels, its appearance changed by `rng` if there is one."""
        change = None if rng is None else partial(augment.change_appearance, settings=self, rng=rng, rgb=rgb)
        return cut_view(image, box, size, flip, change, rgb=rgb)


@dataclass(frozen=True)
class RandomCrops(_Crops):
    """Random resized crops, drawn independently of each other; no regions. The defaults are MoCo v2's two.

    Attributes:
        views: number of large crops.
        small_views: number of small crops, which come after the large ones; SwAV has 6.
        small_size: side of a small crop in pixels.
        small_scale: range of a small crop's area as a fraction of the image's, within (0, 1].
        size: side of a large crop in pixels.
        scale: range of a large crop's area as a fraction of the image's, within (0, 1].
        ratio: range of a crop's width / height; its logarithm is uniform.
        short_side: larger images are reduced first, so that their short side has this many px. None keeps them.
        longest: after that, images with a longer long side are reduced to this many px. None keeps them.
        flip_probability: probability of mirroring a view left to right, independently.
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_probability: probability of changing a view's colours.
        gray_probability: probability of taking a view's colours away.
        blur_probability: probability of blurring a view.
        blur_sigma: range of the blur's standard deviation in pixels of the view.

    Raises:
        ConfigError: if a value can't work.

    Example:
        >>> from selfseg.data.views.overlapping_crops import NO_IDS
        >>> plan = RandomCrops(size=32, small_views=1, small_size=16)
        >>> crops = plan.make(np.zeros((60, 80, 3), np.uint8), NO_IDS, np.random.default_rng(0))
        >>> [crop.image.shape for crop in crops]
        [(32, 32, 3), (32, 32, 3), (16, 16, 3)]
    """

    views: int = 2
    small_views: int = 0
    small_size: int = 96
    small_scale: tuple[float, float] = (0.05, 0.14)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views < 1 or self.small_size < 1 or self.small_views < 0:
            raise ConfigError(
                f"views ({self.views}) and small_size ({self.small_size}) must be at least 1, small_views "
                f"({self.small_views}) at least 0"
            )
        check_settings(self, shares=("small_scale",))

    def make(self, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool = True) -> tuple[Crop, ...]:
        """The views of one image, a pure function of `rng`.

        Args:
            image: (H, W, 3) RGB uint8 from `prepare`, or (H, W, C) levels.
            regions: not looked at.
            rng: the only source of chance.
            rgb: whether the image is a photograph.

        Returns:
            `views` large and then `small_views` small crops, with `regions` of shape (0, 0) and without noise.
        """
        crops = []
        for number in range(self.views + self.small_views):
            large = number < self.views
            size, scale = (self.size, self.scale) if large else (self.small_size, self.small_scale)
            box = draw_crop((image.shape[0], image.shape[1]), scale, self.ratio, rng)
            flip = bool(rng.random() < self.flip_probability)
            crops.append(self._view(image, box, size, flip, rng, rgb))
        return tuple(crops)


@dataclass(frozen=True)
class MultiCrops(CropPlan):
    """Two random resized crops and any number of small ones, with BYOL's appearance; no regions.

    They are drawn independently of each other, and may have nothing in common. The defaults are BYOL's two views. A
    pair of numbers in `blur_probability` and `solarise_probability` is for the first and the second view.

    Attributes:
        small_views: number of small crops, which come after the two large ones; DINO has 8 or 10.
        small_size: side of a small crop in pixels.
        small_scale: range of a small crop's area as a fraction of the image's, within (0, 1].
        small_blur_probability: probability of blurring a small crop; it is never solarised.
        size: side of a large crop in pixels.
        scale: range of a large crop's area as a fraction of the image's, within (0, 1].
        ratio: range of a crop's width / height; its logarithm is uniform.
        short_side: larger images are reduced first, so that their short side has this many px. None keeps them.
        longest: after that, images with a longer long side are reduced to this many px. None keeps them.
        flip_probability: probability of mirroring a view left to right, independently.
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_probability: probability of changing a view's colours.
        gray_probability: probability of taking a view's colours away.
        blur_probability: probability of blurring each of the two large views.
        blur_sigma: range of the blur's standard deviation in pixels of the view.
        solarise_probability: probability of inverting the bright levels of each of the two large views.
        solarise_threshold: the least level of 0..255 that is inverted.

    Raises:
        ConfigError: if a value can't work.

    Example:
        >>> from selfseg.data.views.overlapping_crops import NO_IDS
        >>> plan = MultiCrops(size=32, small_views=1, small_size=16)
        >>> crops = plan.make(np.zeros((60, 80, 3), np.uint8), NO_IDS, np.random.default_rng(0))
        >>> [crop.image.shape for crop in crops]
        [(32, 32, 3), (32, 32, 3), (16, 16, 3)]
    """

    small_views: int = 0
    small_size: int = 96
    small_scale: tuple[float, float] = (0.05, 0.4)
    small_blur_probability: float = 0.5
    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, counts=("small_size",), fractions=("small_blur_probability",), shares=("small_scale",))
        if self.small_views < 0:
            raise ConfigError(f"small_views must be 0 (none) or more, not {self.small_views}")
        check_two_appearances(self)

    @property
    def regions(self) -> NoRegions:
        """None: what two views share is told by their `to_image`."""
        return NoRegions()

    def make(self, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool = True) -> tuple[Crop, ...]:
        """The views of one image, a pure function of `rng`.

        Args:
            image: (H, W, 3) RGB uint8 from `prepare`, or (H, W, C) levels.
            regions: not looked at.
            rng: the only source of chance.
            rgb: whether the image is a photograph.

        Returns:
            Two large and then `small_views` small crops, with `regions` of shape (0, 0) and without noise.
        """
        large = [
            (self.size, self.scale, *each)
            for each in zip(self.blur_probability, self.solarise_probability, strict=True)
        ]
        small = [(self.small_size, self.small_scale, self.small_blur_probability, 0.0)] * self.small_views
        crops = []
        for size, scale, blur, solarise in [*large, *small]:
            box = draw_crop((image.shape[0], image.shape[1]), scale, self.ratio, rng)
            flip = bool(rng.random() < self.flip_probability)
            change = partial(
                change_as_byol,
                plan=self,
                blur=blur,
                solarise=solarise,
                threshold=self.solarise_threshold,
                rng=rng,
                rgb=rgb,
            )
            crops.append(cut_view(image, box, size, flip, change, rgb=rgb))
        return tuple(crops)


@dataclass(frozen=True)
class NestedCrops(_Crops):
    """A crop, and a crop of that crop which may be mirrored; no regions. The defaults are PiCIE's.

    Attributes:
        inner_scale: range of the second crop's area as a fraction of the first one's, within (0, 1]; (1, 1) is the same
            crop again.
        plain_first: whether the first view keeps its appearance (IIC), instead of having one of its own (PiCIE).
        size: side of both views in pixels.
        scale: range of the first crop's area as a fraction of the image's, within (0, 1]; if no crop of this area and
            of `ratio` fits into the image, it is the largest that does, anywhere along the longer side.
        ratio: range of the first crop's width / height; its logarithm is uniform. The second has the first one's.
        short_side: larger images are reduced first, so that their short side has this many px. None keeps them.
        longest: after that, images with a longer long side are reduced to this many px. None keeps them.
        flip_probability: probability of mirroring the second view left to right; the first never is.
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_probability: probability of changing a view's colours.
        gray_probability: probability of taking a view's colours away.
        blur_probability: probability of blurring a view.
        blur_sigma: range of the blur's standard deviation in pixels of the view.

    Raises:
        ConfigError: if a value can't work.

    Example:
        >>> from selfseg.data.views.overlapping_crops import NO_IDS
        >>> plan = NestedCrops(size=32)
        >>> first, second = plan.make(np.zeros((60, 80, 3), np.uint8), NO_IDS, np.random.default_rng(0))
        >>> first.image.shape, second.image.shape, bool((abs(second.to_image[:, :2]) <= first.to_image[:, :2]).all())
        ((32, 32, 3), (32, 32, 3), True)
    """

    size: int = 320
    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)
    inner_scale: tuple[float, float] = (0.5, 1.0)
    plain_first: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, shares=("inner_scale",))

    def make(self, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool = True) -> tuple[Crop, Crop]:
        """The two views of one image, a pure function of `rng`.

        Args:
            image: (H, W, 3) RGB uint8 from `prepare`, or (H, W, C) levels.
            regions: not looked at.
            rng: the only source of chance.
            rgb: whether the image is a photograph.

        Returns:
            Two crops of `size` x `size` pixels with `regions` of shape (0, 0) and without noise; the second lies
            within the first.
        """
        outer = draw_crop((image.shape[0], image.shape[1]), self.scale, self.ratio, rng)
        x0, y0 = outer[:2]
        width, height = outer[2] - x0, outer[3] - y0
        shape = width / height
        left, top, right, bottom = draw_crop((height, width), self.inner_scale, (shape, shape), rng)
        inner = (x0 + left, y0 + top, x0 + right, y0 + bottom)
        flip = bool(rng.random() < self.flip_probability)
        first = self._view(image, outer, self.size, False, None if self.plain_first else rng, rgb)
        return first, self._view(image, inner, self.size, flip, rng, rgb)
