"""What the trainer and the other verbs may expect of every method. A new method only enters `tiny.RECIPES`.

The pyramid has tests of its own: it learns nothing.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from selfseg.data.loader import ViewDataset, collate
from selfseg.data.reading.listing import list_images
from selfseg.data.regions import RegionCache
from selfseg.errors import RunError
from selfseg.methods import Method, methods
from selfseg.models.embedder import Embedder
from selfseg.models.prototypes import load_prototypes
from selfseg.training.loop import train
from selfseg.training.recipe import Recipe, read_recipe, write_recipe
from selfseg.types import Batch
from tiny import RECIPES, losses_of


@pytest.fixture(name="recipe", params=[name for name in methods() if name != "pyramid"])
def _recipe(request: pytest.FixtureRequest, photos: Path, tmp_path: Path) -> Recipe[Any]:
    return RECIPES[request.param](photos, tmp_path / "run")


@pytest.fixture(name="method")
def _method(recipe: Recipe[Any]) -> Method:
    torch.manual_seed(0)
    return build(recipe)


def build(recipe: Recipe[Any]) -> Method:
    method = recipe.build_method().train()
    method.expect_images(6)
    return method


def batch_for(method: Method, photos: Path, images: int = 4) -> Batch:
    """Views of photographs, as the loader gives them."""
    plan = method.views()
    dataset = ViewDataset(list_images(photos), plan, 0, RegionCache(None, plan.regions))
    return collate([dataset[0, index] for index in range(images)]).to("cpu")


def test_every_method_is_tested() -> None:
    assert {*RECIPES, "pyramid"} == methods().keys()


@pytest.mark.parametrize("images", [1, 4])
def test_a_step_gives_every_trainable_weight_a_finite_gradient(method: Method, photos: Path, images: int) -> None:
    output = method(batch_for(method, photos, images), 0.5)
    output.loss.backward()
    assert output.loss.ndim == 0
    assert torch.isfinite(output.loss)
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_logs_are_documented_detached_scalars(method: Method, photos: Path) -> None:
    output = method(batch_for(method, photos), 0.5)
    for name, value in output.logs.items():
        assert name in (type(method).__doc__ or ""), f"{name} is not in the class's docstring"
        assert value.ndim == 0
        assert not value.requires_grad
        assert torch.isfinite(value), name


@pytest.mark.slow
def test_the_loss_falls_on_a_fixed_batch(method: Method, photos: Path) -> None:
    losses = losses_of(method, batch_for(method, photos), steps=40)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_step_is_a_function_of_state_batch_and_progress(method: Method, photos: Path) -> None:
    batch = batch_for(method, photos)
    state = {key: value.clone() for key, value in method.state_dict().items()}
    first = method(batch, 0.3).loss.item()
    method.load_state_dict(state)
    assert method(batch, 0.3).loss.item() == first


@pytest.mark.gpu
def test_a_step_on_a_gpu_is_that_on_a_cpu(method: Method, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    batch = batch_for(method, photos)
    other = copy.deepcopy(method).cuda()
    mine, theirs = method(batch, 0.5), other(batch.to("cuda"), 0.5)
    for output in (mine, theirs):
        output.loss.backward()
    torch.testing.assert_close(theirs.loss.detach().cpu(), mine.loss.detach(), rtol=1e-3, atol=1e-4)
    for name, value in mine.logs.items():
        torch.testing.assert_close(theirs.logs[name].cpu(), value, rtol=0.02, atol=0.02, msg=name)
    norms = [
        torch.nn.utils.get_total_norm([p.grad.cpu() for p in one.parameters() if p.grad is not None])
        for one in (method, other)
    ]
    torch.testing.assert_close(norms[1], norms[0], rtol=0.02, atol=0)


def test_a_step_in_eval_mode_changes_nothing(method: Method, photos: Path) -> None:
    state = {key: value.clone() for key, value in method.state_dict().items()}
    with torch.no_grad():
        method.eval()(batch_for(method, photos), 0.5)
    assert [key for key, value in method.state_dict().items() if not torch.equal(value, state[key])] == []


def test_mixed_precision_keeps_the_state_and_the_loss_in_float32(method: Method, photos: Path) -> None:
    state = {key: value.clone() for key, value in method.state_dict().items()}
    exact = method(batch_for(method, photos), 0.5).loss.item()
    method.load_state_dict(state)
    with torch.autocast("cpu", torch.bfloat16):
        output = method(batch_for(method, photos), 0.5)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(exact, rel=0.15)
    assert {v.dtype for v in method.state_dict().values() if v.is_floating_point()} == {torch.float32}
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_every_tensor_of_the_state_has_one_name(method: Method) -> None:
    places = [value.data_ptr() for value in method.state_dict().values() if value.numel()]
    assert len(places) == len(set(places))


def test_without_a_decoder_the_last_stage_decides_the_dimension(recipe: Recipe[Any], photos: Path) -> None:
    embedder = replace(recipe.method.embedder, decoder="none", output_stride=32, dim=8, centred=False)
    method = build(replace(recipe, method=replace(recipe.method, embedder=embedder)))
    assert torch.isfinite(method(batch_for(method, photos), 0.5).loss)
    assert method.embedder.dim == method.embedder.backbone.feature_info.channels()[-1]


def test_concepts_are_unit_vectors_of_the_embedding(method: Method) -> None:
    concepts = method.concept_vectors()
    if concepts is None:
        return
    assert concepts.shape[1] == method.embedder.dim
    assert not concepts.requires_grad
    torch.testing.assert_close(concepts.norm(dim=1), torch.ones(len(concepts)))


def test_a_recipe_survives_its_file(tmp_path: Path, recipe: Recipe[Any]) -> None:
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


def test_a_run_leaves_an_embedder_and_its_concepts(photos: Path, recipe: Recipe[Any]) -> None:
    run = train(replace(recipe, steps=2), progress=False)
    embedder = Embedder.load(run / "embedder")
    assert embedder.embed(next(photos.iterdir())).shape[0] == embedder.dim
    concepts = recipe.build_method().concept_vectors()
    if concepts is None:
        with pytest.raises(RunError, match="has no prototypes"):
            load_prototypes(run)
    else:
        assert load_prototypes(run).shape == concepts.shape == (recipe.method.prototypes, embedder.dim)
