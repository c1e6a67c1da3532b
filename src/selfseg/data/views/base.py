"""What a way to cut views is: the contract that every plan keeps, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from selfseg.data.regions import AnyRegions

Image = NDArray[np.uint8]
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Crop:
    """One view of one image.

    Attributes:
        image: (H, W, 3) RGB uint8.
        to_image: (2, 3) float32 affine from the view to the prepared image, both in [-1, 1] (`selfseg.ops.geometry`); a
            flip is a negative determinant.
        regions: (H / region_stride, W / region_stride) int32 ids of the prepared image's regions, -1 = none;
            (0, 0) from a plan without regions.
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

    def prepare(self, image: Image) -> Image:
        """The source image of the views, always the same for an image.

        Args:
            image: (H, W, 3) RGB uint8 of any size.
        """

    def make(self, image: Image, regions: Ids, rng: np.random.Generator) -> tuple[Crop, ...]:
        """The views.

        Args:
            image: (H, W, 3) uint8 from `prepare`.
            regions: (H, W) int32, dense from 0; -1 = none; what the plan's `regions` computed, (0, 0) from `NoRegions`.
            rng: the only source of chance.
        """
