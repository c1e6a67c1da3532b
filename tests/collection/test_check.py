import io
from pathlib import Path
from shutil import make_archive

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import layouts
from exchange.test_any_labels import coco
from selfseg import check_data
from selfseg.collection.check import DataCheck
from selfseg.data.reading.images import read_image
from selfseg.drawing.pictures import palette
from selfseg.errors import ConfigError, DataError


def printed(found: DataCheck) -> str:
    stream = io.StringIO()
    Console(width=200, file=stream).print(found.table())
    return stream.getvalue()


def test_a_whole_data_set(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path / "data", "folder")
    found = check_data(f"camvid:{root}", sheet=tmp_path / "sheet.png", partial=True, progress=False)
    assert found.healthy
    assert [(check.split, check.images, check.labels_read) for check in found.splits] == [
        ("train", 1, 1),
        ("val", 1, 1),
        ("test", 1, 1),
    ]
    # A third each of sky, bicyclist and void, of 24x32 pixels in bands of 11, 11 and 10 columns.
    assert found.splits[0].pixels == (24 * 11,) + (0,) * 9 + (24 * 11,)
    assert found.splits[0].void == 24 * 10
    assert found.splits[0].shares()[[0, 10]].tolist() == [0.5, 0.5]
    text = printed(found)
    assert "50.00 %" in text
    assert "none" in text  # classes that don't occur
    assert "31.2%" in text  # void
    assert "all is there" in text


def test_the_sheet_shows_labels_in_their_colours(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path / "data", "folder")
    for split in ("train", "val", "test"):  # white images, so that a tint is a tint
        image = next((root / split / "images").iterdir())
        Image.new("RGB", (96, 72), (255, 255, 255)).save(image)
        layouts.gray(next((root / split / "labels").iterdir()), [0, 10, 255], (72, 96))
    check_data(f"camvid:{root}", sheet=tmp_path / "sheet.png", count=3, progress=False)
    sheet = read_image(tmp_path / "sheet.png").astype(int)
    for c in (0, 10):  # in the legend, exactly; three quarters of the colour on each label
        colour = palette(11)[c].astype(int)
        assert (np.abs(sheet - colour).max(2) == 0).sum() > 100
        assert (np.abs(sheet - (0.75 * colour + 0.25 * 255)).max(2) <= 2).sum() > 3 * 20 * 60


def test_counts_that_differ_from_the_published_ones(tmp_path: Path) -> None:
    found = check_data(f"camvid:{layouts.camvid(tmp_path, 'folder')}", splits=["val"], progress=False)
    assert found.problems == ("val: it has 1 images, the published one has 101; --partial accepts that",)


