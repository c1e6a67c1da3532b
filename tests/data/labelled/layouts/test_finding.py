"""How folders of images and labels are understood, by their names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfseg.data.labelled.layouts.finding import (
    FolderOptions,
    Layout,
    drawn_as_val,
    sort_splits,
    split_in_words,
    understand,
)
from selfseg.errors import ConfigError, DataError, EmptyCollection, LabelError


def made(root: Path, *names: str) -> Path:
    """Empty files: no file is opened."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def understood(root: Path, **options: object) -> Layout:
    layout = understand(root, FolderOptions(**options))  # type: ignore[arg-type]
    assert layout is not None
    return layout


def pairs(layout: Layout, split: str) -> dict[str, str]:
    found = layout.pairs(split)
    return {
        image.relative_to(layout.root).as_posix(): label.relative_to(layout.root).as_posix()
        for image, label in zip(found.images, found.labels, strict=True)
    }


@pytest.mark.parametrize("labels", ["labels", "annotations", "masks", "gt"])
def test_a_folder_for_each_split(tmp_path: Path, labels: str) -> None:
    made(tmp_path, "valid/images/a.jpg", f"valid/{labels}/a.png", "train/images/b.jpg", f"train/{labels}/b.tif")
    layout = understood(tmp_path)
    assert layout.splits == ("train", "valid")
    assert pairs(layout, "val") == {"valid/images/a.jpg": f"valid/{labels}/a.png"}
    assert pairs(layout, "train") == {"train/images/b.jpg": f"train/{labels}/b.tif"}
    with pytest.raises(DataError, match=r"no split 'test' in .*there is train, valid \(SPLIT/images and SPLIT/"):
        layout.pairs("test")


def test_splits_below_images_and_test_alone(tmp_path: Path) -> None:
    made(tmp_path, "images/val2017/x/a.jpg", "labels/val2017/x/a.png", "images/test/b.jpg", "labels/test/b.png")
    assert understood(tmp_path).splits == ("val2017", "test")
    assert pairs(understood(tmp_path), "val") == {"images/val2017/x/a.jpg": "labels/val2017/x/a.png"}
    made(tmp_path / "one", "test/images/a.jpg", "test/labels/a.png")
    assert understood(tmp_path / "one").splits == ("test",)


def test_without_splits_a_share_is_drawn(tmp_path: Path) -> None:
    names = [f"{i}" for i in range(20)]
    made(tmp_path, *(f"images/{n}.jpg" for n in names), *(f"masks/{n}_mask.png" for n in names))
    assert understood(tmp_path).splits == ("all",)
    assert understood(tmp_path).pairs("all").suffix == "_mask"
    with pytest.raises(DataError, match="no split 'val'; --val 20 draws"):
        understood(tmp_path).pairs("val")
    layout = understood(tmp_path, val=30)
    val, train = pairs(layout, "val"), pairs(layout, "train")
    assert 0 < len(val) < len(train)
    assert sorted([*val, *train]) == sorted(pairs(understood(tmp_path), "all"))
    made(tmp_path, "images/20.jpg", "masks/20_mask.png")  # one more image changes no other one's split
    assert {n for n in pairs(understood(tmp_path, val=30), "val") if n != "images/20.jpg"} == set(val)
    with pytest.raises(ConfigError, match="from 0 to below 100, not 100"):
        FolderOptions(val=100)


def test_drawn_splits_are_never_empty() -> None:
    assert drawn_as_val(["a", "b"], 0.0001) in ([True, False], [False, True])
    assert drawn_as_val(["a", "b"], 0.9999).count(True) == 1
    assert drawn_as_val(["a"], 0) == [False]


@pytest.mark.parametrize("folder", ["", "val/"])
def test_images_and_labels_together(tmp_path: Path, folder: str) -> None:
    names = [f"{folder}{name}" for name in ("a.jpg", "a_mask.png", "b.png", "b_mask.png")]
    layout = understood(made(tmp_path, *names))
    assert layout.splits == (("val",) if folder else ("all",))
    assert pairs(layout, layout.splits[0]) == dict(zip(names[::2], names[1::2], strict=True))


def test_images_and_labels_together_under_one_name(tmp_path: Path) -> None:
    layout = understood(made(tmp_path, "a.jpg", "a.png", "b.jpg", "b.png"))
    assert pairs(layout, "all") == {"a.jpg": "a.png", "b.jpg": "b.png"}


def test_photographs_alone_are_no_labelled_folder(tmp_path: Path) -> None:
    assert understand(made(tmp_path, "a.jpg", "b.png", "b_mask.png")) is None  # a has none
    assert understand(made(tmp_path / "x", "images/a.jpg", "labels/a.txt")) is None  # another tool's
    assert understand(tmp_path / "no") is None


def test_names_that_end_otherwise(tmp_path: Path) -> None:
    images = [f"images/{city}_leftImg8bit.png" for city in ("ulm", "bonn")]
    made(tmp_path, *images, "gt/ulm_gtFine_labelIds.png", "gt/bonn_gtFine_labelIds.png")
    found = understood(tmp_path).pairs("all")
    assert (found.strip, found.suffix) == ("_leftImg8bit", "_gtFine_labelIds")
    assert all(label.is_file() for label in found.labels)
    assert "end with _gtFine_labelIds instead of _leftImg8bit" in found.sentence(tmp_path)


def test_several_suffixes_are_asked_for(tmp_path: Path) -> None:
    made(tmp_path, "images/a.jpg", "masks/a_color.png", "masks/a_labelIds.png")
    with pytest.raises(LabelError, match=r"_color or _labelIds; say which, e\.g\. --label-suffix _color"):
        understood(tmp_path).pairs("all")
    layout = understood(tmp_path, label_suffix="_labelIds")
    assert pairs(layout, "all") == {"images/a.jpg": "masks/a_labelIds.png"}
    with pytest.raises(ConfigError, match="not 'a/b'"):
        FolderOptions("a/b")


def test_lists_as_of_voc(tmp_path: Path) -> None:
    made(tmp_path, *(f"JPEGImages/{n}.jpg" for n in "abc"), *(f"SegmentationClass/{n}.png" for n in "ab"))
    assert understood(tmp_path).splits == ("all",)
    lists = made(tmp_path, "ImageSets/Segmentation/val.txt") / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("b\n")
    (lists / "val.txt").write_text("a\n")
    assert pairs(understood(tmp_path), "train") == {"JPEGImages/b.jpg": "SegmentationClass/b.png"}
    (lists / "val.txt").write_text("z\n")
    with pytest.raises(EmptyCollection, match="none of the 1 names of the split 'val'"):
        understood(tmp_path).pairs("val")


def test_the_order_of_splits_and_what_words_tell() -> None:
    assert sort_splits({"extra", "validation", "test", "train"}) == ("train", "validation", "test", "extra")
    assert split_in_words(("Training", "cam1")) == "train"
    assert split_in_words(("train", "val")) is None
