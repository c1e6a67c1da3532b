"""What a collection of files is: photographs or measured images, with which channels, of which range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.formats.base import Layout, Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.formats.pages import channels_of, pick_pages, read_page
from selfseg.data.reading.measured import Part
from selfseg.data.reading.sniffing import MAX_PIXELS, MEASURED, Damage
from selfseg.errors import ConfigError, EmptyCollection
from selfseg.ops.channels import Channels, describe

LOOKED_AT = 200
"""Images of a collection whose pixels are drawn to find its range."""

DRAWN = 400_000
"""Pixels that are drawn in all."""

_NEVER = frozenset(MEASURED.values())
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


class Group(NamedTuple):
    """Files that could be one collection of measured images, or photographs.

    Attributes:
        kind: "photographs" or e.g. "5 channels of uint16".
        files: of this kind, in their order.
    """

    kind: str
    files: tuple[Path, ...]


class ImagePaths(Protocol):
    """What a survey needs of a collection."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files."""

    @property
    def suffixes(self) -> frozenset[str]:
        """Those of the files' names, in lower case."""

    def part(self, index: int) -> Part | None:
        """The page and window of an image; None = the whole file."""

    def file(self, index: int) -> Path:
        """A file that can be opened."""


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
        names: of the channels of that kind.
        colour: whether they are red, green and blue.
        problems: (file, reason) of files that can't be used.
        taken: how many of those that were looked at are of the kind that most are.
        measured: whether that kind are measured images and no photographs.
        channels: how they are read as measured images, where they are or channels were asked for.
        spread: of each channel, where pixels were drawn.
        groups: the files of each kind, most first.
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
    taken: int = 0
    measured: bool = False
    channels: Channels | None = None
    spread: tuple[Spread, ...] = ()
    groups: tuple[Group, ...] = ()

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
        """What a person should know where not all files are of one kind; else ""."""
        others = self.looked_at - len(self.problems) - self.taken
        if not others:
            return ""
        counts = (f"{files} {_plural(files, 'file')} of {count}" for count, files in self.counts.most_common())
        kinds = f"values {_counted_words(self.dtypes)}; channels: {', '.join(counts)}"
        if self.channels is None:
            return (
                f"the files are of different kinds ({kinds}), so all are read as 8-bit RGB photographs; to keep "
                "all channels and bits, put files of one kind into a folder, or into a .txt list"
            )
        return (
            f"the files are of different kinds ({kinds}); {self.taken} {_plural(self.taken, 'file')} of "
            f"{self.channels.of} {_plural(self.channels.of, 'channel')} of {self.channels.dtype} of those that were "
            f"looked into {'is' if self.taken == 1 else 'are'} taken, and the other {others} "
            f"{'is' if others == 1 else 'are'} skipped; put files of "
            "another kind into a folder, or a .txt list, of their own"
        )


def may_be_measured(images: ImagePaths) -> bool:
    """Whether a look into the files can find anything but photographs: files of 8-bit formats need none."""
    return bool(images.suffixes - _EIGHT_BIT)


def survey(
    images: ImagePaths,
    words: Sequence[str] = (),
    pages: str = "auto",
    seed: int = 0,
) -> Survey:
    """Look at a collection's files, and find how its channels are to be read.

    Args:
        images: paths, and parts where files hold several images.
        words: the channels that are wanted, by index from 0 or by name; none given = all.
        pages: as of `--pages`, for the record.
        seed: of the drawn images and pixels; a pure function of it, of the files and of their order.

    Returns:
        What was found. Files that can't be opened are told of, and count for nothing.

    Raises:
        ConfigError: if a wanted channel isn't there.
        EmptyCollection: if no file could be opened.
    """
    rng = np.random.default_rng((seed, 18))
    count = len(images.paths)
    chosen = np.arange(count) if count <= LOOKED_AT else np.sort(rng.choice(count, LOOKED_AT, replace=False))
    problems: list[tuple[str, str]] = []
    found: dict[int, Layout] = {}
    for index in chosen.tolist():
        try:
            file = open_pixels(images.file(index), None)
        except (Damage, OSError) as error:
            problems.append((str(images.paths[index]), error.reason if isinstance(error, Damage) else str(error)))
            continue
        found[index] = file.layout
        file.close()
    if not found:
        raise EmptyCollection(f"none of the {len(chosen)} files that were looked at can be opened: {problems[:3]}")
    layouts = list(found.values())
    named = {index: channels_of(layout, pick_pages(layout, pages)[0]) for index, layout in found.items()}
    kind, taken = _kind(found, named, words)
    by_size = sorted((layout.height * layout.width, layout.height, layout.width) for layout in layouts)
    colour = all(found[index].colour for index in taken) and all(len(named[index]) == 3 for index in taken)
    names = ("red", "green", "blue") if colour else _names([named[index] for index in taken])
    result = Survey(
        images=len(images.paths),
        looked_at=len(chosen),
        kinds=Counter(layout.kind for layout in layouts),
        dtypes=Counter(layout.dtype.name for layout in layouts),
        counts=Counter(len(each) for each in named.values()),
        pages=Counter(len(layout.pages) for layout in layouts),
        sizes=(by_size[0][1:], by_size[-1][1:]),
        names=names,
        colour=colour,
        problems=tuple(problems),
        taken=len(taken),
        measured=kind is not None,
        groups=_groups(images.paths, found, named),
    )
    if kind is None:
        return result
    same = [found[index] for index in taken]
    take = pick(words, names)
    nodata = next((layout.nodata for layout in same if layout.nodata is not None), None)
    samples = _draw(images, taken, take, nodata, pages, rng)
    whole = nodata is None and not any(layout.masked for layout in same)  # void pixels would be black to RGB's code
    colour = result.colour and take == [0, 1, 2] and whole
    wanted = [names[c] for c in take]
    record = describe(wanted, take, len(names), samples, nodata, pages, colour, dtype=same[0].dtype.name)
    return replace(result, channels=record, spread=_spread_of(wanted, samples))


