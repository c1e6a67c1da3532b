"""The estimator: images in, clusters out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from conftest import draw_scene
from selfseg import PixelClusterer
from selfseg.collection.clusters import load_clusters
from selfseg.errors import ConfigError, RunError


def scenes(count: int) -> list[np.ndarray]:
    return [draw_scene(seed)[0] for seed in range(count)]


@pytest.mark.slow
def test_arrays_go_in_and_masks_come_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfseg.clusterer.recipes", lambda: {"tiny": tiny.vice})
    images = scenes(5)
    settings = {"k": 3, "recipe": "tiny", "steps": 1, "device": "cpu"}
    clusterer = PixelClusterer(**settings, run=tmp_path / "run")
    with pytest.raises(RunError, match="call fit"):
        clusterer.predict(images[0])
    masks = clusterer.fit_predict(images)
    assert [mask.shape for mask in masks] == [image.shape[:2] for image in images]
    assert set(np.unique(masks)) == {0, 1, 2}
    # Every kind of image is the same image.
    image = images[0]
    Image.fromarray(image).save(tmp_path / "one.png")
    bytes_first = torch.from_numpy(image).permute(2, 0, 1)
    for same in (Image.fromarray(image), tmp_path / "one.png", bytes_first, bytes_first / 255):
        np.testing.assert_array_equal(clusterer.predict(same), masks[0])
    np.testing.assert_array_equal(clusterer.predict(np.stack(images))[1], masks[1])
    # What it holds is what the run has.
    found = load_clusters(tmp_path / "run", 3)
    np.testing.assert_array_equal(clusterer.cluster_centers_, found.centroids.numpy())
    assert clusterer.shares_ == found.share
    assert clusterer.n_images_ == 5
    vectors = clusterer.transform(image)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=2), 1, atol=1e-5)
    # A folder of the same files, without a run that stays, is the same.
    again = PixelClusterer(**settings).fit(tmp_path / "run-images" / "images")
    np.testing.assert_array_equal(again.predict(tmp_path / "run-images" / "images"), masks)


def test_settings_are_those_of_an_estimator() -> None:
    clusterer = PixelClusterer(k=5, seed=3)
    assert repr(clusterer) == "PixelClusterer(k=5, seed=3)"
    copy = type(clusterer)(**clusterer.get_params())  # what scikit-learn's clone does
    assert copy.get_params() == clusterer.get_params()
    assert clusterer.set_params(k=7) is clusterer
    assert clusterer.k == 7
    with pytest.raises(ConfigError, match="no setting 'clusters'"):
        clusterer.set_params(clusters=3)


@pytest.mark.parametrize(
    ("settings", "images", "said"),
    [
        ({"recipe": "none"}, scenes(1), "no recipe 'none'"),
        ({"device": "tpu"}, scenes(1), "device is 'tpu'"),
        ({}, [], "no images"),
        ({}, [np.zeros((4, 4), np.uint8)], "must be"),
        ({}, [torch.full((3, 4, 4), 200.0)], r"in \[0, 1\]"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, object], images: list[object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PixelClusterer(**settings).fit(images)  # type: ignore[arg-type]
