"""One image file: what can be read of it, what not and why; and an ordered set of such files.

Reasons of `BadImage.reason` and of `skipped.jsonl`, a closed set:

    truncated       the file ends before its picture does
    empty           zero bytes
    too-small       the shorter side has fewer than 8 pixels
    too-large       more than `max_pixels`, decided from the header before anything is decoded
    wrong-type      the content is no image, or another format than the name's suffix says
    animated        several frames or pages
    missing         the file is not there (any more)
    no-permission   the file may not be read
    channels        another number of channels than the collection's other images have
    crashed         each process that worked on it died
    unreadable      anything else that keeps the pixels from being decoded

and, of an image whose mask can't be used, "mask-" and a word of `selfseg.data.labelled.mask_files.REASONS`.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.labels import upright_size
from selfseg.data.reading.decoding import (
    MAX_PIXELS,
    Damage,
    as_bad_image,
    decode,
    open_image,
    quiet,
    refuse_measured,
    sniff,
)
from selfseg.data.reading.formats.base import Layout, Window
from selfseg.data.reading.long.paths import PathList
from selfseg.data.reading.measured import (
    ImagePlace,
    Part,
    check_inside,
    check_levels,
    file_error,
    layout_of,
    read_colours,
    read_levels,
    size_of,
)
from selfseg.data.reading.sniffing import HEAD, stem_of
from selfseg.errors import ConfigError
from selfseg.ops.channels import Channels
from selfseg.ops.levels import among_measured, resize
from selfseg.storage.regular import open_regular
from selfseg.storage.waiting import is_there

REASONS = (
    "truncated",
    "empty",
    "too-small",
    "too-large",
    "wrong-type",
    "animated",
    "missing",
    "no-permission",
    "channels",
    "crashed",
    "unreadable",
)
"""Every word that `BadImage.reason` of an image itself can be."""

# Ends of whole files. A file that ends otherwise may still be whole (trailing bytes): then it is decoded to know.
LONGEST = 32
"""An image that is more times longer than wide is looked at with fewer pixels than a short side asks for."""

_FEW = 1 << 21  # pixels that do no harm, however thin an image is
_ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"\x00\x00\x00\x00IEND\xaeB`\x82"}


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read one image, strictly.

    Gray, palette, CMYK, transparent, 16-bit, float and EXIF-rotated files all come out the same way;
    `selfseg.data.reading.decoding` says how.

    Args:
        path: a file whose suffix agrees with its content.
        max_pixels: larger images (H * W) are refused before they are decoded.

    Returns:
        (H, W, 3) uint8 RGB in [0, 255], contiguous and writable.

    Raises:
        BadImage: with a reason from the list at the top of this module.
    """
    path = Path(path)
    try:
        _refuse_folder(path)
        with open_regular(path) as stream:
            if os.fstat(stream.fileno()).st_size > 16 * max_pixels:  # 4 channels of 32 bits, uncompressed
                raise Damage("too-large", f"a file of {os.fstat(stream.fileno()).st_size} bytes")
            data = stream.read()
        return decode(data, path.suffix, max_pixels)
    except Damage as damage:
        raise as_bad_image(path, damage) from damage.__cause__
    except OSError as error:
        raise file_error(path, error) from error


def check_image(path: Path, max_pixels: int = MAX_PIXELS) -> None:
    """Judge an image by its header and its last bytes, without decoding it.

    Args:
        path: the file.
        max_pixels: as for `read_image`.

    Raises:
        BadImage: whatever can be known without decoding.
    """
    try:
        _refuse_folder(path)
        with open_regular(path) as stream:
            whole = check_stream(stream, path.suffix, max_pixels)
        if not whole:
            read_image(path, max_pixels)
    except Damage as damage:
        raise as_bad_image(path, damage) from damage.__cause__
    except OSError as error:
        raise file_error(path, error) from error


