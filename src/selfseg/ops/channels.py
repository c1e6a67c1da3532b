"""Measured values to levels: which channels of an image are taken, and what of their range is kept.

Photographs are 8-bit RGB. Everything else that is measured (12 bits of a microscope, the bands of a satellite, depth in
metres) has a range of its own, which belongs to the collection and not to the single image: an image that is brighter
than its neighbours has to stay so. `Channels` is that record. It is found once, when a run begins, and kept in the
run's embedder, so that whoever uses the run reads images as it did.

Levels are bytes: 1 to 255 for low to high, linear, cut off at both ends; 0 in all channels is a pixel where nothing was
measured (`VOID_LEVEL`). 255 steps are enough because low and high are percentiles of the collection and not the range
of the data type: CamVid squeezed into 2 % of 16 bits loses nothing that can be measured (docs/numbers.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError

VOID_LEVEL = 0
"""The level of all channels of a pixel where nothing was measured; measured pixels have 1 to 255."""


@dataclass(frozen=True)
class Channels:
    """Which channels of measured images are taken, and how their values become levels.

    Attributes:
        names: of the C channels that are taken, as the files call them, or "channel 3".
        take: their indices in the files.
        of: how many channels the files have.
        low: of each channel, the value that becomes level 1; what is smaller does, too.
        high: the value that becomes level 255, above `low`.
        mean: of each channel's levels / 255 over the collection's measured pixels.
        std: their deviation, above 0.
        nodata: the value that stands for "nothing was measured"; None = there is none but not-a-number.
        pages: how the pages of a file become images, see `--pages`.
        colour: whether the channels are red, green and blue; they have one range then, so that colours stay.
        dtype: of the files' values, e.g. "uint16"; "" = any.
        window: side in px of the windows that the run's large images were cut into; None = there were none.

    Raises:
        ConfigError: if the numbers don't belong together.
    """

    names: tuple[str, ...]
    take: tuple[int, ...]
    of: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    nodata: float | None = None
    pages: str = "auto"
    colour: bool = False
    dtype: str = ""
    window: int | None = None

    def __post_init__(self) -> None:
        counts = {len(getattr(self, name)) for name in ("names", "take", "low", "high", "mean", "std")}
        if counts != {len(self.names)} or not self.names:
            raise ConfigError(f"channels have a name, place, low, high, mean and deviation each, not {self}")
        if not all(0 <= place < self.of for place in self.take):
            raise ConfigError(f"channels {self.take} are not all among the {self.of} of the files")
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)) or min(self.std) <= 0:
            raise ConfigError(f"every channel needs low < high and a deviation above 0, not {self}")

    @staticmethod
    def of_json(values: Mapping[str, Any] | None) -> Channels | None:
        """The record of what `dataclasses.asdict` and JSON made of it; None of None.

        Raises:
            TypeError: if there are other entries.
        """
        if values is None:
            return None
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return Channels(**given)

    def __len__(self) -> int:
        return len(self.names)

    def measured(self, values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.bool_] | None:
        """Where each channel was measured.

        Args:
            values: (H, W, C) as the files have them.
            valid: (H, W) or (H, W, C) bool, the file's own mask.

        Returns:
            (H, W, C) bool, or None: everywhere.
        """
        found: NDArray[np.bool_] | None = None
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            found = None if finite.all() else finite
        if self.nodata is not None and self.nodata == self.nodata:
            there = values != values.dtype.type(self.nodata) if _holds(values.dtype, self.nodata) else None
            if there is not None and not there.all():
                found = there if found is None else found & there
        if valid is not None and not valid.all():
            mask = np.broadcast_to(valid if valid.ndim == 3 else valid[..., None], values.shape)
            found = mask if found is None else found & mask
        return found

    def levels(self, values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """Values as levels.

        Args:
            values: (H, W, C) of the taken channels, as the files have them.
            valid: as of `measured`.

        Returns:
            (H, W, C) uint8, contiguous. A pixel that no channel measured is 0 in all of them; a channel that is
            missing where others are there has its mean level.

        Raises:
            ConfigError: for another number of channels.

        Example:
            >>> channels = Channels(("NIR",), (0,), 1, (100.0,), (1100.0,), (0.5,), (0.2,), nodata=0)
            >>> channels.levels(np.array([[[0], [50], [100], [600], [9000]]], np.uint16)).ravel().tolist()
            [0, 1, 1, 128, 255]
        """
        if values.ndim != 3 or values.shape[2] != len(self):
            raise ConfigError(f"values must be (H, W, {len(self)}), not {values.shape}")
        found = np.empty(values.shape, np.uint8)
        for c in range(len(self)):
            found[..., c] = _stretch(values[..., c], self.low[c], self.high[c])
        there = self.measured(values, valid)
        if there is not None:
            means = np.clip(np.rint(np.array(self.mean) * 255), 1, 255).astype(np.uint8)
            np.copyto(found, means, where=~there)
            found[~there.any(2)] = VOID_LEVEL
        return found


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a data type has this value; a no-data value that it can't hold marks nothing."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


def _stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """low..high to 1..255."""
    if values.dtype == np.uint8:
        table = 1 + np.rint((np.arange(256, dtype=np.float64) - low) * (254 / (high - low))).clip(0, 254)
        return np.asarray(cv2.LUT(np.ascontiguousarray(values), table.astype(np.uint8)), np.uint8)
    if values.dtype == np.uint16:
        return _table(low, high).take(values)
    wide: Any = np.float64 if values.dtype.itemsize > 4 else np.float32
    stretched: NDArray[Any] = (values.astype(wide) - wide(low)) * wide(254 / (high - low))
    return np.asarray(1 + np.rint(np.nan_to_num(stretched)).clip(0, 254), np.float32).astype(np.uint8)


def _table(low: float, high: float) -> NDArray[np.uint8]:
    key = (low, high)
    if key not in _TABLES:
        if len(_TABLES) > 256:
            _TABLES.clear()
        steps = np.rint((np.arange(1 << 16, dtype=np.float64) - low) * (254 / (high - low))).clip(0, 254)
        _TABLES[key] = (1 + steps).astype(np.uint8)
    return _TABLES[key]


_TABLES: dict[tuple[float, float], NDArray[np.uint8]] = {}


def describe(
    names: Sequence[str],
    take: Sequence[int],
    of: int,
    samples: NDArray[Any],
    nodata: float | None = None,
    pages: str = "auto",
    colour: bool = False,
    percentiles: tuple[float, float] = (0.1, 99.9),
    dtype: str = "",
) -> Channels:
    """The record of a collection, from drawn pixels.

    Args:
        names: of the taken channels.
        take: their indices in the files.
        of: channels of the files.
        samples: (N, C) values of drawn pixels; not-a-number where a channel was not measured.
        nodata: of the files.
        pages: how pages become images.
        colour: whether the channels are red, green and blue.
        percentiles: that become the ends of the range. They leave out what a dead or a hot pixel has.
        dtype: of the files.

    Returns:
        The record. A channel of one value has that value in the middle of a range of 1.

    Raises:
        ConfigError: if a channel was measured nowhere, with its name.

    Example:
        >>> describe(["depth"], [0], 1, np.arange(1001.0)[:, None], percentiles=(10, 90)).high
        (900.0,)
    """
    low, high, mean, std = [], [], [], []
    columns = [samples[np.isfinite(samples[:, c]), c].astype(np.float64) for c in range(len(names))]
    for name, values in zip(names, columns, strict=True):
        if not len(values):
            raise ConfigError(f"the channel {name!r} has no measured pixel in the collection; leave it out")
    ranges = [_range(values, percentiles) for values in columns]
    if colour:
        ranges = [(min(first for first, _ in ranges), max(last for _, last in ranges))] * len(ranges)
    for values, (first, last) in zip(columns, ranges, strict=True):
        levels = (1 + ((values - first) * (254 / (last - first))).clip(0, 254)) / 255
        low.append(first)
        high.append(last)
        mean.append(float(levels.mean()))
        std.append(max(float(levels.std()), 1 / 255))
    return Channels(
        tuple(names), tuple(take), of, tuple(low), tuple(high), tuple(mean), tuple(std), nodata, pages, colour, dtype
    )


def _range(values: NDArray[np.float64], percentiles: tuple[float, float]) -> tuple[float, float]:
    """Percentiles that differ; if they don't, the smallest and the largest value; if there is but one, around it."""
    first, last = (float(value) for value in np.percentile(values, percentiles))
    if not first < last:
        first, last = float(values.min()), float(values.max())
    return (first, last) if first < last else (first - 0.5, first + 0.5)
