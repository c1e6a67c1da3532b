"""Labels in whatever form they lie, as labelled data: what measuring takes.

Published data sets and folders of label pictures are read where they are (`selfseg.data.labelled`). A zip is unpacked,
and the labels of other tools (COCO JSON, CVAT, Label Studio, LabelMe, YOLO, ...) are drawn as label pictures, both into
a temporary folder that ends with the process. The images are those in the folder with the labels.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from selfseg.data.labelled.catalog import LabelledImages, Source, find_files, open_labelled, splits_in
from selfseg.data.labelled.datasets import Files
from selfseg.data.labelled.labels import MOST_CLASSES, VOID, LabelMap
from selfseg.data.labelled.layouts.finding import (
    ALL,
    FolderOptions,
    counted,
    drawn_as_val,
    match_split,
    no_split,
    sort_splits,
    split_in_words,
    understand,
)
from selfseg.data.labelled.legend import Legend
from selfseg.data.reading.listing import list_folder
from selfseg.data.reading.packed.zips import unpack
from selfseg.errors import DataError, LabelError
from selfseg.exchange.base import FORMATS, READ_ONLY, read
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.recognise import recognise
from selfseg.storage.files import storage_errors
from selfseg.telling import tell

_FILES = (".json", ".xml", ".geojson")
_PICTURES = {"SegmentationClass", "SegmentationObject"}  # what CVAT lays beside images
_OTHERS = "other"  # the split of images that no split is told of, where there are some of which one is


@dataclass(frozen=True)
class DrawnLabels:
    """Labels of another tool, drawn.

    Attributes:
        root: the folder or file of the labels.
        kind: what they are, in words.
        legend: the classes.
        folder: what all images lie in.
        images: their files.
        labels: the label picture of each.
        splits: the split of each.
        left_out: sentences on what can't be used.
        without_image: names in the labels that none of the images has.
        without_label: images without a labelled pixel, which are left out.
    """

    root: Path
    kind: str
    legend: Legend
    folder: Path
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    splits: tuple[str, ...]
    left_out: tuple[str, ...]
    without_image: tuple[str, ...]
    without_label: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The splits, train, val and test first."""
        return sort_splits(set(self.splits))

    def files(self, split: str) -> Files:
        """The files of a split.

        Raises:
            DataError: if there is no such split.
        """
        name = match_split(split, self.names)
        if name is None:
            raise DataError(no_split(self.root, self.kind, self.names, split))
        kept = [i for i, own in enumerate(self.splits) if own == name]
        images, labels = tuple(self.images[i] for i in kept), tuple(self.labels[i] for i in kept)
        folder = Path(os.path.commonpath([image.parent for image in images]))
        inside = folder.relative_to(self.folder).as_posix()
        place = "the folder itself" if inside == "." else f"{inside}/"
        where = f"{counted(len(kept), 'labelled image')} in {place}"
        meaning = f"{len(self.legend.classes)} classes; what lies in no object counts for nothing"
        return Files(folder, images, labels, LabelMap.indices(self.legend.names), (self.kind, where, meaning))

    def not_taken(self) -> tuple[str, ...]:
        """Sentences on images and names that have no counterpart."""
        found = []
        if self.without_image:
            found.append(f"{len(self.without_image)} names in the labels are no image's: {_some(self.without_image)}")
        if self.without_label:
            found.append(f"{len(self.without_label)} images have no labelled pixel: {_some(self.without_label)}")
        return tuple(found)


def open_labels(data: Path | str, split: str, leave_out: bool = False) -> LabelledImages:
    """Open one split of labelled data, in whatever form it lies.

    Args:
        data: NAME:ROOT, a folder, a zip, or a file of labels; with options, see `selfseg.data.labelled.catalog`.
        split: e.g. "train" or "val".
        leave_out: what can't be used of another tool's labels is left out instead of refused.

    Returns:
        The pairs.

    Raises:
        ConfigError, DataError, EmptyCollection, LabelError: as `open_labelled`.
    """
    return open_labelled(data, split, lambda source, split: find_labels(source, split, leave_out))


def find_labels(source: Source, split: str, leave_out: bool = False) -> Files:
    """The files of a split, see `open_labels`; of published data sets whether they exist or not."""
    settled = unpacked(source)
    drawn = drawn_labels(settled)
    if drawn is None:
        return find_files(settled, split)
    if drawn.left_out and not leave_out:
        more = f" (and {len(drawn.left_out) - 1} more things)" if len(drawn.left_out) > 1 else ""
        raise LabelError(
            f"{drawn.left_out[0]}{more}; mend it, or let `selfseg data {source.root} --write OUT --leave-out` make a "
            "labelled folder without it"
        )
    return drawn.files(split)


