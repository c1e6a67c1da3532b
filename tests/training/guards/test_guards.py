"""What watches over a training: nothing that is no number is kept, a collapse is told, memory that runs out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from selfseg.errors import CheckpointError, NonFiniteLoss, OutOfMemory, RunError
from selfseg.methods import Method
from selfseg.storage.checkpoint import load_newest
from selfseg.training import loop
from selfseg.training.guards import collapse
from selfseg.training.guards.recomputing import recompute_blocks
from selfseg.training.guards.replaying import replay
from selfseg.training.log import read_log
from selfseg.training.loop import train
from selfseg.training.recipe import Recipe, read_recipe, recipe_hash
from tiny import assert_same_state, vice

pytestmark = pytest.mark.slow


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call with what is done to the method after its n-th step."""

    def arrange(step: int, do: Any) -> None:
        original, calls = loop._require_finite, [0]

        def counted(*args: Any) -> None:
            original(*args)
            calls[0] += 1
            if calls[0] == step:
                do(args[3])

        monkeypatch.setattr(loop, "_require_finite", counted)

    return arrange


def test_an_average_that_is_no_number_is_not_saved(photos: Path, tmp_path: Path, poison: Any) -> None:
    def spoil(method: Method) -> None:
        with torch.no_grad():
            method.get_buffer("queue.vectors")[0, 0] = float("inf")

    poison(4, spoil)
    recipe = vice(photos, tmp_path / "run", checkpoint_every=2)
    with pytest.raises(NonFiniteLoss, match=r"after step 4 queue\.vectors holds values that are not numbers"):
        train(recipe, progress=False)
    checkpoint = load_newest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert bool(torch.isfinite(checkpoint.model["queue.vectors"]).all())


def test_a_step_that_was_no_number_can_be_done_again(photos: Path, tmp_path: Path, poison: Any) -> None:
    def spoil(method: Method) -> None:
        with torch.no_grad():
            next(method.parameters()).fill_(float("nan"))

    poison(2, spoil)
    with pytest.raises(NonFiniteLoss, match="loss of step 3 is nan"):
        train(vice(photos, tmp_path / "run"), progress=False)
    (record,) = (tmp_path / "run").glob("nonfinite*.json")
    again = replay(record)
    assert again["loss"] != again["loss"]
    record.with_suffix(".safetensors").write_bytes(b"cut")
    with pytest.raises(RunError, match="can't read what belongs to"):
        replay(record)


@pytest.mark.parametrize("rigged", [True, False])
def test_a_run_that_is_constant_is_told_within_100_steps(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], rigged: bool
) -> None:
    build = Recipe.build_method

    def constant(self: Recipe[Any], images: int | None = None) -> Method:
        method = build(self, images)
        if rigged:
            method.embedder.register_forward_hook(lambda _m, _i, maps: maps * 0 + 0.5)
        return method

    monkeypatch.setattr(Recipe, "build_method", constant)
    train(vice(photos, tmp_path / "run", steps=50 if rigged else 26, log_every=1), progress=False)
    assert ("after step 50 the embedding has collapsed" in " ".join(capfd.readouterr().err.split())) == rigged
    spread = read_log(tmp_path / "run")[-1]["spread"]
    assert (spread < collapse.LEAST) == rigged


def test_looking_for_a_collapse_changes_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(vice(photos, tmp_path / "unseen", steps=3), progress=False)
    monkeypatch.setattr(collapse, "EVERY", 1)
    train(vice(photos, tmp_path / "seen", steps=3), progress=False)
    assert_same_state(tmp_path / "unseen", tmp_path / "seen")


def test_when_memory_runs_out_the_run_goes_on_with_recomputed_blocks_and_learns_the_same(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    train(vice(photos, tmp_path / "straight", checkpoint_every=2), progress=False)
    original, made = loop.take_step, []

    def short(fabric: Any, recipe: Any, wrapped: Any, *rest: Any) -> Any:
        if not recipe.recompute and rest[2] == 4:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return original(fabric, recipe, wrapped, *rest)

    monkeypatch.setattr(loop, "take_step", short)
    monkeypatch.setattr(loop, "recompute_blocks", lambda method: made.append(recompute_blocks(method)))
    recipe = vice(photos, tmp_path / "short", checkpoint_every=2)
    train(recipe, progress=False)
    assert_same_state(tmp_path / "straight", tmp_path / "short")
    assert len(made) == 1
    assert made[0] > 4
    told = " ".join(capfd.readouterr().err.split())
    assert "there was not enough memory in step 5" in told
    assert "resuming" in told
    written = read_recipe(recipe.out / "recipe.yaml")
    assert recipe_hash(written) == recipe_hash(recipe)


def test_memory_that_is_gone_before_the_second_try_is_an_error_with_a_way_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*words: Any) -> Any:
        raise MemoryError

    def no_thread(*words: Any) -> Any:
        raise RuntimeError("can't start new thread")  # of the image list, which is looked at again

    def first(fabric: Any, recipe: Any) -> Any:
        return (no_thread if recipe.recompute else original)(fabric, recipe)

    original = loop._open_images
    monkeypatch.setattr(loop, "take_step", never)
    monkeypatch.setattr(loop, "_open_images", first)
    with pytest.raises(OutOfMemory, match=r"to begin again, or no further thread .* the last checkpoint is kept"):
        train(vice(photos, tmp_path / "run"), progress=False)


def test_memory_that_is_never_enough_is_an_error_with_a_way_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(loop, "take_step", never)
    with pytest.raises(OutOfMemory, match="although blocks are recomputed") as raised:
        train(vice(photos, tmp_path / "run"), progress=False)
    assert raised.value.exit_code == 6


def test_a_checkpoint_beyond_the_end_or_with_another_step_is_refused(photos: Path, tmp_path: Path) -> None:
    recipe = vice(photos, tmp_path / "run", steps=3)
    train(recipe, progress=False)
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()

    def claim(step: Any) -> None:
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({**state, "step": step}))
        sizes = {name: (folder / name).stat().st_size for name in ("state.safetensors", "state.json")}
        (folder / "COMPLETE").write_text(json.dumps(sizes))

    for step in (99, -1, "3", 2.5, None):
        claim(step)
        with pytest.raises(CheckpointError, match="was renamed or changed"):
            train(recipe, progress=False)
    claim(99)
    folder.rename(folder.with_name("step_00000099"))
    with pytest.raises(CheckpointError, match="checkpoint of step 99, but the whole run has 3 steps"):
        train(recipe, progress=False)
