from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.errors import DataError, LabelError
from selfseg.exchange import read

NAMES = "names:\n  0: road\n  1: sky\n"
HALF = "0 0 0 0.5 0 0.5 1 0 1\n"


def written(tmp_path: Path, text: str, names: str = NAMES) -> Path:
    for folder in ("labels/train", "images/train"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text(text)
    (tmp_path / "data.yaml").write_text(names)
    Image.new("RGB", (6, 2)).save(tmp_path / "images" / "train" / "a.png")
    return tmp_path


def test_polygons_with_the_smaller_one_on_top(tmp_path: Path) -> None:
    path = written(tmp_path, "1 0 0 0.17 0 0.17 0.5 0 .5\n\n" + HALF)
    for names in (NAMES, "names: [road, sky]\ntrain: images"):
        legend, masks = read("auto", written(tmp_path, (path / "labels/train/a.txt").read_text(), names))
        assert legend.names == ("road", "sky")
        (one,) = masks
        assert (one.name, one.image) == ("train/a.png", tmp_path / "images" / "train" / "a.png")
        np.testing.assert_array_equal(one.mask, [[1, 0, 0, 255, 255, 255], [0, 0, 0, 255, 255, 255]])


def test_an_image_without_objects_is_void(tmp_path: Path) -> None:
    (one,) = read("yolo", written(tmp_path, ""))[1]
    assert (one.mask == 255).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .5 .5 .2 .2", "is a box, which has no outline"),
        ("0 .5 .5 .2", "3 numbers"),
        ("0", "0 points"),
        ("2 0 0 1 0 1 1", "there is no class 2 among 2"),
        ("-1 0 0 1 0 1 1", "there is no class -1 among 2"),
        ("road 0 0 1 0 1 1", "a line is a class's number and x, y"),
        ("0 0 0 1 x 1 1", "a line is a class's number and x, y"),
        ("0 0 0 1 nan 1 1", "not a finite number"),
        ("0 0 0 640 0 640 480", "lies far outside"),
    ],
)
def test_lines_that_can_not_be_used(line: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{HALF}{line}\n")
    with pytest.raises(LabelError, match=rf"a\.txt: line 2: .*{message}"):
        list(read("yolo", path)[1])
    left_out: list[str] = []
    (one,) = read("yolo", path, left_out=left_out)[1]
    assert (one.mask[:, :3] == 0).all()
    assert len(left_out) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: {0: a, 2: b}", "does not name class 1"),
        ("names: 3", "has no names"),
        ("names: [[a], b]", "has no names"),
        ("- a", "has no names"),
        ("names: [a, a]", "two classes are called 'a'"),
        ("names: !!python/object:os.system [x]", "as YAML"),
        ("names: [", "as YAML"),
    ],
)
def test_names_that_are_none(names: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"data\.yaml.*{message}|{message}"):
        read("yolo", written(tmp_path, HALF, names))


def test_names_in_a_text_and_images_that_are_not_there(tmp_path: Path) -> None:
    path = written(tmp_path, HALF)
    (path / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"neither data\.yaml nor classes\.txt"):
        read("yolo", path)
    (path / "classes.txt").write_text("road\nsky\n")
    assert read("yolo", path)[0].names == ("road", "sky")
    (path / "images" / "train" / "a.png").rename(path / "images" / "train" / "b.png")
    with pytest.raises(LabelError, match=r"a\.txt: the size of image 'train/a' isn't known"):
        list(read("yolo", path)[1])
    (path / "images").rename(path / "pictures")
    with pytest.raises(LabelError, match="the images are needed; give them"):
        read("yolo", path)


def test_words_that_mean_truth_in_yaml_are_names(tmp_path: Path) -> None:
    assert read("yolo", written(tmp_path, HALF, "names: [no, yes, 7]"))[0].names == ("no", "yes", "7")
    (tmp_path / "data.yaml").write_text("names: {0: person, 1: off}")
    assert read("yolo", tmp_path)[0].names == ("person", "off")


def test_photographs_of_all_splits_may_lie_in_one_folder(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / f"{name}.txt").write_text("0 0 0 1 0 1 1\n")
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / f"{name}.jpg")
    (tmp_path / "data.yaml").write_text("names: [road]")
    assert [one.name for one in read("yolo", tmp_path, images=tmp_path / "photos")[1]] == ["a.jpg", "b.jpg"]
