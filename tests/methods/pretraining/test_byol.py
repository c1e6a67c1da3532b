"""BYOL beyond the contract: its equations written literally, whose statistics are whose, how the target follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import tiny
from selfseg.data.views.random_crops import MultiCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import rising_momentum
from selfseg.methods.pretraining.byol import BYOL, BYOLConfig
from selfseg.types import Batch, View

CONFIG = tiny.byol(Path("images"), Path("run")).method


def make(**changes: Any) -> BYOL:
    torch.manual_seed(0)
    return BYOL(replace(CONFIG, **changes)).train()


def draw(seed: int = 0, images: int = 5) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(images, CONFIG.dim, generator=random, dtype=torch.float64) for _ in range(2)]


def batch_of(images: list[Tensor]) -> Batch:
    affine = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(len(images[0]), 2, 3)
    return Batch(tuple(View(x, affine, torch.zeros(len(x), 0, 0)) for x in images), torch.arange(len(images[0])))


def literal(predictions: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Eq. 2 and its symmetric form, image by image: the squared distance of the unit vectors."""
    total = torch.zeros((), dtype=torch.float64)
    for online, target in ((0, 1), (1, 0)):
        for q, z in zip(predictions[online], targets[target], strict=True):
            total = total + (q / q.square().sum().sqrt() - z / z.square().sum().sqrt()).square().sum()
    return total / len(predictions[0])


def test_the_loss_equals_the_equations_written_literally() -> None:
    predictions, targets = [q.requires_grad_() for q in draw(0)], draw(1)
    ours, theirs = make().compare(predictions, targets).loss, literal(predictions, targets)
    torch.testing.assert_close(ours, theirs)
    for found, wanted in zip(
        torch.autograd.grad(ours, predictions), torch.autograd.grad(theirs, predictions), strict=True
    ):
        torch.testing.assert_close(found, wanted)


def test_each_crop_has_statistics_of_its_own_in_both_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crop's prediction and target don't depend on what the other crop shows."""
    seen: list[tuple[list[Tensor], list[Tensor]]] = []
    images = [torch.rand(3, 3, 64, 64) for _ in range(3)]
    for other in images[1:]:
        method = make()
        compare = method.compare
        monkeypatch.setattr(method, "compare", lambda q, z, f=compare: (seen.append((q, z)), f(q, z))[1])
        method(batch_of([images[0], other]), 0.5)
    for one, two in zip(*seen, strict=True):
        torch.testing.assert_close(one[0], two[0])
        assert not torch.allclose(one[1], two[1])


def test_the_target_follows_and_learns_nothing_by_itself() -> None:
    method = make(momentum=0.9)
    student, teacher = (
        cast(nn.Linear, network.projector[0]).weight for network in (method.twin.student, method.twin.teacher)
    )
    with torch.no_grad():
        student.add_(1)
    old = teacher.clone()
    method(batch_of([torch.rand(2, 3, 64, 64) for _ in range(2)]), 0.5).loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(teacher, old)  # it moves after the step
    method.after_step(0.5)
    torch.testing.assert_close(teacher, 0.95 * old + 0.05 * student)
    method.after_step(1.0)
    torch.testing.assert_close(teacher, 0.95 * old + 0.05 * student)


def test_the_momentum_rises_as_the_paper_has_it() -> None:
    """Tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2."""
    assert rising_momentum(0.996, 0) == pytest.approx(0.996)
    assert rising_momentum(0.996, 0.25) == pytest.approx(1 - 0.004 * (2**-0.5 + 1) / 2)


def test_last_layers_have_no_bias() -> None:
    method = make()
    assert method.predictor[-1].bias is None
    assert cast(Any, method.twin.student).projector[-1].bias is None


@pytest.mark.parametrize("name", ["hidden", "dim"])
def test_settings_that_cannot_work_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{name} must be above 0, not 0"):
        BYOLConfig(**{name: 0})


def test_other_impossible_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"momentum must be in \[0, 1\], not 2"):
        BYOLConfig(momentum=2)
    with pytest.raises(ConfigError, match="small_views is 0, not 3"):
        BYOLConfig(views=MultiCrops(small_views=3))