def test_everything_that_can_be_wrong_is_listed(tmp_path: Path) -> None:
    home = layouts.voc(tmp_path)
    names = [f"2010_{i:06d}" for i in range(5)]
    (home / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(names))
    for name in names:
        layouts.image(home / "JPEGImages" / f"{name}.jpg")
        layouts.gray(home / "SegmentationClass" / f"{name}.png", [0, 1])
    (home / "JPEGImages" / f"{names[0]}.jpg").unlink()
    (home / "SegmentationClass" / f"{names[1]}.png").unlink()
    whole = (home / "JPEGImages" / f"{names[2]}.jpg").read_bytes()
    (home / "JPEGImages" / f"{names[2]}.jpg").write_bytes(whole[: len(whole) // 2])
    layouts.gray(home / "SegmentationClass" / f"{names[3]}.png", [0, 21])
    layouts.gray(home / "SegmentationClass" / f"{names[4]}.png", [0], (10, 10))
    found = check_data(f"voc:{tmp_path}", partial=True, sheet=tmp_path.with_suffix(".sheet.png"), progress=False)
    assert not found.healthy
    train, val, _, augmented = found.splits
    assert [len(files) for files in (train.missing, train.missing_labels, train.bad_images)] == [1, 1, 1]
    assert "truncated" in train.bad_images[0]
    assert "value 21, which is none of voc's" in train.bad_labels[0]
    assert "10x10 pixels but its image" in train.bad_labels[1]
    assert train.labels_read == 2
    assert not val.problems
    assert "benchmark_RELEASE" in augmented.problem  # not there, which is no error: nobody asked for it
    assert not augmented.problems
    text = printed(found)
    assert f"{names[0]}.jpg" in text
    assert "not there: train_aug" in text
    assert len(found.problems) == 4
    assert not check_data(f"voc:{tmp_path}", splits=["train_aug", "val"], partial=True, progress=False).healthy


def test_a_split_that_is_all_void_is_told(labelled: Path, tmp_path: Path) -> None:
    for path in (labelled / "val" / "labels").iterdir():
        with Image.open(path) as label:
            Image.new("L", label.size, 255).save(path)
    found = check_data(str(labelled), sheet=tmp_path / "sheet.png", progress=False)
    assert found.problems == ("val: no pixel of its 4 labels has a class: all are void",)


def test_damage_inside_of_an_image_is_found_by_decoding(tmp_path: Path) -> None:
    layouts.image(tmp_path / "a" / "b.png")
    layouts.image(tmp_path / "a" / "c.png")
    data = bytearray((tmp_path / "a" / "b.png").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "a" / "b.png").write_bytes(data)
    assert check_data(tmp_path, progress=False).healthy
    found = check_data(tmp_path, decode=True, progress=False, sheet=tmp_path.with_suffix(".sheet.png"))
    assert (len(found.splits[0].bad_images), found.splits[0].images, found.splits[0].labelled) == (1, 2, False)
    assert read_image(tmp_path.with_suffix(".sheet.png")).shape[0] > layouts.SIZE[0]


def test_a_labelled_folder_and_its_classes(labelled: Path) -> None:
    found = check_data(labelled, progress=False)
    assert found.healthy
    assert [check.split for check in found.splits] == ["train", "val"]
    assert found.class_names == ("sky", "ground", "ball", "house")
    layouts.gray(labelled / "val" / "labels" / "scene7.png", [9], (90, 120))
    (problem,) = check_data(labelled, progress=False).problems
    assert "value 9 but there are 4 classes" in problem
    assert "classes.txt" in problem


def test_it_tells_how_a_folder_was_understood(labelled: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (labelled / split / "labels").rename(labelled / split / "masks")
        (labelled / split / "notes.xyz").touch()
    found = check_data(labelled, progress=False)
    assert found.understood == (
        "SPLIT/images and SPLIT/masks",
        "train: 6 images in train/images/, 6 labels in train/masks/",
        "val: 4 images in val/images/, 4 labels in val/masks/",
        "the values are indices of classes.txt's 4 classes",
    )
    assert found.not_taken == ("2 files .xyz: selfseg does not read such files here",)
    text = printed(found)
    assert "understood as: SPLIT/images and SPLIT/masks" in text
    assert "left out: 2 files .xyz: selfseg does not read such files here" in text
    archive = make_archive(str(tmp_path / "set"), "zip", labelled)
    assert check_data(archive, progress=False).understood == found.understood


def test_it_looks_at_other_tools_labels(labelled: Path, tmp_path: Path) -> None:
    root = coco(labelled, tmp_path / "coco", by_split=True)
    found = check_data(root, sheet=tmp_path / "sheet.png", progress=False)
    assert found.healthy
    assert found.understood[0] == "labels as COCO JSON"
    assert found.understood[1] == "train: 6 labelled images in images/"
    assert read_image(tmp_path / "sheet.png").shape[0] > 200
    (file,) = root.glob("annotations/*val*")
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 7').replace('"iscrowd":0', '"iscrowd":7'))
    found = check_data(root, progress=False)
    assert not found.healthy
    assert found.left_out


def test_images_without_labels(tmp_path: Path) -> None:
    found = check_data(f"imagenet:{layouts.imagenet(tmp_path)}", partial=True, progress=False)
    assert found.healthy
    assert found.class_names == ()
    assert "no labels" in printed(found)


def test_a_root_that_is_something_else(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(DataError, match=r"looked for .*leftImg8bit/train; in .* there is photo0\.jpg"):
        check_data(f"cityscapes27:{photos}", progress=False)
    with pytest.raises(ConfigError, match="names a split"):
        check_data(f"cityscapes27/val:{photos}", splits=["train"], progress=False)
    with pytest.raises(DataError, match="does not exist"):
        check_data(tmp_path / "no", progress=False)
