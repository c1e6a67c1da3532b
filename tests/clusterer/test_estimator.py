"""The estimator: images in, clusters out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import tiny
from conftest import draw_scene
from selfseg import PixelClusterer
from selfseg.clusterer.places import give_place
from selfseg.collection.clusters import load_clusters
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.windows import as_measured
from selfseg.errors import ConfigError, RunError


def scenes(count: int) -> list[np.ndarray]:
    return [draw_scene(seed)[0] for seed in range(count)]


@pytest.mark.slow
def test_arrays_go_in_and_masks_come_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfseg.clusterer.estimator.recipes", lambda: {"tiny": tiny.vice})
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


def stacks(folder: Path) -> Path:
    """Three TIFFs of two pages with two channels of 16 bits."""
    folder.mkdir()
    for number in range(3):
        pages = [scenes(6)[2 * number + page].astype(np.uint16) * 40 for page in range(2)]
        values = np.stack([np.moveaxis(page[..., :2], 2, 0) for page in pages])  # (2 pages, 2 channels, H, W)
        tifffile.imwrite(folder / f"stack{number}.ome.tif", values, metadata={"axes": "ZCYX"}, photometric="minisblack")
    return folder


@pytest.mark.slow
def test_a_collection_keeps_its_pages_and_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfseg.clusterer.estimator.recipes", lambda: {"tiny": tiny.vice})
    whole, _ = as_measured(list_images(stacks(tmp_path / "stacks")), pages="all")
    assert whole.channels is not None
    chosen = whole.subset([0, 3, 4, 5])  # one page of the first file
    assert len(chosen.parts) == 4
    clusterer = PixelClusterer(k=2, recipe="tiny", steps=1, device="cpu", run=tmp_path / "run").fit(chosen)
    assert clusterer.n_images_ == 4
    assert clusterer.segmenter_.embedder.config.channels == whole.channels
    assert list(json.loads((tmp_path / "run/images.json").read_text())) == list(chosen.names)
    masks = clusterer.predict(chosen)
    assert len(masks) == 4
    np.testing.assert_array_equal(clusterer.predict(chosen.read(2)), masks[2])
    assert not (tmp_path / "run-images/images").exists()  # the files are there already


def test_images_in_a_zip_become_files(tmp_path: Path, photos: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", photos))
    place, chosen = give_place(list_images(archive), tmp_path / "out")
    assert chosen is None
    made = list_images(place)
    assert made.names == list_images(photos).names
    np.testing.assert_array_equal(made.read(2), list_images(photos).read(2))


def test_an_own_folder_is_not_written_over(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="run"):
        PixelClusterer(k=2, run=tmp_path / "run").fit(list_images(photos))


@pytest.mark.parametrize("k", [2.5, "a", float("nan"), True, 1])
def test_a_k_that_is_none_is_refused_before_it_learns(k: object) -> None:
    with pytest.raises(ConfigError, match="a whole number of 2 or more"):
        PixelClusterer(k=k).fit([])  # type: ignore[arg-type]
