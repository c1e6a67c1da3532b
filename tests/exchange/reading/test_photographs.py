from pathlib import Path

import pytest
from PIL import Image

from selfseg.errors import ConfigError, EmptyCollection, LabelError
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.photographs import Photographs, photographs_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "monday/b.jpg", "monday/c.png", "tuesday/c.png", "tuesday/d.jpg", "e.jpg", "e.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9)).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("a", "a.jpg"),
        ("a.png", "a.jpg"),
        ("upload/7/a.jpg", "a.jpg"),
        ("monday/c.png", "monday/c.png"),
        ("data/tuesday/c", "tuesday/c.png"),
        ("monday\\c.png", "monday/c.png"),
        ("b.jpg", "monday/b.jpg"),
        ("b", "monday/b.jpg"),
        ("e.png", "e.png"),
        ("nothing.jpg", None),
        ("wednesday/b.jpg", None),
    ],
)
def test_which_image_a_name_means(name: str, found: str | None, folder: Path) -> None:
    assert Photographs(folder).told([name]).find(name) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [("c.png", "may mean monday/c.png, tuesday/c.png"), ("e", "may mean e.jpg, e.png"), ("../a.jpg", "leads out")],
)
def test_names_that_mean_none_for_certain(name: str, message: str, folder: Path) -> None:
    with pytest.raises(LabelError, match=message):
        Photographs(folder).find(name)


def test_no_images_and_those_beside_the_labels(folder: Path, tmp_path: Path) -> None:
    assert Photographs(None).find("a.jpg") is None
    assert Photographs(folder).size("a.jpg") == (9, 12)
    folder.rename(tmp_path / "images")
    beside = photographs_for(Tree.open(tmp_path), None)
    assert beside.find("a.jpg") == "a.jpg"
    with pytest.raises(ConfigError, match="in folders"):
        Photographs("shards:x.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyCollection):
        Photographs(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "bare", "found"),
    [
        ("img.edit.png", False, "img.edit.jpg"),
        ("img.edit", False, "img.edit.jpg"),
        ("img.edit", True, "img.edit.jpg"),
        ("img.b", True, None),
        ("img.b.png", False, None),
        ("img.PNG", False, "img.jpg"),
        ("img.jpg", True, "img.jpg"),
        ("scan.png", True, "scan.png.tif"),
        ("scan.png", False, "scan.png"),
        ("x.y", True, "deep/x.y.jpg"),
        ("x.y.png", False, "deep/x.y.jpg"),
        ("x", True, None),
    ],
)
def test_a_dot_in_a_name_begins_no_suffix(name: str, bare: bool, found: str | None, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for file in ("img.jpg", "img.edit.jpg", "scan.png", "scan.png.tif", "deep/x.y.jpg"):
        Image.new("RGB", (12, 9)).save(tmp_path / file)
    assert Photographs(tmp_path).find(name, bare) == found


@pytest.mark.parametrize(
    ("names", "found"),
    [
        # Of the cameras in one list only that whose folder the images lie in is meant.
        (["cam2/7.jpg", "cam1/8.jpg"], [None, "8.jpg"]),
        (["cam2/7.jpg", "cam3/8.jpg"], [None, None]),
        (["data/cam1/7.jpg", "data/cam2/8.jpg"], ["7.jpg", None]),
        # What all have in common is taken off, as much as lets most of them be found.
        (["upload/3/7.jpg", "upload/3/8.jpg"], ["7.jpg", "8.jpg"]),
        (["upload/sub/9.jpg", "upload/7.jpg"], ["sub/9.jpg", "7.jpg"]),
        (["sub/9.jpg", "sub/7.jpg"], ["sub/9.jpg", None]),
        (["7.jpg", "../8.jpg"], ["7.jpg", None]),
    ],
)
def test_folders_before_the_names_are_those_of_all(names: list[str], found: list[str | None], tmp_path: Path) -> None:
    root = tmp_path / "data" / "cam1"
    (root / "sub").mkdir(parents=True)
    for file in ("7.jpg", "8.jpg", "sub/9.jpg"):
        Image.new("RGB", (12, 9)).save(root / file)
    told = Photographs(root).told(names)
    assert [told.find(name) if ".." not in name else None for name in names] == found
