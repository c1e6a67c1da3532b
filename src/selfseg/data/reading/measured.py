"""Measured images: which channels a collection has, what their range is, and one image as levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.decoding import MAX_PIXELS, Damage, as_bad_image
from selfseg.data.reading.formats.base import Layout, PixelFile, Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.formats.pages import channels_of, read_page
from selfseg.errors import BadImage, ConfigError, EmptyCollection
from selfseg.ops.channels import Channels, describe

LOOKED_AT = 200
"""Images of a collection whose pixels are drawn to find its range."""

DRAWN = 400_000
"""Pixels that are drawn in all."""


@dataclass(frozen=True)
class Part:
    """What of a file one image is.

    Attributes:
        page: a page's index as text; "max", "mean" or "channels" of all pages; "" = the only one.
        window: a part of that page; None = all of it.
    """

    page: str = ""
    window: Window | None = None


def file_error(path: Path, error: OSError) -> BadImage:
    """What an error of the file system means of an image."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return BadImage(path, "missing")
    if isinstance(error, PermissionError):
        return BadImage(path, "no-permission")
    if isinstance(error, IsADirectoryError):
        return BadImage(path, "wrong-type", "a folder")
    return BadImage(path, "unreadable", error.strerror or str(error))


def read_levels(
    path: Path, channels: Channels, part: Part | None = None, max_pixels: int | None = MAX_PIXELS
) -> NDArray[np.uint8]:
    """One measured image.

    Args:
        path: the file.
        channels: how the collection's images are read.
        part: the page and window; None = as `channels.pages` says, all of it.
        max_pixels: larger ones are refused before they are read, unless a window is asked for.

    Returns:
        (H, W, C) uint8 levels, contiguous; 0 in all channels where nothing was measured.

    Raises:
        BadImage: with a reason of `selfseg.data.reading.images`; "channels" if the file has others.
    """
    part = part or Part()
    try:
        file = open_pixels(path, None if part.window else max_pixels)
        try:
            if (found := len(channels_of(file.layout, part.page))) != channels.of:
                raise Damage("channels", f"{found} channels; the collection has {channels.of}")
            values, valid = read_part(file, part, channels.take)
        finally:
            file.close()
    except Damage as damage:
        raise as_bad_image(path, damage) from damage.__cause__
    except OSError as error:
        raise file_error(path, error) from error
    return channels.levels(values, valid)


def check_levels(path: Path, channels: Channels, part: Part | None = None, max_pixels: int | None = MAX_PIXELS) -> None:
    """Judge a measured image by its header; raises BadImage as `read_levels` does."""
    try:
        file = open_pixels(path, None if part is not None and part.window else max_pixels)
        found = len(channels_of(file.layout, part.page if part is not None else ""))
        file.close()
        if found != channels.of:
            raise Damage("channels", f"{found} channels; the collection has {channels.of}")
    except Damage as damage:
        raise as_bad_image(path, damage) from damage.__cause__
    except OSError as error:
        raise file_error(path, error) from error


def size_of(path: Path, part: Part | None = None) -> tuple[int, int]:
    """(H, W) of a part of a file of any kind, from its header; raises OSError if that can't be read."""
    if part is not None and part.window is not None:
        return part.window.height, part.window.width
    try:
        file = open_pixels(path, None)
    except Damage as damage:
        raise OSError(f"{path}: {damage.reason}") from damage
    file.close()
    return file.layout.height, file.layout.width


def read_part(
    file: PixelFile, part: Part, take: Sequence[int] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The values (H, W, C) of a part of an open file, and where the file itself says that they were measured."""
    return read_page(file, part.page, part.window, take)


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
        sizes: smallest and largest (H, W).
        names: of the channels, where all files agree on how many there are.
        colour: whether the channels are red, green and blue in all files.
        problems: (file, reason) of files that can't be used.
        channels: how they would be read as measured images; None if they don't agree.
    """

    images: int
    looked_at: int
    kinds: Counter[str]
    dtypes: Counter[str]
    counts: Counter[int]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    names: tuple[str, ...]
    colour: bool
    problems: tuple[tuple[str, str], ...]
    channels: Channels | None

    @property
    def measured(self) -> bool:
        """Whether these are measured images and no photographs.

        They are if all have as many channels, and more than 8 bits, or channels that are neither gray nor colours.
        """
        deep = not {"uint8", "bool"} & self.dtypes.keys()
        return len(self.counts) == 1 and (deep or not (self.colour or 1 in self.counts))


def survey(
    images: ImagePaths,
    words: Sequence[str] = (),
    pages: str = "all",
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
    counts = Counter(len(layout.channels) for layout in layouts)
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
        sizes=(by_size[0][1:], by_size[-1][1:]),
        names=_names(layouts),
        colour=all(layout.colour for layout in layouts),
        problems=tuple(problems),
        channels=None,
    )
    if len(counts) > 1 or not (draw or (draw is None and (words or result.measured))):
        return result
    names = result.names
    take = pick(words, names)
    nodata = next((layout.nodata for layout in layouts if layout.nodata is not None), None)
    samples = _draw(images, list(found), take, nodata, rng)
    colour = result.colour and take == [0, 1, 2]
    record = describe([names[c] for c in take], take, len(names), samples, nodata, pages, colour)
    return replace(result, channels=record)


def _counted(counts: Counter[int]) -> str:
    return ", ".join(f"{images} of {count}" for count, images in counts.most_common())


def _names(layouts: Sequence[Layout]) -> tuple[str, ...]:
    """The channels' names where the files that have some agree, else "channel 0" and so on."""
    named = {layout.channels for layout in layouts if all(layout.channels)}
    if len(named) == 1 and len(set(next(iter(named)))) == len(next(iter(named))):
        return named.pop()
    return tuple(f"channel {c}" for c in range(len(layouts[0].channels)))


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
    images: ImagePaths, indices: Sequence[int], take: Sequence[int], nodata: float | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(N, C) values of drawn pixels; not-a-number where a channel was not measured."""
    each = max(1, DRAWN // len(indices))
    found = []
    count = len(take)
    zeros, ones = (0.0,) * count, (1.0,) * count
    plain = Channels(tuple(map(str, take)), tuple(range(count)), count, zeros, ones, zeros, ones, nodata)
    for index in indices:
        try:
            values, valid = _some_of(images.paths[index], images.part(index) or Part(), take, rng)
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
    path: Path, part: Part, take: Sequence[int], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Of a large image a drawn window of 1024 px, of others all."""
    file = open_pixels(path, None)
    try:
        layout, side = file.layout, 1024
        if part.window is None and layout.height * layout.width > 4 * side * side:
            y, x = (int(rng.integers(0, max(1, length - side))) for length in (layout.height, layout.width))
            part = Part(part.page, Window(y, x, min(side, layout.height), min(side, layout.width)))
        return read_part(file, part, take)
    finally:
        file.close()
