"""Exports of networks that take measured channels."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from named_runs import add_clusters
from selfseg.errors import ConfigError
from selfseg.exporting.export import card_of, export
from selfseg.exporting.segmenter_graph import mask_of_network, run_graph
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops.channels import Channels
from selfseg.segmenter.segmenter import load_segmenter
from selfseg.studio.carrying.naming import name_clusters


def channels_of(count: int) -> Channels:
    names = tuple(f"band `{c}` | x" for c in range(count))
    low, high = tuple(100.0 + 7 * c for c in range(count)), tuple(900.0 + 31 * c for c in range(count))
    return Channels(names, tuple(range(count)), count + 1, low, high, (0.4,) * count, (0.2,) * count, nodata=0)


def make_run(folder: Path, channels: Channels, resolution: int | None = 64, frozen: bool = False) -> Path:
    torch.manual_seed(0)
    config = EmbedderConfig(backbone="resnet18", output_stride=32, dim=8, resolution=resolution, channels=channels)
    embedder = Embedder(replace(config, frozen=frozen))
    with torch.no_grad():
        embedder.train()(torch.rand(2, len(channels), 64, 64))
    embedder.save(folder / "embedder")
    (folder / "recipe.yaml").write_text("kind: Recipe\n")
    return folder


def code_of(card: Path) -> str:
    found = re.search(r"```python\n(import numpy.*?)```", card.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5])
def test_the_graph_equals_the_network_and_its_card_makes_the_levels(tmp_path: Path, count: int) -> None:
    runtime = pytest.importorskip("onnxruntime")
    channels = channels_of(count)
    run = make_run(tmp_path / "run", channels)
    path = export(run, "onnx")
    values = np.random.default_rng(0).integers(0, 1200, (70, 90, count)).astype(np.uint16)
    values[:9, :9] = 0  # nothing was measured there
    values[20, 20, 0] = 0
    given = {"values": values}
    exec(code_of(card_of(path)), given)  # as a user pastes it
    levels = channels.levels(values)
    assert (given["image"] == levels.transpose(2, 0, 1)[None] / np.float32(255)).all()
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": given["image"]})
    with torch.no_grad():
        expected = Embedder.load(run / "embedder").eval()(torch.from_numpy(np.asarray(given["image"])))
    assert np.abs(found - expected.numpy()).max() < 1e-5
    header = session.get_modelmeta().custom_metadata_map
    assert header["low"].split() == [f"{value:g}" for value in channels.low]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "resolution"), [(1, 64), (5, 64), (2, None)])
def test_a_segmenter_takes_levels_and_void_stays_void(tmp_path: Path, count: int, resolution: int | None) -> None:
    pytest.importorskip("onnxruntime")
    run = make_run(tmp_path / "run", channels_of(count), resolution)
    add_clusters(run, 4)
    name_clusters(run, {0: "a", 1: "b", 2: "c"})
    path = export(run, "segmenter-onnx")
    segmenter = load_segmenter(run, "cpu")
    image = np.random.default_rng(1).integers(1, 256, (9, 12, count), dtype=np.uint8).repeat(16, 0).repeat(14, 1)
    image[:50, :40] = 0
    found, expected = run_graph(path, image), mask_of_network(segmenter, image)
    assert (found[:50, :40] == segmenter.legend.void).all()
    assert (found == expected).mean() > 0.97  # resizing may be off by a level
    assert "def levels(values)" in card_of(path).read_text("utf-8")


@pytest.mark.slow
def test_libraries_of_photographs_refuse_and_timm_keeps_the_channels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", channels_of(5))
    for format in ("torchvision", "detectron2", "mmseg"):
        with pytest.raises(ConfigError, match="5 measured channels; formats that keep them: timm"):
            export(run, format)
    path = export(run, "timm")
    card = card_of(path).read_text("utf-8")
    assert "in_chans=5" in card
    assert "band `0` \\| x" in card
    network = timm.create_model("resnet18", num_classes=0, in_chans=5)
    network.load_state_dict(load_file(path), strict=True)


@pytest.mark.slow
def test_a_frozen_network_that_sees_groups_of_channels(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = make_run(tmp_path / "run", channels_of(5), frozen=True)
    assert export(run, "onnx").is_file()  # compared with the network when it is written
    network = timm.create_model("resnet18", num_classes=0)
    path = export(run, "timm")
    network.load_state_dict(load_file(path), strict=True)
    assert "three channels at a time, [0, 1, 2], [3, 4, 3]" in card_of(path).read_text("utf-8")


def test_a_shared_embedder_tells_its_channels(tmp_path: Path) -> None:
    channels = channels_of(2)
    folder = export(make_run(tmp_path / "run", channels), "hub")
    card = card_of(folder).read_text("utf-8")
    assert "| band \\`1\\` \\| x | 1 of 0 to 2 | 107 | 931 |" in card
    assert "embedder.embed('image.tif')" in card
    assert Embedder.from_pretrained(folder).config.channels == channels
