"""Two random crops of an image that overlap, each with the ids of some of its regions.

The views of DetCon: O. J. Hénaff et al., "Efficient Visual Pretraining with Contrastive Detection", ICCV 2021 (arXiv
2103.10957), section 3.1: BYOL's crops and colours, and in each view up to 16 masks, drawn from those that it shows.

Where ours differs
- a pair always overlaps, as SlotCon's does (`selfseg.data.views.overlapping_crops`): without a common place there is no
  common mask;
- a view has a mask once at most. The authors' program draws with replacement and gives a mask that was drawn n times a
  weight of 1 / n, which is the same but for the number of different masks.

Frames: boxes are (x0, y0, x1, y1) in whole pixels of the prepared image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from selfseg.data.regions import ObjectMasks, RegionSource, Superpixels
from selfseg.data.views.base import Crop, Ids, Image
from selfseg.data.views.overlapping_crops import OverlappingCrops, cut_view
from selfseg.data.views.settings import check_settings, check_stride
from selfseg.errors import ConfigError
from selfseg.ops.geometry import sample_ids


@dataclass(frozen=True)
class RegionCrops(OverlappingCrops):
    """Two random resized crops that overlap; each has the ids of up to `masks` regions that it shows.

    Attributes:
        regions: where the region ids come from; objects in files are `method.views.regions:object-masks` on the command
            line.
        masks: the most regions of a view; others that it shows become -1. They are drawn in each view by itself.
        region_stride: ids are taken at the centres of `region_stride` x `region_stride` blocks of pixels. Must divide
            `size`.
        size: side of both views in pixels.
        scale: range of a crop's area as a fraction of the image's, within (0, 1].
        ratio: range of a crop's width / height; its logarithm is uniform.
        min_overlap: see `OverlappingCrops`.
        tries: crops that are drawn for the second view before the last one is moved onto the first.
        short_side: larger images are reduced first, so that their short side has this many px. None keeps them.
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
        >>> plan = RegionCrops(size=32, regions=Superpixels(10), masks=4)
        >>> image = plan.prepare(np.zeros((60, 80, 3), np.uint8))
        >>> first, second = plan.make(image, plan.regions.compute(image), np.random.default_rng(0))
        >>> first.regions.shape, len(set(np.unique(first.regions).tolist()) - {-1})
        ((32, 32), 4)
    """

    regions: RegionSource | ObjectMasks = Superpixels(96)  # noqa: RUF009 (frozen)
    masks: int = 16
    region_stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, counts=("masks", "region_stride"))
        check_stride(self.size, self.region_stride)

    def make(self, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool = True) -> tuple[Crop, Crop]:
        """The two views of one image, a pure function of `rng`.

        Args:
            image: (H, W, 3) RGB uint8 from `prepare`, or (H, W, C) levels.
            regions: (H, W) int32, dense from 0; -1 = none.
            rng: the only source of chance.
            rgb: whether the image is a photograph.

        Returns:
            Two crops of `size` x `size` pixels, their ids taken from the nearest pixel of the image. What one view has
            the other need not have; a view may have none where the image has parts without any.

        Raises:
            ConfigError: if the regions are not those of the image.
        """
        height, width = image.shape[:2]
        if regions.shape != (height, width):
            raise ConfigError(
                f"regions are {regions.shape} but the image is {(height, width)}; compute them on `prepare`'s result"
            )
        boxes = self.place((height, width), rng)
        flips = rng.random(2) < self.flip_probability
        cells = self.size // self.region_stride
        crops = []
        for which, (box, flip) in enumerate(zip(boxes, flips.tolist(), strict=True)):
            ids = draw_ids(sample_ids(regions, box, (cells, cells), flip), self.masks, rng)
            change = partial(self.change_appearance, which=which, rng=rng, rgb=rgb)
            crops.append(cut_view(image, box, self.size, flip, change, ids, rgb))
        return crops[0], crops[1]


def draw_ids(ids: NDArray[np.int32], most: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """A map on which so many regions are left at most; all others become -1.

    Args:
        ids: (h, w) int32, -1 = none.
        most: how many are left; each that is there is as likely as any other.
        rng: the source of chance; nothing is drawn from it where all are left.

    Returns:
        (h, w) int32.

    Example:
        >>> draw_ids(np.array([[0, 1, 1, -1]], np.int32), 1, np.random.default_rng(1)).tolist()
        [[0, -1, -1, -1]]
    """
    present = np.flatnonzero(np.bincount(ids.ravel() + 1)[1:])
    if len(present) <= most:
        return ids
    table = np.full(present[-1] + 2, -1, np.int32)  # the last entry is what -1 finds
    kept = rng.choice(present, most, replace=False)
    table[kept] = kept
    return np.take(table, ids)
