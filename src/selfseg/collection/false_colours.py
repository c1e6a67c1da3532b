"""The colours that a collection's images are drawn in: photographs as they are, measured channels in false colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.images import ImageCollection, spread_indices
from selfseg.drawing.false_colour import Chosen, Picture, choose
from selfseg.errors import BadImage
from selfseg.ops.levels import measured

_IMAGES = 16  # that the principal components are fitted on, evenly spread
_PIXELS = 2000  # of each


@dataclass(frozen=True)
class Painter:
    """Makes a picture of an image.

    Attributes:
        paint: (H, W, C) uint8 to (H, W, 3) uint8 RGB; None = photographs, which are pictures.
        legend: which channel is which colour; "" of photographs.
    """

    paint: Callable[[NDArray[np.uint8]], Picture] | None = None
    legend: str = ""

    def __call__(self, image: NDArray[np.uint8]) -> Picture:
        """The picture of an image as `ImageCollection.read` gives it; a photograph is its own."""
        return image if self.paint is None else self.paint(image)

    @property
    def rgb(self) -> bool:
        """Whether images are photographs."""
        return self.paint is None

    @property
    def note(self) -> tuple[str, ...]:
        """A sentence with the legend, for pages whose captions are short; none of photographs."""
        return (f"Measured channels are shown in false colours ({self.legend}).",) if self.legend else ()

    def word(self, word: str) -> str:
        """What a picture is called where the legend stands elsewhere.

        Example:
            >>> Painter().word("photograph"), Painter(legend="gray: depth").word("photograph")
            ('photograph', 'false colours')
        """
        return "false colours" if self.legend else word

    def caption(self, word: str) -> str:
        """What stands below a picture: the word, and the legend of false colours.

        Example:
            >>> Painter().caption("photograph")
            'photograph'
            >>> Painter(legend="gray: depth").caption("photograph")
            'false colours (gray: depth)'
        """
        return f"false colours ({self.legend})" if self.legend else word


PHOTOGRAPHS = Painter()
"""Draws photographs: as they are."""


def painter_of(images: ImageCollection, channels: Chosen = None) -> Painter:
    """How a collection's images are drawn; a pure function of the collection.

    Args:
        images: the collection.
        channels: which channels are shown, see `selfseg.drawing.false_colour.Chosen`.

    Raises:
        ConfigError: if there is no such channel.
    """
    if images.rgb or images.channels is None:
        return PHOTOGRAPHS
    names = images.channels.names
    sample = _sample(images) if channels == "pca" or (channels is None and len(names) > 3) else None
    colours = choose(names, channels, sample)
    return Painter(colours, colours.legend)


def _sample(images: ImageCollection) -> NDArray[np.uint8] | None:
    """(N, C) levels of measured pixels; None if no image can be read."""
    drawn = []
    for index in spread_indices(len(images), _IMAGES):
        try:
            image = images.glimpse(index)
        except BadImage:
            continue
        where = measured(image)
        pixels = image.reshape(-1, image.shape[2]) if where is None else image[where]
        if len(pixels):
            rng = np.random.default_rng((0, index))
            drawn.append(pixels[rng.choice(len(pixels), min(_PIXELS, len(pixels)), replace=False)])
    return np.concatenate(drawn) if drawn else None
