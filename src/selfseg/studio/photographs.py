"""The pictures that the studio shows: photographs, and what a concept is in them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.legend import Colour
from selfseg.data.reading.images import ImageCollection
from selfseg.drawing.pictures import encode, fit_within, highlight
from selfseg.errors import ConfigError

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 of an image, in [0, 1]."""

LARGEST = 2048
"""Longer side in px of a photograph that is sent to the page."""

_KEPT = 1 << 28  # bytes of decoded photographs
_LEAST = 0.56  # of the shorter side: a crop shows what is around a region, too


class Photographs:
    """Photographs of a collection at the size that a page needs, the last ones kept in memory.

    Args:
        collection: the images.
        indices: of those that can be read; image i of the studio is `collection[indices[i]]`.
    """

    def __init__(self, collection: ImageCollection, indices: Sequence[int]) -> None:
        self._collection = collection
        self._indices = indices
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def files(self) -> list[Path | None]:
        """Where each image lies; None where it has no file of its own."""
        paths = [Path(self._collection.paths[index]) for index in self._indices]
        return [path if path.is_file() else None for path in paths]

    @property
    def file_names(self) -> list[str]:
        """What other tools call each image: its name below the root, with its suffix."""
        found = ((self._collection.names[i], Path(self._collection.paths[i]).suffix) for i in self._indices)
        return [name if name.endswith(suffix) else name + suffix for name, suffix in found]

    def read(self, image: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, at most `LARGEST` px long.

        Raises:
            ConfigError: if there is no such image.
            BadImage: if it can't be read any longer.
        """
        if not 0 <= image < len(self._indices):
            raise ConfigError(f"there is no image {image}; there are {len(self._indices)}")
        with self._lock:
            if image in self._kept:
                self._kept.move_to_end(image)
                return self._kept[image]
        picture = fit_within(self._collection.read(self._indices[image]), LARGEST)
        with self._lock:
            if image not in self._kept:
                self._kept[image] = picture
                self._bytes += picture.nbytes
            while self._bytes > _KEPT and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return picture

    def jpeg(self, image: int, longest: int) -> bytes:
        """The photograph as a JPEG, its longer side at most so many px."""
        return encode(fit_within(self.read(image), min(max(longest, 16), LARGEST)), ".jpg", 88)

    def crop(self, image: int, box: Box, mask: NDArray[np.bool_] | None, colour: Colour, longest: int) -> bytes:
        """A part of a photograph as a JPEG, in which a mask stands out.

        Args:
            image: its index.
            box: the part.
            mask: (h, w) bool of the whole image at any size; None = nothing stands out.
            colour: of the mask's outline.
            longest: longer side of the result in px.

        Raises:
            ConfigError: if the box is none.
        """
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ConfigError(f"a box is x0, y0, x1, y1 with 0 <= x0 < x1 <= 1, and so for y, not {box}")
        picture = _part(self.read(image), box)
        factor = min(max(longest, 16), LARGEST) / max(picture.shape[:2])
        size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)
        if mask is not None:
            seen = cv2.resize(_part(mask.astype(np.uint8) * 255, box), size, interpolation=cv2.INTER_LINEAR)
            picture = highlight(picture, np.asarray(seen) >= 128, colour)
        return encode(picture, ".jpg", 88)


def box_around(centre: Sequence[float], area: float, size: Sequence[int]) -> Box:
    """A square part of an image around a region, large enough to see where it lies.

    Args:
        centre: y and x of the region in [0, 1].
        area: its share of the image.
        size: H and W of the image in px.

    Returns:
        The box, inside of the image.

    Example:
        >>> box_around((0.5, 0.0), 0.001, (100, 200))
        (0.0, 0.22, 0.28, 0.78)
    """
    height, width = size
    side = min(max(4 * math.sqrt(area * height * width), _LEAST * min(size)), min(size))
    found = []
    for middle, length in zip(centre, size, strict=True):
        share = min(side / length, 1.0)
        start = min(max(middle - share / 2, 0.0), 1 - share)
        found.append((start, start + share))
    (y0, y1), (x0, x1) = found
    return (round(x0, 4), round(y0, 4), round(min(x1, 1.0), 4), round(min(y1, 1.0), 4))


def _part(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """What of a picture, (H, W, ...), lies in a box; at least one pixel."""
    height, width = picture.shape[:2]
    left, right = int(box[0] * width), max(int(np.ceil(box[2] * width)), int(box[0] * width) + 1)
    top, bottom = int(box[1] * height), max(int(np.ceil(box[3] * height)), int(box[1] * height) + 1)
    return picture[top:bottom, left:right]
