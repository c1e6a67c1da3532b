"""Each data set by name, on a small copy of its published layout (`layouts`)."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import layouts
from selfseg.data.labelled.catalog import find_images, open_labelled
from selfseg.data.labelled.datasets import DATASETS
from selfseg.data.labelled.datasets.camvid import COLOURS
from selfseg.data.labelled.datasets.coco import COARSE, IDS, NAMES, UNUSED
from selfseg.data.labelled.labels import VOID, LabelMap
from selfseg.errors import DataError, EmptyCollection, LabelError


def values(name: str, root: Path, split: str, index: int = 0) -> list[int]:
    """The classes of an image's bands, from left to right."""
    row = open_labelled(f"{name}:{root}", split).read_label(index)[0]
    return [int(row[0]), *(int(b) for a, b in pairwise(row) if a != b)]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("voc", 21),
        ("coco27", 27),
        ("coco171", 171),
        ("coco21", 21),
        ("cityscapes19", 19),
        ("cityscapes27", 27),
        ("ade20k", 150),
        ("bdd100k", 19),
        ("camvid", 11),
    ],
)
def test_every_class_has_one_name(name: str, count: int) -> None:
    classes = DATASETS[name].classes
    assert len(classes) == len(set(classes)) == count
    assert all(word == word.strip() and word and "\n" not in word for word in classes)


def test_voc(tmp_path: Path) -> None:
    home = layouts.voc(tmp_path)
    for root in (home, home.parent, tmp_path):
        train, val = open_labelled(f"voc:{root}", "train"), open_labelled(f"voc:{root}", "val")
        assert train.images.names == ("2007_000032", "2007_000039", "2007_000063")
        assert (len(val), val.name, val.class_names[0], val.class_names[20]) == (2, "voc", "background", "tvmonitor")
    assert values("voc", home, "val", 1) == [0, 1, 20, VOID]
    assert len(open_labelled(f"voc:{home}", "trainval")) == 5
    assert open_labelled(f"voc:{home}", "trainval").shares_images(val)
    assert not train.shares_images(val)


def test_voc_with_the_labels_of_sbd(tmp_path: Path) -> None:
    home = layouts.voc(tmp_path)
    with pytest.raises(DataError, match=r"SegmentationClassAug.*train_aug\.txt.*benchmark_RELEASE/dataset"):
        open_labelled(f"voc:{home}", "train_aug")
    layouts.sbd(home)
    data = open_labelled(f"voc:{home}", "train_aug")
    # VOC's train and what SBD adds, without VOC's val.
    assert data.images.names == ("2007_000032", "2007_000039", "2007_000063", "2008_000008", "2008_000015")
    assert values("voc", home, "train_aug", 0) == [0, 1, 20, VOID]  # VOC's own label of an image that SBD has too
    assert values("voc", home, "train_aug", 3) == [0, 5]
    assert not data.shares_images(open_labelled(f"voc:{home}", "val"))


@pytest.mark.parametrize("listed", ["train_aug.txt", "trainaug.txt"])
def test_voc_with_merged_labels(tmp_path: Path, listed: str) -> None:
    home = layouts.voc(tmp_path)
    layouts.gray(home / "SegmentationClassAug" / "2008_000002.png", [0, 7, 255])
    layouts.gray(home / "SegmentationClassAug" / "2007_000032.png", [0, 6])
    lines = "/JPEGImages/2008_000002.jpg /SegmentationClassAug/2008_000002.png\n2007_000032\n\n"
    (home / "ImageSets" / "Segmentation" / listed).write_text(lines)
    assert open_labelled(f"voc:{home}", "train_aug").images.names == ("2008_000002", "2007_000032")
    assert values("voc", home, "train_aug") == [0, 7, VOID]


def test_voc_says_what_is_missing(tmp_path: Path) -> None:
    home = layouts.voc(tmp_path)
    (tmp_path / "wrong" / "VOCdevkit").mkdir(parents=True)
    (home / "SegmentationClass" / "2007_000039.png").unlink()
    with pytest.raises(LabelError, match=r"1 of 3 images have no label.*SegmentationClass/2007_000039\.png"):
        open_labelled(f"voc:{home}", "train")
    (home / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"looked for .*ImageSets/Segmentation/val\.txt"):
        open_labelled(f"voc:{home}", "val")
    with pytest.raises(DataError, match=r"looked for .*JPEGImages or .*VOC2012/JPEGImages.*; in .* there is VOCdevkit"):
        open_labelled(f"voc:{tmp_path / 'wrong'}", "val")


