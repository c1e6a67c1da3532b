"""COCO JSON of object instances, whatever wrote it; `selfseg.data.labelled.coco_json` has what is accepted.

Categories become classes in the order of their numbers; two of one name are one class. Crowds lie below all others, and
of overlapping objects the smaller one is on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from selfseg.data.labelled.coco_json import CocoObject, read_coco
from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.shapes import area_of
from selfseg.errors import DataError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.painting import Faults, Picture, Thing, coded, filled, legend_of, paint
from selfseg.exchange.reading.palette import originals
from selfseg.exchange.reading.photographs import Images, photographs_for

_LISTS = ("annotations", "images", "categories")


def read(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """See the top of this module, and `selfseg.exchange.base.read`."""
    tree = Tree.open(path)
    name = _file(tree)
    found = read_coco(tree.place(name), leave_out=left_out is not None, text=tree.text(name))
    if left_out is not None:
        left_out += [f"{found.path}: {sentence}" for sentence in found.left_out]
    names = tuple(dict.fromkeys(category.name for category in found.categories))
    colours = {one.name: one.colour for one in reversed(found.categories) if one.colour is not None}
    legend = legend_of(names, colours, found.path)
    value_of = [names.index(category.name) for category in found.categories]
    photographs, faults = photographs_for(tree, images), Faults(left_out)
    original = {f"images/{place}": name for place, name in originals(tree, photographs).items()}

    def thing(item: CocoObject) -> Thing:
        called, value, layer = f"annotation {item.id}", value_of[item.category], -int(item.crowd)
        if item.runs is not None:
            draw = coded(item.runs, found.images[item.image].size)
            return Thing(value, draw, called, layer, float(item.runs[1::2].sum()))
        draw = filled([[polygon.reshape(-1)] for polygon in item.polygons])
        return Thing(value, draw, called, layer, sum(map(area_of, item.polygons)))

    def masks() -> Iterator[NamedMask]:
        for image, objects in zip(found.images, found.by_image(), strict=True):
            called = original.get(image.name.rpartition(".")[0], image.name)
            picture = Picture(called, image.size, [thing(item) for item in objects], found.path)
            mask = paint(picture, legend, photographs, faults)
            if mask is not None:
                yield mask

    return legend, masks()


def is_coco(value: object) -> bool:
    """Whether a JSON value looks like such a file."""
    return isinstance(value, dict) and all(isinstance(value.get(name), list) for name in _LISTS)


def _file(tree: Tree) -> str:
    names = tree.ending(".json")
    if len(names) > 1:
        likely = [name for name in names if is_coco(tree.json(name))]
        names = likely or names
    if len(names) != 1:
        some = f"{len(names)} JSON files ({', '.join(names[:5])}); give one of them" if names else "no JSON file"
        raise DataError(f"{tree.path} holds {some}")
    return names[0]
