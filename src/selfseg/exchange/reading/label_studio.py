"""Label Studio's JSON export (or a file to import): tasks with brush masks and polygons.

labels.xml beside it, the labelling interface, gives the order of the classes and their colours; else they come in the
order of their names. Of a task's annotations the one marked as ground truth counts, else the last that wasn't
cancelled; predictions do where the whole file has no annotation. Later regions are on top. Choices, texts and relations
are passed over. Boxes, ellipses and key points have no outline, so they are refused; so are regions of two labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from selfseg.data.labelled.coco_json import image_size
from selfseg.data.labelled.legend import Colour, Legend, parse_colour
from selfseg.data.labelled.shapes import BadOutline, shorten
from selfseg.data.reading.decoding import SUFFIXES
from selfseg.errors import ConfigError, DataError, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.coding.brush_unpacking import unpacked
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.painting import Faults, Picture, Size, Thing, Window, filled, legend_of, paint
from selfseg.exchange.reading.palette import originals, own_name
from selfseg.exchange.reading.photographs import Images, photographs_for

_LABELLED = {"brushlabels": "brush", "polygonlabels": "polygon"}
_WITHOUT_OUTLINE = ("rectangle", "ellipse", "keypoint", "vector")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # before the name of an uploaded file


def read(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """See the top of this module, and `selfseg.exchange.base.read`."""
    tree = Tree.open(path)
    files = [(name, value) for name in tree.ending(".json") if is_label_studio(value := tree.json(name))]
    if len(files) != 1:
        raise DataError(f"{path} holds {len(files)} JSON files of Label Studio, not one; export as JSON (not JSON-MIN)")
    ((name, tasks),) = files
    where, faults, photographs = tree.place(name), Faults(left_out), photographs_for(tree, images)
    kind = "annotations" if any(task.get("annotations") for task in tasks) else "predictions"
    chosen = [(task, _results(task, kind)) for task in tasks]
    legend = _legend(tree, [region for _, regions in chosen for region in regions or []])
    value_of = {label.strip(): value for value, label in enumerate(legend.names)}
    original = originals(tree, photographs)
    called_of = [_image_of(task, original) for task in tasks]
    plain_of = [_without_mark(called) for called in called_of]
    told = photographs.told([*called_of, *plain_of])

    def masks() -> Iterator[NamedMask]:
        for place, (task, regions) in enumerate(chosen):
            if regions is None:
                continue  # nobody was there yet
            called, plain = called_of[place], plain_of[place]
            try:
                if not called:
                    raise LabelError(f"no image is named in its data ({shorten(task['data'])})")
                if plain != called and photographs.paths and told.find(called) is None:
                    called = plain
            except LabelError as error:
                faults.add(where, f"task {task.get('id', place)}: {error}")
                continue
            picture = _picture(called, regions, value_of, where, faults)
            if picture.size is None and not photographs.paths:
                continue  # of an image without regions nothing is said, not even its size
            mask = paint(picture, legend, told, faults)
            if mask is not None:
                yield mask

    return legend, masks()


def is_label_studio(value: object) -> bool:
    """Whether a JSON value is a list of tasks."""
    return isinstance(value, list) and all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in value
    )


def _results(task: dict[str, Any], kind: str) -> list[dict[str, Any]] | None:
    """The regions of the annotation that counts; None if there is none."""
    given = task.get(kind)
    kept = (
        [one for one in given if isinstance(one, dict) and not one.get("was_cancelled")]
        if isinstance(given, list)
        else []
    )
    if not kept:
        return None
    result = next((one for one in kept if one.get("ground_truth")), kept[-1]).get("result")
    return [region for region in result if isinstance(region, dict)] if isinstance(result, list) else None


def _legend(tree: Tree, regions: list[dict[str, Any]]) -> Legend:
    if name := tree.find("labels.xml"):
        labels = [
            (label.get("value", ""), label.get("background", ""))
            for parent in tree.xml(name).iter()
            if parent.tag in ("BrushLabels", "PolygonLabels")
            for label in parent.iterfind("Label")
        ]
        names = tuple(dict.fromkeys(label for label, _ in labels))
        colours: dict[str, Colour] = {}
        for label, colour in labels:
            try:
                colours[label] = parse_colour(colour)
            except ConfigError:  # "red", or none
                continue
        return legend_of(names, colours, tree.place(name))
    used = {label for region in regions for label in _labels_of(region)}
    return legend_of(sorted(used), {}, tree.path)


def _labels_of(region: dict[str, Any]) -> list[str]:
    kind, value = region.get("type"), region.get("value")
    known = isinstance(kind, str) and kind in _LABELLED
    labels = value.get(kind) if known and isinstance(value, dict) else None
    return [label for label in labels if isinstance(label, str)] if isinstance(labels, list) else []


def _image_of(task: dict[str, Any], original: dict[str, str]) -> str:
    """The image's name, from its address; "" if there is none."""
    data = task["data"]
    texts = [data.get("image"), *data.values()]
    address = next((t for t in texts if isinstance(t, str) and _path(t).lower().endswith(tuple(SUFFIXES))), None)
    own = data.get("name")
    if isinstance(own, str) and own.lower().endswith(tuple(SUFFIXES)):
        return own_name(own, original)
    called = _path(address) if address is not None else ""
    inner = called.removeprefix("images/")
    return called if (renamed := own_name(inner, original)) == inner else renamed


