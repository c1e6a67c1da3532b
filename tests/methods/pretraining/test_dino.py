"""DINO beyond the contract: its equations written literally, schedules, the class token, stochastic depth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tiny
from selfseg.errors import ConfigError
from selfseg.methods.pretraining.dino import DINO, DINOConfig, whole
from selfseg.types import Batch, View

CONFIG = tiny.dino(Path("images"), Path("run")).method
VIT = tiny.dino_vit(Path("images"), Path("run")).method
CROPS = 3


def make(config: DINOConfig = CONFIG, **changes: Any) -> DINO:
    torch.manual_seed(0)
    return DINO(replace(config, **changes)).train()


def draw(seed: int, images: int = 4) -> tuple[Tensor, Tensor]:
    """Scores of the student (V, B, K) and of the teacher (2, B, K)."""
    random = torch.Generator().manual_seed(seed)
    shape = (images, CONFIG.prototypes)
    student = torch.randn(CROPS, *shape, generator=random, dtype=torch.float64).requires_grad_()
    return student, torch.randn(2, *shape, generator=random, dtype=torch.float64)


def batch_of(images: int, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    affine = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(images, 2, 3)
    views = [torch.rand(images, 3, size, size, generator=random) for size in (64, 64, 48)]
    return Batch(tuple(View(x, affine, torch.zeros(images, 0, 0)) for x in views), torch.arange(images))


def softmax(row: Tensor, temperature: float) -> Tensor:
    above = torch.exp(row / temperature)
    return above / above.sum()


def literal(student: Tensor, teacher: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Eq. 1 to 3 and algorithm 1: image by image, crop by crop."""
    terms = []
    for large in range(2):
        for crop in range(CROPS):
            if crop == large:
                continue
            for image in range(student.shape[1]):
                t = softmax(teacher[large, image] - centre, temperature)
                s = softmax(student[crop, image], CONFIG.student_temperature)
                terms.append(-(t * torch.log(s)).sum())
    return torch.stack(terms).mean()


def test_steps_equal_the_equations_written_literally() -> None:
    method = make(temperature_warmup=0.5).double()
    centre = torch.zeros(CONFIG.prototypes, dtype=torch.float64)
    for step, (progress, temperature) in enumerate(((0.0, 0.04), (0.25, 0.055), (0.75, 0.07))):
        student, teacher = draw(step)
        output = method.compare(student, teacher, student, progress)
        expected = literal(student, teacher, centre, temperature)
        torch.testing.assert_close(output.loss, expected)
        found, wanted = (torch.autograd.grad(x, student, retain_graph=True)[0] for x in (output.loss, expected))
        torch.testing.assert_close(found, wanted)
        # Eq. 4
        centre = 0.9 * centre + 0.1 * torch.stack([row for crop in teacher for row in crop]).mean(0)
        torch.testing.assert_close(method.centre, centre)


def test_the_teacher_follows_after_the_step_and_is_what_is_kept() -> None:
    method = make(momentum=0.9)
    student, teacher = method.student.head.directions, method.teacher.head.directions
    with torch.no_grad():
        student.add_(torch.randn_like(student))
    old = teacher.clone()
    method.after_step(0.5)
    torch.testing.assert_close(teacher, 0.95 * old + 0.05 * student)
    assert method.embedder is method.teacher.embedder


def test_without_a_warm_up_the_temperature_is_the_last_one() -> None:
    assert make(temperature_warmup=0.0).temperature(0.0) == pytest.approx(CONFIG.teacher_temperature)


@pytest.mark.parametrize(("progress", "moves"), [(0.05, False), (0.2, True)])
def test_frozen_prototypes_get_a_gradient_of_zero(progress: float, moves: bool) -> None:
    method = make(VIT)
    method(batch_of(2), progress).loss.backward()
    for parameter in (method.student.head.directions, method.student.head.lengths):
        assert parameter is not None
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().max() > 0) == moves


