"""PNGs of indices or colours with a list of classes: selfseg's own, PASCAL VOC's, labelled folders.

The list is the first of legend.json (values, names and colours, as selfseg writes it; then palettes mean nothing),
labelmap.txt ("name:r,g,b::" a line, of VOC and CVAT) and classes.txt (`selfseg.data.labelled.classes_file`). The PNGs
are those below SegmentationClass, else below folders called labels, else all but SegmentationObject's and photographs.
What their pixels mean is as in labelled folders (`selfseg.data.labelled.coloured`). renamed.json, if there, has the
names of images whose own can't be files'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.classes_file import ClassList, parse_classes
from selfseg.data.labelled.coco_json import inner_path
from selfseg.data.labelled.coloured import ColouredCodes, read_stored
from selfseg.data.labelled.labels import UnknownId
from selfseg.data.labelled.legend import Colour, Legend
from selfseg.data.labelled.values import FileValues
from selfseg.errors import BadImage, ConfigError, DataError, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.painting import Faults, legend_of, settle
from selfseg.exchange.reading.photographs import Images, Photographs, photographs_for, without_suffix
from selfseg.exchange.writing.cvat import voc_colours

LABELS = "SegmentationClass"
_PASSED_OVER = {"SegmentationObject", "JPEGImages", "images"}
Meaning = Callable[[FileValues], NDArray[Any]]


def read(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """See the top of this module, and `selfseg.exchange.base.read`."""
    tree = Tree.open(path)
    legend, meaning = _list_of(tree)
    return legend, masks_of(tree, legend, meaning, photographs_for(tree, images), Faults(left_out))


def masks_of(
    tree: Tree, legend: Legend, meaning: Meaning, photographs: Photographs, faults: Faults
) -> Iterator[NamedMask]:
    """The mask of each PNG, by its pixels' meaning."""
    pictures = label_files(tree)
    if not pictures:
        raise LabelError(f"{tree.path} holds no label PNG; they are looked for below {LABELS} or labels")
    original = originals(tree, photographs)
    told = photographs.told((original.get(place, place) for _, place in pictures), bare=True)

    def masks() -> Iterator[NamedMask]:
        for file, place in pictures:
            called, bare = original.get(place, place), place not in original
            try:
                stored = read_stored(tree.place(file), tree.read(file))
                name, _, image = settle(called, (stored.pixels.shape[0], stored.pixels.shape[1]), told, bare)
                if image is None and bare:
                    name = f"{place}.png"
                mask = NamedMask(name, meaning(stored), image)
                mask.check(legend)
            except UnknownId as error:
                what = "colour" if isinstance(error.value, tuple) else "value"
                at = f"at x = {error.at[0]}, y = {error.at[1]}"
                faults.add(tree.place(file), f"the {what} {error.value} {at} is none of the listed classes")
            except (LabelError, BadImage) as error:
                faults.add(tree.place(file), error)
            else:
                yield mask

    return masks()


def label_files(tree: Tree) -> list[tuple[str, str]]:
    """(file, its name below the folder of labels, without suffix)."""
    files = [PurePosixPath(name) for name in tree.ending(".png")]
    for folder in (LABELS, "labels"):
        below = [(file, file.parts.index(folder)) for file in files if folder in file.parts[:-1]]
        if below:
            return [(str(file), str(PurePosixPath(*file.parts[i + 1 :]).with_suffix(""))) for file, i in below]
    return [(str(file), str(file.with_suffix(""))) for file in files if not _PASSED_OVER & set(file.parts[:-1])]


def originals(tree: Tree, photographs: Photographs) -> dict[str, str]:
    """From a file's name without suffix, or a name in a list, to its image's, where renamed.json has one."""
    name = tree.find("renamed.json")
    value = tree.json(name) if name else {}
    found = {}
    for original, place in value.items() if isinstance(value, dict) else ():
        try:
            inner_path(original)
        except LabelError:
            continue
        if isinstance(place, str):
            found[place] = original
    photographs.claimed = set(found.values())
    return found


def own_name(name: str, renamed: Mapping[str, str]) -> str:
    """What an image is really called whose name in a list, or its file's without suffix, may be in renamed.json."""
    return renamed.get(name) or renamed.get(without_suffix(name), name)


def read_labelmap(tree: Tree, name: str) -> dict[str, Colour]:
    """Names and colours of a labelmap.txt, in its order; where it has no colours, VOC's by the line's number.

    Raises:
        LabelError: if a line is none of "name:r,g,b:parts:actions", or two have one name or colour.
    """
    where = tree.place(name)
    lines = [line.split(":") for line in tree.text(name).splitlines() if line.strip() and not line.startswith("#")]
    usual = voc_colours(len(lines)).tolist()
    found: dict[str, Colour] = {}
    owner: dict[Colour, str] = {}
    for parts, standard in zip(lines, usual, strict=True):
        line = ":".join(parts)[:80]
        numbers = parts[1].split(",") if len(parts) > 1 and parts[1].strip() else [str(value) for value in standard]
        if len(parts) not in (2, 4) or len(numbers) != 3 or not all(n.strip().isdecimal() for n in numbers):
            raise LabelError(f"{where}: a line is NAME:R,G,B:PARTS:ACTIONS, not {line!r}")
        red, green, blue = (int(number[:6]) for number in numbers)
        if max(red, green, blue) > 255:
            raise LabelError(f"{where}: a number of the colour in {line!r} is above 255")
        label, colour = parts[0].strip(), (red, green, blue)
        if label in found:
            raise LabelError(f"{where} names {label!r} twice")
        if colour in owner:
            raise LabelError(f"{where} gives the colour {colour} to both {owner[colour]!r} and {label!r}")
        found[label], owner[colour] = colour, label
    return found


def _list_of(tree: Tree) -> tuple[Legend, Meaning]:
    """The classes, and what turns a file into (H, W) of their values."""
    if name := tree.find("legend.json"):
        value = tree.json(name)
        try:
            legend = Legend.from_json(value["classes"] if isinstance(value, dict) else value)
        except (ConfigError, KeyError) as error:
            raise LabelError(f"{tree.place(name)}: {error}") from error
        listed = ClassList(legend.names, tuple((*one.colour, i) for i, one in enumerate(legend.classes)))
        return legend, _by_index(legend, listed)
    if name := tree.find("labelmap.txt"):
        given = read_labelmap(tree, name)
        legend = legend_of(list(given), given, tree.place(name))
        listed = ClassList(legend.names, tuple((*colour, i) for i, colour in enumerate(given.values())))
    elif name := tree.find("classes.txt"):
        listed = parse_classes(tree.text(name), str(tree.place(name)))
        colours = {listed.names[c]: (r, g, b) for r, g, b, c in reversed(listed.colours) if c < len(listed.names)}
        legend = legend_of(listed.names, colours, tree.place(name))
    else:
        raise DataError(f"{tree.path} holds no legend.json, labelmap.txt or classes.txt, which say what values mean")
    if listed.colours and len(legend.classes) <= 253:
        return legend, ColouredCodes(listed.names, listed.colours).apply
    return legend, _by_index(legend, listed)


def _by_index(legend: Legend, listed: ClassList) -> Meaning:
    def meaning(stored: FileValues) -> NDArray[Any]:
        if stored.pixels.ndim == 2:
            return stored.pixels if legend.void == 255 else stored.pixels.astype(np.uint16)
        if not listed.colours or len(legend.classes) > 253:
            raise LabelError(f"it holds colours (mode {stored.mode}), and the list of classes has none")
        return ColouredCodes(listed.names, listed.colours).apply(stored)

    return meaning
