"""Labelled images as squares: the short side resized, then the centre; and their labels in the same way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.decoding import MAX_PIXELS
from selfseg.data.reading.images import LONGEST, ImageCollection, is_thin, resize_short_side

T = TypeVar("T", bound=np.generic)


def centre_square(image: NDArray[Any]) -> NDArray[Any]:
    """The square in the middle, as large as the shorter side; of an odd rest the smaller half is left or above.

    Args:
        image: (H, W, 3) or (H, W).

    Returns:
        A contiguous copy, or the image itself where it is a square.

    Example:
        >>> centre_square(np.arange(5, dtype=np.uint8)[None].repeat(2, 0)).tolist()
        [[1, 2], [1, 2]]
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def middle(image: NDArray[T]) -> NDArray[T]:
    """The middle of an image that is very long, enough of it for the square that is cut out later; else itself.

    Resized as a whole, 8 x 20,000 pixels would be 800,000 wide on the way to 320 lines.
    """
    height, width = image.shape[:2]
    if not is_thin(height, width):
        return image
    length = LONGEST * min(height, width)
    top, left = max(0, (height - length) // 2), max(0, (width - length) // 2)
    return image[top : top + length, left : left + length]


@dataclass(frozen=True)
class CroppedImages(ImageCollection):
    """Images as squares: the short side resized to `side` px (as `resize_short_side`), then the centre."""

    side: int = 0

    def read(self, index: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Image `index` as (side, side, 3) uint8 RGB; raises BadImage as `read_image` does."""
        image = middle(super().read(index, max_pixels))
        return centre_square(resize_short_side(image, self.side, self.channels is not None))

    def size(self, index: int) -> tuple[int, int]:
        """(side, side)."""
        return self.side, self.side

    def subset(self, indices: Iterable[int]) -> CroppedImages:
        """As of any collection; the images stay squares."""
        kept = super().subset(indices)
        return CroppedImages(kept.root, kept.paths, kept.names, self.side, channels=kept.channels, parts=kept.parts)


def cropped_ids(ids: NDArray[Any], side: int) -> NDArray[Any]:
    """A label or mask (H, W) of an integer type, resized and cropped as `CroppedImages` are; no value is mixed."""
    ids = middle(ids)
    height, width = ids.shape
    scale = side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))  # as `resize_short_side`
    # NEAREST_EXACT takes the pixel that the new one's centre lies in, NEAREST one up to half a pixel off.
    resized = ids if size == (width, height) else cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return centre_square(np.asarray(resized))