def splits_of_labels(source: Source) -> tuple[str, ...]:
    """The splits of labelled data in whatever form; none of a folder without labels."""
    settled = unpacked(source)
    try:
        drawn = drawn_labels(settled)
    except DataError as error:
        if not settled.root.is_dir():
            raise
        tell(f"{settled.root} is read as images without labels: {error}")
        return ()
    return splits_in(settled) if drawn is None else drawn.names


def unpacked(source: Source) -> Source:
    """The same data, of a zip its unpacked files.

    Raises:
        DataError: if the zip can't be unpacked.
    """
    if not source.plain or source.root.suffix.lower() != ".zip" or not source.root.is_file():
        return source
    status = source.root.stat()
    return replace(source, root=_unpack(source.root.resolve(), status.st_size, status.st_mtime_ns))


def drawn_labels(source: Source) -> DrawnLabels | None:
    """Another tool's labels, drawn once; None if these are label pictures, or nothing that is known.

    Raises:
        DataError: if they can't be read, or have no image.
        LabelError: if they have too many classes.
    """
    root = source.root
    if not source.plain or not (root.is_dir() or (root.is_file() and root.suffix.lower() in _FILES)):
        return None
    if root.is_dir():
        if understand(root, source.options) is not None:
            return None
        try:
            form = recognise(root)
        except DataError:
            return None
        if form == "palette" or (form == "yolo" and not Tree.open(root).ending(".txt")):
            return None
    else:
        form = recognise(root)
    return _draw(root.absolute(), form, source.options, _state(root))


def _state(root: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file does."""
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    return tuple((str(path), status.st_size, status.st_mtime_ns) for path in files if (status := path.stat()))


@lru_cache(maxsize=8)
def _draw(root: Path, form: str, options: FolderOptions, state: tuple[tuple[str, int, int], ...]) -> DrawnLabels:
    folder = root if root.is_dir() else root.parent.parent if root.parent.name == "annotations" else root.parent
    left_out: list[str] = []
    photographs = [path for path in list_folder(folder).paths if not _PICTURES & set(path.relative_to(folder).parts)]
    legend, masks = read(form, root, images=photographs, left_out=left_out)
    if len(legend.classes) > MOST_CLASSES:
        raise LabelError(f"{root} has {len(legend.classes)} classes; at most {MOST_CLASSES} can be measured")
    out = _temporary()
    found: dict[Path, tuple[Path, str]] = {}
    without: tuple[list[str], list[str]] = ([], [])
    written = max(modified for *_, modified in state)
    with storage_errors(out):
        for mask in masks:
            if mask.image is None:
                without[0].append(mask.name)
                continue
            inside = mask.image.absolute().relative_to(folder)
            if mask.image in found:
                raise LabelError(f"there are two masks for the image {mask.image}; give labels with one for each image")
            if bool((mask.mask == legend.void).all()):
                without[1].append(mask.name)
                continue
            label = out / f"{inside.as_posix()}.png"
            label.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(mask.mask == legend.void, VOID, mask.mask).astype(np.uint8)).save(label)
            os.utime(label, ns=(written, written))  # the same labels drawn again are the same version
            found[mask.image] = label, mask.split or split_in_words(inside.parts[:-1]) or ""
    if not found:
        named = f", e.g. {_some(without[0])}" if without[0] else ""
        wrong = f"; {left_out[0]}" if left_out else ""
        raise LabelError(f"{root} has no labels for any of the images in {folder}{named}{wrong}")
    images = tuple(sorted(found))
    labels, told = tuple(found[image][0] for image in images), [found[image][1] for image in images]
    return DrawnLabels(
        root,
        f"labels as {FORMATS[form].title if form in FORMATS else READ_ONLY[form].title}",
        legend,
        folder,
        images,
        labels,
        _settle([image.relative_to(folder).as_posix() for image in images], told, options.val / 100),
        tuple(left_out),
        *(tuple(names) for names in without),
    )


def _settle(names: Sequence[str], told: Sequence[str], val: float) -> tuple[str, ...]:
    """The split of each image: the one that is told; where none is, drawn, or all are one."""
    if any(told):
        return tuple(split or _OTHERS for split in told)
    if not val:
        return (ALL,) * len(names)
    return tuple("val" if is_val else "train" for is_val in drawn_as_val(names, val))


@lru_cache(maxsize=8)
def _unpack(archive: Path, size: int, modified: int) -> Path:
    folder = _temporary() / archive.stem
    with storage_errors(folder):
        folder.mkdir()
        unpack(archive, folder)
    inside = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="selfseg-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
