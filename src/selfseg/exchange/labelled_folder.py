"""Labels from any tool, as a labelled folder: what evaluation and fine-tuning take."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from selfseg.data.labelled.labels import VOID
from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.listed import MOST_COLOURED, list_classes
from selfseg.errors import ConfigError, LabelError
from selfseg.exchange.base import NamedMask, read
from selfseg.storage.files import permitted, storage_errors
from selfseg.storage.leftovers import sweep, temporary_prefix


@dataclass(frozen=True)
class LabelledFolder:
    """What `to_labelled_folder` made.

    Attributes:
        path: ROOT.
        legend: the classes, as classes.txt has them.
        images: how many, by split.
        shares: (C,) share of each class in the labelled pixels.
        without_image: names in the labels that none of the images has.
        without_label: images whose masks are void all over; they are not in the folder.
        left_out: sentences on what could not be used.
    """

    path: Path
    legend: Legend
    images: dict[str, int]
    shares: tuple[float, ...]
    without_image: tuple[str, ...]
    without_label: tuple[str, ...]
    left_out: tuple[str, ...]


def to_labelled_folder(
    path: Path | str,
    images: Any,
    out: Path | str,
    format: str = "auto",
    val: float = 0.2,
    leave_out: bool = False,
    link: bool = False,
) -> LabelledFolder:
    """Write labels of any readable format, with their images, as a labelled folder.

    OUT/{train,val}/{images,labels} and OUT/classes.txt with names and colours; labels are palette PNGs of class
    indices. Which split an image belongs to depends on its name and `val` only.

    Args:
        path: the labels: a file, folder or zip.
        images: the photographs, as of `selfseg.data.labelled.catalog.find_images`; None: those beside the labels.
        out: a new folder; it appears when all is written.
        format: a name in `FORMATS`, or "auto".
        val: share of the images that goes to val.
        leave_out: what can't be used is left out and listed, instead of refused.
        link: images are links to the originals instead of copies.

    Returns:
        What was written.

    Raises:
        ConfigError: if there is no such format, `val` is no share, or `out` is there.
        LabelError: if the labels can't be used, are of more than 255 classes, or no image has any.
        DataError: if there are no images, or the files are not what they should be.
        StorageError: if the disk is full.
    """
    out = Path(out)
    if not 0 <= val < 1:
        raise ConfigError(f"val is the share of images to measure with, from 0 to below 1, not {val}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already; give a new folder")
    left_out: list[str] | None = [] if leave_out else None
    found, masks = read(format, path, images=images, left_out=left_out)
    legend = _listable(found, path)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=temporary_prefix()))
    try:
        writer = _Writer(temporary, legend, val, link)
        with storage_errors(out):
            for mask in masks:
                writer.add(mask)
            if not writer.counts:
                other = f", e.g. {', '.join(writer.without_image[:5])}" if writer.without_image else ""
                raise LabelError(f"{path} has no labels for any of the images{other}; are these the right images?")
            (temporary / "classes.txt").write_text(list_classes(legend)[0], encoding="utf-8")
            temporary.chmod(permitted(0o777))
            os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shares = tuple((writer.pixels / max(int(writer.pixels.sum()), 1)).tolist())
    return LabelledFolder(
        out,
        legend,
        dict(writer.counts),
        shares,
        tuple(writer.without_image),
        tuple(writer.without_label),
        tuple(left_out or ()),
    )


class _Writer:
    def __init__(self, root: Path, legend: Legend, val: float, link: bool) -> None:
        self.root, self.val, self.link = root, val, link
        self.palette = np.zeros((256, 3), np.uint8)
        self.palette[: len(legend.classes)] = [one.colour for one in legend.classes]
        self.pixels = np.zeros(len(legend.classes), np.int64)
        self.counts: Counter[str] = Counter()
        self.without_image: list[str] = []
        self.without_label: list[str] = []
        self._taken: dict[str, Path] = {}  # by place, without suffix
        self._seen: set[Path] = set()

    def add(self, mask: NamedMask) -> None:
        if mask.image is None:
            self.without_image.append(mask.name)
            return
        if mask.image in self._seen:
            raise LabelError(f"there are two masks for the image {mask.image}; give labels with one for each image")
        self._seen.add(mask.image)
        present = np.bincount(mask.mask.ravel(), minlength=VOID + 1)
        if not present[:VOID].any():
            self.without_label.append(mask.name)
            return
        self.pixels += present[: len(self.pixels)]
        place = self._place(mask)
        split = "val" if _drawn(mask.name) < self.val else "train"
        self.counts[split] += 1
        image = self.root / split / "images" / f"{place}{mask.image.suffix}"
        label = self.root / split / "labels" / f"{place}.png"
        for file in (image, label):
            file.parent.mkdir(parents=True, exist_ok=True)
        if self.link:
            image.symlink_to(mask.image.resolve())
        else:
            shutil.copyfile(mask.image, image)
        picture = Image.fromarray(np.ascontiguousarray(mask.mask, np.uint8))
        picture.putpalette(self.palette.tobytes())
        picture.save(label)

    def _place(self, mask: NamedMask) -> str:
        """The name without suffix; of a second one of that name with it, since labels are found by it."""
        assert mask.image is not None
        name = PurePosixPath(mask.name)
        place = str(name.with_suffix(""))
        if place in self._taken:
            place = f"{place}-{name.suffix.removeprefix('.')}"
        if place in self._taken:
            raise LabelError(
                f"the images {mask.image} and {self._taken[place]} would get the same name; rename one of them"
            )
        self._taken[place] = mask.image
        return place


def _drawn(name: str) -> float:
    """A number in [0, 1) that only the name decides."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=6).digest()) / (1 << 48)


def _listable(legend: Legend, path: Path | str) -> Legend:
    """The legend with names that a classes.txt can hold, and colours that differ and aren't void's black."""
    if len(legend.classes) > MOST_COLOURED:
        raise LabelError(
            f"{path} has {len(legend.classes)} classes; a labelled folder with colours holds {MOST_COLOURED}"
        )
    return list_classes(legend)[1]
