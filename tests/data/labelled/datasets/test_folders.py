"""How the values of labels in folders of one's own become classes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.data.labelled.catalog import open_labelled, parse_source, splits_in, with_options
from selfseg.data.labelled.datasets.folders import find_in_folder
from selfseg.errors import ConfigError, DataError, LabelError


def saved(root: Path, values: object, name: str = "a") -> Path:
    """ROOT/images/NAME.jpg and ROOT/masks/NAME_mask.png."""
    label = np.asarray(values)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", label.shape[1::-1]).save(root / "images" / f"{name}.jpg")
    Image.fromarray(label).save(root / "masks" / f"{name}_mask.png")
    return root


def test_0_and_255_are_background_and_foreground(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path, np.array([[0] * 6 + [255] * 6] * 9, np.uint8))
    with caplog.at_level(logging.INFO, "selfseg.told"):
        data = open_labelled(tmp_path, "all")
    assert data.class_names == ("background", "foreground")
    assert data.read_label(0)[0].tolist() == [0] * 6 + [1] * 6
    assert "0 and 255 were understood as background and foreground" in caplog.text
    assert "1 image in images/, 1 label in masks/, whose names end with _mask" in caplog.text
    (tmp_path / "classes.txt").write_text("0 thing\n255 void\n")  # said: 255 is void
    assert open_labelled(tmp_path, "all").read_label(0)[0].tolist() == [0] * 6 + [255] * 6


def test_0_and_255_with_names_are_asked_for(tmp_path: Path) -> None:
    """All foreground would be void, the one class that is left always right, and mIoU 1.0."""
    saved(tmp_path, np.array([[0] * 6 + [255] * 6] * 9, np.uint8))
    (tmp_path / "classes.txt").write_text("background\nroad\n")
    with pytest.raises(LabelError, match=r"nothing but 0 and 255.*'1 road #ffffff'"):
        open_labelled(tmp_path, "all")
    (tmp_path / "classes.txt").write_text("0 background #000000\n1 road #ffffff\n")
    assert open_labelled(tmp_path, "all").read_label(0)[0].tolist() == [0] * 6 + [1] * 6
    (tmp_path / "classes.txt").write_text("background\nroad\n")
    saved(tmp_path, np.array([[0] * 6 + [1] * 6] * 9, np.uint8), "b")  # one label of indices tells what they are
    assert open_labelled(tmp_path, "all").read_label(0)[0].tolist() == [0] * 6 + [255] * 6


def test_three_equal_channels_and_another_size(tmp_path: Path) -> None:
    saved(tmp_path, np.array([[[1] * 3] * 6 + [[0] * 3] * 6] * 9, np.uint8))
    Image.new("RGB", (24, 18)).save(tmp_path / "images" / "a.jpg")
    label = open_labelled(tmp_path, "all").read_label(0)
    assert label.shape == (18, 24)
    assert label[0].tolist() == [1] * 12 + [0] * 12


def test_large_values_are_a_class_each(tmp_path: Path) -> None:
    saved(tmp_path, np.array([[7, 1000, 65535] * 4] * 9, np.uint16))
    data = open_labelled(tmp_path, "all")
    assert data.class_names == ("value 7", "value 1000")
    assert data.read_label(0)[0, :3].tolist() == [0, 1, 255]
    saved(tmp_path, np.arange(400, dtype=np.uint16).reshape(20, 20), "b")
    with pytest.raises(LabelError, match="ids of objects"):
        open_labelled(tmp_path, "all")


def test_what_is_said_on_the_meaning(tmp_path: Path) -> None:
    saved(tmp_path, np.array([[0, 2, 1]] * 9, np.uint8))
    note = find_in_folder(tmp_path, "all").notes[2]
    assert note == "the values are indices of 3 classes, which no classes.txt names"
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert find_in_folder(tmp_path, "all").notes[2] == "the values are indices of classes.txt's 3 classes"
    (tmp_path / "classes.txt").write_text("a #000000\nb #010101\nc #020202\n")
    assert "3 classes by the colours or indices" in find_in_folder(tmp_path, "all").notes[2]


def test_options_stand_behind_the_folder(tmp_path: Path) -> None:
    for name in "abcde":
        saved(tmp_path, np.zeros((9, 12), np.uint8), name)
        Image.new("L", (12, 9), 1).save(tmp_path / "masks" / f"{name}_other.png")
    word = with_options(tmp_path, "_mask", 40)
    assert splits_in(parse_source(word)) == ("train", "val")
    assert len(open_labelled(word, "val")) + len(open_labelled(word, "train")) == 5
    assert open_labelled(with_options(tmp_path, "_other"), "all").read_label(0).max() == 1
    with pytest.raises(ConfigError, match="val must be a percentage"):
        parse_source(f"{tmp_path}?val=many")
    with pytest.raises(ConfigError, match="only works for a folder of your own"):
        parse_source(f"voc:{tmp_path}?val=20")
    with pytest.raises(ConfigError, match="such as _mask"):
        with_options(tmp_path, "a&b")


def test_a_folder_that_is_laid_out_in_no_known_way(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'val' in .*; there is no folder; a labelled folder holds"):
        open_labelled(tmp_path, "val")