def test_cityscapes(tmp_path: Path) -> None:
    root = layouts.cityscapes(tmp_path)
    data = open_labelled(f"cityscapes19:{root}", "train")
    assert data.images.names[0] == "aachen/aachen_000000_000019_leftImg8bit"
    # road, building, car, unlabeled; sidewalk, bicycle, parking, ego vehicle
    assert values("cityscapes19", root, "train", 0) == [0, 2, 13, VOID]
    assert values("cityscapes19", root, "train", 1) == [1, 18, VOID]
    assert values("cityscapes27", root, "train", 0) == [0, 4, 19, VOID]
    assert values("cityscapes27", root, "train", 1) == [1, 26, 2, VOID]
    assert values("cityscapes27", root, "train_extra") == [0, VOID]
    assert [open_labelled(f"cityscapes27:{root}", "val").class_names[c] for c in (16, 14, 17)] == [
        "sky",
        "vegetation",
        "person",
    ]
    assert values("cityscapes27", root, "val") == [16, 14, 17, VOID]


def test_both_class_sets_of_cityscapes_agree() -> None:
    fine, coarse = DATASETS["cityscapes27"].classes, DATASETS["cityscapes19"].classes
    assert [name for name in fine if name in coarse] == list(coarse)
    assert set(fine) - set(coarse) == {
        "parking",
        "rail track",
        "guard rail",
        "bridge",
        "tunnel",
        "polegroup",
        "caravan",
        "trailer",
    }


def test_cityscapes_says_what_is_missing(tmp_path: Path) -> None:
    root = layouts.cityscapes(tmp_path)
    next((root / "gtFine" / "val").rglob("*labelIds.png")).unlink()
    with pytest.raises(LabelError, match=r"frankfurt/frankfurt_000000_000019_gtFine_labelIds\.png"):
        open_labelled(f"cityscapes19:{root}", "val")
    with pytest.raises(DataError, match="'test' of cityscapes19 has no labels"):
        open_labelled(f"cityscapes19:{root}", "test")
    with pytest.raises(DataError, match="no split 'validation'; there is train, val, test, train_extra"):
        open_labelled(f"cityscapes19:{root}", "validation")
    (root / "gtFine" / "train").rename(root / "gtFine" / "training")
    with pytest.raises(DataError, match=r"looked for .*gtFine/train; in .* there is gtCoarse, gtFine, leftImg8bit"):
        open_labelled(f"cityscapes19:{root}", "train")
    with pytest.raises(DataError, match=r"does not exist.*leftImg8bit/train"):
        open_labelled(f"cityscapes19:{root}/no", "train")


@pytest.mark.parametrize(
    ("images", "labels"), [("", "stuffthingmaps"), ("images", "annotations"), ("", "stuffthingmaps_trainval2017")]
)
def test_coco_stuff(tmp_path: Path, images: str, labels: str) -> None:
    root = layouts.coco(tmp_path, images, labels)
    assert open_labelled(f"coco27:{root}", "train").images.names == ("000000000009", "000000000025")
    # person, car, ceiling... the ids 0, 2, 105 (clouds), 181 (wood)
    names = open_labelled(f"coco27:{root}", "val").class_names
    assert [names[c] for c in values("coco27", root, "val")[:4]] == ["person", "vehicle", "sky", "solid"]
    names = open_labelled(f"coco171:{root}", "val").class_names
    assert [names[c] for c in values("coco171", root, "val")[:4]] == ["person", "car", "clouds", "wood"]
    assert values("coco21", root, "val") == [15, 7, 0, VOID]  # person, car, background
    assert open_labelled(f"coco27:{root}", "train_curated").images.names == ("000000000025",)
    assert len(find_images(f"coco:{root}")) == 2
    plus = find_images(f"coco/plus:{root}")
    assert plus.root == root / images
    assert plus.names == ("train2017/000000000009", "train2017/000000000025", "unlabeled2017/000000000008")
    assert plus.read(2).shape[2] == 3


def test_coco_plus_needs_the_unlabelled_images(tmp_path: Path) -> None:
    root = layouts.coco(tmp_path)
    shutil.rmtree(root / "unlabeled2017")
    with pytest.raises(DataError, match="unlabeled2017"):
        find_images(f"coco/plus:{root}")


def test_coco_without_the_curated_list(tmp_path: Path) -> None:
    root = layouts.coco(tmp_path, curated=False)
    with pytest.raises(DataError, match=r"curated/val2017/Coco164kFull_Stuff_Coarse_7\.txt"):
        open_labelled(f"coco27:{root}", "val_curated")


def test_coarse_classes_cover_every_id_once() -> None:
    assert sorted(label for ids in COARSE.values() for label in ids) == list(range(IDS))
    assert len(NAMES) == IDS
    # 12 classes of things are exactly the ids of COCO's objects, 15 those of COCO-Stuff.
    things = [label for ids in list(COARSE.values())[:12] for label in ids]
    assert sorted(things) == list(range(91))
    assert (NAMES[0], NAMES[90], NAMES[91], NAMES[181]) == ("person", "hair brush", "banner", "wood")
    kind = {NAMES[label]: name for name, ids in COARSE.items() for label in ids}
    assert (kind["traffic light"], kind["fog"], kind["wood"], kind["tent"]) == ("outdoor", "water", "solid", "building")
    # What names say of themselves.
    for prefix, name in (("wall-", "wall"), ("floor-", "floor"), ("ceiling-", "ceiling"), ("window-", "window")):
        assert {kind[word] for word in NAMES if word.startswith(prefix)} == {name}


