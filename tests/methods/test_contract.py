"""What the trainer and the other verbs may expect of every method. A new method only enters `tiny.RECIPES`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfseg.clustering import load_prototypes
from selfseg.data.loader import Sample, collate
from selfseg.methods import METHODS, Method
from selfseg.nn.embedder import Embedder, EmbedderConfig
from selfseg.training.loop import train
from selfseg.training.recipe import read_recipe, write_recipe
from selfseg.types import Batch
from tiny import RECIPES, losses_of


@pytest.fixture(name="method", params=METHODS)
def _method(request: pytest.FixtureRequest) -> Method:
    torch.manual_seed(0)
    return RECIPES[request.param](Path("images"), Path("run")).build_method().train()


def batch_for(method: Method, images: int = 4) -> Batch:
    """Views of drawn images, as the loader would give them."""
    rng, plan = np.random.default_rng(0), method.views()
    samples = []
    for index in range(images):
        image = plan.prepare(np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((12, 12, 1), np.uint8)))
        samples.append(Sample(plan.make(image, plan.regions.compute(image), rng), index))
    return collate(samples).to("cpu")


def test_every_method_is_tested() -> None:
    assert RECIPES.keys() == METHODS.keys()


@pytest.mark.parametrize("images", [1, 4])
def test_a_step_gives_every_trainable_weight_a_finite_gradient(method: Method, images: int) -> None:
    output = method(batch_for(method, images), 0.5)
    output.loss.backward()
    assert output.loss.ndim == 0
    assert torch.isfinite(output.loss)
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_logs_are_documented_detached_scalars(method: Method) -> None:
    output = method(batch_for(method), 0.5)
    for name, value in output.logs.items():
        assert name in (type(method).__doc__ or ""), f"{name} is not in the class's docstring"
        assert value.ndim == 0
        assert not value.requires_grad
        assert torch.isfinite(value), name


def test_the_loss_falls_on_a_fixed_batch(method: Method) -> None:
    losses = losses_of(method, batch_for(method), steps=40)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_step_is_a_function_of_state_batch_and_progress(method: Method) -> None:
    batch = batch_for(method)
    state = {key: value.clone() for key, value in method.state_dict().items()}
    first = method(batch, 0.3).loss.item()
    method.load_state_dict(state)
    assert method(batch, 0.3).loss.item() == first


def test_a_step_in_eval_mode_changes_nothing(method: Method) -> None:
    state = {key: value.clone() for key, value in method.state_dict().items()}
    with torch.no_grad():
        method.eval()(batch_for(method), 0.5)
    assert [key for key, value in method.state_dict().items() if not torch.equal(value, state[key])] == []


def test_mixed_precision_keeps_the_state_and_the_loss_in_float32(method: Method) -> None:
    exact = method(batch_for(method), 0.5).loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        output = method(batch_for(method), 0.5)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(exact, rel=0.15)
    assert {v.dtype for v in method.state_dict().values() if v.is_floating_point()} == {torch.float32}
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_every_tensor_of_the_state_has_one_name(method: Method) -> None:
    places = [value.data_ptr() for value in method.state_dict().values() if value.numel()]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("name", METHODS)
def test_without_a_decoder_the_last_stage_decides_the_dimension(name: str) -> None:
    config: Any = RECIPES[name](Path("images"), Path("run")).method
    embedder = EmbedderConfig(decoder="none", output_stride=32, dim=8)
    method: Method = METHODS[name](replace(config, embedder=embedder)).train()
    assert torch.isfinite(method(batch_for(method), 0.5).loss)
    assert method.embedder.dim == 512


def test_concepts_are_unit_vectors_of_the_embedding(method: Method) -> None:
    concepts = method.concept_vectors()
    if concepts is None:
        return
    assert concepts.shape[1] == method.embedder.dim
    assert not concepts.requires_grad
    torch.testing.assert_close(concepts.norm(dim=1), torch.ones(len(concepts)))


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_survives_its_file(tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name](tmp_path / "images", tmp_path / "run")
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("name", METHODS)
def test_a_run_leaves_an_embedder_and_its_concepts(photos: Path, tmp_path: Path, name: str) -> None:
    recipe: Any = RECIPES[name](photos, tmp_path / "run", steps=2)
    run = train(recipe, progress=False)
    embedder = Embedder.load(run / "embedder")
    assert embedder.embed(next(photos.iterdir())).shape[0] == embedder.dim
    assert load_prototypes(run).shape == (recipe.method.prototypes, embedder.dim)
