"""Cityscapes with its 19 usual classes and with 27: different tables, so different names.

Layout (github.com/mcordts/cityscapesScripts, README "Dataset structure"; classes: helpers/labels.py):

    leftImg8bit/{train,val,test,train_extra}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    gtFine/{train,val}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png       ids 0 to 33
    gtCoarse/{train,val,train_extra}/.../CITY_SEQUENCE_FRAME_gtCoarse_labelIds.png

Fine labels are taken for train and val, coarse ones for train_extra. 27 classes are the ids 7 to 33 (PiCIE, STEGO);
19 are those of them that the benchmark scores. The rest is void.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfseg.data.labelled.datasets.base import DataSet, Files, first_folder, pair_folders
from selfseg.data.labelled.labels import LabelMap
from selfseg.data.reading.listing import list_images

_FIRST = 7  # ids below are no part of the scene
_NAMES = (
    "road",
    "sidewalk",
    "parking",
    "rail track",
    "building",
    "wall",
    "fence",
    "guard rail",
    "bridge",
    "tunnel",
    "pole",
    "polegroup",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "caravan",
    "trailer",
    "train",
    "motorcycle",
    "bicycle",
)
_SCORED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CLASSES_19 = tuple(_NAMES[i - _FIRST] for i in _SCORED)
_IDS = range(34)
_CODES_19 = LabelMap.of(CLASSES_19, {label: c for c, label in enumerate(_SCORED)}, void=_IDS)
_CODES_27 = LabelMap.of(_NAMES, {_FIRST + c: c for c in range(len(_NAMES))}, void=_IDS)


def _finder(codes: LabelMap) -> Callable[[Path, str], Files]:
    def find(root: Path, split: str) -> Files:
        images = first_folder(root, (f"leftImg8bit/{split}",), f"Cityscapes' images of {split}")
        if split in _UNLABELLED:
            return Files(images, tuple(list_images(images).paths))
        kind = "gtCoarse" if split == "train_extra" else "gtFine"
        labels = first_folder(root, (f"{kind}/{split}",), f"Cityscapes' labels of {split}")
        return pair_folders(
            images, lambda name: labels / f"{name.removesuffix('_leftImg8bit')}_{kind}_labelIds.png", codes
        )

    return find


_SPLITS = {"train": 2975, "val": 500, "test": 1525, "train_extra": None}
_UNLABELLED = frozenset({"test"})  # its label files are empty dummies
_LAYOUT = "{leftImg8bit,gtFine}/SPLIT/CITY, *_labelIds.png"


def _cityscapes(name: str, about: str, codes: LabelMap) -> DataSet:
    return DataSet(name, f"{about}; {_LAYOUT}", _finder(codes), _SPLITS, codes.classes, _UNLABELLED)


CITYSCAPES19 = _cityscapes("cityscapes19", "Cityscapes, the 19 scored classes", _CODES_19)
CITYSCAPES27 = _cityscapes("cityscapes27", "Cityscapes, 27 classes (ids 7 to 33)", _CODES_27)
