import json
from pathlib import Path

import numpy as np
from PIL import Image

from exchange import odd_masks
from selfseg.data.labelled.datasets.folders import FOLDER
from selfseg.data.labelled.labels import read_label_file
from selfseg.data.labelled.legend import Legend
from selfseg.exchange.base import NamedMask, write
from selfseg.exchange.writing.names import FileNames


def test_every_mask_comes_back(tmp_path: Path) -> None:
    masks = list(odd_masks.named())
    out, names = write("palette", masks, odd_masks.legend(), tmp_path / "out"), FileNames(".png")
    listed = (out / "ImageSets" / "Segmentation" / "default.txt").read_text("utf-8").splitlines()
    for one, line in zip(masks, listed, strict=True):
        assert line == names.place(one.name)
        with Image.open(out / "SegmentationClass" / f"{line}.png") as picture:
            assert picture.mode == "P"
            assert np.array_equal(np.asarray(picture), one.mask)
    assert json.loads((out / "renamed.json").read_text()) == names.renamed


def test_colours_are_the_legends_and_void_is_black(tmp_path: Path) -> None:
    legend = Legend.of(["a", "b"], {"b": (1, 2, 3)})
    out = write("palette", [NamedMask("x", np.array([[0, 1, 255]], np.uint8))], legend, tmp_path / "out")
    with Image.open(out / "SegmentationClass" / "x.png") as picture:
        colours = np.asarray(picture.convert("RGB"))[0].tolist()
    assert colours == [list(legend.classes[0].colour), [1, 2, 3], [0, 0, 0]]
    lines = (out / "labelmap.txt").read_text().splitlines()
    assert lines == ["# label:color_rgb:parts:actions", "a:0,114,178::", "b:1,2,3::"]
    told = json.loads((out / "legend.json").read_text())
    assert told["void"] == 255
    assert Legend.from_json(told["classes"]) == legend


def test_more_than_255_classes_are_gray_of_16_bits(tmp_path: Path) -> None:
    legend, masks = odd_masks.many_classes()
    out = write("palette", masks, legend, tmp_path / "out")
    for one in masks:
        with Image.open(out / "SegmentationClass" / one.name) as picture:
            assert picture.mode == "I;16"
            assert np.array_equal(np.asarray(picture), one.mask)


def test_255_classes_fill_the_palette(tmp_path: Path) -> None:
    legend = Legend.of([f"{i}" for i in range(255)])
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    out = write("palette", [NamedMask("x.png", mask)], legend, tmp_path / "out")
    assert np.array_equal(read_label_file(out / "SegmentationClass" / "x.png"), mask)
    colours = {line.split(":")[1] for line in (out / "labelmap.txt").read_text().splitlines()[1:]}
    assert len(colours) == 255


def test_it_makes_a_labelled_folder(tmp_path: Path) -> None:
    photograph = tmp_path / "x.png"
    Image.new("RGB", (10, 9)).save(photograph)
    mask = np.full((9, 10), 1, np.uint8)
    legend = Legend.of(["5 o'clock", "line\nend"])
    out = write("palette", [NamedMask("x.png", mask, photograph)], legend, tmp_path / "out", images=True)
    (tmp_path / "data" / "train").mkdir(parents=True)
    (out / "classes.txt").rename(tmp_path / "data" / "classes.txt")
    (out / "JPEGImages").rename(tmp_path / "data" / "train" / "images")
    (out / "SegmentationClass").rename(tmp_path / "data" / "train" / "labels")
    files = FOLDER.find(tmp_path / "data", "train")
    assert files.codes.classes == ("5 o'clock", "line end")
