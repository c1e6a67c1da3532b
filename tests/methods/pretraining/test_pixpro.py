"""PixPro beyond the contract: its equations written literally, where cells lie, images without a pair."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from selfseg.data.views.random_crops import MultiCrops
from selfseg.errors import ConfigError
from selfseg.methods.pretraining.pixpro import PixPro, PixProConfig, near_cells
from selfseg.ops.geometry import crop_affine

CONFIG = tiny.pixpro(Path("images"), Path("run")).method
SIZE = (2, 3)
CELLS = 6
IMAGE = (60, 80)
# (x0, y0, x1, y1) and whether it is mirrored: overlapping, mirrored, one within the other, apart.
PAIRS = [
    (((0, 0, 40, 30), False), ((10, 5, 60, 45), False)),
    (((5, 5, 65, 50), True), ((0, 0, 80, 60), False)),
    (((20, 20, 40, 40), True), ((0, 0, 80, 60), True)),
    (((0, 0, 20, 20), False), ((60, 40, 80, 60), True)),
]


def affines() -> tuple[Tensor, Tensor]:
    first, second = (
        torch.stack([torch.from_numpy(crop_affine(pair[which][0], IMAGE, pair[which][1])) for pair in PAIRS]).double()
        for which in (0, 1)
    )
    return first, second


def make(**changes: Any) -> PixPro:
    torch.manual_seed(0)
    return PixPro(replace(CONFIG, **changes)).double().train()


def draw(seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(len(PAIRS), CELLS, CONFIG.dim, generator=random, dtype=torch.float64) for _ in range(2)]


def centre(box: tuple[int, int, int, int], flip: bool, cell: int) -> tuple[float, float]:
    """A cell's middle, in an image of width and height 1."""
    row, column = divmod(cell, SIZE[1])
    if flip:
        column = SIZE[1] - 1 - column
    x0, y0, x1, y1 = box[0] / IMAGE[1], box[1] / IMAGE[0], box[2] / IMAGE[1], box[3] / IMAGE[0]
    return x0 + (column + 0.5) * (x1 - x0) / SIZE[1], y0 + (row + 0.5) * (y1 - y0) / SIZE[0]


def diagonal(box: tuple[int, int, int, int]) -> float:
    return math.hypot((box[2] - box[0]) / IMAGE[1] / SIZE[1], (box[3] - box[1]) / IMAGE[0] / SIZE[0])


def is_positive(image: int, i: int, j: int, threshold: float) -> bool:
    """Eq. 1 of cell i of the first crop and j of the second."""
    (first, mirrored), (second, mirrored_too) = PAIRS[image]
    a, b = centre(first, mirrored, i), centre(second, mirrored_too, j)
    return math.dist(a, b) / max(diagonal(first), diagonal(second)) < threshold


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def literal(propagated: list[Tensor], keys: list[Tensor], threshold: float) -> Tensor:
    """Eq. 6 as the reference weighs it, pair by pair; an image without a pair adds nothing."""
    images = []
    for image in range(len(PAIRS)):
        pairs = [(i, j) for i in range(CELLS) for j in range(CELLS) if is_positive(image, i, j, threshold)]
        terms = [
            (2 - 2 * cosine(propagated[0][image, i], keys[1][image, j]))
            + (2 - 2 * cosine(propagated[1][image, j], keys[0][image, i]))
            for i, j in pairs
        ]
        images.append(torch.stack(terms).mean() if terms else torch.zeros((), dtype=torch.float64))
    return torch.stack(images).mean()


@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.5])
def test_pairs_are_those_of_equation_1(threshold: float) -> None:
    found = near_cells(*affines(), SIZE, threshold)
    for image in range(len(PAIRS)):
        wanted = [[is_positive(image, i, j, threshold) for j in range(CELLS)] for i in range(CELLS)]
        assert found[image].tolist() == wanted
    assert found[:3].any()
    assert not found[3].any()


@pytest.mark.parametrize("threshold", [0.7, 1.5])
def test_the_loss_equals_the_equations_written_literally(threshold: float) -> None:
    propagated, keys = [y.requires_grad_() for y in draw(0)], draw(1)
    output = make(threshold=threshold).compare(propagated, keys, affines(), SIZE)
    expected = literal(propagated, keys, threshold)
    torch.testing.assert_close(output.loss, expected)
    found, wanted = (torch.autograd.grad(x, propagated, retain_graph=True) for x in (output.loss, expected))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert output.logs["matched_images"] == 0.75


@pytest.mark.parametrize(("layers", "sharpness"), [(0, 2.0), (1, 2.0), (1, 1.0), (2, 4.0)])
def test_cells_are_propagated_as_equations_4_and_5_say(layers: int, sharpness: float) -> None:
    method = make(transform_layers=layers, sharpness=sharpness)
    cells = draw(0)[0].requires_grad_()
    found = method.propagation(cells)
    values = method.propagation.transform(cells.flatten(0, 1)).view_as(cells)
    rows = []
    for image in range(len(cells)):
        for i in range(CELLS):
            total = torch.zeros(CONFIG.dim, dtype=torch.float64)
            for j in range(CELLS):
                similarity = cosine(cells[image, i], cells[image, j])
                if similarity > 0:
                    value = values[image, j]
                    total = total + similarity**sharpness * value / value.square().sum().sqrt()
            rows.append(total)
    expected = torch.stack(rows).view_as(cells)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), cells, retain_graph=True),
        torch.autograd.grad((expected * weight).sum(), cells),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_batch_without_any_pair_has_a_loss_of_zero_with_gradient() -> None:
    propagated, keys = [y[3:].requires_grad_() for y in draw(0)], [k[3:] for k in draw(1)]
    first, second = affines()
    output = make().compare(propagated, keys, (first[3:], second[3:]), SIZE)
    assert output.loss == 0
    assert all(torch.isfinite(value) for value in output.logs.values())
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(output.loss, propagated))


def test_a_soft_similarity_has_a_gradient_where_cells_are_opposite() -> None:
    method = make(sharpness=0.5)
    cells = torch.tensor([[[1.0] * CONFIG.dim, [-1.0] * CONFIG.dim]], dtype=torch.float64).requires_grad_()
    assert torch.isfinite(torch.autograd.grad(method.propagation(cells).sum(), cells)[0]).all()


@pytest.mark.parametrize("name", ["hidden", "dim", "threshold", "sharpness"])
def test_settings_that_cannot_work_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{name} must be above 0, not 0"):
        PixProConfig(**{name: 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": -1}, r"momentum must be in \[0, 1\], not -1"),
        ({"transform_layers": 3}, "transform_layers must be 0, 1 or 2, not 3"),
        ({"views": MultiCrops(small_views=2)}, "small_views is 0, not 2"),
    ],
)
def test_other_impossible_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PixProConfig(**changes)
