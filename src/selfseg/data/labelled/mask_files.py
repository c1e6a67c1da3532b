"""Folders of object masks from any tool, read one image at a time.

The mask of IMAGES/sub/a.jpg is MASKS/sub/a.png, or sub/a.jpg.png; `SUFFIXES` lists what is read. What `selfseg masks`
wrote is a folder of masks too.

What the values of a file mean:

    bool, 1 bit                            the pixels that are set are the object
    one value besides 0 (0/1, 0/255, ...)  the pixels of that value are the object
    gray of 8 bits, none above 64 but 255  several objects: 0 is background, each other value an object, 255 is void (no
                                           object's)
    palette, 16 and 32 bits                several objects in the same way; 255 is void in 8 bits only
    gray of 8 bits otherwise; JPEG         soft: value / 255 of at least `threshold` is the object
    float                                  soft; values above 1 are divided by 255

`survey` looks at the whole folder: where one file is soft, gray files of several small values are dark soft ones.

Reasons of `BadMask.reason`, a closed set:

    missing       there is no mask of the image's name
    ambiguous     two images share the mask ("a.jpg" and "a.png" and only one "a.png")
    unreadable    the file can't be decoded, or is no (H, W) array of numbers from 0 on
    colours       a colour picture; each colour has to become an index first
    wrong-size    another shape than the image's (a mask of the same proportions is resized: nearest pixel)
    empty         no pixel is an object's
    small         all objects together are below `min_area`
    full          one object, above `max_area`: no background is left
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.labels import VOID
from selfseg.data.labelled.values import NoValues, read_values, same_proportions
from selfseg.data.reading.decoding import SUFFIXES as IMAGE_SUFFIXES
from selfseg.data.reading.images import ImageCollection
from selfseg.errors import BadMask, ConfigError, DataError, EmptyCollection
from selfseg.ops.geometry import sample_ids

SUFFIXES = (".png", ".npy", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".pgm", ".pbm", ".jpg", ".jpeg")
"""What a mask's file may be called, in the order in which they are looked for."""

REASONS = ("missing", "ambiguous", "unreadable", "colours", "wrong-size", "empty", "small", "full")
"""Every word that `BadMask.reason` can be."""

INDEX_FOLDER = "index"
"""Where `selfseg masks` puts the masks, below the folder that holds its masks.json."""

NOTE = "masks.json"

_MOST_OBJECTS = 64  # in one gray file of 8 bits

Kind = Literal["auto", "soft", "index"]


def check_threshold(threshold: float) -> None:
    """Raise ConfigError for a threshold of soft masks that is not in (0, 1]."""
    if not 0 < threshold <= 1:
        raise ConfigError(f"a threshold must be above 0 and at most 1, e.g. 0.5, not {threshold}")


def check_areas(min_area: float, max_area: float) -> None:
    """Raise ConfigError unless 0 <= min_area < max_area <= 1, shares of an image."""
    if not 0 <= min_area < max_area <= 1:
        raise ConfigError(
            f"min_area {min_area} and max_area {max_area} leave no mask; both are shares of the image, e.g. 0.01 and "
            "0.95"
        )


class _Values(NamedTuple):
    """The content of a file."""

    array: NDArray[Any]  # (H, W) bool, unsigned, int or float32
    indices: bool  # a palette
    lossy: bool


