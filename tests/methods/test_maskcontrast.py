"""MaskContrast beyond contract and reference numbers: several objects, objects that vanish, none at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from selfseg.errors import ConfigError
from selfseg.methods.maskcontrast import MaskContrast
from selfseg.models.embedder import Embedder
from selfseg.types import Batch, View

CONFIG = tiny.maskcontrast(Path("images"), Path("run")).method
DIM = 8


def make(**changes: Any) -> MaskContrast:
    torch.manual_seed(0)
    return MaskContrast(replace(CONFIG, **changes)).double().train()


def draw(images: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and saliency with gradient, and keys: (B, D, 6, 7), (B, 6, 7), (B, D, 6, 7)."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys = torch.randn(2, images, DIM, 6, 7, generator=generator, dtype=torch.float64)
    saliency = torch.randn(images, 6, 7, generator=generator, dtype=torch.float64)
    return queries.requires_grad_(), saliency.requires_grad_(), keys


def ids(*numbers: int, seed: int = 0) -> Tensor:
    """(B, 6, 7): background and `numbers[b]` objects in image b, scattered."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(-1, count, (6, 7), generator=generator) for count in numbers])


def literal(
    queries: Tensor,
    saliency: Tensor,
    keys: Tensor,
    query_ids: Tensor,
    key_ids: Tensor,
    queue: Tensor,
    weighted: bool,
    balanced: bool,
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 pixel by pixel and object by object; returns the loss and the keys."""
    q, k = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    prototypes: dict[tuple[int, int], Tensor] = {}
    for n in range(len(k)):
        for i in sorted(set(key_ids[n].flatten().tolist()) - {-1}):
            prototypes[n, i] = F.normalize(k[n][:, key_ids[n] == i].sum(1), dim=0)
    names = list(prototypes)
    matrix = torch.stack([*prototypes.values(), *queue])
    terms, owners = [], []
    for n, y, x in (query_ids >= 0).nonzero().tolist():
        owner = (n, int(query_ids[n, y, x]))
        if owner in prototypes:
            logits = matrix @ q[n, :, y, x] / CONFIG.temperature
            terms.append(logits.logsumexp(0) - logits[names.index(owner)])
            owners.append(owner)
    share = torch.tensor([owners.count(owner) / len(owners) for owner in owners], dtype=q.dtype)
    weight = 1 / torch.log(1.02 + share) if weighted else torch.ones_like(share)
    contrast = (torch.stack(terms) * weight).sum() / weight.sum()
    probability, foreground = saliency.sigmoid(), query_ids >= 0
    w, rest = (~foreground).double().mean(), foreground.double().mean()
    if not balanced:
        w = rest = torch.ones(())
    apart = torch.where(foreground, -w * probability.log(), -rest * (1 - probability).log()).mean()
    return contrast + CONFIG.saliency_weight * apart, matrix[: len(names)]


@pytest.mark.parametrize("weighting", ["pixel", "object"])
@pytest.mark.parametrize("counts", [(1, 1, 1), (3, 0, 2), (1, 4, 2)])
@pytest.mark.parametrize("loss", ["plain", "balanced"])
def test_the_step_equals_algorithm_1_written_literally(counts: tuple[int, ...], weighting: str, loss: str) -> None:
    method = make(weighting=weighting, saliency_loss=loss)
    method.queue.push(F.normalize(torch.randn(4, DIM, dtype=torch.float64), dim=1))
    queue = method.queue.vectors[:4].clone()
    queries, saliency, keys = draw()
    query_ids, key_ids = ids(*counts, seed=1), ids(*counts, seed=2)
    output = method.compare(queries, saliency, keys, query_ids, key_ids)
    expected, vectors = literal(
        queries, saliency, keys, query_ids, key_ids, queue, weighting == "object", loss == "balanced"
    )
    torch.testing.assert_close(output.loss, expected)
    inputs = (queries, saliency)
    mine, theirs = (torch.autograd.grad(each, inputs) for each in (output.loss, expected))
    torch.testing.assert_close(mine, theirs)
    assert output.logs["objects_per_image"] == pytest.approx(len(vectors) / 3)
    kept = min(len(vectors), method.queue.size)
    torch.testing.assert_close(method.queue.vectors[:kept], vectors.detach()[:kept])


def test_small_objects_count_more_if_wanted() -> None:
    queries, saliency, keys = draw(images=2)
    mask = torch.full((2, 6, 7), -1)
    mask[0], mask[1, 0, 0] = 0, 0  # 42 pixels and one
    losses = {}
    for weighting in ("pixel", "object"):
        loss = make(weighting=weighting).compare(queries, saliency, keys, mask, mask).logs["loss_contrast"]
        losses[weighting] = loss
    unit, both = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    vectors = torch.stack([F.normalize(both[0].sum((1, 2)), dim=0), both[1, :, 0, 0]])
    small = (vectors @ unit[1, :, 0, 0] / 0.5).log_softmax(0)[1].neg().detach()
    assert (losses["object"] - small).abs() < (losses["pixel"] - small).abs()


def test_an_object_that_vanished_is_neither_contrasted_nor_enqueued() -> None:
    method = make()
    queries, saliency, keys = draw()
    query_ids, key_ids = ids(2, 2, 2, seed=1), ids(2, 2, 2, seed=2)
    key_ids[1][key_ids[1] == 1] = -1
    output = method.compare(queries, saliency, keys, query_ids, key_ids)
    output.loss.backward()
    assert output.logs["objects_per_image"] == pytest.approx(5 / 3)
    assert int(method.queue.filled) == 5
    norms = method.queue.vectors.norm(dim=1)
    torch.testing.assert_close(norms[:5], torch.ones_like(norms[:5]))
    assert (norms[5:] == 0).all()
    assert queries.grad is not None
    touched = queries.grad.abs().sum(1) > 0
    assert not touched[1][query_ids[1] == 1].any()
    assert touched[1][query_ids[1] == 0].all()


def test_an_object_that_only_the_second_view_shows_is_a_negative() -> None:
    queries, saliency, keys = draw(images=2)
    query_ids, key_ids = ids(1, 1, seed=1), ids(1, 1, seed=2)
    query_ids[1] = -1
    with_it = make(saliency_weight=0.0).compare(queries, saliency, keys, query_ids, key_ids)
    key_ids[1] = -1
    without = make(saliency_weight=0.0).compare(queries, saliency, keys, query_ids, key_ids)
    assert with_it.loss > without.loss == 0


@pytest.mark.parametrize("images", [1, 3])
def test_no_object_in_a_batch_gives_a_defined_loss_with_gradient(images: int) -> None:
    method = make()
    queries, saliency, keys = draw(images)
    nothing = torch.full((images, 6, 7), -1)
    output = method.compare(queries, saliency, keys, nothing, nothing)
    output.loss.backward()
    assert output.loss == 0
    assert queries.grad is not None
    assert (queries.grad == 0).all()
    assert saliency.grad is not None
    assert torch.isfinite(saliency.grad).all()
    assert int(method.queue.filled) == 0
    assert all(torch.isfinite(value) for value in output.logs.values())


def test_only_object_everywhere_is_defined_too() -> None:
    queries, saliency, keys = draw(images=1)
    everywhere = torch.zeros(1, 6, 7, dtype=torch.int64)
    output = make().compare(queries, saliency, keys, everywhere, everywhere)
    output.loss.backward()
    assert output.loss == 0  # one object among itself, and no background to tell it from
    assert queries.grad is not None
    torch.testing.assert_close(queries.grad, torch.zeros_like(queries), atol=1e-12, rtol=0)


def test_the_queue_is_used_as_it_was_before_the_step() -> None:
    method, twice = make(queue=64), make(queue=64)
    queries, saliency, keys = draw()
    objects = ids(2, 2, 2)
    first = method.compare(queries, saliency, keys, objects, objects).loss
    again = method.compare(queries, saliency, keys, objects, objects).loss
    assert again > first  # its own objects of the last step are negatives now
    torch.testing.assert_close(twice.compare(queries, saliency, keys, objects, objects).loss, first)


def photographs(images: int = 2) -> Batch:
    view = View(torch.rand(images, 3, 64, 64), torch.eye(2, 3).expand(images, 2, 3), ids(*[2] * images))
    return Batch((view, view), torch.arange(images))


def test_the_momentum_network_moves_in_training_only_and_keeps_statistics_of_its_own() -> None:
    torch.manual_seed(0)
    method = MaskContrast(replace(CONFIG, momentum=0.9)).train()
    student, teacher = method.twin.student, method.twin.teacher
    assert isinstance(teacher, Embedder)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    before = [parameter.clone() for parameter in teacher.parameters()]
    method.eval()(photographs(), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    method.train()(photographs(), 0.0).loss.backward()
    for old, new in zip(before, teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)
        assert new.grad is None
    mine, theirs = (dict(network.named_buffers())["centre.running_mean"] for network in (student, teacher))
    assert not torch.equal(mine, theirs)


def test_what_is_kept_tells_foreground(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = MaskContrast(CONFIG).train()
    tiny.losses_of(method, photographs(), steps=3)
    method.embedder.save(tmp_path)
    loaded = Embedder.load(tmp_path)
    image = torch.rand(1, 3, 64, 96)
    assert loaded.saliency(image).shape == (1, 16, 24)
    torch.testing.assert_close(loaded.saliency(image), method.embedder.eval().saliency(image))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"momentum": 1.5}, r"momentum must be in \[0, 1\], not 1.5"),
        ({"queue": -1}, "queue must be 0 .* not -1"),
        ({"saliency_loss": "none"}, 'saliency_loss is "plain" or "balanced", not \'none\''),
        ({"saliency_weight": -1.0}, "saliency_weight can't be negative: -1.0"),
        ({"embedder": replace(CONFIG.embedder, saliency=False)}, "saliency must be True, not False"),
    ],
)
def test_settings_that_cannot_work_say_why(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(CONFIG, **change)
