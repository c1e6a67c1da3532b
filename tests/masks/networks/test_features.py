"""Foreground by features: the regression, pooling in superpixels, and the method from a folder to its masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.optimize import minimize

from masks.balls import ball, draw_balls
from masks.test_sources import overlap
from selfseg.cli import main
from selfseg.data.labelled.mask_files import MaskFolder
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import CheckpointError, ConfigError, EmptyCollection
from selfseg.masks.mining import mine_masks
from selfseg.masks.networks import features
from selfseg.masks.networks.features import FeatureForeground, FeaturesConfig, Regression
from selfseg.masks.sources import Training, check_training, describe

SMALL = FeaturesConfig(size=96)


def learned(folder: Path, config: FeaturesConfig = SMALL) -> FeatureForeground:
    """The method after it has looked at a folder."""
    images = list_images(folder)
    find = FeatureForeground(config)
    find.fit(images, SkipLog(folder / "skipped.jsonl", len(images), 0.5))
    return find


def test_the_regression_finds_the_least_loss() -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(200, 4)).astype(np.float32)
    shares = random.uniform(0.5, 1.5, 200)
    shares /= shares.sum()
    targets = np.clip(1 / (1 + np.exp(-rows @ [2.0, -1.0, 0.0, 0.5])) + random.normal(0, 0.05, 200), 0, 1)

    def loss(weights: np.ndarray) -> float:
        scores = rows @ weights[:-1] + weights[-1]
        entropy = np.logaddexp(0, scores) - targets * scores
        return float((shares * entropy).sum() + 0.05 / 2 * (weights[:-1] ** 2).sum())

    best = minimize(loss, np.zeros(5), tol=1e-10).x
    regression = Regression(rows, shares, 0.05)
    for _ in range(3):  # goes on from where it was
        regression.learn(targets.astype(np.float32))
    np.testing.assert_allclose(regression.weights, best, atol=1e-3)


@pytest.mark.slow
def test_from_a_folder_to_masks_and_again_for_new_images(tmp_path: Path) -> None:
    photos, out = draw_balls(tmp_path / "photos", range(6)), tmp_path / "masks"
    words = ["masks", str(photos), "--out", str(out), "--features.size", "96", "--device", "cpu"]
    assert main(words) == 0  # the default
    assert overlap(out, tmp_path / "photos-masks", photos) > 0.85
    (kept,) = (out / "networks").glob(f"*/{features.FILE}")
    before = kept.stat().st_mtime_ns
    draw_balls(tmp_path / "more", range(20, 22), size=(90, 70))
    for kind in ("", "-masks"):
        for path in (tmp_path / f"more{kind}").iterdir():
            path.rename(tmp_path / f"photos{kind}" / path.name)
    assert main(words) == 0
    assert kept.stat().st_mtime_ns == before  # nothing is learned anew
    assert overlap(out, tmp_path / "photos-masks", photos) > 0.85

    kept.write_bytes(kept.read_bytes()[:100])
    draw_balls(tmp_path / "last", range(30, 31))
    next((tmp_path / "last").iterdir()).rename(photos / "30.png")
    assert main(words) == 4
    kept.unlink()
    assert main(words) == 0
    assert (MaskFolder(out).get("30", 60, 80) >= 0).any()


@pytest.mark.slow
def test_what_was_learned_is_read_back(tmp_path: Path) -> None:
    find = learned(draw_balls(tmp_path / "photos", range(4)))
    find.save(tmp_path / "kept")
    other = FeatureForeground(SMALL)
    with pytest.raises(ConfigError, match="call fit or load first"):
        other(ball(7)[0])
    other.load(tmp_path / "kept")
    np.testing.assert_array_equal(other(ball(7)[0]), find(ball(7)[0]))
    with pytest.raises(CheckpointError, match="remove it"):
        other.load(tmp_path / "absent")


@pytest.mark.slow
def test_odd_images_have_maps_of_their_size(tmp_path: Path) -> None:
    find = learned(draw_balls(tmp_path / "photos", range(4)))
    plain = np.full((50, 70, 3), 120, np.uint8)
    assert not find(plain).any()
    for height, width in ((1, 1), (1, 40), (33, 2), (30, 400)):
        values = find(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))
        assert values.shape == (height, width)
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1
    (tmp_path / "plain").mkdir()
    cv2.imwrite(str(tmp_path / "plain" / "a.png"), plain)
    with pytest.raises(EmptyCollection):
        mine_masks(tmp_path / "plain", tmp_path / "out", training=Training(features=SMALL), progress=False)


def test_settings_that_can_not_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="penalty > 0"):
        FeaturesConfig(penalty=0)
    for settings in ({"init": "random"}, {"backbone": "resnet18"}):
        with pytest.raises(ConfigError, match=r"give its weights with --features\.init"):
            FeaturesConfig(**settings)
    check_training("features", Training(images=tmp_path))
    missing = FeaturesConfig(backbone="resnet18", init=str(tmp_path / "none.pth"))
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        describe("features", Training(features=missing))
