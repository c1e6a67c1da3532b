"""Datumaro's own JSON: annotations/SUBSET.json, in a folder or zip, or one such file.

Masks and polygons are objects; one of a higher z_order is on top, and of equal ones the later. Labels of whole images
and captions are passed over. Everything else has no outline, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfseg.data.labelled.coco_json import image_size, inner_path
from selfseg.data.labelled.legend import Colour, Legend
from selfseg.data.labelled.shapes import BadOutline, shorten
from selfseg.errors import DataError, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.reading.files import Tree, split_of_file
from selfseg.exchange.reading.painting import Faults, Picture, Size, Thing, Window, coded, filled, legend_of, paint
from selfseg.exchange.reading.palette import originals
from selfseg.exchange.reading.photographs import Images, Photographs, photographs_for

_PASSED_OVER = ("label", "caption", "hash_key", "feature_vector")


def read(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """See the top of this module, and `selfseg.exchange.base.read`."""
    tree = Tree.open(path)
    files = [(name, value) for name in tree.ending(".json") if is_datumaro(value := tree.json(name))]
    if not files:
        raise DataError(f"{path} holds no JSON of Datumaro, which has categories and items")
    legends = [_legend(value, tree.place(name)) for name, value in files]
    if any(legend.names != legends[0].names for legend in legends):
        raise LabelError(
            f"{path}: the files {', '.join(name for name, _ in files)} have different lists of labels; read one of them"
        )
    legend = legends[0]
    photographs, faults = photographs_for(tree, images), Faults(left_out)
    original = originals(tree, photographs)

    def called(item: Any) -> tuple[str, bool]:
        return _called(item, original, photographs)

    def masks() -> Iterator[NamedMask]:
        for name, value in files:
            told = photographs.told(name for name, _ in map(called, value["items"]))
            split = split_of_file(tree.place(name))
            for place, item in enumerate(value["items"]):
                picture = _picture(item, place, legend, tree.place(name), called, faults)
                mask = paint(picture, legend, told, faults) if picture else None
                if mask is not None:
                    yield replace(mask, split=split)

    return legend, masks()


def is_datumaro(value: object) -> bool:
    """Whether a JSON value looks like such a file."""
    return (
        isinstance(value, dict) and isinstance(value.get("items"), list) and isinstance(value.get("categories"), dict)
    )


def _legend(value: dict[str, Any], where: Path) -> Legend:
    try:
        names = [label["name"] for label in value["categories"]["label"]["labels"]]
        entries = value["categories"].get("mask", {}).get("colormap", [])
        colours: dict[str, Colour] = {
            names[e["label_id"]]: (e["r"], e["g"], e["b"]) for e in entries if _known(e, names)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise LabelError(f"{where} lists no labels as Datumaro does ({type(error).__name__}: {error})") from error
    if not all(isinstance(name, str) for name in names):
        raise LabelError(f"{where} has a label whose name is no text")
    return legend_of(names, colours, where)


def _known(entry: dict[str, Any], names: list[str]) -> bool:
    """Whether a colour belongs to a label; Datumaro also keeps those of other numbers."""
    numbers = [entry["label_id"], entry["r"], entry["g"], entry["b"]]
    if not all(isinstance(number, int) and 0 <= number <= 255 for number in numbers[1:]):
        return False
    return isinstance(numbers[0], int) and 0 <= numbers[0] < len(names)


def _called(item: Any, original: dict[str, str], photographs: Photographs) -> tuple[str, bool]:
    """An item's image, and whether that is its id, a name without suffix."""
    if not isinstance(item, dict):
        return "", False
    key = str(item.get("id", ""))
    if key in original:
        return original[key], False
    image = item.get("image") or item.get("media") or {}
    own = image.get("path") if isinstance(image, dict) else None
    if not isinstance(own, str) or not own:
        return key, True
    try:
        inner_path(own)
    except LabelError:  # where it lay on somebody's disk; the id may be an image all the same
        return (key, True) if key and _has(photographs, key) else (own, False)
    return own, False


def _has(photographs: Photographs, key: str) -> bool:
    try:
        return not photographs.paths or photographs.find(key, bare=True) is not None
    except LabelError:
        return False


def _picture(
    item: Any,
    place: int,
    legend: Legend,
    where: Path,
    name: Callable[[Any], tuple[str, bool]],
    faults: Faults,
) -> Picture | None:
    if not isinstance(item, dict) or not isinstance(item.get("annotations", []), list):
        faults.add(where, f"items[{place}] is no item of Datumaro")
        return None
    image = item.get("image") or item.get("media") or {}
    called, bare = name(item)
    stored = image.get("size") if isinstance(image, dict) else None
    try:
        size = image_size(*stored) if isinstance(stored, list) and len(stored) == 2 else None
    except LabelError as error:
        faults.add(where, f"image {called!r}: {error}")
        return None
    things = []
    for number, annotation in enumerate(item.get("annotations", [])):
        kind = annotation.get("type") if isinstance(annotation, dict) else None
        if kind in _PASSED_OVER:
            continue
        what = f"annotation {annotation.get('id', number) if kind else number}"
        try:
            things.append(_thing(annotation, kind, what, len(legend.classes)))
        except BadOutline as error:
            faults.add(where, f"{what} of image {called!r}: {error}")
    return Picture(called, size, things, where, bare)


def _thing(annotation: Any, kind: Any, what: str, count: int) -> Thing:
    draw: Callable[[Size], Window]
    if kind == "polygon":
        draw = filled([[annotation.get("points")]])
    elif kind == "mask" and isinstance(annotation.get("rle"), dict):
        draw = coded(annotation["rle"].get("counts"), annotation["rle"].get("size"))
    else:
        raise BadOutline(f"the kind {shorten(kind)} has no outline; make it a polygon or a mask, or take it out")
    value, layer = annotation.get("label_id"), annotation.get("z_order") or 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        raise BadOutline(f"label_id is one of {count} labels, from 0, not {shorten(value)}")
    if not isinstance(layer, int):
        raise BadOutline(f"z_order is a whole number, not {shorten(layer)}")
    return Thing(value, draw, what, layer)
