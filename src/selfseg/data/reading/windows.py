"""What of its files a collection's images are: whole files, the pages of stacks, windows of what is too large.

A raster of 40,000 x 30,000 pixels is no image that a network could look at. What it learns from are windows of it, side
by side, which are images of the collection as any others: with a name, a number and keyed views. Verbs that give back
masks look at overlapping windows and put them together (`selfseg.collection.large.mosaic`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from selfseg.data.reading.decoding import MAX_PIXELS
from selfseg.data.reading.formats.base import Layout, Window
from selfseg.data.reading.formats.pages import WORDS, page_name, pick_pages
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.measured import Part
from selfseg.data.reading.sniffing import WINDOWED
from selfseg.data.reading.surveying import Survey, may_be_measured, survey
from selfseg.errors import ConfigError
from selfseg.ops.channels import Channels
from selfseg.telling import tell

WINDOW = 1024
"""Side of a window in px where nobody said another."""

LARGE = 1 << 24
"""Measured images of more pixels are cut into windows by a run that nobody told anything else: 4096 x 4096."""


def expand(images: ImageCollection, window: int | None = None, cut: bool = True) -> ImageCollection:
    """A collection whose images are pages and windows of its files.

    Args:
        images: whole files. What is measured has its pages by `images.channels.pages`.
        window: side of the windows in px; None = `WINDOW` px, of images that can't be looked at whole.
        cut: whether large images are cut into windows; else they stay one, which `ImageCollection.is_large`.

    Returns:
        The same collection where there is nothing to expand. Else one with `parts`; NAME/PAGE and NAME/y0-x0 are the
        names of pages and windows. Files that can't be opened stay as they are, for `scan` to judge.
    """
    whole = images.suffixes - WINDOWED
    if window is not None and whole and not images.parts:
        tell(
            f"windows of {window} px: only files that can be read in parts are cut, such as TIFF; those named "
            f"{' '.join(sorted(whole))} are looked at whole"
        )
    if images.parts or not images.suffixes & WINDOWED:
        return images
    pages = images.channels.pages if images.channels is not None else None

    with ThreadPoolExecutor(max_workers=8) as pool:
        layouts = list(pool.map(images.layout, range(len(images)), chunksize=64))
    rows, names, parts = [], [], []
    for row, (name, layout) in enumerate(zip(images.names, layouts, strict=True)):
        for page, part in parts_of(layout, pages, window, cut):
            rows.append(row)
            names.append(name + page)
            parts.append(part)
    if not any(part != Part() for part in parts):
        return images
    return images.expanded(rows, names, parts)


def look_into(images: ImageCollection, words: Sequence[str] = (), pages: str = "auto", seed: int = 0) -> Survey | None:
    """`survey` of a collection whose files may be measured images; None where nothing but photographs can be in them.

    Args:
        images: whole files.
        words: the channels that are wanted, by index from 0 or by name; none given = all, "rgb" = as photographs.
        pages: as of `--pages`.
        seed: as of `survey`.

    Raises:
        ConfigError: if a wanted channel isn't there, or the images lie in shards or a zip; if `pages` can't be.
        EmptyCollection: if no file could be opened.
    """
    if pages not in WORDS and not (pages.isascii() and pages.isdecimal()):
        raise ConfigError(f"--pages must be one of {', '.join(WORDS)}, or a page's number from 0, not {pages!r}")
    as_photographs = [word.lower() for word in words] == ["rgb"]
    if images.blocks and words and not as_photographs:
        raise ConfigError(f"--channels {' '.join(words)} does not work in tar shards and zips; unpack them")
    if images.blocks or as_photographs or not (words or may_be_measured(images)):
        return None
    return survey(images, words, pages, seed)


def find_channels(
    images: ImageCollection,
    words: Sequence[str] = (),
    pages: str = "auto",
    window: int | None = None,
    seed: int = 0,
) -> tuple[Channels | None, str]:
    """How the channels of a collection's files are to be read, by a look into them.

    Args:
        images: whole files.
        words: as of `look_into`.
        pages: as of `--pages`.
        window: the side of windows that was asked for; else large images are given one.
        seed: as of `survey`.

    Returns:
        The record, None of photographs; and a sentence on it, "" where there is nothing to tell.

    Raises:
        ConfigError, EmptyCollection: as `look_into`.
    """
    looked = look_into(images, words, pages, seed)
    if looked is None:
        return None, ""
    if looked.channels is None:
        return None, looked.warning()
    height, width = looked.sizes[1]
    cut = window is None and height * width > LARGE
    sentences = [looked.sentence(), looked.warning()]
    return replace(looked.channels, window=WINDOW if cut else None), "; ".join(filter(None, sentences))


def as_measured(
    images: ImageCollection, words: Sequence[str] = (), pages: str = "auto", window: int | None = None
) -> tuple[ImageCollection, str]:
    """A collection as a run would read it that begins with it: photographs, or measured images of what is found.

    Args:
        images: whole files.
        words: as of `look_into`.
        pages: as of `--pages`.
        window: side in px of the windows that large images are cut into, see `expand`.

    Returns:
        The collection with its channels, pages and windows; and a sentence on them, "" of photographs.

    Raises:
        ConfigError, EmptyCollection: as `look_into`.
    """
    if window is not None and window < 64:
        raise ConfigError(f"window must be at least 64 px, not {window}")
    if images.channels is not None:
        return images, ""
    channels, sentence = find_channels(images, words, pages, window)
    side = window or (None if channels is None else channels.window)
    return expand(images.measured(channels), side), sentence


def parts_of(
    layout: Layout | None, pages: str | None, window: int | None, cut: bool = True
) -> Iterator[tuple[str, Part]]:
    """The images of one file: what is added to the file's name, and the part.

    Args:
        layout: of the file; None = unknown, the file is one image.
        pages: the word of `--pages`; None = photographs, the file's only page.
        window: side in px; None = `WINDOW` px for what can't be looked at whole.
        cut: whether what is large is cut.

    Example:
        >>> import numpy as np
        >>> layout = Layout("TIFF", 100, 250, ("",), np.dtype("uint8"), pages=("z0", "z1"))
        >>> [name for name, _ in parts_of(layout, "all", 100)][:3]
        ['/z0/y0-x0', '/z0/y0-x75', '/z0/y0-x150']
    """
    if layout is None:
        yield "", Part()
        return
    words = [""] if pages is None else pick_pages(layout, pages)
    for word in words:
        named = f"/{page_name(layout, word)}" if len(words) > 1 else ""
        if not is_large(layout.height, layout.width, window):
            yield named, Part(word)
            continue
        if not cut:
            yield named, Part(word, Window(0, 0, layout.height, layout.width), large=True)
            continue
        for part in side_by_side(layout.height, layout.width, window or WINDOW):
            yield f"{named}/y{part.y}-x{part.x}", Part(word, part)


def is_large(height: int, width: int, window: int | None) -> bool:
    """Whether an image is looked at in windows: if it is longer than one and has more than twice its pixels.

    Args:
        height: in px.
        width: in px.
        window: side in px; None = only what can't be looked at whole.
    """
    if window is None:
        return height * width > MAX_PIXELS
    return height * width > 2 * window**2 and max(height, width) > window


def side_by_side(height: int, width: int, side: int) -> Iterator[Window]:
    """Windows that cover an image, equally far from each other, with as little overlap as that needs.

    Args:
        height: of the image, in px.
        width: in px.
        side: of the windows; a shorter image's windows are as short.

    Example:
        >>> [window.y for window in side_by_side(250, 80, 100)]
        [0, 75, 150]
    """
    for y in _starts(height, side):
        for x in _starts(width, side):
            yield Window(y, x, min(side, height), min(side, width))


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = -(-length // side)
    return [round(i * (length - side) / (count - 1)) for i in range(count)]
