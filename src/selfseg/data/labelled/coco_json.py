"""COCO's JSON of object instances, whatever wrote it: read strictly, in one place.

    {"images": [{"id", "file_name", "height", "width"}, ...],
     "categories": [{"id", "name"}, ...],
     "annotations": [{"id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd"}, ...]}

| what a file may have | what becomes of it |
|---|---|
| ids as text | "17" is 17; other words get numbers in the file's order |
| annotations' ids that begin anew with each image | accepted: they only name an object in messages |
| no `area`, no `bbox`, or a box without extent | counted and measured from the mask |
| no `iscrowd` | no crowd |
| no `height` and `width` | taken from the image, where its folder is given |
| categories without an object | classes all the same |
| polygons that reach out of the image | cut off at its border |
| polygons too thin to cover a pixel | kept: COCO's own files have some |

Everything else that is wrong is refused with the image, the annotation's id and the reason: polygons of fewer than
three points (COCO's tools take four numbers for a box), coordinates that are no finite numbers, objects outside of
their image, run lengths of another size, no outline at all, unknown images and categories, ids that are there twice,
names of files that lead out of the folder. All faults of a file are said at once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.labels import upright_size
from selfseg.data.labelled.legend import Colour, parse_colour
from selfseg.data.labelled.shapes import BadOutline, box_of, fill, points, runs, shorten, spread, touches
from selfseg.data.reading.decoding import MAX_PIXELS
from selfseg.errors import DataError, LabelError
from selfseg.storage.regular import read_text

Box = tuple[float, float, float, float]
Entry = TypeVar("Entry")
_SHOWN = 5  # faults that a message names
_EXACT = 1 << 53


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of the file.

    Attributes:
        id: its number; made up where the file has words.
        name: its path below the folder of images, with "/".
        size: (H, W) in pixels.
    """

    id: int
    name: str
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class CocoCategory:
    """A class of the file.

    Attributes:
        id: its number; made up where the file has words.
        name: its name.
        colour: R, G, B, if the file has one.
    """

    id: int
    name: str
    colour: Colour | None = None


@dataclass(frozen=True, slots=True)
class CocoObject:
    """An object.

    Attributes:
        id: as the file has it, for messages; "#5" of the sixth annotation if it has none.
        image: place among the images.
        category: place among the categories.
        crowd: whether it is many objects in one.
        box: (x0, y0, x1, y1) in pixels, as the file has it, or around the mask.
        area: in pixels, as the file has it, or of the mask.
        polygons: (P, 2) points each; empty if there are run lengths.
        runs: lengths of runs down the columns, outside and inside in turn; None if there are polygons.
    """

    id: str
    image: int
    category: int
    crowd: bool
    box: Box
    area: float
    polygons: tuple[NDArray[np.float64], ...]
    runs: NDArray[np.int64] | None

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """(H, W) bool of the image's `size`: the pixels whose centres are in any of the polygons, or the runs."""
        return _mask(self.polygons, self.runs, size)

    def segmentation(self, size: tuple[int, int]) -> Any:
        """Plain values for JSON and for pycocotools: lists of numbers, or {"size", "counts"}."""
        if self.runs is not None:
            return {"size": list(size), "counts": self.runs.tolist()}
        return [polygon.reshape(-1).tolist() for polygon in self.polygons]


