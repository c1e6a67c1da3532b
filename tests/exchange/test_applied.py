"""Masks that `apply` wrote become the files of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from selfseg.cli.segmenters import FormatName
from selfseg.data.labelled.legend import Legend
from selfseg.errors import LabelError
from selfseg.exchange import FORMATS, read, write_applied
from selfseg.telling import TOLD

LEGEND = Legend.of(["road", "sky"])


@pytest.fixture
def applied(tmp_path: Path) -> Path:
    """Photographs a.jpg and b/a.png, and a folder with their masks."""
    folder = tmp_path / "out"
    for number, name in enumerate(("a.jpg", "b/a.png")):
        photo, mask = tmp_path / "photos" / name, folder / "masks" / f"{name[:-4]}.png"
        for file in (photo, mask):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 12, 3), 40 * number, np.uint8)).save(photo)
        values = np.full((9, 12), 255, np.uint8)
        values[:4], values[6:, :5] = 1, number
        Image.fromarray(values).save(mask)
    (folder / "legend.json").write_text(json.dumps({"classes": LEGEND.to_json()}), "utf-8")
    return folder


def test_masks_come_back_from_what_was_written(applied: Path) -> None:
    photos = applied.parent / "photos"
    made = write_applied(["coco", "yolo"], applied, photos)
    assert made == {"coco": applied / "formats" / "coco", "yolo": applied / "formats" / "yolo"}
    for name, written in made.items():
        legend, masks = read(name, written, images=photos)
        assert legend.names == LEGEND.names
        found = {one.name: one.mask for one in masks}
        assert set(found) == {"a.jpg", "b/a.png"}
        for image, mask in found.items():
            expected = np.asarray(Image.open(applied / "masks" / f"{image[:-4]}.png"))
            np.testing.assert_array_equal(mask, expected)
    assert write_applied(["coco"], applied, photos, shapes="polygons")["coco"].is_dir()  # replaces the former


def test_masks_of_rasters_are_told(applied: Path, caplog: pytest.LogCaptureFixture) -> None:
    (applied / "masks" / "c.tif").write_bytes(b"")
    with caplog.at_level("INFO", TOLD.name):
        write_applied(["coco"], applied, applied.parent / "photos")
    assert "1 mask of rasters, e.g. " in caplog.text


@pytest.mark.parametrize(
    ("gone", "sentence"), [("legend.json", "no legend of masks"), ("masks", "no mask that is a PNG")]
)
def test_a_folder_that_apply_did_not_write(applied: Path, gone: str, sentence: str) -> None:
    (applied / gone).rename(applied / "elsewhere")
    with pytest.raises(LabelError, match=sentence):
        write_applied(["coco"], applied, applied.parent / "photos")


def test_the_command_line_knows_every_format() -> None:
    assert set(get_args(FormatName)) == set(FORMATS)


def test_a_damaged_mask_is_told(applied: Path) -> None:
    (applied / "masks" / "a.png").write_bytes(b"no PNG")
    with pytest.raises(LabelError, match=r"a\.png can't be read"):
        write_applied(["coco"], applied, applied.parent / "photos")
