"""`precision: auto` measures once, leaves no trace, and a resume keeps what was chosen."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from selfseg.data.loader import StepSampler, ViewDataset, collate
from selfseg.data.reading.listing import list_images
from selfseg.data.regions import RegionCache
from selfseg.errors import Interrupted, RecipeMismatch
from selfseg.methods.vice import ViCE
from selfseg.training import loop, precision
from selfseg.training.log import read_log
from selfseg.training.loop import train
from selfseg.training.precision import choose_precision, decide
from selfseg.training.recipe import OptimizerConfig, read_recipe
from tiny import RUNS, assert_same_state, vice

ADAMW = OptimizerConfig(name="adamw", base_lr=0.01)


def prefer(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    monkeypatch.setattr(precision, "MARGIN", math.inf if choice == "32-true" else 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("method", ["vice", "slotcon", "vice_on_pyramid"])
def test_a_run_with_auto_equals_one_with_what_was_chosen(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, choice: Any
) -> None:
    prefer(monkeypatch, choice)
    settings = {"optimizer": ADAMW, "steps": 4}
    named = train(RUNS[method](photos, tmp_path / "named", precision=choice, **settings), progress=False)
    auto = train(RUNS[method](photos, tmp_path / "auto", precision="auto", **settings), progress=False)
    assert_same_state(named, auto)
    assert [line["loss"] for line in read_log(named)] == [line["loss"] for line in read_log(auto)]
    assert read_recipe(auto / "recipe.yaml").precision == choice


def test_measuring_leaves_no_trace(photos: Path, tmp_path: Path) -> None:
    recipe = vice(photos, tmp_path / "run", optimizer=ADAMW)
    torch.manual_seed(3)
    method = recipe.build_method().train()
    plan = method.views()
    dataset = ViewDataset(list_images(photos), plan, 0, RegionCache(None, plan.regions))
    batch = collate([dataset[key] for key in next(iter(StepSampler(6, 2, 0, 1, 0)))])
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    images = [view.image.clone() for view in batch.views]
    fabric = Fabric(accelerator="cpu", devices=1)
    choice, sentence = choose_precision(fabric, recipe, method, batch)
    assert choice in sentence
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert all(torch.equal(view.image, image) for view, image in zip(batch.views, images, strict=True))
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()


@pytest.mark.slow
def test_a_resume_keeps_the_choice_and_never_measures(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    prefer(monkeypatch, "bf16-mixed")
    recipe = vice(photos, tmp_path / "run", precision="auto", steps=3, checkpoint_every=2, optimizer=ADAMW)
    with monkeypatch.context() as patch:
        original, calls = loop._require_finite, []

        def stop(*args: Any) -> None:
            original(*args)
            calls.append(args)
            if len(calls) == 3:
                raise Interrupted("after the checkpoint of step 2")

        patch.setattr(loop, "_require_finite", stop)
        with pytest.raises(Interrupted):
            train(recipe, progress=False)
    assert "precision: bf16-mixed, because a step takes" in " ".join(capfd.readouterr().err.split())
    prefer(monkeypatch, "32-true")
    with pytest.raises(RecipeMismatch, match="precision: bf16-mixed → 32-true"):
        train(replace(recipe, precision="32-true"), progress=False)
    train(recipe, progress=False)
    assert "because a step takes" not in capfd.readouterr().err
    train(replace(recipe, out=tmp_path / "straight", precision="bf16-mixed"), progress=False)
    assert_same_state(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize("wrong", ["raises", "nan"])
def test_a_precision_that_does_not_work_is_left_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], wrong: str
) -> None:
    prefer(monkeypatch, "bf16-mixed")
    original = ViCE._embed

    def broken(self: ViCE, images: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return original(self, images, size)
        if wrong == "raises":
            raise RuntimeError("no such kernel")
        return original(self, images, size) * math.nan

    monkeypatch.setattr(ViCE, "_embed", broken)
    run = train(vice(photos, tmp_path / "run", precision="auto", steps=1), progress=False)
    assert read_recipe(run / "recipe.yaml").precision == "32-true"
    assert "bf16-mixed failed or was not finite" in " ".join(capfd.readouterr().err.split())


def test_a_run_without_steps_measures_nothing(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = train(vice(photos, tmp_path / "run", precision="auto", steps=0), progress=False)
    assert read_recipe(run / "recipe.yaml").precision == "32-true"
    assert "precision" not in capfd.readouterr().err


def test_the_margin_and_what_is_not_safe_decide() -> None:
    assert decide({"32-true": 1.2, "bf16-mixed": 1.0})[0] == "bf16-mixed"
    assert decide({"32-true": 1.19, "bf16-mixed": 1.0})[0] == "32-true"
    assert decide({"32-true": math.inf, "bf16-mixed": 9.0})[0] == "bf16-mixed"
    assert decide({"32-true": 9.0, "bf16-mixed": math.inf})[0] == "32-true"
    nothing, sentence = decide({"32-true": math.inf, "bf16-mixed": math.inf})
    assert nothing == "32-true"
    assert "32-true and bf16-mixed failed" in sentence