@dataclass(frozen=True)
class CocoFile:
    """What a file holds, all of it checked.

    Attributes:
        path: the file.
        images: by number.
        categories: by number.
        objects: in the file's order.
        left_out: sentences on annotations that can't be used; empty unless they were asked to be left out.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: tuple[CocoCategory, ...]
    objects: tuple[CocoObject, ...]
    left_out: tuple[str, ...] = ()

    def by_image(self) -> list[list[CocoObject]]:
        """The objects of each image."""
        lists: list[list[CocoObject]] = [[] for _ in self.images]
        for item in self.objects:
            lists[item.image].append(item)
        return lists


def read_coco(path: Path, folder: Path | None = None, leave_out: bool = False, text: str | None = None) -> CocoFile:
    """Read a file of object instances; what is accepted stands at the top of this module.

    Args:
        path: the JSON.
        folder: of the images, for sizes that the file doesn't have; nothing else is asked of it.
        leave_out: annotations that can't be used are left out and listed, instead of refused.
        text: the JSON itself, if it isn't to be read from `path`.

    Raises:
        DataError: if it can't be read or is no such file at all.
        LabelError: for faults in it, with image, annotation and reason.
    """
    content = _load(path, text)
    faults = _Faults(path)
    images = _images(content["images"], folder, faults)
    categories = _categories(content["categories"], faults)
    faults.refuse("entries")
    image_at = {key: place for place, (key, _) in enumerate(images)}
    category_at = {key: place for place, (key, _) in enumerate(categories)}
    kept = tuple(image for _, image in images)
    objects: list[CocoObject] = []
    seen: dict[Any, int] = {}
    for place, item in enumerate(content["annotations"]):
        try:
            name, image, category = _whose(item, place, seen, image_at, category_at)
            try:
                objects.append(_object(item, name, image, category, kept[image].size))
            except (BadOutline, _Fault) as error:
                raise _Fault(f"annotation {name} of image {kept[image].name!r}: {error}") from error
        except _Fault as error:
            faults.add(str(error))
    if not leave_out:
        faults.refuse("annotations")
    return CocoFile(path, kept, tuple(one for _, one in categories), tuple(objects), tuple(faults.found))


def inner_path(name: Any) -> str:
    r"""A file's name as a path below a folder.

    Raises:
        LabelError: if it is no text, absolute, or leads out of the folder.

    Example:
        >>> inner_path(r"street\a.jpg")
        'street/a.jpg'
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise LabelError(f"{shorten(name)!r} is no file's name")
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name or path.parts[0].endswith(":"):
        raise LabelError(f"the name {shorten(name)!r} leads out of the folder; names are relative to it, without '..'")
    return str(path)


def image_size(height: Any, width: Any) -> tuple[int, int]:
    """(H, W) from a file's numbers.

    Raises:
        LabelError: if they are no numbers of pixels that an image can have.
    """
    sides = [_whole(side) for side in (height, width)]
    if sides[0] is None or sides[1] is None or min(sides[0], sides[1]) < 1:
        raise LabelError(f"height and width are numbers of pixels, not {shorten(height)} and {shorten(width)}")
    if sides[0] * sides[1] > MAX_PIXELS:
        raise LabelError(f"{shorten(sides[1])}x{shorten(sides[0])} pixels are more than the {MAX_PIXELS} that are read")
    return sides[0], sides[1]


class _Fault(Exception):
    """A reason to refuse an entry."""


@dataclass
class _Faults:
    path: Path
    found: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        self.found.append(sentence)

    def refuse(self, what: str) -> None:
        """Raise LabelError if there are any."""
        if self.found:
            more = f"; and {len(self.found) - _SHOWN} more" if len(self.found) > _SHOWN else ""
            raise LabelError(
                f"{self.path}: {len(self.found)} {what} can't be used: {'; '.join(self.found[:_SHOWN])}{more}. "
                "Mend them, or take them out of the file"
            )


def _load(path: Path, text: str | None) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, 4 << 30) if text is None else text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"can't read {path} as JSON: {type(error).__name__}: {error}") from error
    lists = ("images", "categories", "annotations")
    if isinstance(content, dict):
        wrong = [name for name in lists if not isinstance(content.get(name), list)]
    if not isinstance(content, dict) or wrong:
        lacking = "it is no object" if not isinstance(content, dict) else f"it has no list {', '.join(wrong)}"
        raise DataError(f"{path} is no COCO file of object instances: {lacking}")
    if not content["images"] or not content["categories"]:
        empty = "image" if not content["images"] else "category"
        raise DataError(f"{path} is no COCO file of object instances that can be used: it lists no {empty}")
    return content


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if isinstance(value, int) or (math.isfinite(value) and value == int(value)) else None


