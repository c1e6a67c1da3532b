"""PiCIE beyond the contract: its equations written literally, when centres are computed, and from what."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from selfseg.errors import ConfigError
from selfseg.methods.picie import PiCIE, PiCIEConfig
from selfseg.types import Batch, View

CONFIG = tiny.picie(Path("images"), Path("run")).method
DIM = 8


def make(**changes: Any) -> PiCIE:
    torch.manual_seed(0)
    method = PiCIE(replace(CONFIG, **changes)).double().train()
    for centres in (method.centres, method.overcentres):
        centres.copy_(F.normalize(centres, dim=2))  # to the last digit of float64
    return method


def draw(images: int = 2, side: int = 5, seed: int = 0) -> Tensor:
    """(2, B, D, h, w) of unit length."""
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randn(2, images, DIM, side, side, generator=random, dtype=torch.float64)
    return F.normalize(vectors, dim=2).requires_grad_()


def clustering_loss(z: list[Tensor], labels: list[int], centres: Tensor, tau: float, shares: Tensor) -> Tensor:
    """Eq. 4 and 5: minus the log-softmax of minus the cosine distances to all centres, at the cell's label.

    The mean is weighted by the share of the label's cluster.
    """
    losses, weights = [], []
    for cell, label in zip(z, labels, strict=True):
        distances = [1 - F.cosine_similarity(cell, centre, dim=0) for centre in centres]
        above = torch.exp(-distances[label] / tau)
        below = torch.stack([torch.exp(-distance / tau) for distance in distances]).sum()
        losses.append(-shares[label] * torch.log(above / below))
        weights.append(shares[label])
    return torch.stack(losses).sum() / torch.stack(weights).sum()


def literal(vectors: Tensor, centres: Tensor, tau: float, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Within- and cross-view losses (eq. 6 to 8), cell by cell."""
    cells = [
        [v[b, :, y, x] for b in range(len(v)) for y in range(v.shape[2]) for x in range(v.shape[3])] for v in vectors
    ]
    labels = [
        [min(range(len(mu)), key=lambda k: 1 - F.cosine_similarity(z, mu[k], dim=0).item()) for z in view]
        for view, mu in zip(cells, centres, strict=True)
    ]
    within = sum(clustering_loss(cells[v], labels[v], centres[v], tau, shares[v]) for v in range(2))
    cross = clustering_loss(cells[0], labels[1], centres[1], tau, shares[1]) + clustering_loss(
        cells[1], labels[0], centres[0], tau, shares[0]
    )
    assert isinstance(within, Tensor)
    return within, cross


@pytest.mark.slow
@pytest.mark.parametrize("tau", [1.0, 0.2])
@pytest.mark.parametrize("overclusters", [0, 6])
@pytest.mark.parametrize("weighting", ["none", "frequency"])
def test_the_losses_equal_the_equations_written_literally(overclusters: int, tau: float, weighting: str) -> None:
    method = make(overclusters=overclusters, temperature=tau, weighting=weighting)
    random = torch.Generator().manual_seed(5)
    shares, more_shares = (
        torch.rand(2, max(n, 1), generator=random).double() for n in (CONFIG.prototypes, overclusters)
    )
    if weighting == "none":
        shares, more_shares = torch.ones_like(shares), torch.ones_like(more_shares)
    method.shares.copy_(shares)
    if overclusters:
        method.overshares.copy_(more_shares)
    vectors = draw()
    output = method.compare(vectors)
    within, cross = literal(vectors, method.centres, tau, shares)
    if overclusters:
        k, more = math.log(CONFIG.prototypes), math.log(overclusters)
        others = literal(vectors, method.overcentres, tau, more_shares)
        weight, rest = more / (k + more), k / (k + more)
        within, cross = weight * within + rest * others[0], weight * cross + rest * others[1]
    torch.testing.assert_close(output.logs["loss_within"], within.detach())
    torch.testing.assert_close(output.logs["loss_cross"], cross.detach())
    ours, theirs = (torch.autograd.grad(x, vectors, retain_graph=True)[0] for x in (output.loss, within + cross))
    # The literal one differentiates the cosine's normalisation too: compare along the sphere.
    flat = vectors.detach()
    tangent = [g - (g * flat).sum(2, keepdim=True) * flat for g in (ours, theirs)]
    torch.testing.assert_close(tangent[0], tangent[1], atol=1e-12, rtol=1e-6)


def test_a_guess_costs_what_the_log_says() -> None:
    method = make(temperature=1e6)
    output = method.compare(draw())
    assert output.loss.item() == pytest.approx(output.logs["loss_uniform"].item(), rel=1e-4)


