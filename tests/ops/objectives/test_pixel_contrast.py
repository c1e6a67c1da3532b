"""The contrast of pixels with objects: equal to the plain formula, its gradient too, and nothing large kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from selfseg.ops.objectives import pixel_contrast
from selfseg.ops.objectives.losses import balanced_bce
from selfseg.ops.objectives.pixel_contrast import balanced_object_weight, contrast_pixels, object_vectors


def draw(
    images: int = 2, dim: int = 5, size: tuple[int, int] = (6, 7), keys: int = 9, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """An embedding with gradient, a third of its pixels without target, and keys; float64."""
    generator = torch.Generator().manual_seed(seed)
    embedding = 3 * torch.randn(images, dim, *size, generator=generator, dtype=torch.float64)
    target = torch.randint(-keys // 2, keys, (images, *size), generator=generator).clamp(min=-1)
    vectors = torch.randn(keys, dim, generator=generator, dtype=torch.float64)
    return embedding.requires_grad_(), target, F.normalize(vectors, dim=1)


def plain(embedding: Tensor, target: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Equation 3, written down."""
    pixels = F.normalize(embedding, dim=1).permute(0, 2, 3, 1)[target >= 0]
    return F.cross_entropy(pixels @ keys.T / temperature, target[target >= 0], reduction="none")


@pytest.mark.parametrize("chunk", [1, 40, 2**18])  # logits at a time: one pixel, a few with a rest, all
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_loss_and_gradient_equal_the_formula(
    monkeypatch: pytest.MonkeyPatch, chunk: int, memory_format: torch.memory_format
) -> None:
    monkeypatch.setitem(pixel_contrast._CHUNK, "cpu", chunk)
    embedding, target, keys = draw()
    embedding = embedding.detach().contiguous(memory_format=memory_format).requires_grad_()
    loss, _ = contrast_pixels(embedding, target, keys, 0.2)
    expected = plain(embedding, target, keys, 0.2)
    torch.testing.assert_close(loss, expected)
    upstream = torch.linspace(-1, 2, len(loss), dtype=torch.float64)  # each pixel has a weight of its own
    mine, theirs = (torch.autograd.grad((each * upstream).sum(), embedding)[0] for each in (loss, expected))
    torch.testing.assert_close(mine, theirs)


def test_the_gradient_is_that_of_finite_differences() -> None:
    embedding, target, keys = draw(images=1, dim=3, size=(2, 3), keys=4)
    assert gradcheck(lambda x: contrast_pixels(x, target, keys, 0.5)[0], embedding)


def test_pixels_that_are_not_contrasted_get_no_gradient() -> None:
    embedding, target, keys = draw()
    contrast_pixels(embedding, target, keys, 0.5)[0].sum().backward()
    assert embedding.grad is not None
    moved = embedding.grad.abs().sum(1) > 0
    assert torch.equal(moved, target >= 0)


def test_found_tells_whether_the_own_key_is_the_nearest() -> None:
    embedding, target, keys = draw()
    pixels = F.normalize(embedding, dim=1).permute(0, 2, 3, 1)[target >= 0]
    assert torch.equal(
        contrast_pixels(embedding, target, keys, 0.5)[1], (pixels @ keys.T).argmax(1) == target[target >= 0]
    )


def test_no_pixel_gives_no_loss_and_a_gradient_of_zero() -> None:
    embedding, target, keys = draw()
    for vectors in (keys, keys[:0]):
        loss, found = contrast_pixels(embedding, torch.full_like(target, -1), vectors, 0.5)
        assert loss.shape == found.shape == (0,)
        (gradient,) = torch.autograd.grad(loss.sum(), embedding)
        assert (gradient == 0).all()


def test_a_vector_of_length_zero_has_a_gradient_of_zero() -> None:
    embedding, target, keys = draw()
    with torch.no_grad():
        embedding[0, :, 0, 0], target[0, 0, 0] = 0, 2
    contrast_pixels(embedding, target, keys, 0.5)[0].sum().backward()
    assert embedding.grad is not None
    assert (embedding.grad[0, :, 0, 0] == 0).all()
    assert torch.isfinite(embedding.grad).all()


def test_a_sharp_temperature_stays_finite() -> None:
    embedding, target, keys = draw()
    loss, _ = contrast_pixels(embedding.float(), target, keys.float(), 1e-3)
    torch.testing.assert_close(loss.double(), plain(embedding, target, keys, 1e-3), atol=1e-2, rtol=1e-4)


class _Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor has which an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return made


def test_memory_does_not_grow_with_pixels_times_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pixel_contrast._CHUNK, "cpu", 4096)
    kept, largest = {}, {}
    for count in (16, 2048):
        embedding, target, keys = draw(dim=8, size=(32, 32), keys=count)
        target = torch.where(target >= 0, target % 16, -1)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):  # type: ignore[misc]
            with _Largest() as seen:
                loss, _ = contrast_pixels(embedding, target, keys, 0.5)
                loss.sum().backward()
        kept[count], largest[count] = sum(sizes), seen.numbers
    pixels = 2 * 32 * 32
    assert 0 < kept[16] <= pixels * (8 + 1)
    assert abs(kept[2048] - kept[16]) < pixels  # the draw of targets differs
    assert largest[2048] <= max(embedding.numel(), 2048 * 8)  # nothing has more than the embedding or the keys


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_object_vectors_equal_a_loop(memory_format: torch.memory_format) -> None:
    embedding, row, _ = draw(keys=5)
    row[row == 3] = 4  # row 3 stays empty
    vectors = object_vectors(embedding.contiguous(memory_format=memory_format), row, 5)
    unit = F.normalize(embedding, dim=1).permute(0, 2, 3, 1)
    for i in (0, 1, 2, 4):
        torch.testing.assert_close(vectors[i], F.normalize(unit[row == i].sum(0), dim=0).detach())
    assert (vectors[3] == 0).all()
    assert not vectors.requires_grad
    assert object_vectors(embedding, torch.full_like(row, -1), 0).shape == (0, 5)


def test_weights_fall_with_the_share() -> None:
    shares = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    expected = [1 / torch.log(1.02 + share) for share in shares]
    torch.testing.assert_close(balanced_object_weight(shares), torch.stack(expected))
    assert (balanced_object_weight(shares).diff() < 0).all()


@pytest.mark.parametrize("foreground", [0.0, 0.3, 1.0])
def test_both_classes_have_the_same_say(foreground: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 40, generator=generator, dtype=torch.float64).requires_grad_()
    mask = torch.arange(120).view(3, 40) < 120 * foreground
    share = (~mask).double().mean()
    loss = balanced_bce(logits, mask, share)
    probability = logits.sigmoid()
    terms = torch.where(mask, -share * probability.log(), -(1 - share) * (1 - probability).log())
    torch.testing.assert_close(loss, terms.mean())
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.gpu
def test_a_gpu_finds_the_same_object_vectors_each_time() -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(3, 32, 50, 60, generator=generator)
    row = torch.randint(-1, 9, (3, 50, 60), generator=generator)
    first, second = (object_vectors(embedding.cuda(), row.cuda(), 10) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first.cpu(), object_vectors(embedding, row, 10), rtol=1e-5, atol=1e-6)
