"""Runs on measured images: channels are found when a run begins, kept, and used by every verb."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from conftest import CLASSES, draw_scene
from selfseg.collection.clustering import cluster
from selfseg.collection.embedding import embed
from selfseg.collection.opening import load
from selfseg.collection.segmenting import segment
from selfseg.errors import ConfigError, Interrupted
from selfseg.evaluation.evaluator import evaluate
from selfseg.evaluation.protocols.clusters import Clusters
from selfseg.storage.checkpoint import load_newest
from selfseg.training import loop
from selfseg.training.loop import train
from selfseg.training.recipe import read_recipe
from tiny import vice


def draw(folder: Path, count: int = 6, width: int = 120, height: int = 90) -> Path:
    """Labelled TIFFs of 5 channels: a scene's colours, its class as near infrared, and noise; with a dead corner."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
        for number in range(count):
            image, label = draw_scene(number + 100 * (split == "val"), width, height)
            rng = np.random.default_rng(number)
            near = np.where(label == 255, 0, label)[..., None] * 900.0 + rng.normal(500, 40, (height, width, 1))
            values = np.dstack([image * 11.0 + 300, near, rng.normal(4000, 300, (height, width, 1))])
            values[:12, :16] = 0
            name = f"photo{number}"
            tifffile.imwrite(
                folder / split / "images" / f"{name}.tif",
                values.round().astype(np.uint16),
                planarconfig="contig",
                photometric="minisblack",
                extratags=[(42113, 2, 2, "0", True)],  # GDAL's no-data
            )
            Image.fromarray(label).save(folder / split / "labels" / f"{name}.png")
    (folder / "classes.txt").write_text("\n".join(f"{i} {name}" for i, name in enumerate(CLASSES)) + "\n255 void\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(vice(data / "train" / "images", folder, steps=4, workers=0), progress=False)


def test_a_run_finds_its_channels_and_keeps_them(run: Path) -> None:
    embedder = load(run)
    channels = embedder.config.channels
    assert channels is not None
    assert (channels.of, channels.dtype, channels.nodata) == (5, "uint16", 0.0)
    assert min(channels.low) > 0
    assert read_recipe(run / "recipe.yaml").method.embedder.channels == channels
    assert embedder(torch.rand(1, 5, 64, 64)).shape[:2] == (1, 8)


@pytest.mark.slow
def test_every_verb_reads_images_as_the_run_did(run: Path, data: Path, tmp_path: Path) -> None:
    images = data / "val" / "images"
    cluster(run, data / "train" / "images", k=4, points=2000, progress=False)
    out = segment(run, images, tmp_path / "segments", progress=False)
    found = np.asarray(Image.open(out / "index" / "photo0.png"))
    assert (found[:12, :16] == 255).all()
    assert found[12:].max() < 4
    assert json.loads((out / "legend.json").read_text())["void"] == {"value": 255}
    index = json.loads(embed(run, images, tmp_path / "embeddings", progress=False).read_text())
    assert len(index["images"]) == 6
    results = evaluate(run, data, [Clusters(k=(4,))], seeds=1, out=tmp_path / "results")
    assert {result.what for result in results} >= {"embedder", "colour"}


@pytest.mark.slow
def test_a_resumed_run_equals_the_uninterrupted_one(data: Path, run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    recipe = vice(data / "train" / "images", tmp_path / "run", steps=4, workers=0)
    original = loop.take_step

    def stop_at_two(*arguments: Any) -> Any:
        if arguments[5] == 2:
            raise Interrupted("here")
        return original(*arguments)

    monkeypatch.setattr(loop, "take_step", stop_at_two)
    with pytest.raises(Interrupted):
        train(replace(recipe, checkpoint_every=2), progress=False)
    monkeypatch.setattr(loop, "take_step", original)
    train(replace(recipe, checkpoint_every=2), progress=False)
    one, two = (load_newest(folder / "checkpoints") for folder in (run, tmp_path / "run"))
    assert one is not None
    assert two is not None
    assert one.model.keys() == two.model.keys()
    assert all(torch.equal(one.model[key], two.model[key]) for key in one.model)


@pytest.mark.slow
def test_channels_are_chosen(data: Path, tmp_path: Path) -> None:
    recipe = vice(data / "train" / "images", tmp_path / "run", steps=1, workers=0, channels=("3", "0"))
    channels = load(train(recipe, progress=False)).config.channels
    assert channels is not None
    assert channels.take == (3, 0)
    with pytest.raises(ConfigError, match="no channel '7'"):
        train(replace(recipe, out=tmp_path / "other", channels=("7",)), progress=False)


@pytest.mark.slow
def test_sixteen_bit_colours_can_be_photographs(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(4):
        image = draw_scene(number)[0].astype(np.uint16) * 257
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image, photometric="rgb")
    plain = train(vice(tmp_path / "images", tmp_path / "a", steps=1, workers=0, channels=("rgb",)), progress=False)
    assert load(plain).config.channels is None
    deep = load(train(vice(tmp_path / "images", tmp_path / "b", steps=1, workers=0), progress=False)).config.channels
    assert deep is not None
    assert deep.colour


@pytest.mark.slow
def test_windows_of_a_raster_are_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    raster = draw_scene(0, 400, 300)[0].astype(np.uint16) * 100
    tifffile.imwrite(tmp_path / "images" / "city.tif", raster, photometric="rgb", tile=(64, 64))
    recipe = vice(tmp_path / "images", tmp_path / "run", steps=2, workers=0)
    method = replace(recipe.method, embedder=replace(recipe.method.embedder, window=100))
    run = train(replace(recipe, method=method), progress=False)
    listed = json.loads((run / "images.json").read_text())
    assert len(listed) == 12
    assert listed["city/y100-x300"] == ["city.tif", "", [100, 300, 100, 100]]
    cluster(run, tmp_path / "images", k=3, points=1000, progress=False)
    out = segment(run, tmp_path / "images", tmp_path / "segments", progress=False)
    assert tifffile.imread(out / "index" / "city.tif", key=0).shape == (300, 400)
    assert train(replace(recipe, method=method), progress=False) == run  # trained already


def test_a_run_that_has_begun_keeps_its_range(data: Path, run: Path, tmp_path: Path) -> None:
    """Other images come in, and the range stays: a run's record is part of what it has learned."""
    before = load(run).config.channels
    recipe = vice(data / "train" / "images", run, steps=4, workers=0)
    train(recipe, progress=False)
    assert load(run).config.channels == before
