"""YOLO's segmentation text: labels/NAME.txt, and data.yaml (or classes.txt) with the names.

A line is a class's number and x, y, x, y, ... as shares of the image's width and height, so the images are needed for
their sizes: given, or in images/ beside. Of overlapping polygons the smaller one is on top. Lines of five numbers are
boxes, which have no outline, so they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from selfseg.data.labelled.classes_file import parse_classes
from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.shapes import BadOutline, area_of, as_array, points, shorten
from selfseg.errors import DataError, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.painting import Faults, Picture, Thing, filled, legend_of, paint
from selfseg.exchange.reading.palette import originals
from selfseg.exchange.reading.photographs import Images, photographs_for

_SPLITS = ("train", "val", "valid", "test")
_NO_LABELS = ("classes.txt", "readme.txt", "train.txt", "val.txt", "test.txt")


class _Texts(yaml.SafeLoader):
    """Takes all values for text: "no" is a class's name here, not False."""


_Texts.yaml_implicit_resolvers = {}


def read(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """See the top of this module, and `selfseg.exchange.base.read`."""
    tree = Tree.open(path)
    legend = _legend(tree)
    files = _files(tree)
    if not files:
        raise DataError(f"{path} holds no text of labels; they are looked for in labels/")
    photographs, faults = photographs_for(tree, images), Faults(left_out)
    original = originals(tree, photographs)
    places: dict[str, list[str]] = {}
    for _, place in files:
        places.setdefault(_split_of(place), []).append(original.get(place, place))
    told = {split: photographs.told(names, bare=True) for split, names in places.items()}
    if not photographs.paths:
        raise LabelError(
            f"{path} gives places as shares of the images' widths and heights, so the images are needed; give them"
        )

    def masks() -> Iterator[NamedMask]:
        for file, place in files:
            where, things = tree.place(file), []
            called = original.get(place, place)
            for number, line in enumerate(tree.text(file).splitlines(), start=1):
                try:
                    if line.strip():
                        things.append(_thing(line, f"line {number}", len(legend.classes)))
                except BadOutline as error:
                    faults.add(where, f"line {number}: {error}")
            picture = Picture(called, None, things, where, place not in original)
            mask = paint(picture, legend, told[_split_of(place)], faults)
            if mask is not None:
                yield mask

    return legend, masks()


def _files(tree: Tree) -> list[tuple[str, str]]:
    """(file, its name below labels/ without suffix)."""
    found = [PurePosixPath(name) for name in tree.ending(".txt")]
    below = [(file, file.parts.index("labels")) for file in found if "labels" in file.parts[:-1]]
    if below:
        return [(str(file), str(PurePosixPath(*file.parts[i + 1 :]).with_suffix(""))) for file, i in below]
    return [(str(file), str(file.with_suffix(""))) for file in found if file.name.lower() not in _NO_LABELS]


def _split_of(place: str) -> str:
    """A split's folder below labels/ is a list of its own: the photographs may all lie in one folder."""
    folder, slash, _ = place.partition("/")
    return folder if slash and folder in _SPLITS else ""


def _legend(tree: Tree) -> Legend:
    name = tree.find("data.yaml") or next(iter(tree.ending(".yaml", ".yml")), None)
    if name is None:
        if listed := tree.find("classes.txt"):
            where = tree.place(listed)
            return legend_of(parse_classes(tree.text(listed), str(where)).names, {}, where)
        raise DataError(f"{tree.path} holds neither data.yaml nor classes.txt, which name the classes")
    where = tree.place(name)
    try:
        value = _Texts(tree.text(name)).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"can't read {where} as YAML: {error}") from error
    names: Any = value.get("names") if isinstance(value, dict) else None
    if isinstance(names, dict):
        gaps = [i for i in range(len(names)) if str(i) not in names]
        if gaps:
            raise LabelError(f"{where} does not name class {gaps[0]}; classes are numbered from 0 without gaps")
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise LabelError(f"{where} has no names; it needs a list of them, or one by number")
    return legend_of(names, {}, where)


def _thing(line: str, what: str, count: int) -> Thing:
    words = line.split()
    try:
        value, shares = int(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise BadOutline(f"a line is a class's number and x, y, x, y, ..., not {shorten(line)}") from error
    if not 0 <= value < count:
        raise BadOutline(f"there is no class {value} among {count}")
    if len(shares) == 4:
        raise BadOutline(f"{shorten(line)} is a box, which has no outline; draw a polygon, or take it out")
    polygon = points(shares, (1, 1))
    return Thing(value, filled([[as_array(shares)]], extent=1), what, area=area_of(polygon))
