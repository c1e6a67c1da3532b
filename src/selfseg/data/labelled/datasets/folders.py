"""Labelled folders: images and labels of one's own.

    ROOT/classes.txt             a class per line, as "INDEX NAME" or just the name; 255 is void. A colour may follow,
                                 see `selfseg.data.labelled.classes_file`. Or VOC's and CVAT's labelmap.txt
    ROOT/SPLIT/images/NAME.jpg   any image that `selfseg.data.reading.images` reads
    ROOT/SPLIT/labels/NAME.png   class indices (gray, palette, three equal channels; 255 is void), or
                                 the classes' colours

Other layouts are understood too: `selfseg.data.labelled.layouts.finding`. Pairs are found by NAME, subfolders included;
labels without an image are passed over.

Without a list of classes their values say what there is: of all splits "class 0" to the largest value; where nothing
but 0 and 255 occurs, "background" and "foreground"; and where values above 255 occur, a class for each value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selfseg.data.labelled.classes_file import ClassList, read_classes, read_labelmap
from selfseg.data.labelled.coloured import ColouredCodes, ask_for_colours
from selfseg.data.labelled.datasets.base import Codes, DataSet, Files
from selfseg.data.labelled.labels import MOST_CLASSES, VOID, LabelMap, as_ids, read_exact
from selfseg.data.labelled.layouts.finding import FolderOptions, Layout, understand
from selfseg.data.labelled.values import holds_colours
from selfseg.data.reading.images import spread_indices
from selfseg.errors import DataError, EmptyCollection, LabelError

_VOID_16 = 65_535
_LOOKED_AT = 16  # labels, for whether they hold anything but 0 and 255
BINARY = ("background", "foreground")
"""The classes of labels that hold nothing but 0 and 255."""


def find_in_folder(root: Path, split: str, options: FolderOptions | None = None) -> Files:
    """The files of a split of a labelled folder, whatever its layout.

    Raises:
        DataError: if there is no such split, or the folder is not laid out like one.
        EmptyCollection: if the split has no image.
        LabelError: if classes.txt or the labels can't be understood.
    """
    layout = understand(root, options)
    if layout is None or (layout.split(split) is None and (root / split).is_dir()):
        for folder in (root, root / split, root / split / "images", root / split / "labels"):
            if not folder.is_dir():
                raise DataError(_missing_folder(root, split, folder))
    if layout is None:
        raise DataError(f"{root} is laid out in no way that is understood; see docs/data.md")
    pairs = layout.pairs(split)
    codes, meaning, guessed = _codes(layout, pairs.labels)
    where = pairs.sentence(layout.root)
    guesses = [where] if pairs.suffix or pairs.strip else []
    guesses += [meaning] if guessed else []
    return Files(pairs.root, pairs.images, pairs.labels, codes, (layout.kind, where, meaning), tuple(guesses))


def splits_of(root: Path, options: FolderOptions | None = None) -> tuple[str, ...]:
    """The splits that a labelled folder has: first train, val and test, then the others by name."""
    layout = understand(root, options)
    return layout.splits if layout is not None else ()


def _missing_folder(root: Path, split: str, missing: Path) -> str:
    layout = f"a labelled folder holds {root}/SPLIT/images and {root}/SPLIT/labels (other layouts: docs/data.md)"
    if not root.exists():
        return f"{root} does not exist; {layout}"
    if not root.is_dir():
        return f"{root} is a file; {layout}"
    parent = missing.parent
    there = sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    what = f"split {split!r}" if missing == root / split else f"folder {missing.name!r}"
    return f"no {what} in {parent}; there is {', '.join(there) or 'no folder'}; {layout}"


def _codes(layout: Layout, labels: tuple[Path, ...]) -> tuple[Codes, str, bool]:
    """What the values mean, a sentence on it, and whether that is a guess which a person should see."""
    path, listed = _list_of(layout.root)
    said = path.name if path.exists() else "labelmap.txt"
    if listed is not None and listed.colours:
        colours = f"{len(listed.names)} classes by the colours or indices that {said} lists"
        return ColouredCodes(listed.names, listed.colours), colours, False
    first = next((label for label in labels if label.exists()), None)
    coloured = first is not None and holds_colours(first)
    if listed is not None and not coloured:
        if not listed.void:
            _check_binary(labels, path if path.exists() else path.with_name(said), listed)
        return LabelMap.indices(listed.names), f"the values are indices of {said}'s {len(listed.names)} classes", False
    # Over all splits, so that a class that is missing from one of them keeps the splits comparable.
    every = _labels_of(layout)
    if first is not None and coloured:
        raise LabelError(ask_for_colours(first, every, path, listed.names if listed else ()))
    return _by_values(every, path)


def _check_binary(labels: Sequence[Path], listed_in: Path, listed: ClassList) -> None:
    """Refuse labels of 0 and 255 whose list of classes doesn't say that 255 is void: most are masks of one class.

    255 would count for nothing, all that is left would be of the first class, and whatever is measured perfect.
    """
    seen: set[int] = set()
    there = [path for path in labels if path.is_file()]
    for i in spread_indices(len(there), _LOOKED_AT):
        try:
            seen.update(np.flatnonzero(np.bincount(as_ids(read_exact(there[i])).ravel())).tolist())
        except LabelError:
            return  # whoever reads it says why
        if not seen <= {0, VOID}:
            return
    if seen == {0, VOID}:
        last = listed.names[-1] if len(listed.names) > 1 else "object"
        first = listed.names[0] if len(listed.names) > 1 else "background"
        raise LabelError(
            f"the labels hold nothing but 0 and 255, e.g. {there[0]}, and 255 is void unless {listed_in} says "
            f"otherwise, so that {listed.names[0]!r} would be all there is. If 255 is a class, write colours there: "
            f"'0 {first} #000000' and '1 {last} #ffffff'; or leave the file out, and the classes are called "
            f"{' and '.join(BINARY)}. If 255 really is void, add the line '255 void'"
        )


def _list_of(root: Path) -> tuple[Path, ClassList | None]:
    path, other = root / "classes.txt", root / "labelmap.txt"
    if path.exists():
        return path, read_classes(path)
    return path, read_labelmap(other) if other.exists() else None


def _labels_of(layout: Layout) -> list[Path]:
    found: set[Path] = set()
    for split in layout.splits:
        try:
            found.update(path for path in layout.pairs(split).labels if path.is_file())
        except EmptyCollection:
            continue
    return sorted(found)


def _by_values(labels: Sequence[Path], classes: Path) -> tuple[LabelMap, str, bool]:
    seen: set[int] = set()
    for path in labels:
        stored = read_exact(path)
        if stored.gray() is None:
            raise LabelError(ask_for_colours(path, labels, classes, ()))
        values = as_ids(stored)
        seen.update(np.flatnonzero(np.bincount(values.ravel())).tolist())
    if seen == {0, VOID}:
        codes = LabelMap.of(BINARY, {0: 0, VOID: 1})
        meaning = "the values 0 and 255 were understood as background and foreground; a classes.txt says otherwise"
        return codes, meaning, True
    if max(seen - {_VOID_16}, default=0) > VOID:
        ids = sorted(seen - {_VOID_16})
        if len(ids) > MOST_CLASSES - 1:
            raise LabelError(
                f"the labels hold {len(ids)} different values up to {ids[-1]}, of which {MOST_CLASSES - 1} can be "
                "classes; are these ids of objects?"
            )
        codes = LabelMap.of(tuple(f"value {i}" for i in ids), {v: i for i, v in enumerate(ids)}, void=(_VOID_16,))
        meaning = f"each of the {len(ids)} values up to {ids[-1]} was understood as a class, and 65535 as void"
        return codes, meaning, True
    largest = max(seen - {VOID, _VOID_16}, default=0)
    meaning = f"the values are indices of {largest + 1} classes, which no {classes.name} names"
    return LabelMap.indices(tuple(f"class {index}" for index in range(largest + 1))), meaning, False


FOLDER = DataSet("folder", "a labelled folder; SPLIT/{images,labels}, classes.txt", find_in_folder, {})