def _key(entry: Any, name: str) -> int | str:
    """An id to look up: a number, also from its digits, or a word."""
    value = entry.get(name)
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text) else text
    number = _whole(value)
    if number is None:
        raise _Fault(f"{name} is {'missing' if value is None else shorten(repr(value))}")
    return number


def _numbered(
    entries: Sequence[Any], what: str, make: Callable[[dict[str, Any], int], Entry], faults: _Faults
) -> list[tuple[int | str, Entry]]:
    """(the file's id, what is made of the entry), by number."""
    keys: dict[int | str, int] = {}
    for place, entry in enumerate(entries):
        try:
            if not isinstance(entry, dict):
                raise _Fault(f"an object is expected, not {shorten(entry)}")
            key = _key(entry, "id")
            if key in keys:
                raise _Fault(f"the id {key!r} is that of {what}[{keys[key]}] too; ids must differ")
            keys[key] = place
        except _Fault as error:
            faults.add(f"{what}[{place}]: {error}")
    plain = all(isinstance(key, int) and abs(key) < _EXACT for key in keys)
    ordered = sorted(keys, key=lambda key: int(key) if plain else keys[key])
    made = []
    for number, key in enumerate(ordered, start=1):
        try:
            made.append((key, make(entries[keys[key]], int(key) if plain else number)))
        except (_Fault, LabelError) as error:
            faults.add(f"{what}[{keys[key]}] (id {key}): {error}")
    return made


def _images(entries: list[Any], folder: Path | None, faults: _Faults) -> list[tuple[int | str, CocoImage]]:
    names: dict[str, Any] = {}

    def make(entry: dict[str, Any], number: int) -> CocoImage:
        name = inner_path(entry.get("file_name"))
        if name in names:
            raise _Fault(f"the file {name!r} is that of the image {names[name]} too")
        names[name] = entry["id"]
        height, width = entry.get("height"), entry.get("width")
        if height is None and width is None and folder is not None:
            try:
                height, width = upright_size(folder / name)
            except OSError as error:
                raise _Fault(f"{name!r} has no height and width, and the image can't be read: {error}") from error
        return CocoImage(number, name, image_size(height, width))

    return _numbered(entries, "images", make, faults)


def _categories(entries: list[Any], faults: _Faults) -> list[tuple[int | str, CocoCategory]]:
    def make(entry: dict[str, Any], number: int) -> CocoCategory:
        name = entry.get("name")
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise _Fault(f"a category needs a name, not {shorten(name)}")
        return CocoCategory(number, str(name), _colour(entry.get("color")))

    return _numbered(entries, "categories", make, faults)


def _colour(value: Any) -> Colour | None:
    """What some tools add to a category, as [r, g, b] or "#rrggbb"; of what isn't one, nothing depends on it."""
    if isinstance(value, str) and re.fullmatch("#[0-9A-Fa-f]{6}", value):
        return parse_colour(value)
    if not isinstance(value, list) or len(value) != 3:
        return None
    red, green, blue = map(_whole, value)
    if red is None or green is None or blue is None or not 0 <= min(red, green, blue) <= max(red, green, blue) <= 255:
        return None
    return red, green, blue


