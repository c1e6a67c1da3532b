"""Measured channels as a picture: false colours, and a legend that says which channel is which colour.

One channel is gray, two are orange and blue (which add up to white), three chosen ones are red, green and blue. More
are shown by their first three principal components, so that what differs in any channel differs in colour. Void pixels
are striped: no colour of a picture looks so.

Letters in shapes: H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.errors import ConfigError
from selfseg.ops.levels import SPAN, check_image, measured
from selfseg.ops.pca import fit_pca

Picture = NDArray[np.uint8]
Chosen = Sequence[int] | Literal["pca"] | None
"""Up to three channels by index, "pca", or None: as many as there are if they are up to three, else "pca"."""

GRAY: tuple[str, ...] = ("gray",)
TWO = ("orange", "blue")
THREE = ("red", "green", "blue")
_PAINTS = {"gray": (1.0, 1.0, 1.0), "orange": (1.0, 0.6, 0.0), "blue of two": (0.0, 0.4, 1.0)}
_LARGE = 0.3  # the least share of a component at which its channel is named

VOID = (118, 138)
"""The two grays of void's stripes."""

_STRIPE = 4  # px


@dataclass(frozen=True)
class FalseColours:
    """From levels to red, green and blue: one and the same linear map for all pictures of a collection.

    Attributes:
        matrix: 3 rows of C numbers: what a level adds to red, green and blue, in [0, 255].
        offset: of each, 3.
        legend: which channel is which colour, e.g. "red: NIR, green: height, blue: gray"; "" of a photograph.

    Example:
        >>> colours = choose(("NIR", "depth", "blue"), (2, 1, 0))
        >>> colours.legend
        'red: blue, green: depth, blue: NIR'
        >>> colours(np.array([[[255, 2, 1]]], np.uint8)).tolist()
        [[[0, 1, 255]]]
    """

    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]
    legend: str

    def __call__(self, levels: NDArray[np.uint8]) -> Picture:
        """The picture of an image.

        Args:
            levels: (H, W, C) uint8 (`selfseg.ops.levels`).

        Returns:
            (H, W, 3) uint8 RGB; void pixels are striped in gray.

        Raises:
            ConfigError: for another array.
        """
        check_image(levels, rgb=False)
        if levels.shape[2] != len(self.matrix[0]):
            raise ConfigError(f"these colours are of {len(self.matrix[0])} channels, the image has {levels.shape[2]}")
        matrix, offset = np.array(self.matrix, np.float32), np.array(self.offset, np.float32)
        picture = np.empty((*levels.shape[:2], 3), np.uint8)
        rows = max(1, (1 << 18) // levels.shape[1])  # a large image's floats would take hundreds of MB
        for start in range(0, len(levels), rows):
            mixed = levels[start : start + rows].astype(np.float32) @ matrix.T + offset
            picture[start : start + rows] = np.rint(np.clip(mixed, 0, 255))
        where = measured(levels)
        if where is not None:
            y, x = np.nonzero(~where)
            picture[y, x] = np.array(VOID, np.uint8)[(x + y) // _STRIPE % 2][:, None]
        return picture


def choose(names: Sequence[str], channels: Chosen = None, sample: NDArray[np.uint8] | None = None) -> FalseColours:
    """How the channels of a collection are drawn.

    Args:
        names: of the C channels.
        channels: which of them, see `Chosen`.
        sample: (N, C) levels of measured pixels of the collection, which "pca" is fitted on. Without one, None takes
            the first three channels.

    Raises:
        ConfigError: if there is no such channel, or there are more than three, or "pca" has no sample.
    """
    count = len(names)
    if channels is None:
        few = count <= 3 or sample is None or len(sample) < 2
        channels = tuple(range(min(count, 3))) if few else "pca"
    if isinstance(channels, str):
        if sample is None or len(sample) < 2:
            raise ConfigError("principal components need a sample of measured pixels; choose channels instead")
        if count >= 3:
            return _components(names, sample)
        channels = tuple(range(count))
    if not 1 <= len(channels) <= 3 or len(set(channels)) < len(channels):
        raise ConfigError(f"a picture shows one to three different channels, not {list(channels)}")
    if not all(0 <= channel < count for channel in channels):
        have = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
        raise ConfigError(f"there is no channel {max(channels)}; the images have {have}")
    words = (GRAY, TWO, THREE)[len(channels) - 1]
    paints: list[tuple[float, ...]]
    if len(channels) == 3:
        paints = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    else:
        paints = [_PAINTS["blue of two" if word == "blue" else word] for word in words]
    matrix = np.zeros((3, count))
    for channel, paint in zip(channels, paints, strict=True):
        matrix[:, channel] = np.array(paint) * 255 / SPAN
    legend = ", ".join(f"{word}: {names[channel]}" for word, channel in zip(words, channels, strict=True))
    return FalseColours(_rows(matrix), tuple((-matrix.sum(1)).tolist()), legend)


def _components(names: Sequence[str], sample: NDArray[np.uint8]) -> FalseColours:
    """The first three principal components of a sample, as `PcaBasis.colour` shows them."""
    basis = fit_pca(torch.from_numpy(np.asarray(sample, np.float32)), 3)
    low, high = basis.low.double().numpy(), basis.high.double().numpy()
    components = basis.components.double().numpy()
    flat = high - low <= 1e-6
    scale = np.where(flat, 0, 255 / np.where(flat, 1, high - low))
    matrix = components * scale[:, None]
    offset = np.where(flat, 127.5, -(components @ basis.mean.double().numpy() + low) * scale)
    words = []
    for word, component in zip(THREE, components, strict=True):
        order = np.argsort(-np.abs(component), kind="stable")
        parts = [c for rank, c in enumerate(order.tolist()) if rank == 0 or abs(component[c]) >= _LARGE][:3]
        words.append(f"{word}: " + " ".join(f"{component[c]:+.1f} {names[c]}" for c in parts))
    return FalseColours(_rows(matrix), tuple(offset.tolist()), "principal components, " + ", ".join(words))


def _rows(matrix: NDArray[np.floating]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def false_colour(levels: NDArray[np.uint8], channels: Chosen = None, names: Sequence[str] = ()) -> tuple[Picture, str]:
    """One image of measured channels as a picture of its own; a collection's pictures share `choose`'s colours.

    Args:
        levels: (H, W, C) uint8.
        channels: which are shown, see `Chosen`; "pca" is fitted on this image.
        names: of the channels; "channel 0" and so on if none are given.

    Returns:
        (H, W, 3) uint8 RGB, and the legend.

    Raises:
        ConfigError: for another array, or channels that can't be shown.

    Example:
        >>> picture, legend = false_colour(np.full((4, 4, 1), 255, np.uint8), names=["depth"])
        >>> picture[0, 0].tolist(), legend
        ([255, 255, 255], 'gray: depth')
    """
    check_image(levels, rgb=False)
    count = levels.shape[2]
    if names and len(names) != count:
        raise ConfigError(f"{len(names)} names of {count} channels")
    where = measured(levels)
    pixels = levels.reshape(-1, count) if where is None else levels[where]
    sample = pixels[:: max(1, len(pixels) // 20000)]
    colours = choose(names or [f"channel {c}" for c in range(count)], channels, sample)
    return colours(levels), colours.legend


PHOTOGRAPH = FalseColours(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.0, 0.0, 0.0), "")
"""Of images that are red, green and blue already."""
