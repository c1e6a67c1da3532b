import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.data.labelled.catalog import open_labelled
from selfseg.errors import ConfigError, LabelError, RecipeMismatch, RunError
from selfseg.evaluation.baselines import trivial_extractors
from selfseg.evaluation.contents import check_labels, contents_of, images_in_both
from selfseg.evaluation.evaluator import evaluate_extractors
from selfseg.evaluation.protocols.linear import Linear
from selfseg.evaluation.protocols.segmentation import SegmentationConfig, open_splits
from selfseg.evaluation.sheet import EvaluationConfig
from selfseg.evaluation.sources import own_job


def test_copies_of_images_in_both_splits_are_told(labelled: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train, val = open_labelled(labelled, "train"), open_labelled(labelled, "val")
    assert images_in_both(train, val) == {}
    shutil.copy(train.images.paths[0], val.images.paths[1])
    shutil.copy(train.images.paths[3], val.images.paths[2])
    other = bytearray(train.images.paths[4].read_bytes())
    other[-3] ^= 1  # of the same length, with the same beginning
    val.images.paths[3].write_bytes(bytes(other))
    assert images_in_both(train, val) == {"images_in_both": 2}
    assert "2 of the 4 images of 'val' are in 'train' too (scene7 = scene0, scene8 = scene3)" in caplog.text


def test_results_of_what_has_learned_from_labels_say_so(labelled: Path) -> None:
    train, val = open_labelled(labelled, "train"), open_labelled(labelled, "val")
    shutil.copy(train.images.paths[0], val.images.paths[1])
    config = EvaluationConfig((Linear(solver="lbfgs"),), 1)
    results = evaluate_extractors(trivial_extractors(64)[:1], train, val, config)
    linear = next(result for result in results if result.protocol == "linear")
    assert "images of labelled val that are in train too, which was learned from: 1" in linear.doubt


def test_networks_are_not_measured_on_images_that_they_learn_from(labelled: Path, tmp_path: Path) -> None:
    voc = tmp_path / "voc"
    shutil.copytree(labelled / "train" / "images", voc / "JPEGImages")
    shutil.copytree(labelled / "train" / "labels", voc / "SegmentationClass")
    shutil.copy(labelled / "classes.txt", voc)
    lists = voc / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("scene0\nscene1\n")
    (lists / "val.txt").write_text("scene1\nscene2\n")
    with pytest.raises(ConfigError, match="which has images of it"):
        open_splits(voc, SegmentationConfig())
    (lists / "val.txt").write_text("scene2\nscene3\n")
    assert [len(split) for split in open_splits(voc, SegmentationConfig())] == [2, 2]


def test_an_edited_label_is_other_data(labelled: Path, tmp_path: Path) -> None:
    splits = [open_labelled(labelled, split) for split in ("train", "val")]
    before = contents_of(splits)
    copied = shutil.copytree(labelled, tmp_path / "copied")
    assert contents_of([open_labelled(copied, split) for split in ("train", "val")]) == before, "wherever it lies"
    out = tmp_path / "out"
    with own_job(out, {"kind": "segmentation", "files": before}):
        pass
    (out / "checkpoints" / "step_00000001").mkdir(parents=True)
    label = np.array(Image.open(splits[0].labels[0]))
    label[40, 40] ^= 1
    Image.fromarray(label).save(splits[0].labels[0])
    after = contents_of(splits)
    with pytest.raises(RecipeMismatch, match="files: "):
        with own_job(out, {"kind": "segmentation", "files": after}):
            pass
    (out / "transfer.json").write_text('{"kind": "segmentation"}')  # of a version that didn't note it
    with own_job(out, {"kind": "segmentation", "files": after}):
        pass


def test_labels_are_read_before_a_network_is_trained(labelled: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train, val = open_labelled(labelled, "train"), open_labelled(labelled, "val")
    check_labels(train, val)
    assert caplog.text == ""
    for label in train.labels:
        values = np.array(Image.open(label))
        Image.fromarray(np.where(values == 0, 255, values).astype(np.uint8)).save(label)
    check_labels(train, val)
    assert f"no label of 'train' has {train.class_names[0]}" in caplog.text
    val.labels[-1].write_bytes(b"no picture")
    with pytest.raises(LabelError, match="can't read the label"):
        check_labels(train, val)
    for label in train.labels:
        Image.fromarray(np.full_like(np.array(Image.open(label)), 255)).save(label)
    with pytest.raises(LabelError, match="all are void"):
        check_labels(train, val)


def test_colours_that_mean_something_else_are_other_data(labelled: Path) -> None:
    (labelled / "classes.txt").write_text("0 a #000000\n1 b #111111\n2 c #222222\n3 d #333333\n")
    before = contents_of([open_labelled(labelled, "train")])
    (labelled / "classes.txt").write_text("0 a #111111\n1 b #000000\n2 c #222222\n3 d #333333\n")
    assert contents_of([open_labelled(labelled, "train")]) != before


def test_a_job_that_is_at_work_keeps_its_settings(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        own_job(out, {"steps": 4}),
        pytest.raises(RunError, match="another process is at work"),
        own_job(out, {"steps": 9}),
    ):
        pass
    assert json.loads((out / "transfer.json").read_text()) == {"steps": 4}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    with pytest.raises(RunError, match="no transfer of selfseg"), own_job(tmp_path / "mine", {"steps": 4}):
        pass
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["photo.jpg"]
