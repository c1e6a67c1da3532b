"""Instance discrimination beyond the contract: its equations written literally, and what the bank holds."""

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
from selfseg.methods.pretraining.instance import InstanceDiscrimination, InstanceDiscriminationConfig
from selfseg.types import Batch, View

CONFIG = tiny.instance(Path("images"), Path("run")).method
IMAGES = 9


def make(**changes: Any) -> InstanceDiscrimination:
    torch.manual_seed(0)
    method = InstanceDiscrimination(replace(CONFIG, **changes)).double().train()
    method.expect_images(IMAGES)
    method.bank = F.normalize(method.bank, dim=1)  # to the last digit of float64
    return method


def draw(seed: int = 0, images: int = 3, noise: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors (B, D), which images they are, and entries drawn for each."""
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randn(images, CONFIG.dim, generator=random, dtype=torch.float64).requires_grad_()
    index = torch.randperm(IMAGES, generator=random)[:images]
    return vectors, index, torch.randint(IMAGES, (images, noise), generator=random)


def literal_softmax(vectors: Tensor, index: Tensor, bank: list[Tensor], tau: float) -> list[Tensor]:
    """Eq. 2 and 3: minus the logarithm of P(i | v)."""
    losses = []
    for vector, image in zip(vectors, index.tolist(), strict=True):
        v = vector / vector.norm()
        below = torch.stack([torch.exp(entry @ v / tau) for entry in bank]).sum()
        losses.append(-torch.log(torch.exp(bank[image] @ v / tau) / below))
    return losses


def literal_nce(
    vectors: Tensor, index: Tensor, noise: Tensor, bank: list[Tensor], tau: float, z: float
) -> list[Tensor]:
    """Eq. 4 to 7: h(i, v) = P / (P + m P_n), with P = exp(v_i . v / tau) / Z and P_n = 1 / n."""
    m, n = noise.shape[1], len(bank)
    losses = []
    for vector, image, drawn in zip(vectors, index.tolist(), noise.tolist(), strict=True):
        v = vector / vector.norm()

        def h(i: int, v: Tensor = v) -> Tensor:
            p = torch.exp(bank[i] @ v / tau) / z
            return p / (p + m / n)

        loss = -torch.log(h(image))
        for other in drawn:
            loss = loss - torch.log(1 - h(other))
        losses.append(loss)
    return losses


@pytest.mark.parametrize("momentum", [0.5, 0.0])
@pytest.mark.parametrize("noise", [5, 0])
def test_steps_equal_the_equations_written_literally(noise: int, momentum: float) -> None:
    proximal = 3.0
    method = make(noise=noise, momentum=momentum, proximal=proximal)
    bank, z = list(method.bank.clone()), 0.0
    for step in range(3):
        vectors, index, drawn = draw(step, noise=noise)
        copy = vectors.detach().clone().requires_grad_()
        output = method.compare(vectors, index, drawn)
        units = [v / v.norm() for v in copy]
        if noise:
            if not z:  # eq. 8, of the first step's noise
                values = [
                    math.exp(float(bank[j] @ units[b].detach()) / CONFIG.temperature)
                    for b in range(3)
                    for j in drawn[b].tolist()
                ]
                z = len(bank) / len(values) * sum(values)
            losses = literal_nce(copy, index, drawn, bank, CONFIG.temperature, z)
            assert float(method.log_normaliser) == pytest.approx(math.log(z))
        else:
            losses = literal_softmax(copy, index, bank, CONFIG.temperature)
        # Eq. 10.
        terms = [
            loss + proximal * ((unit - bank[i]) ** 2).sum()
            for loss, unit, i in zip(losses, units, index.tolist(), strict=True)
        ]
        expected = torch.stack(terms).mean()
        torch.testing.assert_close(output.loss, expected)
        found, wanted = torch.autograd.grad(output.loss, vectors)[0], torch.autograd.grad(expected, copy)[0]
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-7)
        for unit, i in zip(units, index.tolist(), strict=True):
            entry = momentum * bank[i] + (1 - momentum) * unit.detach()
            bank[i] = entry / entry.norm()
        torch.testing.assert_close(method.bank, torch.stack(bank))


def test_an_image_that_is_twice_in_a_batch_leaves_its_last_vector() -> None:
    method = make(momentum=0.0)
    vectors, _, noise = draw()
    method.compare(vectors, torch.tensor([4, 2, 4]), noise)
    torch.testing.assert_close(method.bank[4], F.normalize(vectors.detach()[2], dim=0))
    torch.testing.assert_close(method.bank[2], F.normalize(vectors.detach()[1], dim=0))


def test_noise_depends_on_the_image_and_the_time_alone() -> None:
    method = make(noise=50)
    both, one = method._draw(torch.tensor([3, 1]), 0.25), method._draw(torch.tensor([1]), 0.25)
    assert torch.equal(both[1:], one)
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(one, method._draw(torch.tensor([1]), 0.5))
    assert set(method._draw(torch.arange(9), 0.1).flatten().tolist()) == set(range(IMAGES))


def test_without_room_for_the_images_the_way_out_is_told() -> None:
    method = InstanceDiscrimination(CONFIG)
    view = View(torch.rand(1, 3, 64, 64), torch.eye(2, 3)[None], torch.zeros(1, 0, 0))
    with pytest.raises(ConfigError, match="call expect_images with the number of images"):
        method(Batch((view,), torch.zeros(1, dtype=torch.int64)), 0.0)


def test_entries_of_a_new_bank_are_random_unit_vectors() -> None:
    method = make()
    torch.testing.assert_close(method.bank.norm(dim=1), torch.ones(IMAGES, dtype=torch.float64))
    assert (method.bank @ method.bank.T - torch.eye(IMAGES)).abs().max() < 0.95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "dim must be above 0, not 0"),
        ({"temperature": 0}, "temperature must be above 0, not 0"),
        ({"noise": -1}, "noise must be 0 .none. or more, not -1"),
        ({"proximal": -1}, "proximal must be 0 .none. or more, not -1"),
        ({"momentum": 1}, r"momentum must be in \[0, 1\), not 1"),
        ({"views": RandomCrops(views=2)}, "must be 1 and small_views 0, not 2 and 0"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InstanceDiscriminationConfig(**changes)
