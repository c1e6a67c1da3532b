"""CVAT: "Segmentation mask 1.1" and "CVAT for images 1.1"; zips, or what they unpack to.

Masks are colours, which labelmap.txt explains; black is what has no class. In the XML, polygons and masks are objects;
one of a higher z_order is on top, and of equal ones the later. Tags are passed over. Boxes, lines, points, ellipses,
cuboids and skeletons have no outline, so they are refused; so are tracks, which the format for videos has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.coco_json import image_size
from selfseg.data.labelled.coloured import ColouredCodes
from selfseg.data.labelled.labels import VOID, ColourMap
from selfseg.data.labelled.layouts.finding import split_in_words
from selfseg.data.labelled.legend import Colour, Legend, parse_colour
from selfseg.data.labelled.shapes import BadOutline, runs, shorten, spread
from selfseg.data.labelled.values import FileValues
from selfseg.errors import ConfigError, DataError, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.painting import Faults, Picture, Size, Thing, Window, filled, legend_of, paint
from selfseg.exchange.reading.palette import masks_of, read_labelmap
from selfseg.exchange.reading.photographs import Images, Photographs, photographs_for

_PASSED_OVER = ("tag",)
_BLACK = (0, 0, 0)


def read(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """See the top of this module, and `selfseg.exchange.base.read`."""
    tree = Tree.open(path)
    photographs, faults = photographs_for(tree, images), Faults(left_out)
    if name := tree.find("labelmap.txt"):
        return _masks(tree, name, photographs, faults)
    xml = tree.ending(".xml")
    if not xml:
        raise DataError(f"{path} holds neither a labelmap.txt nor an XML file of CVAT")
    return _shapes(tree, xml, photographs, faults)


def _masks(tree: Tree, name: str, photographs: Photographs, faults: Faults) -> tuple[Legend, Iterator[NamedMask]]:
    where = tree.place(name)
    colours = read_labelmap(tree, name)
    nothing = [label for label, colour in colours.items() if colour == _BLACK]
    legend = legend_of([label for label in colours if label not in nothing], colours, where)
    listed = [(*one.colour, value) for value, one in enumerate(legend.classes)] + [(*_BLACK, VOID)]
    if len(legend.classes) > 253:
        return legend, masks_of(tree, legend, lambda stored: _many(stored, legend), photographs, faults)
    codes = ColouredCodes(legend.names, tuple(listed))

    def meaning(stored: FileValues) -> NDArray[Any]:
        return codes.apply(replace(stored, mode="RGB", pixels=_colours(stored)))

    return legend, masks_of(tree, legend, meaning, photographs, faults)


def _colours(stored: FileValues) -> NDArray[np.uint8]:
    """(H, W, 3): indices mean nothing here, only colours do."""
    if stored.mode == "P":
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(stored.palette)] = stored.palette
        return np.asarray(palette[stored.pixels])
    if stored.pixels.ndim == 2:
        return np.repeat(stored.pixels.astype(np.uint8)[..., None], 3, axis=2)
    return np.ascontiguousarray(stored.pixels[..., :3])


def _many(stored: FileValues, legend: Legend) -> NDArray[np.uint16]:
    """Of more classes than a `ColourMap` holds, part by part."""
    pixels = _colours(stored)
    mask = np.full(pixels.shape[:2], legend.void, np.uint16)
    known = (pixels == _BLACK).all(axis=2)
    for value, one in enumerate(legend.classes):
        mask[here := (pixels == one.colour).all(axis=2)] = value
        known |= here
    if not known.all():
        ColourMap(("none",), ((*_BLACK, VOID),)).apply(np.where(known[..., None], 0, pixels).astype(np.uint8))
    return mask


def _shapes(
    tree: Tree, files: list[str], photographs: Photographs, faults: Faults
) -> tuple[Legend, Iterator[NamedMask]]:
    entries: list[tuple[Path, Element, Photographs]] = []
    names: dict[str, None] = {}
    colours: dict[str, Colour] = {}
    for name in files:
        where, root = tree.place(name), tree.xml(name)
        if root.tag == "annotation" and root.find("object") is not None:
            raise LabelError(
                f"{where} is VOC's XML, which holds boxes and no labels of pixels; those of VOC are the PNGs in "
                "SegmentationClass"
            )
        if root.tag != "annotations":
            raise DataError(f"{where} is no XML of CVAT: its root is <{root.tag}>, not <annotations>")
        if root.find("track") is not None:
            raise LabelError(f'{where} holds tracks of a video; export the task as "CVAT for images 1.1" instead')
        found = root.findall("image")
        listed, given = _labels(root)
        if not listed:  # without a head, as some tools write it
            shapes = [shape for entry in found for shape in entry if shape.tag not in _PASSED_OVER]
            listed = sorted({shape.get("label", "") for shape in shapes} - {""})
        names |= dict.fromkeys(listed)
        colours = given | colours
        told = photographs.told([entry.get("name", "") for entry in found])
        entries += [(where, entry, told) for entry in found]
    legend = legend_of(list(names), colours, tree.path)
    value_of = {label: value for value, label in enumerate(names)}

    def masks() -> Iterator[NamedMask]:
        for where, entry, told in entries:
            picture = _picture(entry, value_of, where, faults)
            mask = paint(picture, legend, told, faults) if picture else None
            if mask is not None:
                yield mask

    return legend, masks()


def _picture(entry: Element, value_of: dict[str, int], where: Path, faults: Faults) -> Picture | None:
    called = entry.get("name", "")
    try:
        size = image_size(*(_number(entry.get(side, "")) for side in ("height", "width")))
    except LabelError as error:
        faults.add(where, f"image {called!r}: {error}")
        return None
    things = []
    for place, shape in enumerate(entry):
        if shape.tag in _PASSED_OVER:
            continue
        label = shape.get("label", "")
        what = f"{shape.tag} {place} ({label!r})"
        try:
            if label not in value_of:
                raise BadOutline("its label is none of the task's")
            things.append(Thing(value_of[label], _draw(shape, size), what, _layer(shape)))
        except BadOutline as error:
            faults.add(where, f"{what} of image {called!r}: {error}")
    return Picture(called, size, things, where, split=split_in_words([entry.get("subset", "")]) or "")


def _labels(root: Element) -> tuple[list[str], dict[str, Colour]]:
    names, colours = [], {}
    for label in root.iterfind("meta//labels/label"):
        name = (label.findtext("name") or "").strip()
        if not name or (label.findtext("parent") or "").strip():  # a part of a skeleton
            continue
        names.append(name)
        try:
            colours[name] = parse_colour(label.findtext("color") or "")
        except ConfigError:
            continue
    return names, colours


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() and len(text) < 12 else None


def _layer(shape: Element) -> int:
    text = shape.get("z_order", "0").strip()
    if not text.removeprefix("-").isdecimal() or len(text) > 9:
        raise BadOutline(f"z_order is a whole number, not {shorten(text)}")
    return int(text)


def _draw(shape: Element, size: Size) -> Callable[[Size], Window]:
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        try:
            return filled([[[float(number) for pair in pairs for number in pair]]])
        except ValueError as error:
            raise BadOutline(f"points are x,y;x,y;..., not {shorten(shape.get('points', ''))}") from error
    if shape.tag == "mask":
        return _mask(shape, size)
    raise BadOutline(f"a {shape.tag} has no outline; draw a polygon or a mask, or take it out")


def _mask(shape: Element, size: Size) -> Callable[[Size], Window]:
    """Run lengths along the rows of a box, that begin outside."""
    sides = {side: _number(shape.get(side, "")) for side in ("left", "top", "width", "height")}
    left, top, width, height = sides.values()
    if left is None or top is None or not width or not height:
        raise BadOutline(f"a mask has whole numbers left, top, width and height, not {shorten(sides)}")
    if left + width > size[1] or top + height > size[0]:
        raise BadOutline(f"its box {shorten(sides)} reaches out of the image of {size[1]}x{size[0]} pixels")
    words = shape.get("rle", "").replace(",", " ").split()
    counts = [_number(word) for word in words]
    if None in counts:
        raise BadOutline(f"rle is a list of whole numbers, not {shorten(shape.get('rle', ''))}")
    window = (slice(top, top + height), slice(left, left + width))

    def draw(_: Size) -> Window:
        return window, spread(runs(counts, width * height), (height, width), by_rows=True)

    return draw
