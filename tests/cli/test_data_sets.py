"""`selfseg data`: it tells, checks, draws and writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.test_any_labels import coco
from selfseg.cli import main
from selfseg.data.labelled.catalog import open_labelled


def test_data_of_ones_own_is_understood_and_written(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    coco(labelled, tmp_path / "coco")
    assert main(["data", "coco", "--val", "30", "--write", "plain"]) == 0
    out = capsys.readouterr().out
    assert "understood as: labels as COCO JSON" in out
    assert "written: coco-check.png" in out
    assert "written: plain, with" in out
    assert len(open_labelled("plain", "train")) + len(open_labelled("plain", "val")) == 10
    assert main(["data", "plain", "--sheet", "sheet.png"]) == 0
    assert main(["data", "coco", "--write", "plain"]) == 2
    assert "plain exists already; give --write a new folder" in capsys.readouterr().err
    assert not (tmp_path / "all-check.png").exists()


def test_a_suffix_is_asked_for_where_several_fit(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for label in list((labelled / split / "labels").iterdir()):
            for ending in ("_a", "_b"):
                label.with_stem(label.stem + ending).write_bytes(label.read_bytes())
            label.unlink()
    assert main(["data", str(labelled)]) == 3
    assert "--label-suffix _a" in capsys.readouterr().err
    assert main(["data", str(labelled), "--label-suffix", "_b"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 images in val/images/, 4 labels in val/labels/, whose names end with _b" in out
    assert "left out: 10 labels have no image" in out


def test_nothing_is_written_among_the_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture of `cd photos; selfseg data .` was an image of the folder the next time."""
    monkeypatch.chdir(photos)
    before = sorted(photos.iterdir())
    assert main(["data", "."]) == 0
    assert (tmp_path / "photos-check.png").exists()
    assert main(["data", ".", "--sheet", "photo1.jpg"]) == 2
    assert "photo1.jpg would lie among the images" in " ".join(capsys.readouterr().err.split())
    assert sorted(photos.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--count -1", "--count"),
        ("--sheet list.txt", "whose name ends with .png"),
        ("--link", "--link only works together with --write"),
        ("--splits foo", "has no splits"),
        ("--pages foo", "--pages must be one of"),
        ("--channels \N{SUPERSCRIPT TWO}", "there is no channel"),
    ],
)
def test_what_would_be_ignored_or_fail_later_is_refused(
    photos: Path,
    tmp_path: Path,
    words: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "photos", *words.split()]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
