"""Every method learns from measured images of any number of channels, and void has no part in it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from selfseg.data.loader import Sample, collate
from selfseg.data.regions import ObjectMasks, RegionCache
from selfseg.data.views.base import make_views, prepare_image
from selfseg.methods import Method, methods
from selfseg.methods.base import seen_cells
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops.channels import Channels
from selfseg.types import Batch
from tiny import RECIPES, losses_of


def channels_of(count: int) -> Channels:
    names = tuple(f"band {c}" for c in range(count))
    each = (1.0,) * count
    return Channels(names, tuple(range(count)), count, each, (255.0,) * count, (0.5,) * count, (0.2,) * count)


def levels(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, count])
    image = cv2.resize(rng.integers(20, 236, (7, 9, count), np.uint8), (120, 90), interpolation=cv2.INTER_LINEAR)
    image = np.clip(image.reshape(90, 120, count).astype(int) + rng.integers(-9, 10, (90, 120, count)), 1, 255)
    image[:, :40] = 0
    return image.astype(np.uint8)


def method_and_batch(name: str, count: int, tmp_path: Path, images: int = 4) -> tuple[Method, Batch]:
    recipe: Any = RECIPES[name](tmp_path / "images", tmp_path / "run")
    config = recipe.method
    recipe = replace(recipe, method=replace(config, embedder=replace(config.embedder, channels=channels_of(count))))
    torch.manual_seed(0)
    method = recipe.build_method().train()
    method.expect_images(images)
    plan = method.views()
    samples = []
    for i in range(images):
        source = prepare_image(plan, levels(count, i), rgb=False)
        if isinstance(plan.regions, ObjectMasks):
            regions = np.full(source.shape[:2], -1, np.int32)
            regions[20:70, 50:100] = 0
        else:
            regions = RegionCache(None, plan.regions, rgb=False).get(source)
        samples.append(Sample(make_views(plan, source, regions, np.random.default_rng(i), rgb=False), i))
    batch = collate(samples)
    views = tuple(replace(view, image=view.image.float() / 255) for view in batch.views)
    return method, replace(batch, views=views)


COMPARING = ["stego", "pixpro", "densecl"]
NAMES = [name for name in methods() if name != "pyramid"]


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("name", NAMES)
def test_a_method_takes_steps_on_any_number_of_channels(name: str, count: int, tmp_path: Path) -> None:
    method, batch = method_and_batch(name, count, tmp_path)
    assert batch.views[0].image.shape[1] == count
    losses = losses_of(method, batch, 2)
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("name", ["vice", "maskcontrast", "slotcon", "iic", "deepcluster", "picie", *COMPARING])
def test_images_of_nothing_but_void_have_no_gradient_from_pixels(name: str, tmp_path: Path) -> None:
    method, batch = method_and_batch(name, 2, tmp_path)
    views = tuple(
        replace(view, image=torch.zeros_like(view.image), regions=torch.full_like(view.regions, -1))
        for view in batch.views
    )
    output = method(replace(batch, views=views), 0.5)
    assert torch.isfinite(output.loss)
    output.loss.backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert float(output.loss.detach().abs()) < 1e-6


def test_saliency_has_no_loss_where_void_is(tmp_path: Path) -> None:
    method: Any
    method, batch = method_and_batch("maskcontrast", 3, tmp_path)
    objects = batch.views[0].regions
    seen = seen_cells(method.embedder, batch.views[0].image, objects.shape[1:])
    assert seen is not None
    assert not seen.all()
    assert seen.any()
    shape = objects.shape
    queries, keys = (torch.randn(shape[0], method.embedder.dim, *shape[1:]) for _ in range(2))
    logits = torch.randn(shape, requires_grad=True)
    method.compare(queries, logits, keys, objects, batch.views[1].regions, seen).loss.backward()
    assert logits.grad is not None
    assert float(logits.grad[~seen].abs().max()) == 0
    assert float(logits.grad[seen].abs().min()) > 0


def test_void_cells_are_in_no_slot(tmp_path: Path) -> None:
    method: Any
    method, _ = method_and_batch("slotcon", 3, tmp_path)
    cells = torch.randn(2, 4, 5, method.embedder.dim)
    seen = torch.ones(2, 4, 5, dtype=torch.bool)
    seen[:, :, :2] = False
    seen[1] = False
    prototypes = method.student.prototypes
    groups = method._group(cells, prototypes, seen)
    other = cells.clone()
    other[~seen] = torch.randn(int((~seen).sum()), method.embedder.dim)
    again = method._group(other, prototypes, seen)
    torch.testing.assert_close(groups.slots, again.slots)
    assert torch.equal(groups.active, again.active)
    assert not groups.active[1].any()
    # All seen: the same as of photographs.
    everything, plain = method._group(cells, prototypes, torch.ones_like(seen)), method._group(cells, prototypes)
    torch.testing.assert_close(everything.slots, plain.slots)
    assert torch.equal(everything.active, plain.active)
    aligned, targets = torch.randn(2, 4, 5, 6, requires_grad=True), torch.randn(2, 4, 5, 6)
    method._compare_cells(aligned, targets, seen).backward()
    assert aligned.grad is not None
    assert float(aligned.grad[~seen].abs().max()) == 0


def test_photographs_have_no_void() -> None:
    embedder = Embedder(EmbedderConfig(backbone="test_resnet", output_stride=32, dim=8))
    assert seen_cells(embedder, torch.zeros(1, 3, 32, 32), (4, 4)) is None


@pytest.mark.parametrize("name", ["deepcluster", "picie"])
def test_void_is_in_no_cluster(name: str, tmp_path: Path) -> None:
    """What is remembered, and clustered later, shows something that was measured."""
    method: Any
    method, batch = method_and_batch(name, 2, tmp_path)
    method(batch, 0.5)
    queue = method.queue if name == "deepcluster" else method.queues[1]
    step, image = method.config.sample_stride, batch.views[-1].image
    grid = method.embedder.raw(image).shape[2:]
    seen = seen_cells(method.embedder, image, grid)
    assert seen is not None
    sampled = seen[:, ::step, ::step]
    assert 0 < int(queue.filled) <= int(sampled.sum()) < sampled.numel()
    if name == "deepcluster":
        assert int(queue.filled) == int(sampled.sum())


def test_information_is_of_places_that_both_views_show(tmp_path: Path) -> None:
    method: Any
    method, _ = method_and_batch("iic", 2, tmp_path)
    first, second = (torch.randn(2, method.embedder.dim, 6, 6) for _ in range(2))
    there = torch.ones(2, 6, 6, dtype=torch.bool)
    there[:, :, :3] = False
    same = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3)
    other = [each.clone() for each in (first, second)]
    for each in other:
        each[:, :, :, :3] = torch.randn(2, method.embedder.dim, 6, 3)
    losses = [method.compare(*pair, same, (there, there)).loss for pair in ((first, second), other)]
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("name", COMPARING)
def test_what_void_would_look_like_changes_no_loss(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell of void is compared with nothing, whatever a network makes of it."""
    losses = []
    for noise in (0.0, 5.0):
        method: Any
        method, batch = method_and_batch(name, 2, tmp_path)
        method.eval()  # batch statistics would see the void

        def disturbed(self: Embedder, image: torch.Tensor, own: Any, noise: float = noise) -> torch.Tensor:
            found = own(self, image)
            void = ~seen_cells(self, image, found.shape[2:])[:, None]  # type: ignore[index]
            drawn = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
            return torch.where(void, found + noise * drawn, found)

        with monkeypatch.context() as patched:
            for each in ("raw", "features"):
                own = getattr(Embedder, each)
                patched.setattr(Embedder, each, lambda self, image, own=own: disturbed(self, image, own))
            if name == "densecl":  # cells of its own grid are mixed of those of the network
                size = method.embedder.raw(batch.views[0].image).shape[2]
                method.twin.student.grid = method.twin.teacher.grid = size
            losses.append(method(batch, 0.5).loss)
    torch.testing.assert_close(losses[0], losses[1])