def _whose(
    item: Any,
    place: int,
    seen: dict[Any, int],
    image_at: dict[int | str, int],
    category_at: dict[int | str, int],
) -> tuple[str, int, int]:
    """Id for messages, place of the image, place of the category."""
    if not isinstance(item, dict):
        raise _Fault(f"annotations[{place}]: an object is expected, not {shorten(item)}")
    try:
        own = _key(item, "id") if item.get("id") is not None else f"#{place}"
        image = _key(item, "image_id")
    except _Fault as error:
        raise _Fault(f"annotations[{place}]: {error}") from error
    if image not in image_at:
        raise _Fault(f"annotation {own}: there is no image with the id {image!r}")
    if (image, own) in seen:
        other = seen[image, own]
        raise _Fault(
            f"annotation {own} of the image with the id {image!r}: annotations[{other}] is of that id and image"
        )
    seen[image, own] = place
    try:
        category = _key(item, "category_id")
    except _Fault as error:
        raise _Fault(f"annotation {own} of the image with the id {image!r}: {error}") from error
    if category not in category_at:
        raise _Fault(f"annotation {own} of the image with the id {image!r}: there is no category {category!r}")
    return str(own), image_at[image], category_at[category]


def _object(item: dict[str, Any], name: str, image: int, category: int, size: tuple[int, int]) -> CocoObject:
    crowd = item.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise _Fault(f"iscrowd is 0 or 1, not {shorten(crowd)}")
    polygons, lengths = outline(item.get("segmentation"), size)
    box, area = _box(item.get("bbox"), size), item.get("area")
    if area is not None and not (_number(area) and area >= 0):
        raise _Fault(f"area is a number of pixels, not {shorten(area)}")
    if box is None or area is None:
        mask = _mask(polygons, lengths, size)
        area = float(mask.sum()) if area is None else area
        around = box_of(mask)
        if box is None and around is None:  # too thin for a pixel, therefore a polygon
            corners = np.concatenate(polygons)
            box = (*corners.min(0).tolist(), *corners.max(0).tolist())
        box = box or around
    assert box is not None
    return CocoObject(name, image, category, bool(crowd), box, float(area), polygons, lengths)


def outline(value: Any, size: tuple[int, int]) -> tuple[tuple[NDArray[np.float64], ...], NDArray[np.int64] | None]:
    """An annotation's "segmentation", checked.

    Args:
        value: a list of polygons, or {"size": [H, W], "counts": a list, or compressed text}.
        size: (H, W) of the image.

    Returns:
        The polygons' points and None, or no polygon and run lengths.

    Raises:
        BadOutline: with what is wrong.
    """
    height, width = size
    if isinstance(value, dict):
        stored = value.get("size")
        sides = [_whole(side) for side in stored] if isinstance(stored, list | tuple) else stored
        if sides != [height, width]:
            raise BadOutline(
                f"the run lengths are of the size {shorten(stored)}, but the image has [{height}, {width}]"
            )
        lengths = runs(value.get("counts"), height * width)
        if not lengths[1::2].any():
            raise BadOutline("the run lengths cover no pixel")
        return (), lengths
    if not isinstance(value, list | tuple) or not value:
        raise BadOutline(f"it has no outline (segmentation is {'missing' if value is None else shorten(value)})")
    polygons = tuple(points(polygon, size) for polygon in value)
    if not touches(polygons, size):
        raise BadOutline(f"it lies outside of the image of {width}x{height} pixels")
    return polygons, None


def _mask(
    polygons: Iterable[NDArray[np.float64]], lengths: NDArray[np.int64] | None, size: tuple[int, int]
) -> NDArray[np.bool_]:
    if lengths is not None:
        return spread(lengths, size)
    found = np.zeros(size, bool)
    for polygon in polygons:
        found |= fill([polygon], size)
    return found


def _number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _box(value: Any, size: tuple[int, int]) -> Box | None:
    """The corners of x, y, width, height; None if there is none, or it has no extent."""
    if value is None or value == []:
        return None
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(_number, value)):
        raise _Fault(f"bbox is x, y, width and height in pixels, not {shorten(value)}")
    x, y, width, height = map(float, value)
    if width < 0 or height < 0:
        raise _Fault(f"the width and height of bbox can't be negative: {shorten(value)}")
    if width == 0 or height == 0:
        return None
    if x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0:
        raise _Fault(f"bbox {shorten(value)} lies outside of the image of {size[1]}x{size[0]} pixels")
    return x, y, x + width, y + height