def _refuse_folder(path: Path) -> None:
    """Of a Zarr, which is one: say that it is measured; Python says of any folder that it is none of its files."""
    if path.suffix.lower() == ".zarr" and path.is_dir():
        refuse_measured("Zarr")


def check_stream(stream: IO[bytes], suffix: str, max_pixels: int = MAX_PIXELS) -> bool:
    """Judge an open image by its header and its last bytes.

    Returns:
        Whether it looks whole; if not, only the strict reader can tell.

    Raises:
        Damage: whatever can be known without decoding.
    """
    with quiet():
        kind = sniff(stream.read(HEAD), suffix)
        stream.seek(0)
        try:
            open_image(stream, kind, max_pixels)
            ending = _ENDINGS.get(kind)
            if ending is None:
                return True
            stream.seek(-min(len(ending), stream.seek(0, os.SEEK_END)), os.SEEK_END)
            return stream.read() == ending
        except Damage as damage:
            # A header that can't be parsed: the strict reader knows whether the file was cut short.
            if damage.reason != "unreadable":
                raise
            return False


def is_thin(height: int, width: int) -> bool:
    """Whether an image is more than `LONGEST` times as long as wide.

    Example:
        >>> is_thin(8, 256), is_thin(8, 257)
        (False, True)
    """
    return max(height, width) > LONGEST * min(height, width)


def scale_to(short_side: int, height: int, width: int) -> float:
    """The factor that gives an image a short side, in pixels.

    A thin image, see `is_thin`, gets no more pixels than one that is just not thin (or two million): 3,000 x 8 with a
    short side of 320 would be 120,000 x 320, and take all memory.

    Example:
        >>> scale_to(320, 480, 640), round(scale_to(320, 8, 3000), 2)
        (0.6666666666666666, 11.68)
    """
    scale = short_side / min(height, width)
    if is_thin(height, width):
        scale = min(scale, math.sqrt(max(LONGEST * short_side**2, _FEW) / (height * width)))
    return scale


