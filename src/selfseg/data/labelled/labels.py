"""Files of labels, and what their values mean.

A label file holds the ids of its maker: indices (gray, palette, or three equal channels), colours, or SBD's MAT files.
`selfseg.data.labelled.values` reads them. `LabelMap` and `ColourMap` turn them into class indices from 0, `VOID` for
pixels that count for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.labelled.values import FileValues, NoValues, read_values
from selfseg.data.reading.decoding import orientation, quiet
from selfseg.errors import ConfigError, LabelError
from selfseg.storage.regular import open_regular

VOID = 255
"""The label of pixels that count for nothing."""

MOST_CLASSES = VOID
"""Labels are bytes: classes 0 to 254, and void."""

_UNKNOWN = -1
_MAT_FIELD = "GTcls"  # of SBD's files: semantic classes


@dataclass(frozen=True)
class LabelMap:
    """What the ids in index files mean.

    Attributes:
        classes: C names.
        table: for each id from 0 its class in [0, C), 255 = void, or -1: an id that no file may hold. Ids beyond the
            table are of that kind too, but 255 is void unless the table says otherwise.

    Raises:
        ConfigError: if there are more than 255 classes, or an id stands for a class that there isn't.

    Example:
        >>> LabelMap.of(("road", "car"), {7: 0, 26: 1}, void=range(34)).apply(np.array([[7, 26, 3]], np.uint8))
        array([[  0,   1, 255]], dtype=uint8)
    """

    classes: tuple[str, ...]
    table: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.classes) <= MOST_CLASSES:
            raise ConfigError(f"a label map has 1 to {MOST_CLASSES} classes, not {len(self.classes)}")
        if len(self.table) > 1 << 16:
            raise ConfigError(f"a label map has ids up to 65535, not {len(self.table) - 1}")
        wrong = [c for c in self.table if c not in (VOID, _UNKNOWN) and not 0 <= c < len(self.classes)]
        if wrong:
            raise ConfigError(f"there is no class {wrong[0]} among {len(self.classes)}")

    @staticmethod
    def of(classes: tuple[str, ...], ids: Mapping[int, int], void: Any = ()) -> LabelMap:
        """The map of some ids.

        Args:
            classes: C names.
            ids: class by id.
            void: ids of pixels that count for nothing, where `ids` doesn't name them; 255 is always among them.
        """
        meaning = dict.fromkeys([*void, VOID], VOID) | dict(ids)
        return LabelMap(classes, tuple(meaning.get(i, _UNKNOWN) for i in range(max(meaning) + 1)))

    @staticmethod
    def indices(classes: tuple[str, ...]) -> LabelMap:
        """The map of files that hold class indices, and 255 for void."""
        return LabelMap.of(classes, {i: i for i in range(len(classes))})

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Class indices of ids.

        Args:
            values: (H, W) uint8 or uint16 ids.

        Returns:
            (H, W) uint8, 255 = void.

        Raises:
            UnknownId: for an id that the map doesn't know.
        """
        if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
            raise ConfigError(f"ids are (H, W) uint8 or uint16, not {values.shape} {values.dtype}")
        lookup, known = _tables(self.table, 1 << 8 * values.dtype.itemsize)
        good = _look_up(values, known)  # counting the values first would cost more than both look-ups
        if not good.all():
            value = int(values[good == 0].max())
            y, x = divmod(int((values == value).argmax()), values.shape[1])
            raise UnknownId(value, (x, y))
        return _look_up(values, lookup)


@dataclass(frozen=True)
class ColourMap:
    """What the colours in RGB files mean.

    Attributes:
        classes: C names.
        colours: (red, green, blue, class) each, 255 = void; other colours are errors.

    Raises:
        ConfigError: if there are more than 253 classes, or a colour stands for a class that there isn't.

    Example:
        >>> colours = ((128, 64, 128, 0), (0, 0, 0, 255))
        >>> ColourMap(("road",), colours).apply(np.array([[[128, 64, 128], [0, 0, 0]]], np.uint8))
        array([[  0, 255]], dtype=uint8)
    """

    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int, int], ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.classes) <= MOST_CLASSES - 2:
            raise ConfigError(f"a colour map has 1 to {MOST_CLASSES - 2} classes, not {len(self.classes)}")
        wrong = [c for *_, c in self.colours if c != VOID and not 0 <= c < len(self.classes)]
        if wrong:
            raise ConfigError(f"there is no class {wrong[0]} among {len(self.classes)}")

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Class indices of colours.

        Args:
            values: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) uint8, 255 = void.

        Raises:
            UnknownId: for a colour that the map doesn't know.
        """
        if values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.uint8:
            raise ConfigError(f"colours are (H, W, 3) uint8, not {values.shape} {values.dtype}")
        # One little-endian word per pixel: blue, green, red, 255.
        words = cv2.cvtColor(np.ascontiguousarray(values), cv2.COLOR_RGB2BGRA).view("<u4")[..., 0] & 0xFFFFFF
        found = _colour_table(self.colours)[words]
        if not found.all():
            y, x = divmod(int((found == 0).argmax()), found.shape[1])
            raise UnknownId(tuple(int(value) for value in values[y, x]), (x, y))
        return np.asarray(cv2.LUT(found, _FROM_TABLE), np.uint8)


class UnknownId(Exception):
    """An id or colour that a map doesn't know; readers of files say which file and what there is."""

    def __init__(self, value: int | tuple[int, ...], at: tuple[int, int] = (0, 0)) -> None:
        super().__init__(value)
        self.value = value
        self.at = at  # x, y of a pixel that has it


