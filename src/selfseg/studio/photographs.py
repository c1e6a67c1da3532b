"""The pictures that the studio shows: photographs or false colours, and what a concept is in them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.collection.false_colours import Painter, painter_of
from selfseg.data.labelled.legend import Colour
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.measured import Part
from selfseg.data.reading.sniffing import stem_of
from selfseg.drawing.false_colour import Chosen
from selfseg.drawing.pictures import encode, fit_within, highlight
from selfseg.errors import BadImage, ConfigError

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 of an image, in [0, 1]."""

LARGEST = 2048
"""Longer side in px of a photograph that is sent to the page."""

_KEPT = 1 << 28  # bytes of decoded photographs
_LEAST = 0.56  # of the shorter side: a crop shows what is around a region, too


class Photographs:
    """Photographs of a collection at the size that a page needs, the last ones kept in memory.

    Measured images are shown in false colours. Which channels are which colour may be asked for with each picture.

    Args:
        collection: the images.
        indices: of those that can be read; image i of the studio is `collection[indices[i]]`.

    Attributes:
        channels: the names of measured channels; none of photographs.
        legend: which of them is which colour where nothing else is asked for; "" of photographs.
    """

    def __init__(self, collection: ImageCollection, indices: Sequence[int]) -> None:
        self._collection = collection
        self._indices = indices
        self._versions = [collection.version(i) for i in indices]
        self._kept: OrderedDict[tuple[int, Chosen], NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._painters: dict[Chosen, Painter] = {None: painter_of(collection)}
        self.legend = self._painters[None].legend
        self.channels = collection.channels.names if collection.channels is not None and not collection.rgb else ()

    @property
    def files(self) -> list[Path | None]:
        """Where each image lies; None where it has no file of its own, as a page or a window of a file."""
        found = ((Path(self._collection.paths[i]), self._collection.part(i) in (None, Part())) for i in self._indices)
        return [path if whole and path.is_file() else None for path, whole in found]

    @property
    def file_names(self) -> list[str]:
        """What other tools call each image: its name below the root, with its suffix."""
        found = ((self._collection.names[i], Path(self._collection.paths[i]).name) for i in self._indices)
        suffixes = ((name, file[len(stem_of(file)) :]) for name, file in found)
        return [name if name.endswith(suffix) else name + suffix for name, suffix in suffixes]

    def read(self, image: int, channels: Sequence[int] | str | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, at most `LARGEST` px long.

        Args:
            image: its index.
            channels: which of the measured channels are shown, see `selfseg.drawing.false_colour.Chosen`; of
                photographs nothing else than they are.

        Raises:
            ConfigError: if there is no such image or channel.
            BadImage: if it can't be read any longer, or its file has been changed since the studio was opened: the
                segments and clicks are those of the picture that it was.
        """
        chosen = self._chosen(channels)
        if not 0 <= image < len(self._indices):
            raise ConfigError(f"there is no image {image}; there are {len(self._indices)}")
        key = image, chosen
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            if chosen not in self._painters:
                self._painters[chosen] = painter_of(self._collection, chosen)
            painter = self._painters[chosen]
        picture = fit_within(painter(self._collection.read(self._indices[image])), LARGEST)
        if self._collection.version(self._indices[image]) != self._versions[image]:  # after reading: it is newer
            detail = "since the studio was opened; start it again, or put the file back"
            raise BadImage(self._collection.paths[self._indices[image]], "changed", detail)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self._bytes += picture.nbytes
            while self._bytes > _KEPT and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return picture

    def _chosen(self, channels: Sequence[int] | str | None) -> Chosen:
        if not self.channels or channels is None:
            return None
        if isinstance(channels, str):
            if channels != "pca":
                raise ConfigError(f"channels are numbers or 'pca', not {channels!r}")
            return "pca"
        return tuple(channels)

    def jpeg(self, image: int, longest: int, channels: Sequence[int] | str | None = None) -> bytes:
        """The photograph as a JPEG, its longer side at most so many px; channels as of `read`."""
        return encode(fit_within(self.read(image, channels), min(max(longest, 16), LARGEST)), ".jpg", 88)

    def crop(
        self,
        image: int,
        box: Box,
        mask: NDArray[np.bool_] | None,
        colour: Colour,
        longest: int,
        channels: Sequence[int] | str | None = None,
    ) -> bytes:
        """A part of a photograph as a JPEG, in which a mask stands out.

        Args:
            image: its index.
            box: the part.
            mask: (h, w) bool of the whole image at any size; None = nothing stands out.
            colour: of the mask's outline.
            longest: longer side of the result in px.
            channels: as of `read`.

        Raises:
            ConfigError: if the box is none.
        """
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ConfigError(f"a box is x0, y0, x1, y1 with 0 <= x0 < x1 <= 1, and so for y, not {box}")
        picture = _part(self.read(image, channels), box)
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
