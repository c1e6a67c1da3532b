"""What was made of images that are gone doesn't lie beside what was made of those that are there."""

import logging
from pathlib import Path

import pytest

from selfseg.storage.outputs.left_over import remove_left_over


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    for name in ("photos/a.jpg", "photos/b.jpg", "other/c.jpg", "out/a.png", "out/b.png", "out/c.png", "out/gone.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def left(folder: Path, earlier: dict[str, str], here: list[str]) -> tuple[list[str], list[str]]:
    lines = [(name, {"image": str(folder / image)} if image else {}) for name, image in earlier.items()]
    gone = remove_left_over(
        folder / "out", lines, [folder / path for path in here], lambda name: [folder / "out" / f"{name}.png"]
    )
    return gone, sorted(path.stem for path in (folder / "out").iterdir())


def test_what_was_made_of_a_removed_image_goes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert left(folder, {"gone": "photos/gone.jpg"}, ["photos/a.jpg"]) == (["gone"], ["a", "b", "c"])
    assert "what was made earlier of 1 image (gone) was removed, because the images are gone" in caplog.text


def test_one_that_has_another_name_now_goes_under_its_old_one(folder: Path) -> None:
    """A second image took the name "a", so that both have their suffixes."""
    assert left(folder, {"a": "photos/a.jpg"}, ["photos/a.jpg"])[0] == ["a"]


@pytest.mark.parametrize("image", ["photos/b.jpg", "other/c.jpg", "away/c.jpg", ""])
def test_nothing_else_goes_but_it_is_told(folder: Path, caplog: pytest.LogCaptureFixture, image: str) -> None:
    """It is there and wasn't given; or its folder isn't that of these images, or is away; or nobody knows."""
    caplog.set_level(logging.INFO)
    assert left(folder, {"c": image}, ["photos/a.jpg"]) == ([], ["a", "b", "c", "gone"])
    assert "still holds what was made earlier of 1 other image (c), not given this time" in caplog.text


def test_what_is_not_there_is_not_told_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert left(folder, {"d": "photos/d.jpg"}, ["photos/a.jpg"])[0] == []
    assert not caplog.text
