"""PASCAL VOC 2012, and its training images with the labels of SBD (`train_aug`).

Layout (host.robots.ox.ac.uk/pascal/VOC/voc2012, the devkit's document; of the archive VOCtrainval_11-May-2012):

    VOC2012/JPEGImages/NAME.jpg
    VOC2012/SegmentationClass/NAME.png                a palette PNG: 0 background, 1 to 20, 255 the border of objects
    VOC2012/ImageSets/Segmentation/{train,val,trainval}.txt

`train_aug` (10,582 images) is VOC's train and all of SBD (Hariharan et al., "Semantic contours from inverse
detectors", ICCV 2011) but VOC's val. Its labels are looked for in two forms: `SegmentationClassAug/NAME.png` with the
list train_aug.txt or trainaug.txt in ImageSets/Segmentation, as most toolboxes ship them; else SBD's own
`benchmark_RELEASE/dataset/{cls/NAME.mat, train.txt, val.txt}`, where VOC's labels take precedence.
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.labelled.datasets.base import DataSet, Files, first_folder, pair_folders, read_list
from selfseg.data.labelled.labels import LabelMap
from selfseg.errors import DataError

CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor".split()
)
_CODES = LabelMap.indices(CLASSES)
_SBD = ("benchmark_RELEASE/dataset", "SBD/benchmark_RELEASE/dataset", "SBD", "sbd", "dataset")


def _find(root: Path, split: str) -> Files:
    images = first_folder(
        root, ("JPEGImages", "VOC2012/JPEGImages", "VOCdevkit/VOC2012/JPEGImages"), "the images of VOC 2012"
    )
    home = images.parent
    lists = home / "ImageSets" / "Segmentation"
    if split == "train_aug":
        return _find_augmented(root, home, images, lists)
    labels = first_folder(home, ("SegmentationClass",), "the labels of VOC 2012")
    names = read_list((lists / f"{split}.txt",), f"VOC's split {split!r}")
    return pair_folders(images, lambda name: labels / f"{name}.png", _CODES, names)


def _find_augmented(root: Path, home: Path, images: Path, lists: Path) -> Files:
    merged = home / "SegmentationClassAug"
    if merged.is_dir():
        names = read_list((lists / "train_aug.txt", lists / "trainaug.txt"), "the split train_aug")
        return pair_folders(images, lambda name: merged / f"{name}.png", _CODES, names)
    places = [base / place for base in dict.fromkeys((home, root, home.parent, home.parent.parent)) for place in _SBD]
    sbd = next((place for place in places if (place / "cls").is_dir()), None)
    if sbd is None:
        raise DataError(
            f"no labels of SBD: looked for {merged} (with {lists / 'train_aug.txt'}), and for the folder cls in "
            f"{', '.join(str(home / place) for place in _SBD)} and the same above; they are what train_aug adds to VOC"
        )
    train = read_list((lists / "train.txt",), "VOC's split 'train'")
    val = set(read_list((lists / "val.txt",), "VOC's split 'val'"))
    more = [name for part in ("train", "val") for name in read_list((sbd / f"{part}.txt",), f"SBD's split {part!r}")]
    ours = set(train)
    names = [name for name in dict.fromkeys(train + more) if name not in val]

    def label_of(name: str) -> Path:
        return home / "SegmentationClass" / f"{name}.png" if name in ours else sbd / "cls" / f"{name}.mat"

    return pair_folders(images, label_of, _CODES, names)


VOC = DataSet(
    "voc",
    "PASCAL VOC 2012, 21 classes; VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}; train_aug with SBD",
    _find,
    {"train": 1464, "val": 1449, "trainval": 2913, "train_aug": 10582},
    CLASSES,
)
