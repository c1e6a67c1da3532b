"""Whether other tools' own libraries read what `selfseg.exchange` writes: pixel for pixel, or IoU for polygons.

In the project's environment (SEGMENTS is what `selfseg segment` wrote):

    python benchmarks/formats.py write OUT --segments SEGMENTS

In an environment of its own, without selfseg, for datumaro and label-studio-sdk don't fit into the project's:

    python3 -m venv THEIRS
    THEIRS/bin/pip install datumaro label-studio-sdk pycocotools shapely pillow
    THEIRS/bin/python benchmarks/formats.py read OUT

`write` writes every format for three sets of masks (drawn odd ones under odd names, segments of photographs, 300
classes) and the masks themselves as OUT/SET/truth/I.npy. `read` reads each with the library that its tool is made of,
says what came back, and fails if anything is lost. It reads the formats by their libraries only, and puts no file of
ours to use but the truth and the list of names.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Masks = dict[str, NDArray[Any]]
FORMATS = ("palette", "coco", "cvat", "datumaro", "label-studio", "geojson", "yolo")


def write(out: Path, segments: Path | None) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from exchange import odd_masks
    from selfseg.data.labelled.legend import Legend
    from selfseg.exchange.base import NamedMask, write_formats

    sets: dict[str, tuple[Legend, list[NamedMask]]] = {
        "odd": (odd_masks.legend(), list(odd_masks.named())),
        "many": odd_masks.many_classes(),
        "half": (odd_masks.many_classes()[0], odd_masks.half_of_many()),
    }
    if segments is not None:
        files = sorted((segments / "index").rglob("*.png"))
        masks = [NamedMask(f.relative_to(segments / "index").as_posix(), np.asarray(Image.open(f))) for f in files]
        count = 1 + max(int(one.mask.max()) for one in masks)
        sets["segments"] = (Legend.of([f"cluster {i}" for i in range(count)]), masks)
    for name, (legend, masks) in sets.items():
        for per in ("class", "component"):
            folder = out / f"{name}-{per}"
            # CVAT's layout has no room for an image with 300 classes.
            write_formats(
                [each for each in FORMATS if each != "cvat" or name != "many"], masks, legend, folder, per=per
            )
            write_formats({"coco": {"shapes": "polygons"}}, masks, legend, folder / "polygons", per=per)
            truth = folder / "truth"
            truth.mkdir(exist_ok=True)
            for i, one in enumerate(masks):
                np.save(truth / f"{i}.npy", one.mask)
            about = {"names": [one.name for one in masks], "classes": legend.names, "void": legend.void}
            (truth / "about.json").write_text(json.dumps(about))


class Truth:
    """What was written: masks by image name, names of classes, and the place of an image in each format's files."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / "truth" / "about.json").read_text())
        self.folder, self.classes, self.void = folder, about["classes"], about["void"]
        self.masks: Masks = {name: np.load(folder / "truth" / f"{i}.npy") for i, name in enumerate(about["names"])}

    def listed(self, folder: Path) -> dict[str, str]:
        """The image of each name in a list."""
        other = json.loads(_text(folder / "renamed.json") or "{}")
        return {other.get(name, name): name for name in self.masks}

    def places(self, renamed: str | None) -> dict[str, str]:
        """The image of each place."""
        other = json.loads(renamed) if renamed is not None else {}
        return {other.get(name, str(_stem(name))): name for name in self.masks}

    def empty(self, name: str) -> NDArray[Any]:
        return np.full_like(self.masks[name], self.void)


def _stem(name: str) -> str:
    head, _, last = name.rpartition("/")
    dot = last.rfind(".")
    stem = last[:dot] if dot > 0 else last
    return f"{head}/{stem}" if head else stem


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def read_palette(truth: Truth) -> Masks:
    folder = truth.folder / "palette"
    found = {}
    for place, name in truth.places(_text(folder / "renamed.json")).items():
        with Image.open(folder / "SegmentationClass" / f"{place}.png") as picture:
            assert picture.mode == ("P" if truth.void == 255 else "I;16"), picture.mode
            found[name] = np.asarray(picture)
    return found


