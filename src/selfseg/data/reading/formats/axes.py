"""From dimensions in any order (TCZYX, YXS, ...) to pages of (H, W, C).

Y and X span the image. C and S (samples of a pixel) are its channels. Every other dimension (time, depth, position)
counts pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.formats.base import MOST_CHANNELS, MOST_PAGES, Window
from selfseg.data.reading.sniffing import Damage

CHANNEL_AXES = "CS"
_WORDS = {"I": "page", "Q": "page", "R": "page", "P": "page"}


@dataclass(frozen=True)
class Axes:
    """How an array of several dimensions is divided into pages and channels.

    Attributes:
        letters: one for each dimension, e.g. "TCZYX"; Y and X are there once each.
        shape: as many sizes.

    Example:
        >>> axes = Axes("TCZYX", (2, 3, 5, 40, 60))
        >>> axes.height, axes.width, axes.channels, axes.pages[:2], len(axes.pages)
        (40, 60, 3, ('t0-z0', 't0-z1'), 10)
    """

    letters: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.letters) != len(self.shape) or self.letters.count("Y") != 1 or self.letters.count("X") != 1:
            raise Damage("unreadable", f"dimensions {self.letters or 'none'} of {self.shape}: not one height and width")
        if min(self.shape) < 1:
            raise Damage("unreadable", f"dimensions {self.letters} of {self.shape}: nothing in one of them")
        if prod(self._page_sizes) > MOST_PAGES:
            raise Damage("too-large", f"dimensions {self.letters} of {self.shape}: more than {MOST_PAGES} pages")
        if prod(self._channel_sizes) > MOST_CHANNELS:
            raise Damage("too-large", f"dimensions {self.letters} of {self.shape}: more than {MOST_CHANNELS} channels")

    @property
    def height(self) -> int:
        """H of every page."""
        return self.shape[self.letters.index("Y")]

    @property
    def width(self) -> int:
        """W of every page."""
        return self.shape[self.letters.index("X")]

    @property
    def channels(self) -> int:
        """How many values a pixel has."""
        return prod(self._channel_sizes)

    @cached_property
    def _channel_dims(self) -> tuple[int, ...]:
        return tuple(i for i, letter in enumerate(self.letters) if letter in CHANNEL_AXES)

    @cached_property
    def _page_dims(self) -> tuple[int, ...]:
        return tuple(i for i, letter in enumerate(self.letters) if letter not in CHANNEL_AXES + "YX")

    @property
    def _channel_sizes(self) -> tuple[int, ...]:
        return tuple(self.shape[i] for i in self._channel_dims)

    @property
    def _page_sizes(self) -> tuple[int, ...]:
        return tuple(self.shape[i] for i in self._page_dims)

    @cached_property
    def pages(self) -> tuple[str, ...]:
        """A name for each page: "t03-z1", "page7"; ("",) where there is only one."""
        counting = [i for i in self._page_dims if self.shape[i] > 1]
        if not counting:
            return ("",)
        parts = []
        for i in counting:
            word = _WORDS.get(self.letters[i], self.letters[i].lower())
            if sum(_WORDS.get(self.letters[j], self.letters[j].lower()) == word for j in counting) > 1:
                word = f"{word}{i}-"
            digits = len(str(self.shape[i] - 1))
            parts.append([f"{word}{number:0{digits}d}" for number in range(self.shape[i])])
        names = [""]
        for part in parts:
            names = [f"{name}-{piece}" if name else piece for name in names for piece in part]
        return tuple(names)

    def index(self, page: int, channel: int) -> tuple[int, ...]:
        """The index of a page's channel in every dimension; 0 in Y and X."""
        index = [0] * len(self.shape)
        if self._page_dims:
            for i, value in zip(self._page_dims, np.unravel_index(page, self._page_sizes), strict=True):
                index[i] = int(value)
        if self._channel_dims:
            for i, value in zip(self._channel_dims, np.unravel_index(channel, self._channel_sizes), strict=True):
                index[i] = int(value)
        return tuple(index)

    def take(self, array: Any, page: int, window: Window, channels: Sequence[int]) -> NDArray[Any]:
        """A page's window out of an array or a memory map of `shape`.

        Returns:
            (h, w, C) in the machine's byte order, contiguous, and a copy.
        """
        planes = []
        for channel in channels:
            index: list[int | slice] = list(self.index(page, channel))
            index[self.letters.index("Y")] = slice(window.y, window.y + window.height)
            index[self.letters.index("X")] = slice(window.x, window.x + window.width)
            plane = array[tuple(index)]
            planes.append(plane if self.letters.index("Y") < self.letters.index("X") else plane.T)
        out = np.empty((window.height, window.width, len(planes)), array.dtype.newbyteorder("="))
        for i, plane in enumerate(planes):
            out[:, :, i] = plane
        return out


def guess_letters(shape: tuple[int, ...]) -> str:
    """The dimensions of an array that doesn't name them, as people store images.

    Args:
        shape: of 2 dimensions or more.

    Returns:
        "YX", "YXC" where the third is smaller than both others or the first two are equal and the last isn't, else
        "IYX": pages of one channel. Of more dimensions those before the last two or three are pages.

    Raises:
        Damage: "unreadable" if there are fewer than 2.

    Example:
        >>> guess_letters((480, 640, 5)), guess_letters((32, 32, 224)), guess_letters((100, 512, 512))
        ('YXC', 'YXC', 'IYX')
        >>> guess_letters((7, 480, 640, 5)), guess_letters((2, 7, 480, 640))
        ('IYXC', 'IIYX')
    """
    if len(shape) < 2:
        raise Damage("unreadable", f"an array of shape {shape} is no image")
    if len(shape) == 2:
        return "YX"
    height, width, last = shape[-3:]
    if last < min(height, width) or (height == width and last != width):
        return "I" * (len(shape) - 3) + "YXC"
    return "I" * (len(shape) - 2) + "YX"