def test_the_171_classes_are_those_in_use() -> None:
    assert {NAMES[label] for label in UNUSED} == {
        "street sign",
        "hat",
        "shoe",
        "eye glasses",
        "plate",
        "mirror",
        "window",
        "desk",
        "door",
        "blender",
        "hair brush",
    }
    assert DATASETS["coco171"].classes[:2] == ("person", "bicycle")
    assert set(NAMES) - set(DATASETS["coco171"].classes) == {NAMES[label] for label in UNUSED}


def test_ade20k(tmp_path: Path) -> None:
    root = layouts.ade20k(tmp_path)
    for place in (root, root / "ADEChallengeData2016"):
        assert values("ade20k", place, "train") == [VOID, 0, 149]
    assert open_labelled(f"ade20k:{root}", "val").images.names == ("ADE_val_00000001",)
    layouts.gray(root / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000001.png", [151])
    with pytest.raises(LabelError, match=r"ADE_val_00000001\.png holds the value 151, which is none of ade20k's"):
        open_labelled(f"ade20k:{root}", "val").read_label(0)
    (root / "ADEChallengeData2016" / "annotations").rename(root / "labels")
    with pytest.raises(DataError, match=r"looked for .*annotations/training"):
        open_labelled(f"ade20k:{root}", "train")


@pytest.mark.parametrize("draw", [layouts.bdd100k, layouts.bdd100k_2018])
def test_bdd100k(tmp_path: Path, draw: Callable[[Path], Path]) -> None:
    root = draw(tmp_path)
    assert values("bdd100k", root, "val") == [0, 18, VOID]
    assert open_labelled(f"bdd100k:{root}", "val").class_names == DATASETS["cityscapes19"].classes
    if draw is layouts.bdd100k:
        assert find_images(f"bdd100k/train_100k:{root}").names == ("0000f77c-6257be58",)
        assert len(find_images(f"bdd100k/test:{root}")) == 1
    else:
        with pytest.raises(DataError, match=r"looked for .*images/100k/train"):
            find_images(f"bdd100k/train_100k:{root}")
    for label in (*root.rglob("masks/val"), *root.rglob("labels/val")):
        label.rename(root / "away")
    with pytest.raises(DataError, match=r"BDD100K's labels of val: looked for .*/val"):
        open_labelled(f"bdd100k:{root}", "val")


@pytest.mark.parametrize("kind", ["folder", "segnet", "colours"])
def test_camvid(tmp_path: Path, kind: str) -> None:
    root = layouts.camvid(tmp_path, kind)
    for split in ("train", "val", "test"):
        assert values("camvid", root, split) == [0, 10, VOID]
    assert open_labelled(f"camvid:{root}", "val").images.names == ("0016E5_07959",)


def test_colours_of_camvid(tmp_path: Path) -> None:
    assert len(COLOURS) == len({colour[:3] for colour in COLOURS.values()}) == 32
    assert {colour[3] for colour in COLOURS.values()} == {*DATASETS["camvid"].classes, None}
    root = layouts.camvid(tmp_path, "colours")
    label = root / "val_labels" / "0016E5_07959_L.png"
    stored = np.array(Image.open(label))
    stored[3, 5] = (128, 128, 127)
    Image.fromarray(stored).save(label)
    with pytest.raises(LabelError, match=r"holds the colour \(128, 128, 127\)"):
        open_labelled(f"camvid:{root}", "val").read_label(0)
    layouts.gray(label, [0, 1])
    with pytest.raises(LabelError, match="holds no colours"):
        open_labelled(f"camvid:{root}", "val").read_label(0)


def test_camvid_without_labels(tmp_path: Path) -> None:
    layouts.image(tmp_path / "train" / "0001TP_006690.png")
    with pytest.raises(DataError, match=r"looked for .*train/labels or .*trainannot or .*train_labels"):
        open_labelled(f"camvid:{tmp_path}", "train")


@pytest.mark.parametrize("below", ["", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"])
def test_imagenet(tmp_path: Path, below: str) -> None:
    layouts.imagenet(tmp_path / below)
    assert find_images(f"imagenet:{tmp_path}").names == ("n01440764/n01440764_10026",)
    assert find_images(f"imagenet/val:{tmp_path}").names == ("n01440764/ILSVRC2012_val_00000293",)
    with pytest.raises(DataError, match="has no labels"):
        open_labelled(f"imagenet:{tmp_path}", "val")


def test_a_split_without_images(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(EmptyCollection, match="holds no image"):
        find_images(f"imagenet:{tmp_path}")


def test_a_labelled_folder_by_name(labelled: Path) -> None:
    named, plain = open_labelled(f"folder:{labelled}", "val"), open_labelled(labelled, "val")
    assert named == plain
    assert named.codes == LabelMap.indices(("sky", "ground", "ball", "house"))
    assert find_images(f"folder:{labelled}").names == open_labelled(labelled, "train").images.names
