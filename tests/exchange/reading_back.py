"""The masks in written files, read by Pillow, pycocotools, shapely and a decoder of our own, not by `exchange.reading`.

What datumaro and label-studio-sdk read is checked by benchmarks/formats.py.
"""

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import shape

from selfseg.data.labelled.legend import Legend
from selfseg.exchange.base import NamedMask
from selfseg.exchange.writing.names import ListedNames

Masks = dict[str, NDArray[Any]]


def unpacked(data: Iterable[int]) -> NDArray[np.uint8]:
    """The values in a packed stream of bits, bit by bit as the form is described."""
    bits = iter(np.unpackbits(np.fromiter(data, np.uint8)).tolist())

    def number(width: int) -> int:
        return int("".join(str(next(bits)) for _ in range(width)), 2)

    count, word, sizes = number(32), number(5) + 1, [number(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        assert number(1) == 1, "only runs are written"
        length = number(sizes[number(2)]) + 1
        values += [number(word)] * length
    assert len(values) == count
    return np.array(values, np.uint8)


def decoded(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """A mask of COCO's run lengths, by pycocotools."""
    from pycocotools import mask as coco

    with warnings.catch_warnings():
        # Of numpy 2.4, for an argument of __array__ that pycocotools 2.0.11 does not have yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(coco.decode(rle), bool)


def enclosed(ring: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels in a polygon, (n, 2) x and y, by pycocotools."""
    from pycocotools import mask as coco

    return decoded(coco.merge(coco.frPyObjects([ring.ravel().tolist()], *size)))


def blank(masks: list[NamedMask], legend: Legend) -> Masks:
    return {one.name: np.full(one.size, legend.void) for one in masks}


def put(mask: NDArray[Any], pixels: NDArray[np.bool_], value: int, void: int) -> None:
    assert (mask[pixels] == void).all(), "two objects lie on a pixel"
    mask[pixels] = value


def of_coco(file: Path, masks: list[NamedMask], legend: Legend) -> Masks:
    from pycocotools.coco import COCO

    coco, found = COCO(str(file)), blank(masks, legend)
    names = {image["id"]: image["file_name"] for image in coco.loadImgs(coco.getImgIds())}
    listed, ours = ListedNames(), dict[str, str]()
    for one in masks:
        ours[listed.place(one.name)] = one.name
    assert list(names.values()) == list(ours)
    for one in coco.loadAnns(coco.getAnnIds()):
        pixels = decoded(coco.annToRLE(one))
        y, x = np.nonzero(pixels)
        assert one["area"] == y.size
        assert one["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        put(found[ours[names[one["image_id"]]]], pixels, one["category_id"] - 1, legend.void)
    return found


def of_datumaro(folder: Path, legend: Legend) -> Masks:
    found = {}
    for item in json.loads((folder / "annotations" / "default.json").read_text())["items"]:
        found[item["id"]] = mask = np.full(item["image"]["size"], legend.void)
        for one in item["annotations"]:
            put(mask, decoded(one["rle"]), one["label_id"], legend.void)
    return found


def of_label_studio(folder: Path, legend: Legend, kind: str = "annotations") -> Masks:
    interface = ElementTree.fromstring((folder / "labels.xml").read_text())
    labels = [label.attrib["value"] for label in interface.iter("Label")]
    found = {}
    for task in json.loads((folder / "tasks.json").read_text()):
        results = task[kind][0]["result"]
        name = unquote(task["data"]["image"].partition("?d=")[2])
        for one in results:
            size = (one["original_height"], one["original_width"])
            mask = found.setdefault(name, np.full(size, legend.void))
            pixels = unpacked(one["value"]["rle"]).reshape(*size, 4)[..., 3] > 0
            put(mask, pixels, labels.index(one["value"]["brushlabels"][0]), legend.void)
    return found


def of_geojson(file: Path, legend: Legend) -> NDArray[Any]:
    value = json.loads(file.read_text())
    size = (value["image"]["height"], value["image"]["width"])
    mask, (y, x) = np.full(size, legend.void), np.indices(size) + 0.5
    for feature in value["features"]:
        area = shape(feature["geometry"])
        assert area.is_valid, shapely.is_valid_reason(area)
        shapely.prepare(area)
        name = feature["properties"]["classification"]["name"]
        put(mask, shapely.contains_xy(area, x, y), legend.names.index(name), legend.void)
    return mask


def of_yolo(file: Path, size: tuple[int, int], legend: Legend) -> NDArray[Any]:
    found = np.full(size, legend.void)
    for line in file.read_text().splitlines():
        value, *shares = line.split()
        ring = np.array(shares, float).reshape(-1, 2)
        assert ((ring >= 0) & (ring <= 1)).all()
        put(found, enclosed(ring * size[::-1], size), int(value), legend.void)
    return found


def by_colour(data: bytes, meaning: dict[tuple[int, ...], int]) -> NDArray[np.int64]:
    """(H, W) what each pixel's colour means."""
    with Image.open(io.BytesIO(data)) as picture:
        colours = np.asarray(picture.convert("RGB"))
    flat = colours.reshape(-1, 3)
    return np.array([meaning[tuple(map(int, colour))] for colour in flat]).reshape(colours.shape[:2])


def of_cvat(file: Path, legend: Legend) -> Masks:
    with zipfile.ZipFile(file) as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()[1:]
        colours = [tuple(map(int, line.split(":")[1].split(","))) for line in lines]
        assert len(set(colours)) == len(colours)
        assert colours[0] == (0, 0, 0)
        meaning = {colour: i - 1 if i else legend.void for i, colour in enumerate(colours)}
        names = archive.read("ImageSets/Segmentation/default.txt").decode().splitlines()
        return {name: by_colour(archive.read(f"SegmentationClass/{name}.png"), meaning) for name in names}


def same(found: Masks, masks: list[NamedMask], name_of: Callable[[str], str] = lambda name: name) -> None:
    for one in masks:
        assert np.array_equal(found[name_of(one.name)], one.mask), one.name