def resize_short_side(image: NDArray[np.uint8], short_side: int, levels: bool = False) -> NDArray[np.uint8]:
    """Resize so that the shorter side has `short_side` pixels, keeping the shape's proportions.

    Args:
        image: (H, W, 3) or (H, W) uint8; (H, W, C) with `levels`.
        short_side: in pixels.
        levels: whether these are measured levels, whose void pixels take no part (`selfseg.ops.levels`).

    Returns:
        The resized image (area average when it shrinks, bilinear when it grows); no side gets below 1 px. The image
        itself where nothing changes. One that is more than 32 times as long as wide may become narrower than
        `short_side`: its length would take all memory (`scale_to`).

    Raises:
        ConfigError: if `short_side` is below 1.

    Example:
        >>> resize_short_side(np.zeros((90, 120, 3), np.uint8), 45).shape
        (45, 60, 3)
    """
    if short_side < 1:
        raise ConfigError(f"a short side of {short_side} px is no size; give 1 or more")
    height, width = image.shape[:2]
    scale = scale_to(short_side, height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return image
    rule = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    if levels:
        return among_measured(image, lambda part: resize(part, size, rule))
    resized = cv2.resize(image, size, interpolation=rule)
    return np.asarray(resized, np.uint8)


@dataclass(frozen=True)
class ImageCollection:
    """An ordered set of image files.

    Attributes:
        root: the folder that names are relative to.
        paths: the files.
        names: one per file: the path below `root` with "/" and without suffix. Where two files share one, both keep
            their suffix ("a.jpg", "a.png"). Unique, never absolute and without "..", so OUT/NAME.png is a safe place
            for what is made of an image.
        channels: how measured images are read; None = photographs.
        parts: of each image, the page and window of its file; none = whole files of one page.
    """

    root: Path
    paths: Sequence[Path]
    names: Sequence[str] = ()
    channels: Channels | None = field(default=None, kw_only=True)
    parts: tuple[Part, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", PathList.of(self.paths))
        if len(self.names) != len(self.paths):
            object.__setattr__(self, "names", _unique_names(self.root, self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Image `index` as (H, W, 3) uint8 RGB, or (H, W, C) uint8 levels of measured images.

        Raises:
            BadImage: as `read_image` and `read_levels` do.
        """
        part = self.part(index)
        if self.channels is not None:
            return read_levels(self.paths[index], self.channels, part, max_pixels)
        if part is not None and part.window is not None:
            return read_colours(self.paths[index], part)
        return read_image(self.paths[index], max_pixels)

    def is_large(self, index: int) -> bool:
        """Whether image `index` is to be looked at in windows; `read` isn't for it, `read_window` is."""
        part = self.part(index)
        return part is not None and part.large

    def layout(self, index: int) -> Layout | None:
        """What the file of image `index` says of itself, if it is of a kind that can say more than its size."""
        return None if self.blocks else layout_of(self.paths[index])

    def file(self, index: int) -> Path:
        """A file that can be opened: that of image `index`, or the local copy of one at a URL."""
        return self.paths[index]

    def expanded(self, rows: Sequence[int], names: Sequence[str], parts: Sequence[Part]) -> ImageCollection:
        """The pages and windows of whole files: of each the file's index here, its name and its part."""
        return replace(self, paths=tuple(self.paths[i] for i in rows), names=tuple(names), parts=tuple(parts))

    def glimpse(self, index: int) -> NDArray[np.uint8]:
        """Image `index`, or the middle of one that is large; raises BadImage as `read` does."""
        if not self.is_large(index):
            return self.read(index)
        part = self.part(index)
        assert part is not None
        assert part.window is not None
        height, width = part.window.height, part.window.width
        y, x = max(0, (height - 1024) // 2), max(0, (width - 1024) // 2)
        return self.read_window(index, Window(y, x, min(1024, height), min(1024, width)))

    def read_window(self, index: int, window: Window) -> NDArray[np.uint8]:
        """A part of image `index`, as `read` would give it; of files that can be read in parts.

        Raises:
            BadImage: as `read`.
        """
        part = replace(self.part(index) or Part(), window=window)
        if self.channels is not None:
            return read_levels(self.paths[index], self.channels, part)
        return read_colours(self.paths[index], part)

    @property
    def suffixes(self) -> frozenset[str]:
        """Those of the files' names, in lower case."""
        return frozenset({os.path.splitext(path)[1].lower() for path in PathList.of(self.paths).texts})

    @property
    def rgb(self) -> bool:
        """Whether the channels of an image are red, green and blue, as of photographs."""
        return self.channels is None or self.channels.colour

    def part(self, index: int) -> Part | None:
        """The page and window of image `index`; None = the whole file."""
        return self.parts[index] if self.parts else None

    def measured(self, channels: Channels | None) -> Self:
        """The same images, read as levels of these channels."""
        return replace(self, channels=channels)

    @property
    def blocks(self) -> tuple[int, ...]:
        """How many images lie together, where an order of reading matters (`reading.packed.shards`); else empty."""
        return ()

    def check(self, index: int, max_pixels: int = MAX_PIXELS) -> None:
        """Judge image `index` without decoding it; raises BadImage as `check_image` does."""
        part = self.part(index)
        if self.channels is not None or (part is not None and part.window is not None):
            check_levels(self.paths[index], self.channels, part, max_pixels)
        else:
            check_image(self.paths[index], max_pixels)

    def version(self, index: int) -> dict[str, int | str] | None:
        """What changes when image `index` does: {"bytes", "modified"}; None if it is gone."""
        try:
            status = self.paths[index].stat()
        except (OSError, ValueError):
            return None
        if stat.S_ISDIR(status.st_mode) and self.paths[index].suffix.lower() == ".zarr":
            return _version_of_folder(self.paths[index])
        return {"bytes": status.st_size, "modified": status.st_mtime_ns} if stat.S_ISREG(status.st_mode) else None

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of image `index` as `read` gives it, from its header; raises OSError if that can't be read."""
        part = self.part(index)
        if self.channels is not None or (part is not None and part.window is not None):
            return size_of(self.paths[index], part)
        return upright_size(self.paths[index])

    def vanished(self) -> Path | None:
        """The folder of the images, if none of some that are spread over it can be reached; else None."""
        some = spread_indices(len(self), 16)
        return None if any(is_there(self.paths[i]) for i in some) else self.root

    def restore(self, files: Mapping[str, Any]) -> ImageCollection:
        """The images of an earlier list, under its names and in its order.

        Args:
            files: path below `root` by name. A name that is here is taken from here; other files are "missing" when
                they are read, unless they are back.

        Raises:
            ValueError: if a name or a file leads out of the folder.
        """
        here = dict(zip(self.names, self.paths, strict=True))
        places = {check_inside(name): ImagePlace.of_json(value) for name, value in files.items()}
        paths = tuple(here.get(name, self.root / place.file) for name, place in places.items())
        parts = tuple(place.part for place in places.values())
        if not any(part != Part() for part in parts):
            parts = ()
        return ImageCollection(self.root, paths, tuple(files), channels=self.channels, parts=parts)

    def located(self) -> dict[str, Any]:
        """What `restore` takes, as plain values: of each image its file, with its page and window if it has any."""
        return {
            name: ImagePlace(path.relative_to(self.root).as_posix(), self.part(i) or Part()).to_json()
            for i, (name, path) in enumerate(zip(self.names, self.paths, strict=True))
        }

    def subset(self, indices: Iterable[int]) -> ImageCollection:
        """The images at `indices`, under the names that they have here."""
        chosen = list(indices)
        parts = tuple(self.parts[i] for i in chosen) if self.parts else ()
        names = tuple(self.names[i] for i in chosen)
        return ImageCollection(
            self.root, PathList.of(self.paths).some(chosen), names, channels=self.channels, parts=parts
        )


def _version_of_folder(folder: Path) -> dict[str, int | str]:
    """Of a Zarr: how long all of its files are, and when the newest of its files and folders changed."""
    length, newest = 0, folder.stat().st_mtime_ns
    pending = [str(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                status = entry.stat()
                newest = max(newest, status.st_mtime_ns)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    length += status.st_size
    return {"bytes": length, "modified": newest}


_WRITTEN = re.compile(r"\.(?:png|jpg|npy|tif|zarr|geojson)(?=/|$)")  # suffixes of what is made of images


def _unique_names(root: Path, paths: Sequence[Path]) -> tuple[str, ...]:
    above = "" if str(root) == "." else f"{str(root).rstrip('/')}/"
    relative = []
    for path in PathList.of(paths).texts:
        parts = path.removeprefix(above).split("/")
        relative.append("/".join(part for part in parts if part not in ("..", ".", "")))
    names = [stem_of(name) for name in relative]
    # Of "a.jpg" beside a folder "a.png" a map could not be called a.png.
    parents = {name.rpartition("/")[0] for name in relative}
    folders = {parent[: found.end()] for parent in parents for found in _WRITTEN.finditer(parent)}
    for i, name in enumerate(names if folders else ()):
        if any(folder.rpartition(".")[0] == name for folder in folders):
            names[i] = relative[i]
    for full in (relative, [f"{name}-{i}" for i, name in enumerate(relative)]):
        while shared := {name for name, count in Counter(names).items() if count > 1}:
            longer = [full[i] if name in shared else name for i, name in enumerate(names)]
            if longer == names:
                break
            names = longer
    return tuple(names)


def spread_indices(count: int, most: int) -> list[int]:
    """Indices below `count`, evenly spread, the first and the last among them; all of them if they are few enough.

    Example:
        >>> spread_indices(10, 4), spread_indices(2, 4), spread_indices(0, 4)
        ([0, 3, 6, 9], [0, 1], [])
    """
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))]
