"""IIC beyond the contract: its equations written literally, the way back, cells that are not seen."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from selfseg.errors import ConfigError
from selfseg.methods.iic import IIC, IICConfig

CONFIG = tiny.iic(Path("images"), Path("run")).method
SAME = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64)
MIRROR = torch.tensor([[-1.0, 0, 0], [0, 1, 0]], dtype=torch.float64)
SIDE = 6


def make(**changes: Any) -> IIC:
    torch.manual_seed(0)
    return IIC(replace(CONFIG, **changes)).double().train()


def draw(images: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    first, second = 3 * torch.randn(2, images, 8, SIDE, SIDE, generator=random, dtype=torch.float64)
    return first.requires_grad_(), second.requires_grad_()


def literal(method: IIC, first: Tensor, second: Tensor, mirrored: list[bool], reach: int) -> Tensor:
    """Section 3.3, cell by cell: P_t of all pairs (u, u + t), made symmetric; minus the mean of I(P_t)."""
    terms = []
    for head in method.heads:
        one, two = head(first).softmax(1), head(second).softmax(1)
        two = torch.stack([x.flip(2) if turn else x for x, turn in zip(two, mirrored, strict=True)])
        clusters, informations = one.shape[1], []
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                joint = torch.zeros(clusters, clusters, dtype=one.dtype)
                pairs = 0
                for image in range(len(one)):
                    for y in range(SIDE):
                        for x in range(SIDE):
                            if 0 <= y + down < SIDE and 0 <= x + right < SIDE:
                                joint = joint + torch.outer(one[image, :, y, x], two[image, :, y + down, x + right])
                                pairs += 1
                joint = joint / pairs
                joint = (joint + joint.T) / 2
                information = torch.zeros((), dtype=one.dtype)
                for a in range(clusters):
                    for b in range(clusters):
                        information = information + joint[a, b] * torch.log(
                            joint[a, b] / (joint[a].sum() * joint[:, b].sum())
                        )
                informations.append(information)
        terms.append(-torch.stack(informations).mean())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("overclusters", [0, 6])
def test_the_loss_equals_the_equations_written_literally(overclusters: int) -> None:
    method = make(overclusters=overclusters, displacement=4, loss_stride=4)  # a reach of one cell
    first, second = draw()
    output = method.compare(first, second, torch.stack([SAME, MIRROR]))
    expected = literal(method, first, second, [False, True], reach=1)
    torch.testing.assert_close(output.loss, expected)
    for leaf in (first, second, *method.heads.parameters()):
        ours, theirs = (torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in (output.loss, expected))
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-6)


def test_perfect_and_constant_clusters_have_the_information_known_beforehand() -> None:
    method = make(overclusters=0, displacement=0)
    head = method.heads[0]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[:, :4, 0, 0] = torch.eye(4)
    cells = torch.zeros(1, 8, 4, 4, dtype=torch.float64)
    cells[0, torch.arange(16) % 4, torch.arange(16) // 4, torch.arange(16) % 4] = 200.0
    output = method.compare(cells, cells, SAME[None])
    assert output.loss.item() == pytest.approx(-math.log(4))
    assert output.logs["information"] == pytest.approx(1)
    assert output.logs["agreement"] == 1
    plain = method.compare(torch.zeros_like(cells), torch.zeros_like(cells), SAME[None])
    assert plain.loss.item() == pytest.approx(0, abs=1e-12)


def test_cells_that_the_second_view_does_not_show_take_no_part() -> None:
    """The second view shows the left half: what the first has in its right half changes nothing."""
    method = make(displacement=0)
    half = torch.tensor([[2.0, 0, 1], [0, 1, 0]], dtype=torch.float64).expand(2, 2, 3)  # the first's frame → second's
    first, second = draw()
    losses = [method.compare(first, second, half).loss]
    other = first.detach().clone()
    other[..., SIDE // 2 :] += 5
    losses.append(method.compare(other, second, half).loss)
    other[..., 0] += 5
    losses.append(method.compare(other, second, half).loss)
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(losses[0], losses[2])


def test_views_without_a_common_cell_give_zero_with_gradient() -> None:
    method = make()
    first, second = draw()
    away = torch.tensor([[1.0, 0, 9], [0, 1, 0]], dtype=torch.float64).expand(2, 2, 3)
    output = method.compare(first, second, away)
    output.loss.backward()
    assert output.loss == 0
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()
    assert all(torch.isfinite(value) for value in output.logs.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clusters": 1}, r"clusters \(1\) must be at least 2"),
        ({"overclusters": 1}, r"overclusters \(1\) too, or 0"),
        ({"loss_stride": 3}, r"loss_stride \(3\) must divide method.views.size \(128\)"),
        ({"displacement": -1}, "not -1"),
        ({"displacement": 128}, "not 128"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IICConfig(**changes)
