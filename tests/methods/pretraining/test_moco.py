"""MoCo v2 beyond the contract: its equation written literally, and what the queue holds."""

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
from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.pretraining.moco import MoCo, MoCoConfig

CONFIG = tiny.moco(Path("images"), Path("run")).method


def make(**changes: Any) -> MoCo:
    torch.manual_seed(0)
    return MoCo(replace(CONFIG, **changes)).double().train()


def draw(images: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    queries, keys = torch.randn(2, images, CONFIG.dim, generator=random, dtype=torch.float64)
    return queries.requires_grad_(), keys


def literal(queries: Tensor, keys: Tensor, queue: list[Tensor], tau: float) -> Tensor:
    """Eq. 1 of the first paper, image by image and key by key: the sum runs over one positive and the negatives."""
    losses = []
    for q, positive in zip(queries, keys, strict=True):
        q, positive = q / q.norm(), positive / positive.norm()
        above = torch.exp((q * positive).sum() / tau)
        below = above
        for key in queue:
            below = below + torch.exp((q * key).sum() / tau)
        losses.append(-torch.log(above / below))
    return torch.stack(losses).mean()


def test_steps_equal_the_equation_written_literally() -> None:
    method, queue = make(queue=10), []
    for step in range(4):  # the queue is empty, then partly filled, then full
        queries, keys = draw(seed=step)
        output = method.compare(queries, keys)
        copy = queries.detach().clone().requires_grad_()
        expected = literal(copy, keys, queue, CONFIG.temperature)
        torch.testing.assert_close(output.loss, expected)
        torch.testing.assert_close(
            torch.autograd.grad(output.loss, queries)[0], torch.autograd.grad(expected, copy)[0], atol=1e-12, rtol=1e-7
        )
        queue = [*F.normalize(keys, dim=1), *queue][:10]
    torch.testing.assert_close(method.queue.vectors, torch.stack(queue))


def test_without_a_negative_the_loss_is_zero_with_gradient() -> None:
    queries, keys = draw()
    output = make().compare(queries, keys)
    output.loss.backward()
    assert output.loss == 0
    assert queries.grad is not None
    assert queries.grad.abs().max() < 1e-12


def test_orthogonal_keys_give_a_loss_known_beforehand() -> None:
    method = make(temperature=0.5, queue=3)
    vectors = torch.eye(CONFIG.dim, dtype=torch.float64)
    method.queue.push(vectors[4:7])
    output = method.compare(vectors[:2], vectors[:2])
    assert output.loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-1 / 0.5)))
    assert output.logs["found"] == 1


def test_the_momentum_network_follows_and_gets_no_gradient() -> None:
    method = make()
    before = [p.clone() for p in method.twin.teacher.parameters()]
    with torch.no_grad():
        for p in method.twin.student.parameters():
            p.add_(1)
    method.twin.update(CONFIG.momentum)
    for old, new in zip(before, method.twin.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + (1 - CONFIG.momentum))
        assert not new.requires_grad


@pytest.mark.parametrize("name", ["hidden", "dim", "queue", "temperature"])
def test_settings_that_cannot_work_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{name} must be above 0, not 0"):
        MoCoConfig(**{name: 0})


def test_other_impossible_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"momentum must be in \[0, 1\], not 1.5"):
        MoCoConfig(momentum=1.5)
    with pytest.raises(ConfigError, match="must be 2 and small_views 0, not 2 and 6"):
        MoCoConfig(views=RandomCrops(small_views=6))