def batch(seed: int = 0, images: int = 2, mirrored: bool = False) -> Batch:
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(images, 3, 64, 64, generator=random).double()
    sign = -1.0 if mirrored else 1.0
    affines = [torch.tensor([[s, 0, 0], [0, 1.0, 0]]).double().expand(images, 2, 3) for s in (1.0, sign)]
    second = image.flip(3) if mirrored else image
    none = torch.zeros(images, 0, 0)
    return Batch((View(image, affines[0], none), View(second, affines[1], none)), torch.arange(images))


def test_the_first_view_is_moved_as_the_second_was() -> None:
    """A network that mirrors with its input: views of the same pixels have the same cells, mirrored or not."""
    method = make(overclusters=0)
    pixels = torch.nn.AvgPool2d(8)
    method.embedder.raw = lambda image: F.pad(pixels(image), (0, 0, 0, 0, 0, DIM - 3))  # type: ignore[method-assign]
    for mirrored in (False, True):
        seen: list[Tensor] = []
        method._remember = lambda vectors, *_: seen.append(vectors)  # type: ignore[method-assign]  # noqa: B023
        method(batch(mirrored=mirrored), 0.5)
        torch.testing.assert_close(seen[0][0], seen[0][1])


def test_centres_are_computed_when_the_queue_has_doubled_and_at_even_distances() -> None:
    method = make(reclusterings=2, queue=300, sample_stride=1, overclusters=0)
    computed = []
    for step, progress in enumerate((0.0, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.9)):
        before = method.centres.clone()
        method._remember(draw(seed=step).detach(), progress)  # 50 cells a view
        computed.append(not torch.equal(before, method.centres))
    #   cells: 50    100   150    200   250    300   300: half of the training, then full
    assert computed == [True, True, False, True, False, False, True, False, False]
    torch.testing.assert_close(method.centres.norm(dim=2), torch.ones(2, 4, dtype=torch.float64))


def test_centres_are_those_of_separate_groups() -> None:
    method = make(prototypes=4, overclusters=0, sample_stride=1)
    groups = F.normalize(torch.randn(2, 4, DIM, generator=torch.Generator().manual_seed(3)).double(), dim=2)
    which = torch.arange(50) % 4
    vectors = groups[:, which].view(2, 2, 5, 5, DIM).permute(0, 1, 4, 2, 3)
    method._remember(vectors, 0.0)
    for view in range(2):
        assert (groups[view] @ method.centres[view].T).max(1).values.min() > 1 - 1e-6
    assert method.compare(vectors).logs["agreement"] < 1  # the views' centres are not the same
    concepts = method.concept_vectors()
    torch.testing.assert_close(concepts, method.centres[0])


def test_shares_are_those_of_the_cells_that_the_centres_are_of() -> None:
    method = make(prototypes=3, overclusters=0, sample_stride=1)
    groups = F.normalize(torch.randn(2, 3, DIM, generator=torch.Generator().manual_seed(3)).double(), dim=2)
    which = torch.tensor([0] * 30 + [1] * 15 + [2] * 5)
    assert method.shares.tolist() == [[pytest.approx(1 / 3)] * 3] * 2
    method._remember(groups[:, which].view(2, 2, 5, 5, DIM).permute(0, 1, 4, 2, 3), 0.0)
    for view in range(2):
        nearest = (groups[view] @ method.centres[view].T).argmax(1)
        assert method.shares[view][nearest].tolist() == pytest.approx([0.6, 0.3, 0.1])


def test_a_run_from_before_there_was_a_weighting_has_no_shares() -> None:
    assert "shares" in make().state_dict()
    assert not {"shares", "overshares"} & make(weighting="none").state_dict().keys()


def test_cells_of_clusters_without_a_share_cost_nothing_and_divide_by_nothing() -> None:
    method = make(overclusters=0)
    method.shares.zero_()
    vectors = draw()
    loss = method.compare(vectors).loss
    loss.backward()
    assert loss == 0
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


def test_too_few_different_cells_leave_the_centres() -> None:
    method = make(overclusters=0, sample_stride=1)
    before = method.centres.clone()
    method._remember(draw(1).detach()[..., :1, :1], 0.0)  # one cell
    method._remember(draw(1).detach()[..., :1, :1].expand(2, 1, DIM, 5, 5), 0.1)  # the same again
    assert torch.equal(method.centres, before)
    assert int(method.clustered_at) == -1
    method._remember(draw().detach(), 0.1)
    assert not torch.equal(method.centres, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, "temperature must be above 0, not 0"),
        ({"reclusterings": 0}, "reclusterings must be above 0, not 0"),
        ({"sample_stride": 0}, "sample_stride must be above 0, not 0"),
        ({"prototypes": 1}, r"prototypes \(1\) must be at least 2"),
        ({"overclusters": 1}, r"overclusters \(1\) too"),
        ({"weighting": "inverse"}, 'weighting is "frequency" or "none", not \'inverse\''),
        ({"queue": 50, "overclusters": 100}, r"queue \(50\) must hold a cell for each of 100"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PiCIEConfig(**changes)