_Kind = tuple[int, str]
"""How many channels, and of which data type."""


def _kind(
    found: Mapping[int, Layout], named: Mapping[int, tuple[str, ...]], words: Sequence[str]
) -> tuple[_Kind | None, list[int]]:
    """The kind of measured images that most files are, or None: photographs; and the files of that kind.

    Where files of several kinds could all be read as photographs, they are.
    """
    kinds: dict[int, _Kind | None] = {}
    for index, layout in found.items():
        kinds[index] = None if not words and _is_photograph(layout) else (len(named[index]), layout.dtype.name)
    most = Counter(kinds.values())
    if words:
        fit = [
            kind for kind, _ in most.most_common() if _has(words, next(n for i, n in named.items() if kinds[i] == kind))
        ]
        if not fit:
            pick(words, next(iter(named.values())))  # says what there is
        kind = fit[0]
    elif len(most) > 1 and all(_is_readable(layout) for layout in found.values()):
        kind = None
    else:
        kind = most.most_common(1)[0][0]
    return kind, [index for index, own in kinds.items() if own == kind]


def _has(words: Sequence[str], names: tuple[str, ...]) -> bool:
    try:
        pick(words, _names([names]))
    except ConfigError:
        return False
    return True


def _is_readable(layout: Layout) -> bool:
    """Whether a file can be read as a photograph, with fewer bits if it has more than 8."""
    colours = layout.colour or len(layout.channels) == 1
    here = layout.kind.split(" ")[0] not in _NEVER and layout.dtype.name in ("uint8", "uint16")
    return here and colours and len(layout.pages) == 1 and layout.height * layout.width <= MAX_PIXELS


def _is_photograph(layout: Layout) -> bool:
    """Whether a file is one: 8 bits of gray or of colours, and not too large to be decoded."""
    return _is_readable(layout) and layout.dtype == np.uint8


def _spread_of(names: Sequence[str], samples: NDArray[np.float64]) -> tuple[Spread, ...]:
    found = []
    for name, values in zip(names, samples.T, strict=True):
        there = values[np.isfinite(values)]
        five = np.percentile(there, (0, 0.1, 50, 99.9, 100)) if len(there) else np.full(5, np.nan)
        least, low, middle, high, most = (float(value) for value in five)
        void = 1 - len(there) / max(1, len(values))
        found.append(Spread(name, least, low, middle, high, most, void))
    return tuple(found)


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _groups(
    paths: Sequence[Path], found: Mapping[int, Layout], named: Mapping[int, tuple[str, ...]]
) -> tuple[Group, ...]:
    files: dict[str, list[Path]] = {}
    for index, layout in found.items():
        count = len(named[index])
        measured = f"{count} {_plural(count, 'channel')} of {layout.dtype.name}"
        files.setdefault("photographs" if _is_photograph(layout) else measured, []).append(paths[index])
    return tuple(Group(kind, tuple(files[kind])) for kind in sorted(files, key=lambda kind: -len(files[kind])))


def _counted_words(counts: Counter[str]) -> str:
    """The one word there is, or each with its count: 12 uint16, 3 uint8."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


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
        elif word.isdecimal() and int(word) < len(names):
            found.append(int(word))
        else:
            have = ", ".join(f"{c} ({name})" if name else str(c) for c, name in enumerate(names))
            raise ConfigError(f"there is no channel {word!r}; the files have {have}")
    if len(set(found)) < len(found):
        raise ConfigError(f"the channels {' '.join(words)} name a channel twice")
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
            values, valid = _some_of(images.file(index), images.part(index) or Part(), take, pages, rng)
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
