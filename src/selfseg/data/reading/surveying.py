"""What a collection of files is: photographs or measured images, with which channels, of which range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.formats.base import Layout, Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.formats.pages import channels_of, pick_pages, read_page
from selfseg.data.reading.measured import Part
from selfseg.data.reading.sniffing import MAX_PIXELS, Damage
from selfseg.errors import ConfigError, EmptyCollection
from selfseg.ops.channels import Channels, describe

LOOKED_AT = 200
"""Images of a collection whose pixels are drawn to find its range."""

DRAWN = 400_000
"""Pixels that are drawn in all."""

_EIGHT_BIT = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif"))


class Spread(NamedTuple):
    """The values of a channel, of drawn pixels.

    Attributes:
        name: of the channel.
        least: the smallest.
        low: the percentile .1, which becomes level 1.
        middle: the median.
        high: the percentile 99.9, which becomes level 255.
        most: the largest.
        void: the share of the pixels where it was not measured.
    """

    name: str
    least: float
    low: float
    middle: float
    high: float
    most: float
    void: float


class ImagePaths(Protocol):
    """What a survey needs of a collection."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""

    def part(self, index: int) -> Part | None:
        """The page and window of an image; None = the whole file."""


@dataclass(frozen=True)
class Survey:
    """What a look at a collection's files found.

    Attributes:
        images: in the collection.
        looked_at: how many files were opened.
        kinds: how many of those are of each format.
        dtypes: and of each data type.
        counts: and of how many channels.
        pages: and of how many pages.
        sizes: smallest and largest (H, W).
        names: of the channels, where all files agree on how many there are.
        colour: whether the channels are red, green and blue in all files.
        problems: (file, reason) of files that can't be used.
        channels: how they would be read as measured images; None if they don't agree.
        spread: of each channel, where pixels were drawn.
    """

    images: int
    looked_at: int
    kinds: Counter[str]
    dtypes: Counter[str]
    counts: Counter[int]
    pages: Counter[int]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    names: tuple[str, ...]
    colour: bool
    problems: tuple[tuple[str, str], ...]
    channels: Channels | None
    spread: tuple[Spread, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether these are measured images and no photographs.

        They are if all have as many channels, and more than 8 bits, several pages, channels that are neither gray nor
        colours, or more pixels than can be decoded at once.
        """
        deep = not {"uint8", "bool"} & self.dtypes.keys()
        stacks = 1 not in self.pages
        large = self.sizes[1][0] * self.sizes[1][1] > MAX_PIXELS
        return len(self.counts) == 1 and (deep or stacks or large or not (self.colour or 1 in self.counts))

    def sentence(self) -> str:
        """What a run tells of the channels that it takes."""
        channels = self.channels
        assert channels is not None
        lines = [
            f"{name}: {low:.5g} to {high:.5g}"
            for name, low, high in zip(channels.names, channels.low, channels.high, strict=True)
        ]
        return (
            f"measured images of {_counted_words(self.dtypes)}: {len(channels)} of {channels.of} channels, whose range "
            f"becomes 255 levels ({'; '.join(lines[:8])}{'; ...' if len(lines) > 8 else ''})"
        )

    def warning(self) -> str:
        """What a person should know where files of different kinds are all read as photographs; else ""."""
        deep = sum(count for dtype, count in self.dtypes.items() if dtype not in ("uint8", "bool"))
        if not deep and not self.counts.keys() - {1, 3, 4}:
            return ""
        return (
            f"these files are of different kinds ({_counted_words(self.dtypes)}; channels: "
            f"{', '.join(f'{images} files of {count}' for count, images in self.counts.most_common())}), so that all "
            "are read as 8-bit RGB photographs; to keep all channels and bits, put files of one kind into a folder"
        )


def may_be_measured(images: ImagePaths) -> bool:
    """Whether a look into the files can find anything but photographs: files of 8-bit formats need none."""
    return any(path.suffix.lower() not in _EIGHT_BIT for path in images.paths)


def survey(
    images: ImagePaths,
    words: Sequence[str] = (),
    pages: str = "auto",
    draw: bool | None = None,
    seed: int = 0,
) -> Survey:
    """Look at a collection's files, and find how its channels are to be read.

    Args:
        images: paths, and parts where files hold several images.
        words: the channels that are wanted, by index from 0 or by name; none given = all.
        pages: as of `--pages`, for the record.
        draw: whether to draw pixels and find the channels' range; None = if these are measured images or channels were
            asked for.
        seed: of the drawn images and pixels; a pure function of it, of the files and of their order.

    Returns:
        What was found. Files that can't be opened are told of, and count for nothing.

    Raises:
        ConfigError: if a wanted channel isn't there.
        EmptyCollection: if no file could be opened.
    """
    rng = np.random.default_rng((seed, 18))
    chosen = np.arange(len(images.paths))
    if len(chosen) > LOOKED_AT:
        chosen = np.sort(rng.choice(len(chosen), LOOKED_AT, replace=False))
    problems: list[tuple[str, str]] = []
    found: dict[int, Layout] = {}
    for index in chosen.tolist():
        try:
            file = open_pixels(images.paths[index], None)
        except (Damage, OSError) as error:
            problems.append((str(images.paths[index]), error.reason if isinstance(error, Damage) else str(error)))
            continue
        found[index] = file.layout
        file.close()
    if not found:
        raise EmptyCollection(f"none of the {len(chosen)} files that were looked at can be opened: {problems[:3]}")
    layouts = list(found.values())
    named = [channels_of(layout, pick_pages(layout, pages)[0]) for layout in layouts]
    counts = Counter(len(names) for names in named)
    if words and len(counts) > 1:
        raise ConfigError(
            f"the files have different numbers of channels ({_counted(counts)}), so that --channels can't mean the "
            "same in all of them; put images of one kind into a folder of their own"
        )
    by_size = sorted((layout.height * layout.width, layout.height, layout.width) for layout in layouts)
    result = Survey(
        images=len(images.paths),
        looked_at=len(chosen),
        kinds=Counter(layout.kind for layout in layouts),
        dtypes=Counter(layout.dtype.name for layout in layouts),
        counts=counts,
        pages=Counter(len(layout.pages) for layout in layouts),
        sizes=(by_size[0][1:], by_size[-1][1:]),
        names=_names(named),
        colour=all(layout.colour for layout in layouts),
        problems=tuple(problems),
        channels=None,
    )
    if len(counts) > 1 or not (draw or (draw is None and (words or result.measured))):
        return result
    names = result.names
    take = pick(words, names)
    nodata = next((layout.nodata for layout in layouts if layout.nodata is not None), None)
    samples = _draw(images, list(found), take, nodata, pages, rng)
    whole = nodata is None and not any(layout.masked for layout in layouts)  # void pixels would be black to RGB's code
    colour = result.colour and take == [0, 1, 2] and len(names) == 3 and whole
    record = describe([names[c] for c in take], take, len(names), samples, nodata, pages, colour)
    return replace(result, channels=record, spread=_spread_of([names[c] for c in take], samples))


def _spread_of(names: Sequence[str], samples: NDArray[np.float64]) -> tuple[Spread, ...]:
    found = []
    for name, values in zip(names, samples.T, strict=True):
        there = values[np.isfinite(values)]
        five = np.percentile(there, (0, 0.1, 50, 99.9, 100)) if len(there) else np.full(5, np.nan)
        least, low, middle, high, most = (float(value) for value in five)
        void = 1 - len(there) / max(1, len(values))
        found.append(Spread(name, least, low, middle, high, most, void))
    return tuple(found)


def _counted_words(counts: Counter[str]) -> str:
    """The one word there is, or each with its count: 12 uint16, 3 uint8."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def _counted(counts: Counter[int]) -> str:
    return ", ".join(f"{images} of {count}" for count, images in counts.most_common())


def _names(found: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The channels' names where the files that have some agree, else "channel 0" and so on."""
    named = {names for names in found if all(names)}
    if len(named) == 1 and len(set(next(iter(named)))) == len(next(iter(named))):
        return named.pop()
    return tuple(f"channel {c}" for c in range(len(found[0])))


def pick(words: Sequence[str], names: Sequence[str]) -> list[int]:
    """The indices of the channels that words ask for.

    Args:
        words: indices from 0, or names (in any case); none = all.
        names: of the files' channels.

    Raises:
        ConfigError: if there is no such channel, or one is asked for twice.

    Example:
        >>> pick(["2", "nir"], ["red", "NIR", "height"])
        [2, 1]
    """
    if not words:
        return list(range(len(names)))
    lowered = [name.lower() for name in names]
    found = []
    for word in words:
        if word.lower() in lowered:
            found.append(lowered.index(word.lower()))
        elif word.isdigit() and int(word) < len(names):
            found.append(int(word))
        else:
            have = ", ".join(f"{c} ({name})" for c, name in enumerate(names))
            raise ConfigError(f"there is no channel {word!r}; the files have {have}")
    if len(set(found)) < len(found):
        raise ConfigError(f"the channels {' '.join(words)} name one of them twice")
    return found


def _draw(
    images: ImagePaths,
    indices: Sequence[int],
    take: Sequence[int],
    nodata: float | None,
    pages: str,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """(N, C) values of drawn pixels; not-a-number where a channel was not measured."""
    each = max(1, DRAWN // len(indices))
    found = []
    count = len(take)
    zeros, ones = (0.0,) * count, (1.0,) * count
    plain = Channels(tuple(map(str, take)), tuple(range(count)), count, zeros, ones, zeros, ones, nodata)
    for index in indices:
        try:
            values, valid = _some_of(images.paths[index], images.part(index) or Part(), take, pages, rng)
        except (Damage, OSError):
            continue
        there = plain.measured(values, valid)
        rows = values.reshape(-1, count)
        places = rng.choice(len(rows), min(each, len(rows)), replace=False)
        drawn = rows[places].astype(np.float64)
        if there is not None:
            drawn[~there.reshape(-1, count)[places]] = np.nan
        found.append(drawn)
    if not found:
        raise EmptyCollection(f"none of the {len(indices)} files that were looked at could be read")
    return np.concatenate(found)


def _some_of(
    path: Path, part: Part, take: Sequence[int], pages: str, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Of a large image a drawn window of 1024 px, of a stack a drawn page, of others all."""
    file = open_pixels(path, None)
    try:
        layout, side = file.layout, 1024
        words = [part.page] if part.page else pick_pages(layout, pages)
        page = words[int(rng.integers(len(words)))] if len(words) > 1 else words[0]
        window = part.window
        if window is None and layout.height * layout.width > 4 * side * side:
            y, x = (int(rng.integers(0, max(1, length - side))) for length in (layout.height, layout.width))
            window = Window(y, x, min(side, layout.height), min(side, layout.width))
        return read_page(file, page, window, take)
    finally:
        file.close()
