"""Which parameters learn how fast: the first step's change tells."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from selfseg.data.loader import StepSampler, ViewDataset, collate
from selfseg.data.reading.listing import list_images
from selfseg.data.regions import RegionCache
from selfseg.errors import ConfigError, Interrupted
from selfseg.models.backbones import depths
from selfseg.training import loop
from selfseg.training.log import read_log
from selfseg.training.loop import train
from selfseg.training.optimizer import clip_each, make_optimizer, set_rate
from selfseg.training.recipe import OptimizerConfig, Recipe
from tiny import RUNS, assert_same_state, dino_vit, slotcon, vice


def changes_of_a_step(recipe: Recipe[Any], config: OptimizerConfig) -> dict[str, torch.Tensor]:
    """How far each parameter moves in the first step, in float64."""
    torch.manual_seed(0)
    method = recipe.build_method().train()
    plan = method.views()
    dataset = ViewDataset(list_images(recipe.images), plan, 0, RegionCache(None, plan.regions))
    batch = collate([dataset[key] for key in next(iter(StepSampler(6, 2, 0, 1, 0)))]).to("cpu")
    optimizer = make_optimizer(method, config)
    set_rate(optimizer, 0.5)
    before = {name: p.detach().double().clone() for name, p in method.named_parameters()}
    method(batch, 0.5).loss.backward()
    optimizer.step()
    return {name: p.detach().double() - before[name] for name, p in method.named_parameters()}


def ratios(slow: dict[str, torch.Tensor], full: dict[str, torch.Tensor]) -> dict[str, float]:
    """Of the parameters that move, by how much of the full change each moves."""
    moved = {name: change for name, change in full.items() if float(change.norm()) > 1e-4}
    assert len(moved) > 5
    return {name: float((slow[name] * change).sum() / change.square().sum()) for name, change in moved.items()}


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_a_backbone_moves_by_its_share(photos: Path, tmp_path: Path, name: Any) -> None:
    config = OptimizerConfig(name=name, weight_decay=0.1, trust=1.0)
    recipe = vice(photos, tmp_path)
    full = changes_of_a_step(recipe, config)
    slow = changes_of_a_step(recipe, replace(config, backbone_lr=0.1))
    found = ratios(slow, full)
    assert {".backbone." in f".{parameter}" for parameter in found} == {True, False}
    for parameter, ratio in found.items():
        assert ratio == pytest.approx(0.1 if ".backbone." in parameter else 1, rel=1e-3), parameter


@pytest.mark.parametrize(("backbone", "stages"), [("test_resnet", 4), ("test_vit", 6)])
def test_stages_and_blocks_move_less_the_further_from_the_end_they_are(
    photos: Path, tmp_path: Path, backbone: str, stages: int
) -> None:
    recipe = vice(photos, tmp_path)
    embedder = replace(recipe.method.embedder, backbone=backbone, decoder="linear", resolution=64)
    recipe = replace(recipe, method=replace(recipe.method, embedder=embedder))
    config = OptimizerConfig(name="sgd", weight_decay=0.1)
    full = changes_of_a_step(recipe, config)
    slow = changes_of_a_step(recipe, replace(config, layer_decay=0.5, backbone_lr=0.8))
    depth = depths(recipe.build_method().embedder.backbone)
    assert max(depth.values()) == stages
    seen = set()
    for parameter, ratio in ratios(slow, full).items():
        inside = parameter.removeprefix("embedder.backbone.")
        at = depth.get(inside)
        assert ratio == pytest.approx(1 if at is None else 0.8 * 0.5 ** (stages - at), rel=1e-3), parameter
        seen.add(at)
    assert seen == {None, *range(stages + 1)}


def test_the_student_alone_has_shares_and_every_group_keeps_its_decay(photos: Path, tmp_path: Path) -> None:
    method = slotcon(photos, tmp_path).build_method()
    config = OptimizerConfig(name="lars", weight_decay=0.3, layer_decay=0.5, backbone_lr=0.5)
    optimizer = make_optimizer(method, config)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in method.parameters() if p.requires_grad}
    assert len(held) == len({id(p) for p in held})
    assert {group["share"] for group in optimizer.param_groups} == {1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125}
    for group in optimizer.param_groups:
        matrices = {p.ndim >= 2 for p in group["params"]}
        assert len(matrices) == 1
        assert group["weight_decay"] == (0.3 if matrices == {True} else 0)
        assert group["always_adapt"] == (matrices == {True})


def test_without_shares_there_are_the_two_groups_that_checkpoints_know(photos: Path, tmp_path: Path) -> None:
    method = vice(photos, tmp_path).build_method()
    matrices, vectors = make_optimizer(method, OptimizerConfig(name="sgd")).param_groups
    learned = [p for p in method.parameters() if p.requires_grad]
    assert [id(p) for p in matrices["params"]] == [id(p) for p in learned if p.ndim >= 2]
    assert [id(p) for p in vectors["params"]] == [id(p) for p in learned if p.ndim < 2]


def test_a_backbone_of_unknown_stages_is_named(photos: Path, tmp_path: Path) -> None:
    method = vice(photos, tmp_path).build_method()
    method.embedder.backbone.feature_info.info = []
    assert make_optimizer(method, OptimizerConfig(backbone_lr=0.5)).param_groups
    with pytest.raises(ConfigError, match=r"layer_decay 0\.5 needs a backbone whose stages are known.*test_resnet"):
        make_optimizer(method, OptimizerConfig(layer_decay=0.5))


def test_a_weight_decay_that_changes_reaches_what_decays_alone(photos: Path, tmp_path: Path) -> None:
    config = OptimizerConfig(name="adamw", weight_decay=0.04, final_weight_decay=0.4)
    optimizer = make_optimizer(vice(photos, tmp_path).build_method(), config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.04, 0.0]
    set_rate(optimizer, 0.1, config.decay(0.5))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(0.22), 0.0]
    assert OptimizerConfig(weight_decay=0.04).decay(0.5) == 0.04


def test_each_gradient_is_shortened_by_itself() -> None:
    """One as short as the limit stays, a longer one keeps its direction, one that there isn't is passed over."""
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    optimizer = torch.optim.SGD(weights, lr=1.0)
    weights[0].grad, weights[1].grad = torch.tensor([0.03, 0.04]), torch.tensor([30.0, 40.0])
    clip_each(optimizer, 0.3)
    assert weights[2].grad is None
    torch.testing.assert_close(weights[0].grad, torch.tensor([0.03, 0.04]))
    torch.testing.assert_close(weights[1].grad, torch.tensor([0.18, 0.24]))