def _look_up(values: NDArray[Any], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """table[values]; of bytes by OpenCV, in a tenth of the time that indexing takes."""
    return np.asarray(cv2.LUT(values, table) if values.dtype == np.uint8 else table.take(values, mode="clip"), np.uint8)


@lru_cache(maxsize=64)
def _tables(table: tuple[int, ...], size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The class of each of `size` values, and 1 where there is one."""
    full = np.full(size, _UNKNOWN, np.int16)
    full[VOID] = VOID
    full[: len(table)] = table[:size]
    return full.astype(np.uint8), (full != _UNKNOWN).astype(np.uint8)


@lru_cache(maxsize=8)
def _colour_table(colours: tuple[tuple[int, int, int, int], ...]) -> NDArray[np.uint8]:
    """Class + 1 by 24-bit colour, 255 = void, 0 = unknown; of its 16 MiB only the pages of known colours are memory."""
    table = np.zeros(1 << 24, np.uint8)
    for red, green, blue, label in colours:
        table[red << 16 | green << 8 | blue] = VOID if label == VOID else label + 1
    return table


_FROM_TABLE = np.array([VOID, *range(VOID - 1), VOID], np.uint8)


def upright_size(path: Path | IO[bytes]) -> tuple[int, int]:
    """(H, W) of an image file as `read_image` gives it, from its header; raises OSError if that can't be read."""
    height, width, turned = stored_size(path)
    return (width, height) if turned >= 5 else (height, width)


def stored_size(path: Path | IO[bytes]) -> tuple[int, int, int]:
    """H and W of an image file's pixels, and its EXIF orientation, 1 to 8 (1: upright as it is); from its header.

    Raises:
        OSError: if that can't be read.
    """
    with open_regular(path) if isinstance(path, Path) else nullcontext(path) as stream, quiet():
        try:
            with Image.open(stream) as image:
                turned = orientation(image)
                return image.height, image.width, turned if 1 <= turned <= 8 else 1
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a bomb, and whatever broken bytes make Pillow's parsers raise
            raise OSError(f"{path}: {error}") from error


def read_label_file(path: Path, colours: bool = False, data: bytes | None = None) -> NDArray[Any]:
    """The values of a label file, as stored.

    Args:
        path: a file that `selfseg.data.labelled.values` reads without loss, or one of SBD's MAT files (the field
            GTcls.Segmentation).
        colours: whether it holds colours; else it holds indices, in one channel or in three equal ones, and a palette's
            colours mean nothing.
        data: the file's bytes, if they aren't to be read from `path`.

    Returns:
        (H, W) uint8 or uint16 ids, or (H, W, 3) uint8 RGB.

    Raises:
        LabelError: if it can't be read or holds something else.
    """
    if path.suffix.lower() == ".mat":
        try:
            return _read_mat(path)
        except LabelError:
            raise
        except Exception as error:  # parsers raise whatever broken bytes make them raise
            raise LabelError(f"can't read the label {path}: {error}") from error
    stored = read_exact(path, data)
    if colours:
        if stored.mode not in ("RGB", "RGBA", "P") or stored.pixels.dtype != np.uint8:
            raise LabelError(f"{path} holds no colours (mode {stored.mode}), as the labels of this data do")
        if stored.mode == "P":
            table = np.zeros((256, 3), np.uint8)
            table[: len(stored.palette)] = stored.palette
            return np.asarray(table[stored.pixels])
        return np.ascontiguousarray(stored.pixels[..., :3])
    return as_ids(stored)


def read_exact(path: Path, data: bytes | None = None) -> FileValues:
    """The values of a label file whose format keeps them exact.

    Raises:
        LabelError: if it can't be read, its format changes values, or it has several pages.
    """
    try:
        stored = read_values(path, data)
    except NoValues as error:
        raise LabelError(f"can't read the label {path}: {error}") from error
    if stored.lossy:
        raise LabelError(
            f"{path} is a lossy {stored.format} file: near edges it holds values that nobody wrote; labels must be in "
            "a format that keeps them exact, such as PNG"
        )
    if stored.pages > 1:
        raise LabelError(f"{path} holds {stored.pages} pages; a label is one, so save each as a file of its own")
    return stored


def as_ids(stored: FileValues) -> NDArray[Any]:
    """The ids that a label file holds.

    Returns:
        (H, W) uint8, or uint16 where a value is above 255.

    Raises:
        LabelError: for colours, transparent pixels, and values that are no whole numbers from 0 to 65535.
    """
    path, values = stored.path, stored.gray()
    if values is None:
        raise LabelError(
            f"{path} holds colours (mode {stored.mode}), not class indices; convert each colour to its index and save "
            "a gray or palette PNG; in a labelled folder, classes.txt may give each class its colour instead"
        )
    if stored.pixels.ndim == 3 and stored.pixels.shape[2] == 4:
        alpha = stored.pixels[..., 3]
        if (alpha != np.iinfo(alpha.dtype).max).any():
            raise LabelError(f"{path} has transparent pixels, which are of no class; give them the value 255 instead")
    if values.dtype in (np.uint8, np.uint16):
        return values
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= 0 and high < 1 << 16):  # not-a-number isn't either
        raise LabelError(f"{path} holds the value {low if low < 0 else high}; ids are 0 to 65535")
    if values.dtype.kind == "f" and not bool((values == np.floor(values)).all()):
        raise LabelError(f"{path} holds fractions ({values.dtype}); ids are whole numbers from 0 to 65535")
    if values.dtype.kind not in "biuf":
        raise LabelError(f"{path} holds values of the type {values.dtype}; ids are whole numbers")
    return values.astype(np.uint16 if high > VOID else np.uint8)


def _read_mat(path: Path) -> NDArray[np.uint8]:
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(path)[_MAT_FIELD]["Segmentation"][0, 0], np.uint8)
    except KeyError as error:
        raise LabelError(f"{path} has no {_MAT_FIELD}.Segmentation; the files of SBD's folder cls have one") from error
