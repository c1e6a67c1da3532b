from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from exchange import odd_masks
from exchange.reading_back import of_yolo
from selfseg.data.labelled.legend import Legend
from selfseg.exchange.base import NamedMask, write
from selfseg.exchange.writing.names import FileNames

pytest.importorskip("pycocotools")


def test_every_mask_comes_back(tmp_path: Path) -> None:
    masks, legend, names = list(odd_masks.named()), odd_masks.legend(), FileNames(".txt")
    out = write("yolo", masks, legend, tmp_path / "out")
    for one in masks:
        file = out / "labels" / f"{names.place(one.name)}.txt"
        assert np.array_equal(of_yolo(file, one.size, legend), one.mask), one.name


def test_classes_are_numbered_from_0(tmp_path: Path) -> None:
    legend = Legend.of(["yes", "1: one", "line\nend"])
    out = write("yolo", [NamedMask("x.jpg", np.array([[2, 255]], np.uint8))], legend, tmp_path / "out")
    value = yaml.safe_load((out / "data.yaml").read_text("utf-8"))
    assert value == {"train": "images", "val": "images", "names": {0: "yes", 1: "1: one", 2: "line end"}}
    assert (out / "labels" / "x.txt").read_text().startswith("2 ")


def test_void_only_is_an_empty_file(tmp_path: Path) -> None:
    out = write("yolo", [NamedMask("x.jpg", np.full((2, 2), 255, np.uint8))], Legend.of(["a"]), tmp_path / "out")
    assert (out / "labels" / "x.txt").read_bytes() == b""


@pytest.mark.parametrize("side", [7, 1000, 40_000])
def test_trainers_draw_the_same_pixels(tmp_path: Path, side: int) -> None:
    """As they do: shares in 32 bits, times the size, fractions cut off, drawn with the edge."""
    mask = np.full((4, side), 255, np.uint8)
    mask[0, side - 3], mask[2:, side // 3 : side - 1] = 0, 0
    out = write("yolo", [NamedMask("x.jpg", mask)], Legend.of(["a"]), tmp_path / "out")
    drawn = np.zeros(mask.shape, np.uint8)
    for line in (out / "labels" / "x.txt").read_text().splitlines():
        ring = np.array(line.split()[1:], np.float32).reshape(-1, 2) * np.array([side, 4], np.float32)
        cv2.fillPoly(drawn, [ring.astype(np.int32)], 1)
    assert ((drawn == 1) == (mask == 0)).all()
