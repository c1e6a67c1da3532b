"""SwAV beyond the contract: its equations written literally, multi-crop, the queue, frozen prototypes."""

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
from selfseg.methods.pretraining.swav import SwAV, SwAVConfig
from selfseg.types import Batch, View

CONFIG = tiny.swav(Path("images"), Path("run")).method
VIEWS = CONFIG.views.views + CONFIG.views.small_views


def make(**changes: Any) -> SwAV:
    torch.manual_seed(0)
    return SwAV(replace(CONFIG, **changes)).double().train()


def draw(seed: int = 0, images: int = 5) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    projections = torch.randn(VIEWS, images, CONFIG.dim, generator=random, dtype=torch.float64)
    return projections.requires_grad_()


def codes(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Section 3.1: Q = Diag(u) exp(C^T Z / epsilon) Diag(v), K x B, by Sinkhorn-Knopp; columns are images' codes."""
    q = torch.exp(scores.T / epsilon)
    k, b = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        for row in range(k):
            q[row] = q[row] / q[row].sum() / k
        for column in range(b):
            q[:, column] = q[:, column] / q[:, column].sum() / b
    return q.T * b


def literal(projections: Tensor, prototypes: Tensor, queues: list[Tensor | None]) -> Tensor:
    """Eq. 2 and 5, image by image and crop by crop."""
    z = [[row / row.norm() for row in view] for view in projections]
    terms = []
    for assigning in range(CONFIG.views.views):
        rows = torch.stack(z[assigning]).detach()
        queue = queues[assigning]
        if queue is not None:
            rows = torch.cat([rows, queue])
        q = codes(rows @ prototypes.detach().T, CONFIG.epsilon, CONFIG.sinkhorn_iterations)
        for view in range(VIEWS):
            if view == assigning:
                continue
            for image in range(projections.shape[1]):
                logits = torch.stack([z[view][image] @ c for c in prototypes]) / CONFIG.temperature
                p = torch.exp(logits) / torch.exp(logits).sum()
                terms.append(-(q[image] * torch.log(p)).sum())
    return torch.stack(terms).mean()


def test_steps_equal_the_equations_written_literally() -> None:
    method = make(queue=8)
    queues: list[list[Tensor]] = [[], []]
    for step in range(4):
        projections = draw(step)
        output = method.compare(projections, 0.5)
        full = [torch.stack(queue[:8]) if len(queue) >= 8 else None for queue in queues]
        assert (full[0] is not None) == (step >= 2)
        copy = projections.detach().clone().requires_grad_()
        expected = literal(copy, method.prototypes.weight, full)
        # The assignment is float32.
        torch.testing.assert_close(output.loss, expected, atol=1e-6, rtol=1e-6)
        ours, theirs = (torch.autograd.grad(*pair)[0] for pair in ((output.loss, projections), (expected, copy)))
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
        queues = [[*F.normalize(projections[v].detach(), dim=1), *queues[v]] for v in range(2)]


def test_small_crops_predict_and_never_assign() -> None:
    """Moving a small crop changes no other crop's gradient."""
    method = make(queue=0)
    gradients = []
    for change in (0.0, 1.0):
        projections = draw().detach()
        projections[-1] += change
        projections.requires_grad_()
        method.compare(projections, 0.5).loss.backward()
        assert projections.grad is not None
        gradients.append(projections.grad)
    torch.testing.assert_close(gradients[0][:-1], gradients[1][:-1])
    assert not torch.allclose(gradients[0][-1], gradients[1][-1])


def test_the_queue_waits_for_its_share_of_the_training() -> None:
    early, late, none = make(queue=5, queue_start=0.4), make(queue=5, queue_start=0.4), make(queue=0)
    for method in (early, late, none):
        method.compare(draw(1), 0.1)
    with_queue, without = late.compare(draw(2), 0.4).loss, early.compare(draw(2), 0.39).loss
    torch.testing.assert_close(without, none.compare(draw(2), 0.39).loss)
    assert not torch.allclose(with_queue, without)


def test_frozen_prototypes_get_a_gradient_of_zero() -> None:
    for progress, moves in ((0.05, False), (0.2, True)):
        method = make(prototypes_frozen=0.1)
        method.compare(draw(), progress).loss.backward()
        gradient = method.prototypes.weight.grad
        assert gradient is not None
        assert bool(gradient.abs().max() > 0) == moves


def test_crops_of_two_sizes_are_projected_in_their_order() -> None:
    method = make().float().eval()
    affine = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3)
    images = [torch.rand(2, 3, size, size) for size in (64, 64, 32)]
    batch = Batch(tuple(View(image, affine, torch.zeros(2, 0, 0)) for image in images), torch.arange(2))
    seen = []
    method.compare = lambda projections, progress: seen.append(projections)  # type: ignore[method-assign,assignment]
    with torch.no_grad():
        method(batch, 0.5)
        for view, image in enumerate(images):
            expected = method.head(method.embedder.raw(image).mean((2, 3)))
            torch.testing.assert_close(seen[0][view], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["hidden", "dim", "temperature", "epsilon", "sinkhorn_iterations"])
def test_settings_that_cannot_work_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{name} must be above 0, not 0"):
        SwAVConfig(**{name: 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prototypes": 1}, "prototypes must be at least 2, not 1"),
        ({"queue": -1}, "queue must be 0"),
        ({"queue_start": 1.5}, r"queue_start is a share in \[0, 1\], not 1.5"),
        ({"views": RandomCrops(views=1)}, "must be 2 together at least, not 1 and 0"),
    ],
)
def test_other_impossible_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SwAVConfig(**changes)
