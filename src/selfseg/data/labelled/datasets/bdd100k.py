"""BDD100K, semantic segmentation: the classes of Cityscapes-19.

Layout (doc.bdd100k.com/download.html, "10K Images" and "Semantic Segmentation"; format.html: train ids, 255 unknown):

    images/10k/{train,val,test}/NAME.jpg
    labels/sem_seg/masks/{train,val}/NAME.png
    images/100k/{train,val,test}/NAME.jpg          another, larger set of images without these labels: `train_100k`

or that of the release of 2018: seg/images/{train,val,test}/NAME.jpg, seg/labels/{train,val}/NAME_train_id.png.
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.labelled.datasets.base import DataSet, Files, first_folder, pair_folders
from selfseg.data.labelled.datasets.cityscapes import CLASSES_19
from selfseg.data.labelled.labels import LabelMap
from selfseg.data.reading.listing import list_images

_CODES = LabelMap.indices(CLASSES_19)
_LARGE = "train_100k"


def _find(root: Path, split: str) -> Files:
    homes = ("", "bdd100k/")
    if split == _LARGE:
        folder = first_folder(root, [f"{home}images/100k/train" for home in homes], "BDD100K's 100K images")
        return Files(folder, tuple(list_images(folder).paths))
    choices = [f"{home}{kind}/{split}" for home in homes for kind in ("images/10k", "seg/images")]
    images = first_folder(root, choices, f"BDD100K's images of {split}")
    if split in _UNLABELLED:
        return Files(images, tuple(list_images(images).paths))
    if images.parent.name == "10k":
        labels, ending = images.parents[2] / "labels" / "sem_seg" / "masks" / split, ""
    else:
        labels, ending = images.parents[1] / "labels" / split, "_train_id"
    first_folder(labels.parent, (split,), f"BDD100K's labels of {split}")
    return pair_folders(images, lambda name: labels / f"{name}{ending}.png", _CODES)


_UNLABELLED = frozenset({"test", _LARGE})
BDD100K = DataSet(
    "bdd100k",
    "BDD100K, Cityscapes' 19 classes; images/10k/SPLIT, labels/sem_seg/masks/SPLIT",
    _find,
    {"train": 7000, "val": 1000, "test": 2000, _LARGE: 70000},
    CLASSES_19,
    _UNLABELLED,
)
