"""DetCon beyond the contract: its equation written literally, the pooling over masks, and batches without a match."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from selfseg.data.regions import ObjectMasks
from selfseg.errors import ConfigError
from selfseg.methods.pretraining.detcon import DetCon, DetConConfig, Regions, pool_masks
from selfseg.training.log import read_log
from selfseg.training.loop import train
from selfseg.training.recipe import read_recipe
from selfseg.types import Batch, View

CONFIG = tiny.detcon(Path("images"), Path("run")).method


def make(**changes: Any) -> DetCon:
    torch.manual_seed(0)
    return DetCon(replace(CONFIG, **changes)).train()


def view(ids: Tensor) -> View:
    """Two images' ids (2, H, W) as a view."""
    return View(torch.rand(2, 3, 64, 64), torch.eye(2, 3).expand(2, 2, 3), ids)


def two_views() -> list[View]:
    """The first image has 0, 1 and 5 in the first view and 1, 5 and 7 in the second; the other 2 alone, and 2 and 0."""
    first = torch.tensor([[[0, 1, 1, 5], [0, 0, 5, 5]], [[2, 2, -1, -1], [2, -1, -1, -1]]])
    second = torch.tensor([[[1, 7, 7, 7], [5, 1, 1, -1]], [[0, 0, 0, 2], [2, 2, 2, 2]]])
    return [view(first), view(second)]


def literal(
    queries: list[Tensor], targets: list[Tensor], owners: list[list[tuple[int, int]]], tau: float
) -> tuple[Tensor, int]:
    """Eq. 3, mask by mask: the positive against all masks of both views but the mask's own target in its own view."""
    losses = []
    for a, b in ((0, 1), (1, 0)):
        for q, who in zip(queries[a], owners[a], strict=True):
            if who not in owners[b]:  # the indicator 1_{m, m'}
                continue
            above = torch.exp(F.cosine_similarity(q, targets[b][owners[b].index(who)], dim=0) / tau)
            below = above
            for other, its in [*zip(targets[b], owners[b], strict=True), *zip(targets[a], owners[a], strict=True)]:
                if its != who:
                    below = below + torch.exp(F.cosine_similarity(q, other, dim=0) / tau)
            losses.append(-torch.log(above / below))
    matched = len(losses) // 2
    return torch.stack(losses).sum() / matched, matched


@pytest.mark.parametrize("form", ["byol", "simclr"])
def test_the_loss_equals_the_equation_written_literally(form: str) -> None:
    method = make(form=form)
    regions = [Regions.of(each) for each in two_views()]
    owners = [[(int(n) >> 32, int(n) & (2**32 - 1)) for n in each.name] for each in regions]
    assert owners == [[(0, 0), (0, 1), (0, 5), (1, 2)], [(0, 1), (0, 5), (0, 7), (1, 0), (1, 2)]]
    random = torch.Generator().manual_seed(0)
    queries, others = (
        [torch.randn(n, 16, generator=random, dtype=torch.float64).requires_grad_() for n in (4, 5)] for _ in range(2)
    )
    targets = queries if form == "simclr" else [each.detach() for each in others]
    output = method.compare(queries, targets, regions)
    expected, matched = literal(queries, targets, owners, CONFIG.temperature)
    assert matched == 3
    torch.testing.assert_close(output.loss, expected)
    for mine, theirs in zip(
        torch.autograd.grad(output.loss, queries), torch.autograd.grad(expected, queries), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-7)
    assert output.logs["matched"] == pytest.approx(3 / 4)
    assert output.logs["regions_per_image"] == 2


def test_regions_that_are_alike_in_both_views_are_found() -> None:
    method = make()
    regions = [Regions.of(each) for each in two_views()]
    everyone = torch.eye(16)[:9]
    place = {int(name): n for n, name in enumerate(torch.cat([each.name for each in regions]).unique())}
    vectors = [torch.stack([everyone[place[int(name)]] for name in each.name]) for each in regions]
    output = method.compare(vectors, vectors, regions)
    assert output.logs["found"] == 1
    assert output.loss < 0.01


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (2, 2), (4, 8)])
def test_masks_are_averaged_over_the_cells_of_the_features(grid: tuple[int, int]) -> None:
    """Literally: a mask's share of each cell by area, then the mean of the cells' vectors with these weights."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(-1, 3, (2, *grid), generator=random)
    features = torch.randn(2, 5, 4, 4, generator=random, dtype=torch.float64)
    regions = Regions.of(View(torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 3), ids))
    pooled = pool_masks(features, regions)
    fine = 24  # a multiple of every grid
    row = 0
    for image in range(2):
        for region in sorted(set(ids[image].flatten().tolist()) - {-1}):
            total, area = torch.zeros(5, dtype=torch.float64), 0
            for y in range(fine):
                for x in range(fine):
                    if ids[image, y * grid[0] // fine, x * grid[1] // fine] == region:
                        total += features[image, :, y * 4 // fine, x * 4 // fine]
                        area += 1
            torch.testing.assert_close(pooled[row], total / area)
            row += 1
    assert len(pooled) == row


@pytest.mark.parametrize("form", ["byol", "simclr"])
@pytest.mark.parametrize("empty", [False, True])
def test_without_a_match_the_loss_is_zero_with_gradient(form: str, empty: bool) -> None:
    """Either the views have nothing in common, or no region at all."""
    method = make(form=form)
    ids = [torch.full((2, 4, 4), -1 if empty else side) for side in range(2)]
    output = method(Batch((view(ids[0]), view(ids[1])), torch.arange(2)), 0.5)
    output.loss.backward()
    assert output.loss == 0
    assert all(torch.isfinite(value) for value in output.logs.values())
    trained = [p for p in method.parameters() if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for p in trained)


@pytest.mark.slow
def test_objects_in_files_are_regions_as_well(photos: Path, tmp_path: Path) -> None:
    recipe = tiny.detcon(photos, tmp_path / "run", steps=2)
    views = replace(recipe.method.views, regions=ObjectMasks(tiny.masks_of(photos)))
    run = train(replace(recipe, method=replace(recipe.method, views=views)), progress=False)
    written = read_recipe(run / "recipe.yaml").method.views.regions
    assert isinstance(written, ObjectMasks)
    assert written.content
    assert 0 < read_log(run)[-1]["regions_per_image"] <= 6


def test_the_momentum_rises_to_one() -> None:
    method = make(momentum=0.9)
    assert [round(method.momentum(p), 3) for p in (0.0, 0.5, 1.0)] == [0.9, 0.95, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 0}, "hidden must be above 0, not 0"),
        ({"temperature": 0}, "temperature must be above 0, not 0"),
        ({"momentum": 2}, r"momentum must be in \[0, 1\], not 2"),
        ({"form": "moco"}, "form is .byol. .DetCon_B. or .simclr. .DetCon_S., not 'moco'"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DetConConfig(**changes)
