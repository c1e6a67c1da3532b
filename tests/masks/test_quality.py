from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from selfseg.data.labelled.catalog import open_labelled
from selfseg.errors import ConfigError, DataError
from selfseg.masks.quality import MaskQuality, measure_maps


def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = np.zeros((20, 30), bool)
    truth[5:15, 8 : 12 + 2 * seed] = True
    return np.clip(truth * 0.5 + random.random(truth.shape) * 0.6, 0, 1).astype(np.float32), truth


@pytest.mark.slow
def test_the_measures_are_sklearns_image_by_image() -> None:
    quality, curves, errors, overlaps, adaptive = MaskQuality(), [], [], [], []
    for seed in range(4):
        saliency, truth = example(seed)
        quality.add(saliency, truth)
        level = np.rint(saliency * 255) / 255
        points = []
        for t in range(256):
            found = (level >= t / 255 - 1e-9).ravel()
            points.append(
                metrics.precision_recall_fscore_support(truth.ravel(), found, average="binary", zero_division=0)[:2]
            )
        curves.append(points)
        errors.append(metrics.mean_absolute_error(truth.ravel(), level.ravel()))
        overlaps.append(metrics.jaccard_score(truth.ravel(), (level >= 0.5).ravel()))
        cut = min(2 * level.mean(), 1)
        adaptive.append(metrics.fbeta_score(truth.ravel(), (level >= cut).ravel(), beta=0.3**0.5))
    precision, recall = np.mean(curves, 0).T
    f = 1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-12)
    scores = quality.scores()
    assert scores.f_max == pytest.approx(f.max(), rel=1e-9)
    assert scores.f_max_at == pytest.approx(f.argmax() / 255)
    assert scores.mae == pytest.approx(np.mean(errors), rel=1e-6)
    assert scores.iou == pytest.approx(np.mean(overlaps), rel=1e-9)
    assert scores.f_adaptive == pytest.approx(np.mean(adaptive), rel=1e-9)
    assert (scores.images, scores.without_object) == (4, 0)


def test_a_perfect_map_and_its_opposite() -> None:
    _, truth = example(0)
    quality = MaskQuality()
    quality.add(truth.astype(np.float32), truth)
    assert quality.scores().as_dict() == pytest.approx(
        {"f_max": 1, "f_max_at": 1 / 255, "f_adaptive": 1, "mae": 0, "iou": 1, "images": 1, "without_object": 0}
    )
    quality = MaskQuality()
    quality.add(1 - truth.astype(np.float32), truth)
    assert (quality.scores().mae, quality.scores().iou, quality.scores().f_adaptive) == (1, 0, 0)
    quality = MaskQuality()
    quality.add(np.zeros(truth.shape), truth)  # nothing found: no division by zero
    assert quality.scores().iou == 0


def test_void_pixels_and_images_without_object_count_where_they_should() -> None:
    saliency, truth = example(0)
    valid = np.ones(truth.shape, bool)
    valid[:, 20:] = False
    one, other = MaskQuality(), MaskQuality()
    one.add(saliency, truth, valid)
    other.add(saliency[:, :20], truth[:, :20])
    assert one.scores() == other.scores()
    one.add(np.full(truth.shape, 0.5), np.zeros(truth.shape, bool))
    scores = one.scores()
    assert (scores.images, scores.without_object) == (2, 1)
    assert scores.iou == other.scores().iou
    assert scores.mae > other.scores().mae


def test_what_can_not_be_measured_is_refused() -> None:
    quality = MaskQuality()
    with pytest.raises(ConfigError, match=r"\(2, 2\) can't be compared with a mask of size \(2, 3\)"):
        quality.add(np.zeros((2, 2)), np.zeros((2, 3), bool))
    with pytest.raises(ConfigError, match="no pixel"):
        quality.add(np.zeros((2, 2)), np.zeros((2, 2), bool), np.zeros((2, 2), bool))
    with pytest.raises(DataError, match="none of the 0"):
        quality.scores()
    with pytest.raises(ConfigError, match="threshold must be above 0"):
        MaskQuality(0)


def test_a_folder_of_maps(labelled: Path, tmp_path: Path) -> None:
    data = open_labelled(labelled, "val")
    maps = tmp_path / "maps"
    maps.mkdir()
    for i, name in enumerate(data.images.names):
        label = data.read_label(i)
        Image.fromarray(np.where(label == 2, 255, 0).astype(np.uint8)).save(maps / f"{name}.png")
    scores = measure_maps(maps, data, objects=(2,))
    assert (scores.f_max, scores.iou, scores.images) == (1, 1, 4)
    assert measure_maps(maps, data).iou < 0.5  # of all classes but 0
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(maps / "scene6.png")
    with pytest.raises(DataError, match=r"scene6\.png: too-small"):
        measure_maps(maps, data)
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(maps / "scene6.png")
    with pytest.raises(DataError, match=r"\(50, 50\)"):
        measure_maps(maps, data)
    (maps / "scene6.png").unlink()
    with pytest.raises(DataError, match=r"scene6\.png: missing"):
        measure_maps(maps, data)
