from dataclasses import replace

import numpy as np
import pytest
import torch

from selfseg.data.loader import Sample, collate
from selfseg.data.regions import Grid, Pixels, RegionSource, Superpixels
from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.errors import ConfigError
from selfseg.methods.vice import ViCE, ViCEConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.types import Batch, View
from tiny import losses_of

PLAN = ContentCentredViews(views=3, size=32, short_side=48, regions=Superpixels(8), region_stride=4)
CONFIG = ViCEConfig(
    embedder=EmbedderConfig(output_stride=32, dim=8, resolution=48), views=PLAN, prototypes=6, queue=20, pool_stride=4
)


def make_batch(plan: ContentCentredViews = PLAN, images: int = 2, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(images):
        image = plan.prepare(np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8)))
        samples.append(Sample(plan.make(image, plan.regions.compute(image), rng), index))
    return collate(samples).to("cpu")


@pytest.mark.parametrize("regions", [Superpixels(8), Grid(8), Pixels()])
@pytest.mark.parametrize("pool", ["normalised", "raw"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_step_learns_from_every_region_source(regions: RegionSource, pool: str, symmetric: bool) -> None:
    stride = 1 if isinstance(regions, Pixels) else 4
    plan = replace(PLAN, regions=regions, region_stride=stride)
    torch.manual_seed(0)
    method = ViCE(replace(CONFIG, views=plan, pool_stride=stride, pool=pool, symmetric=symmetric))  # type: ignore[arg-type]
    output = method(make_batch(plan), progress=0.5)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert output.logs["regions_per_image"] > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())
    assert method.prototypes.weight.grad is not None
    assert method.prototypes.weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_the_loss_falls_on_a_fixed_batch() -> None:
    torch.manual_seed(0)
    method = ViCE(replace(CONFIG, embedder=replace(CONFIG.embedder, centred=True)))
    losses = losses_of(method, make_batch(), steps=25)
    assert losses[-1] < 0.8 * losses[0]


def test_frozen_prototypes_get_a_zero_gradient_and_then_a_real_one() -> None:
    method = ViCE(replace(CONFIG, prototypes_frozen=0.1))
    method(make_batch(), progress=0.05).loss.backward()
    assert method.prototypes.weight.grad is not None
    assert (method.prototypes.weight.grad == 0).all()
    method(make_batch(), progress=0.1).loss.backward()
    assert (method.prototypes.weight.grad != 0).any()


def test_prototypes_have_unit_length_after_every_step() -> None:
    method = ViCE(CONFIG)
    with torch.no_grad():
        method.prototypes.weight.mul_(3)
    method.after_step(0.5)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(6))


def test_images_without_common_regions_count_nowhere() -> None:
    torch.manual_seed(0)
    method = ViCE(replace(CONFIG, queue=0)).eval()
    batch = make_batch(images=2)
    alone = method(Batch(tuple(_images(v, slice(0, 1)) for v in batch.views), batch.index[:1]), 0.5).loss
    emptied = tuple(View(v.image, v.to_image, _without(v.regions, 1)) for v in batch.views)
    torch.testing.assert_close(method(Batch(emptied, batch.index), 0.5).loss, alone, atol=1e-5, rtol=0)


def test_a_batch_without_any_region_gives_zero_with_gradient() -> None:
    method = ViCE(CONFIG)
    batch = make_batch()
    views = tuple(View(v.image, v.to_image, torch.full_like(v.regions, -1)) for v in batch.views)
    output = method(Batch(views, batch.index), 0.5)
    output.loss.backward()
    assert output.loss.item() == 0
    assert all(torch.isfinite(value) for value in output.logs.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())


def test_a_queue_smaller_than_a_batch_works() -> None:
    method = ViCE(replace(CONFIG, queue=3))
    for _ in range(2):
        assert torch.isfinite(method(make_batch(), 0.5).loss)
    assert method.queue.full


def test_the_queue_joins_from_its_start_on_and_is_filled_before() -> None:
    torch.manual_seed(0)
    at_once, later = ViCE(replace(CONFIG, queue=3)), ViCE(replace(CONFIG, queue=3, queue_start=0.5))
    later.load_state_dict(at_once.state_dict())
    vectors = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    for method in (at_once, later):
        method.queue.push(vectors[:3])
    alone = ViCE(replace(CONFIG, queue=0))
    alone.prototypes.load_state_dict(at_once.prototypes.state_dict())
    assert torch.equal(later.assign(vectors, 0.49), alone.assign(vectors))
    assert torch.equal(later.assign(vectors, 0.5), at_once.assign(vectors, 0.0))
    assert not torch.equal(later.assign(vectors, 0.5), alone.assign(vectors))
    early = ViCE(replace(CONFIG, queue_start=1.0))
    early(make_batch(), 0.0)
    assert int(early.queue.filled) > 0


def test_the_loss_of_views_that_stay_inside_does_not_know_what_becomes_of_others() -> None:
    """To the bit, with its gradients: filling only changes views that reach beyond the image."""
    plan = replace(PLAN, zoom=(0.25, 0.4), short_side=64)
    compared = 0
    for seed in range(6):
        filled, clipped = (make_batch(replace(plan, outside=outside), seed=seed) for outside in ("fill", "clip"))  # type: ignore[arg-type]
        beyond = any((_corners(view).abs() > 1 + 1e-6).any() for view in filled.views)
        found = []
        for batch in (filled, clipped):
            torch.manual_seed(0)
            method = ViCE(replace(CONFIG, views=plan))
            loss = method(batch, 0.5).loss
            loss.backward()
            found.append((loss, [p.grad for p in method.parameters()]))
        same = torch.equal(found[0][0], found[1][0])
        assert same or beyond
        if not beyond:
            compared += 1
            assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))  # type: ignore[arg-type]
    assert 0 < compared < 6


def _corners(view: View) -> torch.Tensor:
    """(B, 2, 4) of the source image."""
    corners = torch.tensor([[-1.0, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]])
    return view.to_image.float() @ corners


def test_the_queue_is_untouched_in_eval_mode() -> None:
    method = ViCE(CONFIG).eval()
    method(make_batch(), 0.5)
    assert int(method.queue.filled) == 0


def test_settings_that_cannot_work_say_why() -> None:
    with pytest.raises(ConfigError, match=r"method\.temperature must be above 0, not -1"):
        replace(CONFIG, temperature=-1.0)
    with pytest.raises(ConfigError, match=r"method\.prototypes must be at least 2, not 1"):
        replace(CONFIG, prototypes=1)
    with pytest.raises(ConfigError, match=r"method\.queue_start is a share in \[0, 1\], not 1.5"):
        replace(CONFIG, queue_start=1.5)
    with pytest.raises(ConfigError, match=r"prototypes_frozen is a share in \[0, 1\], not 313"):
        replace(CONFIG, prototypes_frozen=313.0)
    with pytest.raises(ConfigError, match="region_stride"):
        replace(CONFIG, pool_stride=1)
    with pytest.raises(ConfigError, match="at least 2"):
        replace(CONFIG, views=replace(PLAN, views=1))


def _images(view: View, which: slice) -> View:
    return View(view.image[which], view.to_image[which], view.regions[which])


def _without(regions: torch.Tensor, image: int) -> torch.Tensor:
    regions = regions.clone()
    regions[image] = -1
    return regions
