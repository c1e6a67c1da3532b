from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image

import exchange.odd_masks as odd
from selfseg.collection.check import check_data
from selfseg.data.labelled.catalog import open_labelled
from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError, DataError, LabelError
from selfseg.exchange import NamedMask, to_labelled_folder, write

LEGEND = Legend.of(["night", "sky, blue", "road"], {"night": (0, 0, 0), "road": (7, 7, 7), "sky, blue": (7, 7, 7)})


@pytest.fixture
def masks(tmp_path: Path) -> list[NamedMask]:
    """Of twelve photographs and one that is nowhere; one mask is void all over."""
    random = np.random.default_rng(0)
    found = []
    for i in range(13):
        name = f"day {i % 2}/{i}.jpg" if i else "day 0/2.png"  # beside day 0/2.jpg
        mask = random.choice([0, 1, 2, 255], (20, 24 + i)).astype(np.uint8)
        if i == 5:
            mask[:] = 255
        if i < 12:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (*mask.shape, 3), np.uint8)).save(path)
        found.append(NamedMask(name, mask))
    return found


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio"])
def test_labels_of_a_tool_become_labelled_data(format: str, masks: list[NamedMask], tmp_path: Path) -> None:
    labels = write(format, masks, LEGEND, tmp_path / "labels.zip")
    made = to_labelled_folder(labels, tmp_path / "photos", tmp_path / "out", val=0.4)
    assert made.path == tmp_path / "out"
    assert sum(made.images.values()) == 11
    assert min(made.images.values()) >= 2
    assert made.without_label == ("day 1/5.jpg",)
    assert [name.partition(".")[0] for name in made.without_image] == ["day 0/12"]
    found = {}
    for split in ("train", "val"):
        data = open_labelled(made.path, split)
        assert len(data) == made.images[split]
        assert data.class_names == ("night", "sky, blue", "road")
        for i, path in enumerate(data.images.paths):
            name = path.relative_to(data.images.root).as_posix()
            # Where both are there, 2.png and 2.jpg would want one label file: each carries its suffix.
            original = {"day 0/2-png.png": "day 0/2.png", "day 0/2-jpg.jpg": "day 0/2.jpg"}.get(name, name)
            found[original] = data.read_label(i)
            assert path.read_bytes() == (tmp_path / "photos" / original).read_bytes()
    for one in masks[1:12]:
        if one.name != "day 1/5.jpg":
            np.testing.assert_array_equal(found[one.name], one.mask)
    if format == "coco":  # the only one of these that tells 2.png from 2.jpg by the name alone
        np.testing.assert_array_equal(found["day 0/2.png"], masks[0].mask)
    assert check_data(f"folder:{made.path}").healthy
    counts = np.bincount(np.concatenate([label.ravel() for label in found.values()]), minlength=256)[:3]
    np.testing.assert_allclose(made.shares, counts / counts.sum())


def test_the_split_hangs_on_the_name_alone(masks: list[NamedMask], tmp_path: Path) -> None:
    labels = write("coco", masks, LEGEND, tmp_path / "labels")
    first = to_labelled_folder(labels, tmp_path / "photos", tmp_path / "a", val=0.3)
    again = to_labelled_folder(labels, tmp_path / "photos", tmp_path / "b", val=0.3, link=True)
    names = [sorted(p.relative_to(made.path) for p in made.path.rglob("*.*")) for made in (first, again)]
    assert names[0] == names[1]
    linked = next(path for path in (again.path / "train" / "images").rglob("*.jpg"))
    assert linked.is_symlink()
    assert not (tmp_path / "a" / "train" / "images" / linked.relative_to(again.path / "train" / "images")).is_symlink()
    assert set(to_labelled_folder(labels, tmp_path / "photos", tmp_path / "c", val=0).images) == {"train"}