def _without_mark(name: str) -> str:
    """A name without what is put before the names of uploaded files."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{_UPLOAD.sub('', file)}"


def _path(address: str) -> str:
    """The path in an address: of local files what "d" says, else what follows the server."""
    try:
        parts = urlsplit(address)
        inner = parse_qs(parts.query).get("d")
    except ValueError:
        return address
    # An address without a server may be a plain path, with "#" and "?" in it.
    return (inner[0] if inner else unquote(parts.path if parts.scheme else address)).lstrip("/")


def _picture(
    called: str, regions: list[dict[str, Any]], value_of: dict[str, int], where: Path, faults: Faults
) -> Picture:
    things, size = [], None
    for place, region in enumerate(regions):
        kind = str(region.get("type", ""))
        bare = kind.removesuffix("labels")
        if kind not in _LABELLED and bare not in (*_WITHOUT_OUTLINE, *_LABELLED.values()):
            continue  # choices, texts, relations, and the shape that "labels" belong to
        what = f"region {region.get('id', place)}"
        try:
            own = image_size(region.get("original_height"), region.get("original_width"))
            size = size or own
            if own != size:
                raise BadOutline(f"its image has {own[1]}x{own[0]} pixels, but that of others {size[1]}x{size[0]}")
            things.append(_thing(region, kind, value_of, what))
        except (BadOutline, LabelError) as error:
            faults.add(where, f"{what} of image {called!r}: {error}")
    return Picture(called, size, things, where)


def _thing(region: dict[str, Any], kind: str, value_of: dict[str, int], what: str) -> Thing:
    if kind not in _LABELLED:
        least = "has no label" if kind in _LABELLED.values() else "has no outline; draw a polygon or use the brush"
        raise BadOutline(f"a {kind} {least}, or take it out")
    labels = _labels_of(region)
    if len(labels) != 1:
        raise BadOutline(f"it needs one label, but has {', '.join(labels) or 'none'}")
    if labels[0].strip() not in value_of:
        raise BadOutline(f"its label {labels[0]!r} is not in labels.xml")
    if region.get("image_rotation") not in (None, 0):
        raise BadOutline(
            f"the image was turned by {shorten(region.get('image_rotation'))} degrees; turn the file itself"
        )
    value = region["value"]
    draw: Callable[[Size], Window]
    if kind == "polygonlabels":
        pairs = value.get("points")
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise BadOutline(f"points are a list of [x, y], not {shorten(pairs)}")
        draw = filled([[[number for pair in pairs for number in pair]]], extent=100)
    else:
        draw = _brush(value)
    return Thing(value_of[labels[0].strip()], draw, what)


def _brush(value: dict[str, Any]) -> Callable[[Size], Window]:
    if value.get("format") != "rle":
        raise BadOutline(f"a brush is in the format rle, not {shorten(value.get('format'))}")

    def draw(size: Size) -> Window:
        return (slice(0, size[0]), slice(0, size[1])), unpacked(value.get("rle"), size)

    return draw
