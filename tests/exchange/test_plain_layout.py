"""Labelled data of any form becomes SPLIT/images, SPLIT/labels and classes.txt."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exchange.test_any_labels import coco
from selfseg.data.labelled.catalog import open_labelled, with_options
from selfseg.errors import ConfigError, DataError, LabelError
from selfseg.exchange.plain_layout import write_plain


def test_it_is_the_same_data_in_one_form(labelled: Path, tmp_path: Path) -> None:
    path = labelled / "val" / "labels" / "scene6.png"
    Image.fromarray(np.array(Image.open(path)).repeat(2, 0).repeat(2, 1)).save(path)  # another resolution
    assert write_plain(labelled, tmp_path / "out") == {"train": 6, "val": 4}
    for split in ("train", "val"):
        ours, theirs = open_labelled(tmp_path / "out", split), open_labelled(labelled, split)
        assert (ours.class_names, ours.images.names) == (theirs.class_names, theirs.images.names)
        for i in range(len(ours)):
            np.testing.assert_array_equal(ours.read_label(i), theirs.read_label(i))
            assert ours.images.paths[i].read_bytes() == theirs.images.paths[i].read_bytes()
    with Image.open(tmp_path / "out" / "val" / "labels" / "scene6.png") as label:
        assert (label.mode, label.size) == ("P", (120, 90))


def test_other_tools_splits_and_links(labelled: Path, tmp_path: Path) -> None:
    root = coco(labelled, tmp_path / "coco", by_split=True)
    assert write_plain(root, tmp_path / "out", link=True) == {"train": 6, "val": 4}
    image = tmp_path / "out" / "val" / "images" / "scene6.jpg"
    assert image.is_symlink()
    assert image.resolve() == (root / "images" / "scene6.jpg").resolve()
    assert write_plain(with_options(root, val=10), tmp_path / "val", ["val"]) == {"val": 4}


def test_it_appears_whole_or_not_at_all(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    Image.fromarray(np.full((90, 120), 9, np.uint8)).save(labelled / "val" / "labels" / "scene7.png")
    with pytest.raises(LabelError, match="holds the value 9"):
        write_plain(labelled, out)
    assert list(out.parent.iterdir()) == []
    out.mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        write_plain(labelled, out)
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", labelled)
    with pytest.raises(ConfigError, match="can't be linked"):
        write_plain(archive, tmp_path / "linked", link=True)


def test_images_without_labels_are_nothing_to_write(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labels that are understood"):
        write_plain(photos, tmp_path / "out")