def test_what_can_not_work_leaves_nothing_behind(masks: list[NamedMask], tmp_path: Path) -> None:
    labels = write("coco", masks, LEGEND, tmp_path / "labels")
    before = sorted(tmp_path.iterdir())
    (tmp_path / "photos" / "day 1" / "3.jpg").rename(tmp_path / "photos" / "day 1" / "moved.jpg")
    Image.new("RGB", (5, 5)).save(tmp_path / "photos" / "day 1" / "3.jpg")
    with pytest.raises(LabelError, match=r"labels of image 'day 1/3\.jpg' are of 27x20 pixels, but .* has 5x5"):
        to_labelled_folder(labels, tmp_path / "photos", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
    made = to_labelled_folder(labels, tmp_path / "photos", tmp_path / "out", leave_out=True)
    assert len(made.left_out) == 1
    with pytest.raises(ConfigError, match="exists already"):
        to_labelled_folder(labels, tmp_path / "photos", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"not 1\.5"):
        to_labelled_folder(labels, tmp_path / "photos", tmp_path / "new", val=1.5)
    (tmp_path / "others").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "others" / "x.jpg")
    with pytest.raises(LabelError, match=r"no labels for any of the images, e\.g\. day 0/2\.png"):
        to_labelled_folder(labels, tmp_path / "others", tmp_path / "new")
    with pytest.raises(DataError, match="does not exist"):
        to_labelled_folder(labels, tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_names_and_numbers_of_classes_that_a_list_can_not_hold(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (10, 1)).save(tmp_path / "photos" / "a.png")
    one = NamedMask("a.png", np.arange(10, dtype=np.uint8)[None])
    labels = write("coco", [one], odd.legend(), tmp_path / "labels")
    made = to_labelled_folder(labels, tmp_path / "photos", tmp_path / "out", val=0)
    data = open_labelled(made.path, "train")
    assert data.class_names == made.legend.names
    assert made.legend.names[:2] == ("road", "sky: blue")
    np.testing.assert_array_equal(data.read_label(0), one.mask)
    legend, many = odd.many_classes()
    with pytest.raises(LabelError, match="has 300 classes; a labelled folder with colours holds 253"):
        to_labelled_folder(write("coco", many, legend, tmp_path / "many"), tmp_path / "photos", tmp_path / "new")


def test_two_masks_of_an_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (4, 1)).save(tmp_path / "photos" / "a.png")
    for name in ("a.png", "a.png.png"):
        path = tmp_path / "labels" / "SegmentationClass" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((1, 4), np.uint8)).save(path)
    (tmp_path / "labels" / "classes.txt").write_text("a\n")
    with pytest.raises(LabelError, match=r"there are two masks for the image .*a\.png"):
        to_labelled_folder(tmp_path / "labels", tmp_path / "photos", tmp_path / "out")


def test_labels_of_another_folder_are_not_given_to_images_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "cam1").mkdir()
    for name in ("7.jpg", "8.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / "cam1" / name)
    mask = np.zeros((4, 4), np.uint8)
    both = [NamedMask("cam2/7.jpg", mask), NamedMask("cam1/8.jpg", mask)]
    written = write("coco", both, Legend.of(["road"]), tmp_path / "labels")
    made = to_labelled_folder(written, tmp_path / "cam1", tmp_path / "out", val=0)
    assert made.without_image == ("cam2/7.jpg",)
    assert [path.name for path in (tmp_path / "out" / "train" / "labels").iterdir()] == ["8.png"]


def test_each_image_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(60):
        Image.new("RGB", (2, 2)).save(tmp_path / "photos" / f"{i}.png")
    ones = [NamedMask(f"{i}.png", np.zeros((2, 2), np.uint8)) for i in range(60)]
    labels = write("coco", ones, Legend.of(["road"]), tmp_path / "labels")
    compared, equal = 0, PurePath.__eq__

    def counted(one: PurePath, other: object) -> bool:
        nonlocal compared
        compared += 1
        return equal(one, other)

    monkeypatch.setattr(PurePath, "__eq__", counted)
    to_labelled_folder(labels, tmp_path / "photos", tmp_path / "out")
    assert compared < 600, "not each with each"
