import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import selfseg
from conftest import draw_scene
from selfseg.models.embedder import Embedder, EmbedderConfig


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five drawn photographs, one of them in a folder, and a file that is none."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "deep").mkdir()
    for seed in range(5):
        image, _ = draw_scene(seed)
        Image.fromarray(image).save(folder / ("deep" if seed == 2 else ".") / f"scene {seed}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    return folder


@pytest.fixture(scope="session")
def _clustered(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    config = EmbedderConfig(
        backbone="resnet18", output_stride=32, decoder="fpn", dim=8, resolution=64, smooth=2.0, centred=True
    )
    Embedder(config).save(folder / "embedder")
    (folder / "log.jsonl").write_text("")
    selfseg.cluster(folder, scenes, k=(3, 6), points=500, progress=False, max_bad=0.5, propose=False)
    return folder


@pytest.fixture
def run(tmp_path: Path, _clustered: Path) -> Path:
    """A run with clusters of `scenes`, 3 and 6 of them, without training."""
    return Path(shutil.copytree(_clustered, tmp_path / "run"))
