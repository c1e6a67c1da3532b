"""What a data set is: a layout of files below a root, a label map and splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfseg.data.labelled.coloured import ColouredCodes
from selfseg.data.labelled.labels import ColourMap, LabelMap
from selfseg.data.reading.listing import list_images
from selfseg.errors import DataError
from selfseg.storage.regular import read_text

Codes = LabelMap | ColourMap | ColouredCodes


@dataclass(frozen=True)
class Files:
    """The files of one split. They come from a list or a folder; not all need to exist.

    Attributes:
        root: the folder that names of images are relative to.
        images: their paths.
        labels: a path for each image, or none at all.
        codes: what the labels' values mean; None without labels.
        notes: of a folder of one's own, phrases on how it was understood: its layout, where images and labels are,
            what the values mean.
        guesses: those of the notes that nobody said and a person should see.
    """

    root: Path
    images: tuple[Path, ...]
    labels: tuple[Path, ...] = ()
    codes: Codes | None = None
    notes: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A data set by name.

    Attributes:
        name: as in NAME:ROOT.
        about: one line: what it is, and the layout below ROOT.
        find: (ROOT, split) to the split's files; raises DataError with the file that it looked for.
        splits: the published number of images by split, None where it isn't known. The first is what is trained on.
            Empty: the folder's own.
        classes: names of the classes; empty if there are no labels, or the folder names them.
        unlabelled: splits without labels.
    """

    name: str
    about: str
    find: Callable[[Path, str], Files]
    splits: Mapping[str, int | None]
    classes: tuple[str, ...] = ()
    unlabelled: frozenset[str] = field(default=frozenset())


def first_folder(root: Path, choices: Sequence[str], what: str) -> Path:
    """The first of some folders below `root` that is there.

    Raises:
        DataError: if none is, with all that were looked for.
    """
    for choice in choices:
        if (root / choice).is_dir():
            return root / choice
    looked = " or ".join(str(root / choice) for choice in choices)
    if not root.exists():
        raise DataError(f"{root} does not exist; it should hold {what}: {looked}")
    there = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith(".")) if root.is_dir() else []
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    raise DataError(f"no folder with {what}: looked for {looked}; in {root} there is {shown or 'nothing'}")


def read_list(paths: Sequence[Path], what: str) -> list[str]:
    """The names in the first of some list files that is there: of each line the first word, without folder and suffix.

    Raises:
        DataError: if there is none, it can't be read, or it is empty.
    """
    for path in paths:
        if path.is_file():
            break
    else:
        raise DataError(f"no list of {what}: looked for {' or '.join(str(path) for path in paths)}")
    try:
        lines = read_text(path).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't read the list {path}: {error}") from error
    names = [os.path.splitext(os.path.basename(line.split()[0]))[0] for line in lines if line.strip()]
    if not names:
        raise DataError(f"the list {path} names no image")
    return names


def pair_folders(images: Path, label_of: Callable[[str], Path], codes: Codes, names: Iterable[str] = ()) -> Files:
    """All images of a folder, or those of some names, each with the label that belongs to it.

    Args:
        images: the folder, searched with its folders.
        label_of: from an image's path below it, with "/" and without suffix, to its label.
        codes: what the labels hold.
        names: if given only these, as JPEGs; whether they exist isn't asked.

    Raises:
        EmptyCollection: if the folder holds no image.
    """
    chosen = [(name, images / f"{name}.jpg") for name in names]
    if not chosen:
        found = list_images(images)
        chosen = [(os.path.splitext(path.relative_to(found.root).as_posix())[0], path) for path in found.paths]
    labels = tuple(label_of(name) for name, _ in chosen)
    return Files(images, tuple(path for _, path in chosen), labels, codes)