@dataclass(frozen=True)
class MaskFolder:
    """A folder of masks. Nothing is opened before `get`; may be sent to loader processes.

    Attributes:
        path: the folder, or what `selfseg masks` wrote.
        kind: "auto" decides file by file (see the top of this module); "soft": gray is value / 255; "index": each value
            but 0 and 255 is an object.
        threshold: from which value on a soft mask is the object, in (0, 1].
        min_area: share of the image that all objects together must have, in [0, 1).
        max_area: share of the image that a single object may have, in (0, 1].

    Raises:
        ConfigError: for a value that can't work.
    """

    path: Path
    kind: Kind = "auto"
    threshold: float = 0.5
    min_area: float = 0.01
    max_area: float = 0.95

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser())
        if self.kind not in ("auto", "soft", "index"):
            raise ConfigError(f"the kind of masks must be auto, soft or index, not {self.kind!r}")
        check_threshold(self.threshold)
        check_areas(self.min_area, self.max_area)

    def get(self, name: str, height: int, width: int) -> NDArray[np.int32]:
        """The objects of an image.

        Args:
            name: the image's path below the folder of images, with "/"; with or without suffix, so that
                `ImageCollection.names` will do.
            height: H, of the image as `read_image` gives it (or as it was resized), in pixels.
            width: W.

        Returns:
            (H, W) int32: ids of objects, dense from 0 in ascending order of the file's values; -1 = background or void.

        Raises:
            BadMask: with a reason from the top of this module.
        """
        path = self.find(name)
        if path is None:
            raise BadMask(self.folder / f"{name}.png", "missing")
        ids = _to_ids(_read(path), self)
        if ids.shape != (height, width):
            if not same_proportions((ids.shape[0], ids.shape[1]), (height, width)):
                detail = f"{ids.shape[1]}x{ids.shape[0]} pixels, the image has {width}x{height}"
                raise BadMask(path, "wrong-size", detail)
            ids = sample_ids(ids, (0, 0, ids.shape[1], ids.shape[0]), (height, width))
        pixels = np.bincount(ids.ravel() + 1)
        there = pixels[1:] > 0
        if not there.all():  # resizing dropped a small one
            ids = np.concatenate([[-1], np.cumsum(there) - 1]).astype(np.int32)[ids + 1]
        share, count = float(pixels[1:].sum() / ids.size), int(there.sum())
        if share == 0:
            raise BadMask(path, "empty")
        if share < self.min_area:
            raise BadMask(path, "small", f"{share:.2%} of the image, at least {self.min_area:.2%} are needed")
        if count == 1 and share > self.max_area:
            raise BadMask(path, "full", f"{share:.2%} of the image, at most {self.max_area:.2%} leave a background")
        return ids

    def read(self, name: str) -> NDArray[np.int32]:
        """As `get`, at the size of the file and whatever the objects' area.

        Raises:
            BadMask: "missing", "unreadable", "colours" or "empty".
        """
        path = self.find(name)
        if path is None:
            raise BadMask(self.folder / f"{name}.png", "missing")
        ids = _to_ids(_read(path), self)
        if int(ids.max()) < 0:
            raise BadMask(path, "empty")
        return ids

    @property
    def folder(self) -> Path:
        """Where the files are: `path`, or its folder "index" if `selfseg masks` wrote it."""
        return self.path / INDEX_FOLDER if (self.path / NOTE).is_file() else self.path

    def find(self, name: str) -> Path | None:
        """The file of an image's mask; None if there is none."""
        folder, (stem, suffix) = self.folder, os.path.splitext(name)
        stems = (name, stem) if suffix.lower() in IMAGE_SUFFIXES else (name,)
        return next((p for s in stems for end in SUFFIXES if (p := folder / f"{s}{end}").is_file()), None)


@dataclass(frozen=True)
class MaskSurvey:
    """What a folder of masks has for a collection of images.

    Attributes:
        folder: the folder, of kind "soft" if it turned out to be.
        usable: indices of the images with a usable mask, ascending.
        problems: (reason, detail) by name of all others.
        resized: how many masks have the image's proportions but another size.
        objects: how many objects the usable masks have.
    """

    folder: MaskFolder
    usable: tuple[int, ...]
    problems: dict[str, tuple[str, str]]
    resized: int
    objects: int

    def sentence(self) -> str:
        """One line on what there is."""
        counts = Counter(reason for reason, _ in self.problems.values())
        return f"{len(self.usable)} of {len(self.usable) + len(self.problems)} images have a usable mask" + (
            " (" + ", ".join(f"{count} {reason}" for reason, count in counts.most_common()) + ")" if counts else ""
        )


