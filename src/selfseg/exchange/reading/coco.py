"""COCO JSON of object instances, whatever wrote it; `selfseg.data.labelled.coco_json` has what is accepted.

A folder may hold several, of several splits. Categories become classes in the order of their numbers; two of one name
are one class. Crowds lie below all others, and of overlapping objects the smaller one is on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from selfseg.data.labelled.coco_json import CocoImage, CocoObject, read_coco
from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.shapes import area_of
from selfseg.errors import DataError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.reading.files import Tree, split_of_file
from selfseg.exchange.reading.painting import Faults, Picture, Thing, coded, filled, legend_of, paint
from selfseg.exchange.reading.palette import originals, own_name
from selfseg.exchange.reading.photographs import Images, photographs_for

_LISTS = ("annotations", "images", "categories")


def read(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """See the top of this module, and `selfseg.exchange.base.read`."""
    tree = Tree.open(path)
    files = []
    for name in _files(tree):
        files.append(read_coco(tree.place(name), leave_out=left_out is not None, text=tree.text(name)))
        if left_out is not None:
            left_out += [f"{files[-1].path}: {sentence}" for sentence in files[-1].left_out]
    categories = [category for file in files for category in file.categories]
    names = tuple(dict.fromkeys(category.name for category in categories))
    colours = {one.name: one.colour for one in reversed(categories) if one.colour is not None}
    legend = legend_of(names, colours, path)
    photographs, faults = photographs_for(tree, images), Faults(left_out)
    original = originals(tree, photographs)

    def masks() -> Iterator[NamedMask]:
        for file in files:
            called_here = [own_name(image.name, original) for image in file.images]
            told, split = photographs.told(called_here), split_of_file(file.path)
            for called, image, objects in zip(called_here, file.images, file.by_image(), strict=True):
                things = [_thing(item, names.index(file.categories[item.category].name), image) for item in objects]
                mask = paint(Picture(called, image.size, things, file.path, split=split), legend, told, faults)
                if mask is not None:
                    yield mask

    return legend, masks()


def _thing(item: CocoObject, value: int, image: CocoImage) -> Thing:
    called, layer = f"annotation {item.id}", -int(item.crowd)
    if item.runs is not None:
        return Thing(value, coded(item.runs, image.size), called, layer, float(item.runs[1::2].sum()))
    draw = filled([[polygon.reshape(-1)] for polygon in item.polygons])
    return Thing(value, draw, called, layer, sum(map(area_of, item.polygons)))


def is_coco(value: object) -> bool:
    """Whether a JSON value looks like such a file."""
    return isinstance(value, dict) and all(isinstance(value.get(name), list) for name in _LISTS)


def _files(tree: Tree) -> list[str]:
    """The file, or the files of several splits."""
    names = tree.ending(".json")
    if len(names) > 1:  # others may lie beside
        names = [name for name in names if is_coco(tree.json(name))] or names
    if not names or (len(names) > 1 and not is_coco(tree.json(names[0]))):
        some = f"{len(names)} JSON files ({', '.join(names[:5])}), and none of them" if names else "no JSON file"
        raise DataError(f"{tree.path} holds {some} with object instances of COCO")
    return names
