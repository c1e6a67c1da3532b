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
    assert Photographs(folder).find(name) == found


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
