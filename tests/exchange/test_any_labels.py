"""Zips, and other tools' labels, opened as labelled data."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.data.labelled.catalog import open_labelled, parse_source, with_options
from selfseg.data.labelled.legend import Legend
from selfseg.errors import DataError, LabelError
from selfseg.exchange import NamedMask, write
from selfseg.exchange.any_labels import drawn_labels, open_labels, splits_of_labels

LEGEND = Legend.of(["sky", "ground", "ball", "house"])


def coco(labelled: Path, out: Path, by_split: bool = False) -> Path:
    """The labelled folder as COCO JSON with one folder of images; a file for each split, or one for all."""
    masks = []
    for split in ("train", "val"):
        data = open_labelled(labelled, split)
        ours = [NamedMask(f"{n}.jpg", data.read_label(i)) for i, n in enumerate(data.images.names)]
        shutil.copytree(labelled / split / "images", out / "images", dirs_exist_ok=True)
        if by_split:
            write("coco", ours, LEGEND, out / "work")
            (out / "annotations").mkdir(exist_ok=True)
            found = next((out / "work").rglob("annotations.json"))
            found.rename(out / "annotations" / f"instances_{split}2017.json")
            shutil.rmtree(out / "work")
        masks += ours
    if not by_split:
        write("coco", masks, LEGEND, out / "work")
        next((out / "work").rglob("annotations.json")).rename(out / "labels.json")
        shutil.rmtree(out / "work")
    return out


def same(data: object, labelled: Path, split: str) -> None:
    ours, theirs = data, open_labelled(labelled, split)
    assert ours.class_names == theirs.class_names  # type: ignore[attr-defined]
    assert ours.images.names == theirs.images.names  # type: ignore[attr-defined]
    for i in range(len(theirs)):
        np.testing.assert_array_equal(ours.read_label(i), theirs.read_label(i))  # type: ignore[attr-defined]


def test_names_of_files_tell_the_split(labelled: Path, tmp_path: Path) -> None:
    root = coco(labelled, tmp_path / "coco", by_split=True)
    assert splits_of_labels(parse_source(root)) == ("train", "val")
    for split in ("train", "val"):
        same(open_labels(root, split), labelled, split)
    data = open_labels(root, "validation")
    assert (data.root, data.name) == (root, "coco")
    with pytest.raises(DataError, match=r"no split 'test' in .*; there is train, val \(labels as COCO JSON\)"):
        open_labels(root, "test")


def test_without_splits_all_is_one_or_a_share_is_drawn(labelled: Path, tmp_path: Path) -> None:
    root = coco(labelled, tmp_path / "coco")
    assert splits_of_labels(parse_source(root)) == ("all",)
    assert len(open_labels(root, "all")) == 10
    assert len(open_labels(root / "labels.json", "all")) == 10
    word = with_options(root, val=30)
    assert len(open_labels(word, "val")) + len(open_labels(word, "train")) == 10
    with pytest.raises(DataError, match="--val 20 draws"):
        open_labels(root, "val")


def test_labels_drawn_again_are_the_same_version(labelled: Path, tmp_path: Path) -> None:
    root = coco(labelled, tmp_path / "coco")
    source = parse_source(root)
    first, again = drawn_labels(source), drawn_labels(source)
    assert first is not None
    assert first is again
    value = json.loads((root / "labels.json").read_text())
    value["categories"][0]["name"] = "heaven"
    (root / "labels.json").write_text(json.dumps(value))
    changed = drawn_labels(source)
    assert changed is not None
    assert changed.legend.names[0] == "heaven"  # not from what was drawn before
    assert first.labels[0].stat().st_mtime_ns != changed.labels[0].stat().st_mtime_ns
    assert changed.labels[0].stat().st_mtime_ns == max(p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file())


def test_what_cannot_be_used_is_an_error_or_left_out(labelled: Path, tmp_path: Path) -> None:
    root = coco(labelled, tmp_path / "coco")
    value = json.loads((root / "labels.json").read_text())
    value["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]
    (root / "images" / "scene9.jpg").unlink()
    (root / "labels.json").write_text(json.dumps(value))
    with pytest.raises(LabelError, match=r"annotation .*selfseg data .*coco --write OUT --leave-out"):
        open_labels(root, "all")
    assert len(open_labels(root, "all", leave_out=True)) == 9
    drawn = drawn_labels(parse_source(root))
    assert drawn is not None
    assert drawn.not_taken() == ("1 names in the labels are no image's: scene9.jpg",)
    assert len(drawn.left_out) == 1


def test_a_zip_of_labelled_data_is_unpacked(labelled: Path, tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "set"), "zip", labelled.parent, labelled.name))
    assert splits_of_labels(parse_source(path)) == ("train", "val")
    data = open_labels(path, "val")
    same(data, labelled, "val")
    assert (data.root, data.name) == (path, "set.zip")
    root = coco(labelled, tmp_path / "coco")
    other = Path(shutil.make_archive(str(tmp_path / "other"), "zip", root))
    assert len(open_labels(other, "all")) == 10


def test_zips_that_lead_out_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../a.png", b"x")
    with pytest.raises(DataError, match="leads out of it"):
        open_labels(tmp_path / "a.zip", "val")


def test_boxes_of_voc_are_no_labels_of_pixels(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text("<annotation><object><name>x</name></object></annotation>")
    with pytest.raises(LabelError, match=r"VOC's XML, which holds boxes .* SegmentationClass"):
        open_labels(tmp_path, "val")
    assert splits_of_labels(parse_source(tmp_path)) == ()


def test_folders_of_images_have_no_splits(photos: Path) -> None:
    (photos / "settings.yaml").write_text("a: 1\n")
    assert splits_of_labels(parse_source(photos)) == ()
