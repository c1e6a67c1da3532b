"""ImageNet (ILSVRC 2012), images only.

Layout (image-net.org/challenges/LSVRC/2012, the archives unpacked by class as every toolbox has them; or Kaggle's):

    {train,val}/n01440764/*.JPEG
    ILSVRC/Data/CLS-LOC/{train,val}/...
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.labelled.datasets.base import DataSet, Files, first_folder
from selfseg.data.reading.listing import list_images


def _find(root: Path, split: str) -> Files:
    homes = ("", "ILSVRC/Data/CLS-LOC/", "Data/CLS-LOC/")
    folder = first_folder(root, [f"{home}{split}" for home in homes], f"ImageNet's images of {split}")
    return Files(folder, tuple(list_images(folder).paths))


IMAGENET = DataSet(
    "imagenet",
    "ImageNet, images only; {train,val}/WNID/*.JPEG",
    _find,
    {"train": 1_281_167, "val": 50_000},
    unlabelled=frozenset({"train", "val"}),
)
