"""Labelled folders: the layout for one's own data.

    ROOT/classes.txt             a class per line, as "INDEX NAME" or just the name; 255 is void. A colour may follow,
                                 see `selfseg.data.labelled.classes_file`
    ROOT/SPLIT/images/NAME.jpg   any image that `selfseg.data.reading.images` reads
    ROOT/SPLIT/labels/NAME.png   a PNG of class indices (gray or palette), or of the classes' colours, of the image's
                                 size; 255 is void

Pairs are found by NAME, subfolders included; labels without an image are passed over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.classes_file import read_classes
from selfseg.data.labelled.coloured import ColouredCodes, ask_for_colours, holds_colours
from selfseg.data.labelled.datasets.base import Codes, DataSet, Files
from selfseg.data.labelled.labels import VOID, LabelMap, read_label_file
from selfseg.data.reading.listing import list_images
from selfseg.errors import DataError, LabelError


def _find(root: Path, split: str) -> Files:
    for folder in (root, root / split, root / split / "images", root / split / "labels"):
        if not folder.is_dir():
            raise DataError(_missing_folder(root, split, folder))
    images = list_images(root / split / "images")
    labels = root / split / "labels"
    stems = [os.path.splitext(path.relative_to(images.root).as_posix())[0] for path in images.paths]
    found = {os.path.splitext(path.relative_to(labels).as_posix())[0]: path for path in sorted(labels.rglob("*.png"))}
    paths = tuple(found.get(stem, labels / f"{stem}.png") for stem in stems)
    return Files(images.root, images.paths, paths, _codes(root, paths))


def splits_of(root: Path) -> tuple[str, ...]:
    """The splits that a labelled folder has: first train, val and test, then the others by name."""
    names = sorted(entry.parent.name for entry in root.glob("*/labels") if (entry.parent / "images").is_dir())
    usual = [name for name in ("train", "val", "test") if name in names]
    return (*usual, *(name for name in names if name not in usual))


def _missing_folder(root: Path, split: str, missing: Path) -> str:
    layout = f"a labelled folder holds {root}/SPLIT/images and {root}/SPLIT/labels"
    if not root.exists():
        return f"{root} does not exist; {layout}"
    if not root.is_dir():
        return f"{root} is a file; {layout}"
    parent = missing.parent
    there = sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    what = f"split {split!r}" if missing == root / split else f"folder {missing.name!r}"
    return f"no {what} in {parent}; there is {', '.join(there) or 'no folder'}; {layout}"


def _codes(root: Path, labels: tuple[Path, ...]) -> Codes:
    path = root / "classes.txt"
    listed = read_classes(path) if path.exists() else None
    if listed is not None and listed.colours:
        return ColouredCodes(listed.names, listed.colours)
    first = next((label for label in labels if label.exists()), None)
    coloured = first is not None and holds_colours(first)
    if listed is not None and not coloured:
        return LabelMap.indices(listed.names)
    # Over all splits, so that a class that is missing from one of them keeps the splits comparable.
    every = sorted(root.glob("*/labels/**/*.png"))
    if first is not None and coloured:
        raise LabelError(ask_for_colours(first, every, path, listed.names if listed else ()))
    largest = max((_largest(label, read_label_file(label)) for label in every), default=-1)
    return LabelMap.indices(tuple(f"class {index}" for index in range(max(largest, 0) + 1)))


def _largest(path: Path, label: NDArray[Any]) -> int:
    """The largest value but void; -1 where all is void."""
    if label.max(initial=0) > VOID:
        raise LabelError(f"{path} holds the value {label.max()}; classes are 0 to 254 and 255 is void")
    counts = np.flatnonzero(np.bincount(label.ravel(), minlength=VOID + 1)[:VOID])
    return int(counts[-1]) if counts.size else -1


FOLDER = DataSet("folder", "a labelled folder; SPLIT/{images,labels}, classes.txt", _find, {})
