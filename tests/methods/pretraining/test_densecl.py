"""DenseCL beyond the contract: its equations written literally, correspondence, and what the queues hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.pretraining.densecl import DenseCL, DenseCLConfig, Projections

CONFIG = tiny.densecl(Path("images"), Path("run")).method
CELLS = CONFIG.grid**2


def make(**changes: Any) -> DenseCL:
    torch.manual_seed(0)
    return DenseCL(replace(CONFIG, **changes)).double().train()


def draw(seed: int = 0, images: int = 3) -> tuple[Projections, Projections]:
    random = torch.Generator().manual_seed(seed)
    queries, keys = (
        Projections(
            torch.randn(images, CONFIG.dim, generator=random, dtype=torch.float64),
            torch.randn(images, CELLS, CONFIG.dim, generator=random, dtype=torch.float64),
            torch.randn(images, CELLS, 5, generator=random, dtype=torch.float64),
        )
        for _ in range(2)
    )
    queries.image.requires_grad_()
    queries.cells.requires_grad_()
    return queries, keys


def contrast(query: Tensor, positive: Tensor, queue: list[Tensor], tau: float) -> Tensor:
    """Eq. 1, key by key."""
    above = torch.exp(F.cosine_similarity(query, positive, dim=0) / tau)
    below = above
    for key in queue:
        below = below + torch.exp(F.cosine_similarity(query, key, dim=0) / tau)
    return -torch.log(above / below)


def literal(
    queries: Projections, keys: Projections, image_queue: list[Tensor], dense_queue: list[Tensor], weight: float
) -> Tensor:
    """Eq. 1 to 4, image by image and cell by cell."""
    images, cells = [], []
    for b in range(len(queries.image)):
        images.append(contrast(queries.image[b], keys.image[b], image_queue, CONFIG.temperature))
        for s in range(CELLS):
            likeness = [F.cosine_similarity(queries.features[b, s], other, dim=0).item() for other in keys.features[b]]
            positive = keys.cells[b, likeness.index(max(likeness))]
            cells.append(contrast(queries.cells[b, s], positive, dense_queue, CONFIG.temperature))
    return (1 - weight) * torch.stack(images).mean() + weight * torch.stack(cells).mean()


@pytest.mark.parametrize("weight", [0.5, 0.3])
def test_steps_equal_the_equations_written_literally(weight: float) -> None:
    method = make(queue=7, dense_weight=weight)
    image_queue: list[Tensor] = []
    dense_queue: list[Tensor] = []
    for step in range(3):  # the queues are empty, partly filled, full
        queries, keys = draw(step)
        output = method.compare(queries, keys)
        expected = literal(queries, keys, image_queue, dense_queue, weight)
        torch.testing.assert_close(output.loss, expected)
        for leaf in (queries.image, queries.cells):
            found, wanted = (torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in (output.loss, expected))
            torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-7)
        image_queue = [*F.normalize(keys.image, dim=1), *image_queue][:7]
        dense_queue = [*F.normalize(keys.cells.mean(1), dim=1), *dense_queue][:7]
    torch.testing.assert_close(method.image_queue.vectors, torch.stack(image_queue))
    torch.testing.assert_close(method.dense_queue.vectors, torch.stack(dense_queue))


def test_cells_that_were_permuted_are_matched_with_themselves() -> None:
    """Identical features and projections in another order: every cell finds itself, and nothing else."""
    method = make(temperature=0.05)
    queries, _ = draw()
    order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(1))
    keys = Projections(queries.image.detach(), queries.cells.detach()[:, order], queries.features[:, order])
    method.dense_queue.push(-F.normalize(queries.cells.detach()[0], dim=1))
    output = method.compare(queries, keys)
    assert output.logs["matched_cells"] == 1
    assert output.logs["found_cells"] == 1


def test_the_grid_of_cells_is_pooled_from_the_feature_map() -> None:
    network = make().float().twin.student
    image = torch.rand(2, 3, 64, 64)
    network.eval()
    with torch.no_grad():
        result, raw = network(image), network.embedder.raw(image)
        torch.testing.assert_close(result.features, F.adaptive_avg_pool2d(raw, CONFIG.grid).flatten(2).mT)
        torch.testing.assert_close(result.cells[:, 0], network.dense_head(result.features[:, 0]))
        torch.testing.assert_close(result.image, network.image_head(raw.mean((2, 3))))


@pytest.mark.parametrize("name", ["hidden", "dim", "grid", "queue", "temperature"])
def test_settings_that_cannot_work_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{name} must be above 0, not 0"):
        DenseCLConfig(**{name: 0})


def test_other_impossible_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"dense_weight must be in \[0, 1\], not 2"):
        DenseCLConfig(dense_weight=2)
    with pytest.raises(ConfigError, match="must be 2 and small_views 0, not 3 and 0"):
        DenseCLConfig(views=RandomCrops(views=3))
