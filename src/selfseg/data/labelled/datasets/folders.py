"""Labelled folders: the layout for one's own data.

    ROOT/classes.txt             a class per line, as "INDEX NAME" or just the name; 255 is void
    ROOT/SPLIT/images/NAME.jpg   any image that `selfseg.data.reading.images` reads
    ROOT/SPLIT/labels/NAME.png   a PNG of class indices (gray or palette), of the image's size; 255 is void

Pairs are found by NAME, subfolders included; labels without an image are passed over.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.datasets.base import DataSet, Files
from selfseg.data.labelled.labels import VOID, LabelMap, read_label_file
from selfseg.data.reading.images import list_images
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
    return Files(images.root, images.paths, paths, LabelMap.indices(_class_names(root)))


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


def _class_names(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    if not path.exists():
        # Over all splits, so that a class that is missing from one of them keeps the splits comparable.
        labels = sorted(root.glob("*/labels/**/*.png"))
        largest = max((_largest(label, read_label_file(label)) for label in labels), default=-1)
        return tuple(f"class {index}" for index in range(max(largest, 0) + 1))
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"can't read {path}: {error}") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    numbered = [re.fullmatch(r"(\d+)[\s:,]+(.+)", line) for line in lines]
    if not lines:
        raise LabelError(f"{path} names no class; write one per line, e.g. '0 sky'")
    if not all(numbered):
        return tuple(lines)
    by_index: dict[int, str] = {}
    for match in numbered:
        assert match is not None
        index = int(match[1])
        if index in by_index:
            raise LabelError(f"{path} names class {index} twice: {by_index[index]!r} and {match[2]!r}")
        by_index[index] = match[2]
    by_index.pop(VOID, None)
    gaps = sorted(set(range(max(by_index, default=-1) + 1)) - set(by_index))
    if gaps or not by_index:
        raise LabelError(
            f"{path} does not name class {gaps[0] if gaps else 0}; classes are numbered from 0 without gaps"
        )
    return tuple(by_index[index] for index in range(len(by_index)))


def _largest(path: Path, label: NDArray[Any]) -> int:
    """The largest value but void; -1 where all is void."""
    if label.max(initial=0) > VOID:
        raise LabelError(f"{path} holds the value {label.max()}; classes are 0 to 254 and 255 is void")
    counts = np.flatnonzero(np.bincount(label.ravel(), minlength=VOID + 1)[:VOID])
    return int(counts[-1]) if counts.size else -1


FOLDER = DataSet("folder", "a labelled folder; SPLIT/{images,labels}, classes.txt", _find, {})
