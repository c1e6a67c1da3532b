"""One measured image: what of a file it is, and its values as levels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.decoding import MAX_PIXELS, Damage, as_bad_image
from selfseg.data.reading.formats.base import Layout, PixelFile, Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.formats.pages import channels_of, pick_pages, read_page
from selfseg.data.reading.sniffing import WINDOWED
from selfseg.errors import BadImage
from selfseg.ops.channels import Channels
from selfseg.storage.regular import NotRegular


@dataclass(frozen=True)
class Part:
    """What of a file one image is.

    Attributes:
        page: a page's index as text; "max", "mean" or "channels" of all pages; "" = the only one.
        window: a part of that page; None = all of it.
        large: whether it is too large to be read as a whole: `window` is all of the page.
    """

    page: str = ""
    window: Window | None = None
    large: bool = False


@dataclass(frozen=True)
class ImagePlace:
    """Where an image of a collection lies, as lists of images keep it.

    Attributes:
        file: below the collection's root.
        part: of it.
    """

    file: str
    part: Part = Part()

    def to_json(self) -> str | list[Any]:
        """The file alone, or [file, page, [y, x, height, width] or None].

        Example:
            >>> ImagePlace("a.tif", Part("2")).to_json()
            ['a.tif', '2', None]
        """
        if self.part == Part():
            return self.file
        return [self.file, self.part.page, None if self.part.window is None else list(self.part.window)]

    @staticmethod
    def of_json(value: Any) -> ImagePlace:
        """What `to_json` gave; raises ValueError of anything else, and of a file that leads out of the folder."""
        if isinstance(value, str):
            return ImagePlace(check_inside(value))
        try:
            file, page, window = value
            numbers = None if window is None else Window(*(int(number) for number in window))
        except TypeError as error:
            raise ValueError(f"{value!r} is no place of an image") from error
        return ImagePlace(check_inside(str(file)), Part(str(page), numbers))


def check_inside(name: str) -> str:
    """A path of a list that somebody else may have written, if it stays below its folder; else raises ValueError.

    Example:
        >>> check_inside("street/a..b.jpg")
        'street/a..b.jpg'
    """
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise ValueError(f"{name!r} leads out of the folder")
    return name


def file_error(path: Path, error: OSError) -> BadImage:
    """What an error of the file system means of an image."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return BadImage(path, "missing")
    if isinstance(error, PermissionError):
        return BadImage(path, "no-permission")
    if isinstance(error, IsADirectoryError):
        return BadImage(path, "wrong-type", "a folder")
    if isinstance(error, NotRegular):
        return BadImage(path, "wrong-type", error.strerror or "")
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
    with _opened(path, None if part.window else max_pixels) as file:
        page = part.page or pick_pages(file.layout, channels.pages)[0]
        _check_kind(file.layout, page, channels)
        values, valid = read_page(file, page, part.window, channels.take)
    return channels.levels(values, valid)


def read_colours(path: Path, part: Part) -> NDArray[np.uint8]:
    """A window of a photograph that is too large to be decoded as a whole.

    Returns:
        (H, W, 3) uint8 RGB: gray is repeated, values of more bits keep the highest 8, alpha is left out.

    Raises:
        BadImage: with a reason of `selfseg.data.reading.images`; "channels" if these are no colours.
    """
    with _opened(path, None) as file:
        values, _ = read_page(file, part.page, part.window)
        if values.dtype.kind != "u" or not (file.layout.colour or values.shape[2] in (1, 3, 4)):
            raise Damage("channels", f"{values.shape[2]} channels of {values.dtype}; these are no colours")
    values = (values >> (8 * values.dtype.itemsize - 8)).astype(np.uint8)
    return np.ascontiguousarray(values[..., :3] if values.shape[2] >= 3 else values[..., [0, 0, 0]])


def check_levels(
    path: Path, channels: Channels | None, part: Part | None = None, max_pixels: int | None = MAX_PIXELS
) -> None:
    """Judge a measured image by its header; raises BadImage as `read_levels` does."""
    with _opened(path, None if part is not None and part.window else max_pixels) as file:
        if channels is not None:
            _check_kind(file.layout, pick_pages(file.layout, channels.pages)[0], channels)


@contextmanager
def _opened(path: Path, max_pixels: int | None) -> Iterator[PixelFile]:
    """An open file, closed afterwards; what is wrong with it becomes BadImage."""
    try:
        with closing(open_pixels(path, max_pixels)) as file:
            yield file
    except Damage as damage:
        raise as_bad_image(path, damage) from damage.__cause__
    except OSError as error:
        raise file_error(path, error) from error


def _check_kind(layout: Layout, page: str, channels: Channels) -> None:
    """Refuse a file of another kind than the collection's; raises Damage."""
    count, dtype = len(channels_of(layout, page)), layout.dtype.name
    if count != channels.of or (channels.dtype and dtype != channels.dtype):
        own = f"{count} {'channel' if count == 1 else 'channels'} of {dtype}"
        raise Damage("channels", f"{own}; the collection has {channels.of} of {channels.dtype}")


def layout_of(path: Path) -> Layout | None:
    """What a file says of its pages and its place; None of kinds that say nothing but a size, and of damaged ones."""
    if path.suffix.lower() not in WINDOWED:
        return None
    try:
        with closing(open_pixels(path, None)) as file:
            return file.layout
    except (Damage, OSError):
        return None


def size_of(path: Path, part: Part | None = None) -> tuple[int, int]:
    """(H, W) of a part of a file of any kind, from its header; raises OSError if that can't be read."""
    if part is not None and part.window is not None:
        return part.window.height, part.window.width
    try:
        with closing(open_pixels(path, None)) as file:
            return file.layout.height, file.layout.width
    except Damage as damage:
        raise OSError(f"{path}: {damage.reason}") from damage
