"""Runs with clusters, made without training."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from conftest import draw_scene
from selfseg.collection.clusters import Clusters, save_clusters
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.storage.hashes import embedder_hash

DIM = 8


def make_run(folder: Path, smooth: float = 0.0, resolution: int | None = 64) -> Path:
    """A run with an embedder of random weights and 5 clusters."""
    torch.manual_seed(0)
    config = EmbedderConfig(
        backbone="test_resnet", output_stride=32, dim=DIM, resolution=resolution, smooth=smooth, centred=True
    )
    embedder = Embedder(config)
    for module in embedder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics of what is shown next, which spreads the vectors
    scenes = torch.stack([torch.from_numpy(draw_scene(seed)[0]) for seed in range(4)]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        embedder.train()(scenes)
    embedder.save(folder / "embedder")
    (folder / "log.jsonl").write_text("")
    add_clusters(folder, 5)
    return folder


def add_clusters(run: Path, k: int, rows: int | None = None, position: float = 0.0) -> Clusters:
    """Clusters of random directions; with `rows` so many small ones are merged to k."""
    generator = torch.Generator().manual_seed(k)
    count = rows or k
    centroids = F.normalize(torch.randn(count, DIM + (4 if position else 0), generator=generator), dim=1)
    groups = None if rows is None else torch.arange(rows) % k
    info: dict[str, Any] = {
        "k": k,
        "seed": 0,
        "count": 6,
        "images": "photos",
        "points": 100,
        "inertia": 60.0,
        "position": position,
        "embedder": embedder_hash(run),
    }
    clusters = Clusters(centroids, (1 / k,) * k, (("photo0", "photo1"),) * k, info, groups)
    save_clusters(run, clusters)
    return clusters