def survey(folder: MaskFolder, images: ImageCollection) -> MaskSurvey:
    """Read the masks of all images once: which can be used, and why the others can't.

    Args:
        folder: the masks.
        images: the images; those that can't be opened are passed over, because whoever reads them will say so.

    Raises:
        DataError: if there is no such folder.
        EmptyCollection: if no image has a usable mask, with how many have which problem.
    """
    if not folder.folder.is_dir():
        raise DataError(f"{folder.folder} is no folder; give the one that holds the masks, or make them: selfseg masks")
    if folder.kind == "auto" and folder.folder != folder.path:
        folder = replace(folder, kind="index")
    found = [folder.find(name) for name in images.names]
    shared = {path for path, count in Counter(found).items() if path is not None and count > 1}

    def judge(i: int) -> tuple[str, str, int, bool] | None:
        try:
            size = images.size(i)
        except OSError:
            return None
        try:
            path = found[i]
            if path in shared:
                raise BadMask(path, "ambiguous", "another image has the same; name the masks NAME.jpg.png")
            ids = folder.get(images.names[i], *size)
            return "", "", int(ids.max()) + 1, path is not None and _read(path).array.shape != size
        except BadMask as error:
            return error.reason, f"{error.path}" + (f": {error.detail}" if error.detail else ""), 0, False

    with ThreadPoolExecutor(4) as pool:
        if folder.kind == "auto" and any(pool.map(_is_soft, [path for path in found if path is not None])):
            folder = replace(folder, kind="soft")
        verdicts = list(pool.map(judge, range(len(images))))
    problems = {images.names[i]: v[:2] for i, v in enumerate(verdicts) if v is not None and v[0]}
    good = [(i, v) for i, v in enumerate(verdicts) if v is not None and not v[0]]
    result = MaskSurvey(
        folder, tuple(i for i, _ in good), problems, sum(v[3] for _, v in good), sum(v[2] for _, v in good)
    )
    if not good:
        example = next((detail for _, detail in problems.values()), "")
        raise EmptyCollection(
            f"{result.sentence()} in {folder.folder}" + (f", e.g. {example}" if example else "") + ". A mask is named "
            "like its image; its values are explained in docs/masks.md"
        )
    return result


def _read(path: Path) -> _Values:
    """The values of a file as they are stored."""
    try:
        stored = read_values(path)
    except NoValues as error:
        raise BadMask(path, "unreadable", str(error)) from error
    array = stored.gray()
    if array is None:
        raise BadMask(path, "colours", f"mode {stored.mode}; make each colour an index and save a gray or palette PNG")
    return _Values(_checked(array, path), stored.mode == "P", stored.lossy)


def _checked(array: NDArray[Any], path: Path) -> NDArray[Any]:
    if array.ndim != 2 or not array.size:
        raise BadMask(path, "unreadable", f"an array of shape {array.shape}, not (H, W)")
    if array.dtype == np.bool_ or array.dtype.kind == "u":
        return array
    if array.dtype.kind not in "if" or not bool((array >= 0).all()):  # not-a-number is not >= 0 either
        raise BadMask(path, "unreadable", f"{array.dtype} with values that are no numbers from 0 on")
    return array


def _is_soft(path: Path) -> bool:
    """Whether a file is certainly soft: gray of 8 bits with values that are no small indices, or float."""
    try:
        values = _read(path)
    except BadMask:
        return False
    array = values.array
    if array.dtype.kind == "f" or values.lossy:
        return array.dtype.kind == "f"
    if array.dtype != np.uint8 or values.indices:
        return False
    present = np.flatnonzero(np.bincount(array.ravel(), minlength=256)[1:VOID]) + 1
    return len(present) > 1 and int(present[-1]) > _MOST_OBJECTS


def _to_ids(values: _Values, how: MaskFolder) -> NDArray[np.int32]:
    """(H, W) int32 ids, dense from 0, -1 = none."""
    array = values.array
    if array.dtype == np.bool_:
        return array.astype(np.int32) - np.int32(1)
    if array.dtype.kind == "f":
        scale = 255 if float(array.max()) > 1 else 1
        return (array >= how.threshold * scale).astype(np.int32) - np.int32(1)
    eight = array.dtype == np.uint8
    if eight:
        found, place = np.arange(256), array
        present = np.flatnonzero(np.bincount(array.ravel(), minlength=256))
    else:
        found, place = np.unique(array, return_inverse=True)
        place, present = place.reshape(array.shape), found
    present = present[present > 0]
    ids = np.full(len(found), -1, np.int32)
    if how.kind != "index" and len(present) <= 1 and not (how.kind == "soft" and 1 < present.max(initial=0) < VOID):
        ids[np.isin(found, present)] = 0  # one value: it is the object's, whatever it is
        return np.asarray(ids[place], np.int32)
    few = int(present[present != VOID].max(initial=0)) <= _MOST_OBJECTS
    if how.kind == "index" or values.indices or not eight or (few and how.kind == "auto" and not values.lossy):
        objects = np.isin(found, present) & ((found != VOID) | (not eight))
        ids[objects] = np.arange(objects.sum())
    else:
        ids[found >= how.threshold * VOID] = 0
    return np.asarray(ids[place], np.int32)
