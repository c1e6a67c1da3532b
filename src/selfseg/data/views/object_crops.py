"""Two random crops of an image, each with part of an object in it.

The views of MaskContrast: W. Van Gansbeke et al., "Unsupervised Semantic Segmentation by Contrasting Object Mask
Proposals", ICCV 2021 (arXiv 2102.06191), section 4.1; their appearance is SimCLR's: T. Chen et al., "A Simple Framework
for Contrastive Learning of Visual Representations", ICML 2020 (arXiv 2002.05709), appendix A. Colours change by default
as much as in MaskContrast's reference implementation, half of SimCLR's (.8, .8, .8, .2), which the paper's recipe has.

The paper asks for crops with enough of the object and doesn't tell how they are found. Ours are drawn again up to
`tries` times; then the crop seen that came nearest to what is asked for is taken. So an image costs a bounded time,
whatever its mask is. Crops are drawn and resized as SlotCon's, see `selfseg.data.views.overlapping_crops`.

Frames: boxes are (x0, y0, x1, y1) in whole pixels of the prepared image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from selfseg.data.regions import ObjectMasks
from selfseg.data.views import augment
from selfseg.data.views.base import Crop, Ids, Image
from selfseg.data.views.overlapping_crops import CropPlan, cut_view, draw_crop
from selfseg.data.views.settings import check_settings, check_stride
from selfseg.errors import ConfigError
from selfseg.ops.geometry import Box, sample_ids


@dataclass(frozen=True)
class ObjectCrops(CropPlan):
    """Two random resized crops, each with object pixels; the regions are the objects.

    Attributes:
        regions: the folder of masks; on the command line also `--masks`.
        size: side of both views in pixels.
        scale: range of a crop's area as a fraction of the image's, within (0, 1].
        ratio: range of a crop's width / height; its logarithm is uniform.
        min_share: the least part of a crop's area that objects must cover; the paper's is 0.1, the reference
            implementation's 0.01.
        max_share: the greatest part; the reference implementation's is 0.99.
        same_view: the second view is the first one again, so that no augmented view is compared (the first row of
            MaskContrast's table 2b, as we read it).
        tries: crops that are drawn for a view before the best of them is taken.
        region_stride: ids are taken at the centres of `region_stride` x `region_stride` blocks of pixels; more than 1
            contrasts at a coarser grid. Must divide `size`.
        short_side: larger images are reduced first, so that their short side has this many px. None keeps them.
        longest: after that, images with a longer long side are reduced to this many px. None keeps them.
        flip_probability: probability of mirroring a view left to right, independently.
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_probability: probability of changing a view's colours.
        gray_probability: probability of taking a view's colours away.
        blur_probability: probability of blurring a view; SimCLR's is 0.5, the reference implementation has none.
        blur_sigma: range of the blur's standard deviation in pixels of the view.

    Raises:
        ConfigError: if a value can't work.

    Example:
        >>> plan = ObjectCrops(size=32)
        >>> image = plan.prepare(np.zeros((60, 80, 3), np.uint8))
        >>> objects = np.full((60, 80), -1, np.int32)
        >>> objects[20:50, 30:60] = 0
        >>> first, second = plan.make(image, objects, np.random.default_rng(0))
        >>> first.image.shape, first.regions.shape, bool((first.regions == 0).mean() > 0.05)
        ((32, 32, 3), (32, 32), True)
    """

    regions: ObjectMasks = ObjectMasks()  # noqa: RUF009 (frozen)
    size: int = 224
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    min_share: float = 0.1
    max_share: float = 1.0
    tries: int = 20
    region_stride: int = 1
    short_side: int | None = None
    longest: int | None = 2048
    flip_probability: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.8
    gray_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    same_view: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, counts=("tries", "region_stride"), fractions=("blur_probability",))
        check_stride(self.size, self.region_stride)
        if not 0 <= self.min_share <= self.max_share <= 1:
            raise ConfigError(
                f"need 0 <= min_share <= max_share <= 1, not min_share {self.min_share} and max_share {self.max_share}"
            )

    def make(self, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool = True) -> tuple[Crop, Crop]:
        """The two views of one image, a pure function of `rng`.

        Args:
            image: (H, W, 3) RGB uint8 from `prepare`, or (H, W, C) levels.
            regions: (H, W) int32 ids of its objects, -1 = background.
            rng: the only source of chance.
            rgb: whether the image is a photograph.

        Returns:
            Two crops of `size` x `size` pixels, their ids taken from the nearest pixel of the image. Neither need hold
            an object if none of `tries` crops did.

        Raises:
            ConfigError: if the regions are not those of the image.
        """
        if regions.shape != image.shape[:2]:
            raise ConfigError(
                f"regions are {regions.shape} but the image is {image.shape[:2]}; compute them on `prepare`'s result"
            )
        first = self._view(image, regions, rng, rgb)
        return first, first if self.same_view else self._view(image, regions, rng, rgb)

    def _view(self, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool) -> Crop:
        box = self.place(regions, rng)
        flip = bool(rng.random() < self.flip_probability)
        cells = self.size // self.region_stride
        ids = sample_ids(regions, box, (cells, cells), flip)
        change = partial(augment.change_appearance, settings=self, rng=rng, rgb=rgb)
        return cut_view(image, box, self.size, flip, change, ids, rgb)

    def place(self, regions: Ids, rng: np.random.Generator) -> Box:
        """A crop that objects cover as much of as is asked for, or of those drawn the one that came nearest.

        Args:
            regions: (H, W) int32 ids, -1 = background.
            rng: the source of chance.

        Returns:
            A box inside of the image.
        """
        least, best = math.inf, (0, 0, regions.shape[1], regions.shape[0])
        for _ in range(self.tries):
            x0, y0, x1, y1 = box = draw_crop(regions.shape, self.scale, self.ratio, rng)
            share = np.count_nonzero(regions[y0:y1, x0:x1] >= 0) / ((x1 - x0) * (y1 - y0))
            missed = max(self.min_share - share, share - self.max_share, 0.0)
            if missed < least:
                least, best = missed, box
            if missed == 0:
                break
        return best
