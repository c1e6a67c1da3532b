"""The pyramid: what is fitted, that nothing is trained, and that every verb takes its run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import selfseg
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import ConfigError
from selfseg.methods.pyramid import Pyramid, PyramidConfig
from selfseg.models import decoders
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid
from selfseg.training.loop import train
from selfseg.training.start import draw_stages

SMALL = EmbedderConfig(
    backbone="resnet10t", output_stride=32, decoder="pyramid", dim=12, aligned=True, resolution=64, frozen=True
)


def test_the_decoder_is_what_numpy_computes() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randn(500, count, generator=generator) * 3 + 1 for count in (6, 10)]
    decoder = decoders.Pyramid([4, 6, 10], dim=5, stages=(-2, -1)).eval()
    decoder.fit(samples, whiten=0.5)
    unit = []
    for values in samples:
        scaled = (values.double().numpy() - values.double().numpy().mean(0)) / values.double().numpy().std(0)
        unit.append(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))
    joined = np.concatenate(unit, 1)
    centred = joined - joined.mean(0)
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    expected = centred @ axes[:, ::-1][:, :5] / np.sqrt(variance[::-1][:5]) ** 0.5
    stages = [torch.zeros(500, 4, 4, 4), samples[0][:, :, None, None], samples[1][:, :, None, None]]
    found = decoder(stages)[:, :, 0, 0].numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-5)  # signs of components are free


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_whitening_is_the_power_that_was_asked_for(whiten: float) -> None:
    samples = [torch.randn(4000, 6, generator=torch.Generator().manual_seed(1))]
    spread = {}
    for power in (0.0, whiten):
        decoder = decoders.Pyramid([6], dim=4, stages=(-1,))
        decoder.fit(samples, power)
        with torch.no_grad():
            spread[power] = decoder([samples[0][:, :, None, None]])[:, :, 0, 0].std(0)
    torch.testing.assert_close(spread[whiten], spread[0.0] ** (1 - whiten), rtol=1e-3, atol=1e-4)


def test_a_correction_begins_at_the_pyramid_itself_and_learns() -> None:
    torch.manual_seed(0)
    plain = Embedder(replace(SMALL, correction=0))
    other = Embedder(replace(SMALL, correction=16))
    other.load_state_dict(plain.state_dict(), strict=False)
    image = torch.rand(2, 3, 64, 96)
    assert torch.equal(plain.eval()(image), other.eval()(image))
    other.train()
    other(image).square().sum().sub(other(image)[:, :3].sum()).backward()
    trained = {name for name, value in other.named_parameters() if value.grad is not None}
    assert trained == {name for name, value in other.named_parameters() if value.requires_grad}
    assert all(name.startswith("decoder.correction") for name in trained)
    assert not other.backbone.training


def test_places_are_drawn_by_seed_and_image(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    embedder, images = Embedder(SMALL), list_images(photos)
    first, again, other = (
        draw_stages(embedder, images, SkipLog(None, len(images)), seed, points=60) for seed in (0, 0, 1)
    )
    assert [values.shape[1] for values in first] == [256, 512]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_run_of_it_is_like_any_other(photos: Path, tmp_path: Path) -> None:
    recipe = pyramid(photos, tmp_path / "run")
    recipe = replace(recipe, method=PyramidConfig(replace(recipe.method.embedder, resolution=96)), accelerator="cpu")
    run = train(recipe, progress=False)
    embedder = selfseg.load(run, "cpu")
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    vectors = embedder.embed(image)
    assert vectors.shape == (96, 24, 32)  # smoothed, at a stride of 4
    assert torch.allclose(vectors.norm(dim=0), torch.ones(24, 32), atol=1e-5)
    assert embedder.colours[0] == (0.5, 0.5, 0.5)
    before = {path: path.read_bytes() for path in (run / "embedder").iterdir()}
    assert train(recipe, progress=False) == run  # a second call changes nothing
    assert {path: path.read_bytes() for path in (run / "embedder").iterdir()} == before
    selfseg.cluster(run, photos, k=(3,), points=500, device="cpu", progress=False)
    selfseg.segment(run, photos, tmp_path / "segments", device="cpu", progress=False)
    page = selfseg.report(run, device="cpu").read_text("utf-8")
    assert "ImageNet labels were used to make them" in page
    card = selfseg.export(run, "onnx")
    assert card.is_file()
    assert "ImageNet labels were used" in card.with_name(card.name + ".md").read_text()


def test_what_it_can_not_be() -> None:
    for change in ({"decoder": "fpn"}, {"frozen": False}, {"correction": 8}):
        with pytest.raises(ConfigError, match="learns nothing"):
            PyramidConfig(replace(SMALL, **change))
    with pytest.raises(ConfigError, match="no training step"):
        Pyramid(PyramidConfig(SMALL))(None, 0.0)
    for stages in ((), (-1, -2), (-1, -1)):
        with pytest.raises(ConfigError, match="finest first"):
            replace(SMALL, stages=stages)
    with pytest.raises(ConfigError, match="has 5 stages"):
        Embedder(replace(SMALL, stages=(-6, -1)))
    with pytest.raises(ConfigError, match="has no 2000 components"):
        Embedder(replace(SMALL, dim=2000))
    with pytest.raises(ConfigError, match="is trained, not fitted"):
        Embedder(EmbedderConfig(output_stride=32, dim=4)).fit_pyramid([torch.rand(5, 4)])


def test_a_coarser_stage_is_brought_to_the_finest_cells() -> None:
    decoder = decoders.Pyramid([2, 3], dim=5, stages=(-2, -1))
    fine, coarse = torch.rand(1, 2, 6, 8), torch.rand(1, 3, 3, 4)
    features = decoder.features([fine, coarse])
    assert features.shape == (1, 5, 6, 8)
    torch.testing.assert_close(features[:, :2], F.normalize(fine, dim=1))
    larger = F.interpolate(F.normalize(coarse, dim=1), (6, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(features[:, 2:], larger)
