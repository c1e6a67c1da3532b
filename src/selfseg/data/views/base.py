"""What a way to cut views is: the contract that every plan keeps, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from selfseg.data.regions import AnyRegions
from selfseg.ops.levels import measured

Image = NDArray[np.uint8]
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Crop:
    """One view of one image.

    Attributes:
        image: (H, W, 3) RGB uint8, or (H, W, C) uint8 levels of measured channels.
        to_image: (2, 3) float32 affine from the view to the prepared image, both in [-1, 1] (`selfseg.ops.geometry`); a
            flip is a negative determinant.
        regions: (H / region_stride, W / region_stride) int32 ids of the prepared image's regions, -1 = none;
            (0, 0) from a plan without regions. What is void in a view of measured channels has none.
        noise: (H, W) bool, where noise was painted.
    """

    image: Image
    to_image: NDArray[np.float32]
    regions: Ids
    noise: NDArray[np.bool_]


class ViewPlan(Protocol):
    """How an image becomes the views of one training step. Plans are frozen: the same `rng`, the same views."""

    @property
    def regions(self) -> AnyRegions:
        """Where the region ids come from; they are computed once per prepared image."""

    def prepare(self, image: Image, rgb: bool = True) -> Image:
        """The source image of the views, always the same for an image.

        Args:
            image: (H, W, 3) RGB uint8 of any size, or (H, W, C) levels.
            rgb: whether it is a photograph; False for measured channels (`selfseg.ops.levels`). Only then a plan is
                told, so that one which knows nothing of it still does for photographs.
        """

    def make(self, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool = True) -> tuple[Crop, ...]:
        """The views.

        Args:
            image: (H, W, 3) or (H, W, C) uint8 from `prepare`.
            regions: (H, W) int32, dense from 0; -1 = none; what the plan's `regions` computed, (0, 0) from `NoRegions`.
            rng: the only source of chance; the same numbers are drawn for any channels of the same size.
            rgb: as for `prepare`.
        """


def prepare_image(plan: ViewPlan, image: Image, rgb: bool = True) -> Image:
    """`plan.prepare`, which isn't told `rgb` where it is True."""
    return plan.prepare(image) if rgb else plan.prepare(image, rgb=False)


def make_views(
    plan: ViewPlan, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool = True
) -> tuple[Crop, ...]:
    """`plan.make`, which isn't told `rgb` where it is True."""
    return plan.make(image, regions, rng) if rgb else plan.make(image, regions, rng, rgb=False)


def without_void(regions: Ids, image: Image, rgb: bool) -> Ids:
    """The ids of a view, -1 where it shows void.

    Args:
        regions: (H / stride, W / stride) int32, or (0, 0).
        image: (H, W, C) uint8, the view.
        rgb: whether it is a photograph, in which nothing is void.

    Returns:
        As `regions`, and `regions` itself where nothing is void.
    """
    where = None if rgb or regions.size == 0 else measured(image)
    if where is None:
        return regions
    stride = len(where) // len(regions)
    cells = where[stride // 2 :: stride, stride // 2 :: stride][: regions.shape[0], : regions.shape[1]]
    return np.where(cells, regions, np.int32(-1))