def _read_coco(truth: Truth, file: Path) -> Masks:
    from pycocotools.coco import COCO

    coco = COCO(str(file))
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == list(truth.classes)
    found, listed = {}, truth.listed(file.parent)
    for image in coco.loadImgs(coco.getImgIds()):
        name = listed[image["file_name"]]
        mask = truth.empty(name)
        assert mask.shape == (image["height"], image["width"])
        for one in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            pixels = coco.annToMask(one).astype(bool)
            assert pixels.sum() == one["area"], (name, pixels.sum(), one["area"])
            assert (mask[pixels] == truth.void).all(), "two annotations lie on a pixel"
            ys, xs = np.nonzero(pixels)
            assert one["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            mask[pixels] = one["category_id"] - 1
        found[name] = mask
    return found


def read_coco(truth: Truth) -> Masks:
    return _read_coco(truth, truth.folder / "coco" / "annotations.json")


def read_coco_polygons(truth: Truth) -> Masks:
    return _read_coco(truth, truth.folder / "polygons" / "coco" / "annotations.json")


def _of_datumaro(truth: Truth, data: Any, places: dict[str, str], label_of: Callable[[int], int]) -> Masks:
    found = {}
    for item in data:
        name = places[item.id]
        mask = truth.empty(name)
        for one in item.annotations:
            pixels = np.asarray(one.image, bool)
            assert (mask[pixels] == truth.void).all(), "two annotations lie on a pixel"
            mask[pixels] = label_of(one.label)
        found[name] = mask
    return found


def read_cvat(truth: Truth) -> Masks:
    """As CVAT does: the zip is unpacked and read by Datumaro as masks of VOC, labels are found by name."""
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(truth.folder / "cvat.zip") as archive:
        archive.extractall(folder)
        data = Dataset.import_from(folder, "voc_segmentation")
        labels = [one.name for one in data.categories()[AnnotationType.label].items]
        assert len(set(labels)) == len(labels) == len(truth.classes) + 1
        places = truth.places(_text(Path(folder) / "renamed.json"))
        return _of_datumaro(truth, list(data), places, lambda label: label - 1)


def read_datumaro(truth: Truth) -> Masks:
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset

    data = Dataset.import_from(str(truth.folder / "datumaro"), "datumaro")
    labels = [one.name for one in data.categories()[AnnotationType.label].items]
    assert labels == list(truth.classes)
    places = truth.places(_text(truth.folder / "datumaro" / "renamed.json"))
    return _of_datumaro(truth, data, places, lambda label: label)


def read_label_studio(truth: Truth) -> Masks:
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((truth.folder / "label-studio" / "labels.xml").read_text())
    interface.validate()
    labels = list(interface.get_control("label").labels)
    assert len(labels) == len(truth.classes)
    found, listed = {}, truth.listed(truth.folder / "label-studio")
    for task in json.loads((truth.folder / "label-studio" / "tasks.json").read_text()):
        assert unquote(task["data"]["image"].partition("?d=")[2]) == task["data"]["name"]
        name = listed[task["data"]["name"]]
        assert interface.validate_task({"data": task["data"]}), name
        assert interface.validate_annotation(task["annotations"][0]), name
        mask = truth.empty(name)
        for one in task["annotations"][0]["result"]:
            size = (one["original_height"], one["original_width"], 4)
            pixels = decode_rle(one["value"]["rle"]).reshape(size)[:, :, 3] > 0
            assert (mask[pixels] == truth.void).all(), "two regions lie on a pixel"
            mask[pixels] = labels.index(one["value"]["brushlabels"][0])
        found[name] = mask
    return found


def read_geojson(truth: Truth) -> Masks:
    import shapely
    from shapely.geometry import shape

    folder = truth.folder / "geojson"
    found = {}
    for place, name in truth.places(_text(folder / "renamed.json")).items():
        mask = truth.empty(name)
        y, x = np.indices(mask.shape) + 0.5
        for feature in json.loads((folder / f"{place}.geojson").read_text())["features"]:
            area = shape(feature["geometry"])
            assert area.is_valid, shapely.is_valid_reason(area)
            pixels = shapely.contains_xy(area, x, y)
            assert pixels.sum() == area.area
            mask[pixels] = truth.classes.index(feature["properties"]["classification"]["name"])
        found[name] = mask
    return found


def _yolo_rings(truth: Truth) -> Iterator[tuple[str, list[tuple[int, NDArray[np.float64]]]]]:
    folder = truth.folder / "yolo"
    for place, name in truth.places(_text(folder / "renamed.json")).items():
        height, width = truth.masks[name].shape
        lines = [line.split() for line in (folder / "labels" / f"{place}.txt").read_text().splitlines()]
        yield name, [(int(c), np.array(ring, float).reshape(-1, 2) * (width, height)) for c, *ring in lines]


def read_yolo(truth: Truth) -> Masks:
    """The pixels whose centres the polygons enclose, by pycocotools."""
    from pycocotools import mask as coco

    found = {}
    for name, rings in _yolo_rings(truth):
        mask = truth.empty(name)
        for value, ring in rings:
            pixels = coco.decode(coco.merge(coco.frPyObjects([ring.ravel().tolist()], *mask.shape))).astype(bool)
            mask[pixels] = value
        found[name] = mask
    return found


def read_yolo_drawn(truth: Truth) -> Masks:
    """As trainers draw them: OpenCV's fillPoly on whole numbers, edges included."""
    import cv2

    found = {}
    for name, rings in _yolo_rings(truth):
        mask = truth.empty(name).astype(np.int32)
        for value, ring in rings:
            cv2.fillPoly(mask, [ring.astype(np.float32).astype(np.int32)], value)
        found[name] = mask
    return found


READERS: dict[str, tuple[Callable[[Truth], Masks], float, tuple[str, ...]]] = {
    "palette": (read_palette, 1, ("pillow",)),
    "coco, run lengths": (read_coco, 1, ("pycocotools",)),
    "coco, polygons": (read_coco_polygons, 0.99, ("pycocotools",)),
    "cvat": (read_cvat, 1, ("datumaro",)),
    "datumaro": (read_datumaro, 1, ("datumaro",)),
    "label-studio": (read_label_studio, 1, ("label-studio-sdk",)),
    "geojson": (read_geojson, 0.99, ("shapely",)),
    "yolo, centres": (read_yolo, 0.99, ("pycocotools",)),
    "yolo, as drawn in training": (read_yolo_drawn, 0.99, ("opencv-python-headless",)),
}

KNOWN = {("half", "cvat"): "Datumaro keeps the numbers of labels in 8 bits"}
"""What a library can't do, of what the format could hold."""


def read(out: Path) -> bool:
    """Print a line for each set and format; whether all is as it should be."""
    logging.disable(logging.WARNING)
    good = True
    for folder in sorted(path.parent for path in out.glob("*/truth")):
        truth = Truth(folder)
        for name, (reader, least, packages) in READERS.items():
            if name == "cvat" and not (folder / "cvat.zip").is_file():
                continue
            try:
                found = reader(truth)
            except Exception as error:
                known = KNOWN.get((folder.name.partition("-")[0], name))
                print(f"{folder.name:20} {name:27} {known or 'FAILED'}: {type(error).__name__}: {error}")
                good &= known is not None
                continue
            same = sum(np.array_equal(found[image], mask) for image, mask in truth.masks.items())
            iou = class_iou(truth, found)
            good &= found.keys() == truth.masks.keys() and min(iou) >= least
            versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
            print(
                f"{folder.name:20} {name:27} equal {same:3} of {len(truth.masks):3}   IoU of the classes: least "
                f"{min(iou):.4f}, mean {np.mean(iou):.4f}   {versions}"
            )
    return good


def class_iou(truth: Truth, found: Masks) -> list[float]:
    """Over all images, of each class that occurs, and of void as one more."""
    values = [value for value in (*range(len(truth.classes)), truth.void)]
    joint, union = dict.fromkeys(values, 0), dict.fromkeys(values, 0)
    for name, mask in truth.masks.items():
        for value in np.union1d(mask, found[name]).tolist():
            a, b = mask == value, found[name] == value
            joint[value] += int((a & b).sum())
            union[value] += int((a | b).sum())
    return [joint[value] / union[value] for value in values if union[value]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("write", "read"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--segments", type=Path)
    options = parser.parse_args()
    if options.verb == "write":
        write(options.out, options.segments)
    elif not read(options.out):
        sys.exit(1)


if __name__ == "__main__":
    main()
