"""Which pages of a file become images (`--pages`), and the values of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.formats.base import Layout, PixelFile, Window
from selfseg.errors import ConfigError

WORDS = ("all", "auto", "first", "max", "mean", "channels")
"""What `--pages` takes, besides the number of a page from 0."""

FEW = 16
"""So many pages that nobody named can be channels, with `--pages auto`."""


def pick_pages(layout: Layout, word: str) -> list[str]:
    """The images that a file becomes.

    Args:
        layout: of the file.
        word: "all" pages, each an image of its own; "first"; the number of one page, from 0 (the last one of shorter
            stacks); "max" or "mean" over the pages, of each pixel; "channels": the pages are the channels of one
            image; "auto": "channels" where 2 to 16 pages are the first dimension of an array whose writer didn't say
            what it counts, else "all".

    Returns:
        The word of each image, as `read_page` takes it; [""] for a file of one page.

    Raises:
        ConfigError: for another word.

    Example:
        >>> layout = Layout("TIFF", 40, 60, ("",), np.dtype("uint16"), ("page0", "page1", "page2"), unnamed=True)
        >>> pick_pages(layout, "all"), pick_pages(layout, "1"), pick_pages(layout, "max"), pick_pages(layout, "auto")
        (['0', '1', '2'], ['1'], ['max'], ['channels'])
    """
    if word not in WORDS and not word.isdecimal():
        raise ConfigError(f"--pages {word!r} is none of {', '.join(WORDS)}, nor a page's number from 0")
    count = len(layout.pages)
    if count == 1:
        return [""]
    if word == "auto":
        word = "channels" if layout.unnamed and count <= FEW else "all"
    if word == "all":
        return [str(page) for page in range(count)]
    if word == "first":
        return ["0"]
    return [word if word in WORDS else str(min(int(word), count - 1))]


def page_name(layout: Layout, word: str) -> str:
    """What is put behind the file's name for an image of it: "z03", "max"; "" for a file of one page."""
    return layout.pages[int(word)] if word.isdecimal() else word


def channels_of(layout: Layout, word: str) -> tuple[str, ...]:
    """The channels' names of an image of a file: those of the file, or with "channels" those of all pages.

    Example:
        >>> channels_of(Layout("TIFF", 40, 60, ("",), np.dtype("uint16"), ("z0", "z1")), "channels")
        ('z0', 'z1')
    """
    if word != "channels" or len(layout.pages) == 1:
        return layout.channels
    if layout.unnamed and len(layout.channels) == 1:
        return ("",) * len(layout.pages)
    return tuple(f"{page} {name}".strip() for page in layout.pages for name in layout.channels)


def read_page(
    file: PixelFile, word: str, window: Window | None = None, channels: Sequence[int] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The values of an image of a file.

    Pages are read one at a time: "max" and "mean" take the memory of two pages, whatever their number.

    Args:
        file: an open one.
        word: one of `pick_pages`.
        window: the part that is wanted; None = all.
        channels: indices in `channels_of`, in this order; None = all.

    Returns:
        (h, w, C) values and (h, w) bool, where the file itself says that something was measured; None = everywhere. Of
        "mean" the values are float32, of "max" those of the file: over the pages that measured a pixel. Where none did,
        they have the file's no-data value, or are not `valid`.

    Raises:
        Damage: if the pixels can't be read.
        IndexError: if there is no such page.
    """
    layout = file.layout
    if word == "channels" and len(layout.pages) > 1:
        return _as_channels(file, window, channels)
    if word in ("max", "mean") and len(layout.pages) > 1:
        return _over_pages(file, word, window, channels)
    page = int(word) if word.isdecimal() else 0
    return file.read(page, window, channels), file.valid(page, window)


def _as_channels(
    file: PixelFile, window: Window | None, channels: Sequence[int] | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    each = len(file.layout.channels)
    chosen = list(range(each * len(file.layout.pages)) if channels is None else channels)
    out: NDArray[Any] | None = None
    valid: NDArray[np.bool_] | None = None
    for n, page in enumerate(dict.fromkeys(channel // each for channel in chosen)):
        wanted = [(i, channel % each) for i, channel in enumerate(chosen) if channel // each == page]
        values = file.read(page, window, [channel for _, channel in wanted])
        if out is None:
            out = np.empty((*values.shape[:2], len(chosen)), values.dtype)
        for k, (i, _) in enumerate(wanted):
            out[:, :, i] = values[:, :, k]
        there = file.valid(page, window)
        # A pixel is measured if one of its channels is.
        valid = there if n == 0 else None if valid is None or there is None else valid | there
    if out is None:
        raise IndexError("no channels are asked for")
    return out, valid


def _over_pages(
    file: PixelFile, word: str, window: Window | None, channels: Sequence[int] | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    layout = file.layout
    total: NDArray[Any] | None = None
    count: NDArray[np.int32] | None = None
    for page in range(len(layout.pages)):
        values = file.read(page, window, channels)
        there = _measured(values, file.valid(page, window), layout.nodata)
        if total is None or count is None:
            total = np.zeros(values.shape, np.float64) if word == "mean" else values.copy()
            count = np.zeros(values.shape, np.int32)
        if word == "mean":
            np.add(total, values, out=total, where=there)
        else:
            np.copyto(total, values, where=there & ((count == 0) | (values > total)))
        count += there
    if total is None or count is None:
        raise IndexError("a file without pages")
    empty = count == 0
    if word == "mean":
        total = (total / np.maximum(count, 1)).astype(np.float32)
        if empty.any():
            total[empty] = np.nan if layout.nodata is None else layout.nodata
    valid = ~empty.all(axis=2)
    return total, None if valid.all() else valid


def _measured(values: NDArray[Any], valid: NDArray[np.bool_] | None, nodata: float | None) -> NDArray[np.bool_]:
    """(h, w, C) bool."""
    there = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, np.bool_)
    if nodata is not None and nodata == nodata:
        there &= values != nodata
    return there if valid is None else there & valid[:, :, None]