@pytest.mark.parametrize("unit", [True, False])
def test_the_head_ends_in_a_weight_normalised_layer(unit: bool) -> None:
    """As torch has it: direction and length by themselves."""
    head = make(unit_prototypes=unit).student.head.eval()
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(CONFIG.bottleneck, CONFIG.prototypes, bias=False))
    lengths = torch.linspace(0.5, 2, CONFIG.prototypes)[:, None] if not unit else torch.ones(CONFIG.prototypes, 1)
    with torch.no_grad():
        weights = cast(Any, layer).parametrizations.weight
        weights.original0.copy_(lengths)
        weights.original1.copy_(head.directions)
        if head.lengths is not None:
            head.lengths.copy_(lengths)
        images = torch.randn(5, head.layers[0].in_features)
        vectors, scores = head(images)
        torch.testing.assert_close(vectors, F.normalize(head.layers(images), dim=1))
        torch.testing.assert_close(scores, layer(vectors))


def test_crops_of_two_sizes_come_out_in_their_order() -> None:
    method = make().eval()
    images = [view.image for view in batch_of(2).views]
    with torch.no_grad():
        vectors, scores = method.student(images)
        for crop, image in enumerate(images):
            alone = method.student([image])
            torch.testing.assert_close(vectors[crop], alone[0][0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(scores[crop], alone[1][0], atol=1e-5, rtol=1e-4)


def test_the_head_of_a_vit_sees_its_class_token_as_timm_gives_it() -> None:
    embedder = make(VIT).eval().embedder
    image = batch_of(2).views[0].image
    with torch.no_grad():
        tokens = cast(Any, embedder.backbone).model.forward_features((image - embedder.mean) / embedder.std)
        torch.testing.assert_close(whole(embedder, image), tokens[:, 0])
        # The embedding is the patches'.
        torch.testing.assert_close(embedder.raw(image).flatten(2).mT, tokens[:, 1:])


def test_every_weight_of_a_vit_learns() -> None:
    method = make(VIT, drop_path=0.0)
    method(batch_of(3), 0.5).loss.backward()
    without = [
        name for name, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert [name for name in without if "qkv.bias" not in name] == []


def test_stochastic_depth_goes_by_image_and_progress_alone() -> None:
    """An image's loss terms don't depend on which images stand beside it, and a step can be repeated."""
    config = replace(VIT, drop_path=0.5, batch_norm=False)
    batch = batch_of(4)
    half = Batch(tuple(View(v.image[2:], v.to_image[2:], v.regions[2:]) for v in batch.views), batch.index[2:])

    def scores(of: Batch, progress: float) -> Tensor:
        method = make(config)
        method.depth.draw(of.index, CROPS, progress)
        with torch.no_grad():
            return method.student([view.image for view in of.views])[1]

    torch.testing.assert_close(scores(batch, 0.5)[:, 2:], scores(half, 0.5), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores(batch, 0.5), scores(batch, 0.5))
    assert not torch.allclose(scores(batch, 0.5), scores(batch, 0.6))


def test_stochastic_depth_leaves_out_as_many_as_it_should_and_only_while_the_student_learns() -> None:
    method = make(VIT, drop_path=0.4)
    shares = [switch.share for switch in method.depth.switches]
    blocks = len(cast(Any, method.embedder.backbone).model.blocks)
    assert shares == pytest.approx([0.4 * b / (blocks - 1) for b in range(1, blocks) for _ in range(2)])
    last = method.depth.switches[-1]
    images = 2000
    method.depth.draw(torch.arange(images), 1, 0.3)
    kept = last(torch.ones(images, 1, 1)).flatten()
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)
    method.depth.rest()
    assert bool((last(torch.ones(3, 1, 1)) == 1).all())
    assert not [name for name, child in method.teacher.named_modules() if type(child).__name__ == "_Switch"]
    assert make(VIT, drop_path=0.0).state_dict().keys() == method.state_dict().keys()


@pytest.mark.parametrize(
    "name", ["hidden", "bottleneck", "student_temperature", "teacher_temperature", "first_temperature"]
)
def test_settings_that_cannot_work_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{name} must be above 0, not 0"):
        DINOConfig(**{name: 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prototypes": 1}, "prototypes must be at least 2, not 1"),
        ({"temperature_warmup": 1.5}, r"temperature_warmup must be in \[0, 1\], not 1.5"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\), not 1.0"),
    ],
)
def test_other_impossible_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DINOConfig(**changes)
