"""GeoJSON in pixels: a file for each image, or one; of QuPath, QGIS and selfseg.

x goes to the right and y down from the corner of the first pixel. The image is what "image" beside the features names,
else the file's own name says it. The class is `classification` (its name, as of QuPath), or the property class, label,
name or category. Of overlapping polygons the smaller one is on top. Lines and points have no outline, so they are
refused; so are coordinates on a map ("crs"), which mean nothing without their image's transform.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from selfseg.data.labelled.coco_json import image_size
from selfseg.data.labelled.legend import Colour, Legend
from selfseg.data.labelled.shapes import BadOutline, area_of, as_array, shorten
from selfseg.errors import ConfigError, DataError, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.painting import Faults, Picture, Thing, filled, legend_of, paint
from selfseg.exchange.reading.palette import originals
from selfseg.exchange.reading.photographs import Images, photographs_for

_KEYS = ("class", "label", "name", "category")


def read(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """See the top of this module, and `selfseg.exchange.base.read`."""
    tree = Tree.open(path)
    names = tree.ending(".geojson") or [name for name in tree.ending(".json") if is_geojson(tree.json(name))]
    if not names:
        raise DataError(f"{path} holds no GeoJSON")
    photographs, faults = photographs_for(tree, images), Faults(left_out)
    original = originals(tree, photographs)
    legend = _legend(tree, names)
    value_of = {name: value for value, name in enumerate(legend.names)}

    def masks() -> Iterator[NamedMask]:
        told = photographs.told(_called(tree, name, original)[0] for name in names)
        for name in names:
            picture = _picture(tree, name, value_of, original, faults)
            mask = paint(picture, legend, told, faults) if picture else None
            if mask is not None:
                yield mask

    return legend, masks()


def is_geojson(value: object) -> bool:
    """Whether a JSON value is a list of features."""
    features = value.get("features") if isinstance(value, dict) else value
    if not isinstance(features, list) or (isinstance(value, dict) and value.get("type") != "FeatureCollection"):
        return False
    return all(isinstance(feature, dict) and feature.get("type") == "Feature" for feature in features)


def _features(tree: Tree, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What stands beside the features, and they."""
    value = tree.json(name)
    if not is_geojson(value):
        raise DataError(f"{tree.place(name)} is no FeatureCollection or list of features")
    beside = value if isinstance(value, dict) else {}
    if beside.get("crs"):
        raise LabelError(f"{tree.place(name)} has coordinates on a map (crs); only pixels can be read")
    return beside, value["features"] if isinstance(value, dict) else value


def _legend(tree: Tree, names: list[str]) -> Legend:
    """Of legend.json, else of the features, in the order of their names."""
    if listed := tree.find("legend.json"):
        value = tree.json(listed)
        try:
            return Legend.from_json(value["classes"] if isinstance(value, dict) else value)
        except (ConfigError, KeyError) as error:
            raise LabelError(f"{tree.place(listed)}: {error}") from error
    colours: dict[str, Colour | None] = {}
    for name in names:
        for feature in _features(tree, name)[1]:
            label, colour = _class(feature)
            if label:
                colours[label] = colours.get(label) or colour
    given = {label: colour for label, colour in colours.items() if colour is not None}
    return legend_of(sorted(colours), given, tree.path)


def _class(feature: dict[str, Any]) -> tuple[str, Colour | None]:
    """Name and colour of a feature's class; "" if it has none."""
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        return "", None
    found = properties.get("classification")
    if isinstance(found, dict) and isinstance(found.get("name"), str):
        colour = found.get("color")
        fits = (
            isinstance(colour, list) and len(colour) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in colour)
        )
        return found["name"], (colour[0], colour[1], colour[2]) if fits and isinstance(colour, list) else None
    texts = [found, *(properties.get(key) for key in _KEYS)]
    return next((text for text in texts if isinstance(text, str) and text.strip()), ""), None


def _called(tree: Tree, name: str, original: dict[str, str]) -> tuple[str, bool]:
    """The image of a file, and whether that is the file's own name, without a suffix."""
    own, image = str(PurePosixPath(name).with_suffix("")), _features(tree, name)[0].get("image")
    if own in original:
        return original[own], False
    said = str(image.get("name") or "") if isinstance(image, dict) else ""
    return (said, False) if said else (own, True)


def _picture(
    tree: Tree, name: str, value_of: dict[str, int], original: dict[str, str], faults: Faults
) -> Picture | None:
    where = tree.place(name)
    beside, features = _features(tree, name)
    image, size = beside.get("image"), None
    called, bare = _called(tree, name, original)
    try:
        if isinstance(image, dict):
            size = image_size(image.get("height"), image.get("width"))
    except LabelError as error:
        faults.add(where, error)
        return None
    things = []
    for place, feature in enumerate(features):
        what = f"feature {feature.get('id', place)}"
        try:
            label, _ = _class(feature)
            if label not in value_of:
                raise BadOutline(f"the class {label!r} is not in legend.json" if label else "it has no class")
            polygons = _polygons(feature.get("geometry"))
            area = sum(area_of(as_array(rings[0]).reshape(-1, 2)) for rings in polygons)
            things.append(Thing(value_of[label], filled(polygons), what, area=area))
        except BadOutline as error:
            faults.add(where, f"{what} of image {called!r}: {error}")
    return Picture(called, size, things, where, bare)


def _polygons(geometry: Any) -> list[list[list[float]]]:
    """Polygons of rings of x, y, x, y, ..."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise BadOutline(f"a {shorten(kind)} has no outline; make it a polygon, or take it out")
    coordinates = geometry.get("coordinates")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(polygons, list) or not polygons:
        raise BadOutline("it has no coordinates")
    return [_rings(polygon) for polygon in polygons]


def _rings(polygon: Any) -> list[list[float]]:
    if not isinstance(polygon, list) or not polygon:
        raise BadOutline("it has a polygon without a ring")
    rings = []
    for ring in polygon:
        pairs = as_array(ring)
        if pairs.ndim != 2 or pairs.shape[1] not in (2, 3) or pairs.dtype.kind not in "iuf":
            raise BadOutline(f"a ring is a list of [x, y], not {shorten(ring)}")
        rings.append(pairs[:, :2].reshape(-1).tolist())  # a third number is the height
    return rings