def test_a_run_uses_both(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []

    def spy(optimizer: torch.optim.Optimizer, limit: float) -> None:
        clip_each(optimizer, limit)
        group = optimizer.param_groups[0]
        seen.append((group["weight_decay"], max(float(p.grad.norm()) for p in group["params"] if p.grad is not None)))

    monkeypatch.setattr(loop, "clip_each", spy)
    train(dino_vit(photos, tmp_path / "run", steps=2), progress=False)
    decays, norms = zip(*seen, strict=True)
    assert decays == pytest.approx((0.04, 0.22))
    assert max(norms) == pytest.approx(0.3, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["lars", "adamw", "sgd"])
@pytest.mark.parametrize("method", ["vice", "slotcon_on_pyramid"])
def test_stopped_and_resumed_equals_straight(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, optimizer: Any
) -> None:
    config = OptimizerConfig(name=optimizer, base_lr=0.01, backbone_lr=0.3, layer_decay=0.7)
    settings = {"optimizer": config, "steps": 4, "checkpoint_every": 2}
    straight = train(RUNS[method](photos, tmp_path / "straight", **settings), progress=False)
    stopped = RUNS[method](photos, tmp_path / "stopped", **settings)
    with monkeypatch.context() as patch:
        original, calls = loop._require_finite, []

        def stop(*args: Any) -> None:
            original(*args)
            calls.append(args)
            if len(calls) == 4:
                raise Interrupted("after the checkpoint of step 2")

        patch.setattr(loop, "_require_finite", stop)
        with pytest.raises(Interrupted):
            train(stopped, progress=False)
    train(stopped, progress=False)
    assert_same_state(straight, tmp_path / "stopped")
    rates = [line["lr"] for line in read_log(straight)]
    assert rates == [config.rate(step / 4, 2) for step in (1, 2, 3, 4)]
