"""LabelMe's JSON: a file for each image, beside it or in a folder of its own, with shapes that have a label.

Polygons, rectangles, circles and masks are read, and later ones are on top; points and lines have no area and are
refused. The classes are those of labels.txt or classes.txt, in its order, else the labels in the order of their names.
LabelMe's own two names mean what they mean there: `__ignore__` is no class, and if labels.txt lists `_background_`,
pixels without a shape are of that class; else they are of none. The image is the one of the JSON's own name, or the one
that "imagePath" names.

Source of the format: labelme's documentation and its example data. Nothing of labelme is needed or used.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from selfseg.data.labelled.coco_json import image_size
from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.shapes import BadOutline, shorten
from selfseg.data.reading.decoding import MAX_PIXELS, quiet
from selfseg.errors import DataError, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.painting import Faults, Picture, Size, Thing, Window, filled, legend_of, paint
from selfseg.exchange.reading.photographs import Images, Photographs, photographs_for

IGNORED, BACKGROUND = "__ignore__", "_background_"
_CORNERS = 64  # of the polygon that stands for a circle
_MOST_BYTES = 1 << 28  # of a mask in a JSON


def is_labelme(value: object) -> bool:
    """Whether a JSON value is a file of LabelMe."""
    return isinstance(value, dict) and isinstance(value.get("shapes"), list) and "imagePath" in value


def read(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """See the top of this module, and `selfseg.exchange.base.read`."""
    tree = Tree.open(path)
    files = [name for name in tree.ending(".json") if is_labelme(tree.json(name))]
    if not files:
        raise DataError(f"{path} holds no JSON file of LabelMe")
    names, background = _classes(tree, files)
    legend = legend_of(names, {}, path)
    value_of = {name: value for value, name in enumerate(names)} | {IGNORED: legend.void}
    photographs, faults = photographs_for(tree, images), Faults(left_out)
    told = photographs.told([name.removesuffix(".json") for name in files], bare=True)

    def masks() -> Iterator[NamedMask]:
        for name in files:
            where, value = tree.place(name), tree.json(name)
            things = [Thing(value_of[BACKGROUND], _everywhere, "the background", -1)] if background else []
            for number, shape in enumerate(value["shapes"]):
                called = f"shape {number}"
                try:
                    things.append(Thing(value_of[_label(shape)], _drawn(shape), called))
                except BadOutline as error:
                    faults.add(where, f"{called}: {error}")
                except KeyError as error:
                    faults.add(where, f"{called}: the label {error} is not in the list of classes")
            try:
                size = _size(value)
                own, bare = _called(name, value, told)
            except LabelError as error:
                faults.add(where, error)
                continue
            mask = paint(Picture(own, size, things, where, bare), legend, told, faults)
            if mask is not None:
                yield mask

    return legend, masks()


def _classes(tree: Tree, files: list[str]) -> tuple[list[str], bool]:
    """The names in their order, and whether pixels without a shape are of the class of the background."""
    listed = tree.find("labels.txt") or tree.find("classes.txt")
    if listed is not None:
        lines = [line.strip() for line in tree.text(listed).splitlines()]
        names = [line for line in lines if line and line != IGNORED]
        return names, BACKGROUND in names
    labels = {_label(shape) for name in files for shape in tree.json(name)["shapes"] if isinstance(shape, dict)}
    return sorted(labels - {IGNORED, ""}), False


def _label(shape: Any) -> str:
    label = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(label, str):
        raise BadOutline(f"a shape is an object with a label, not {shorten(shape)}")
    return label.strip()


def _size(value: dict[str, Any]) -> Size | None:
    if value.get("imageHeight") is None and value.get("imageWidth") is None:
        return None
    return image_size(value.get("imageHeight"), value.get("imageWidth"))


def _called(name: str, value: dict[str, Any], photographs: Photographs) -> tuple[str, bool]:
    """What the image is called, and whether that is without suffix."""
    own = name.removesuffix(".json")
    if photographs.find(own, bare=True) is not None:
        return own, True
    said = value["imagePath"]
    if not isinstance(said, str) or not said.strip():
        return own, True
    return PurePosixPath(said.replace("\\", "/")).name, False


def _drawn(shape: dict[str, Any]) -> Callable[[Size], Window]:
    kind = shape.get("shape_type", "polygon")
    points = _points(shape)
    if kind == "polygon":
        return filled([[points.ravel().tolist()]])
    if kind == "mask":
        return _mask(shape.get("mask"), points)
    if kind not in ("rectangle", "circle"):
        raise BadOutline(f"a shape of the type {shorten(kind)} has no area")
    if len(points) != 2:
        raise BadOutline(f"a {kind} has two points, not {len(points)}")
    (x0, y0), (x1, y1) = points.tolist()
    if kind == "rectangle":
        return filled([[[x0, y0, x1, y0, x1, y1, x0, y1]]])
    angles = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)  # the points are the centre and one on the circle
    ring = np.stack(
        [x0 + np.hypot(x1 - x0, y1 - y0) * np.cos(angles), y0 + np.hypot(x1 - x0, y1 - y0) * np.sin(angles)]
    )
    return filled([[ring.T.ravel().tolist()]])


def _points(shape: dict[str, Any]) -> Any:
    try:
        points = np.array(shape.get("points"), np.float64)
    except (ValueError, TypeError) as error:
        raise BadOutline(f"points are a list of [x, y], not {shorten(shape.get('points'))}") from error
    if points.ndim != 2 or points.shape[1] != 2:
        raise BadOutline(f"points are a list of [x, y], not {shorten(shape.get('points'))}")
    return points


def _mask(text: Any, points: Any) -> Callable[[Size], Window]:
    """A picture of the shape's box, whose first corner is the first point."""
    try:
        if not isinstance(text, str) or len(text) > _MOST_BYTES:
            raise ValueError("no text of a picture")
        with quiet(), Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels")
            inside = np.array(image.convert("L")) > 0
    except (ValueError, OSError, binascii.Error, SyntaxError) as error:
        raise BadOutline(f"its mask can't be read: {error}") from error
    if not np.isfinite(points).all():
        raise BadOutline("its box has a coordinate that is not a finite number")
    left, top = (int(v) for v in np.round(points[0]))

    def draw(size: Size) -> Window:
        bottom, right = top + inside.shape[0], left + inside.shape[1]
        if top < 0 or left < 0 or bottom > size[0] or right > size[1]:
            raise BadOutline(f"its mask reaches out of the image of {size[1]}x{size[0]} pixels")
        return (slice(top, bottom), slice(left, right)), inside

    return draw


def _everywhere(size: Size) -> Window:
    return (slice(0, size[0]), slice(0, size[1])), np.ones(size, bool)
