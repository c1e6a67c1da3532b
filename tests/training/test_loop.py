import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

import layouts
from conftest import draw_scene
from selfseg.data.reading.packed.shards import WINDOW
from selfseg.data.regions import ObjectMasks
from selfseg.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    EmptyCollection,
    Interrupted,
    NonFiniteLoss,
    RecipeMismatch,
    RunError,
    StorageError,
    TooManyBadImages,
)
from selfseg.methods.vice import ViCE
from selfseg.models.backbones import make_backbone
from selfseg.models.embedder import Embedder
from selfseg.storage.checkpoint import load_newest
from selfseg.storage.files import mark_output, sole_use
from selfseg.training import image_list, loop
from selfseg.training.log import read_log
from selfseg.training.loop import train
from selfseg.training.recipe import OptimizerConfig, read_recipe
from tiny import RECIPES, RUNS, assert_same_state, maskcontrast, masks_of, ready_to_fork, train_tiny, vice


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call with numbers: a signal comes within these steps, counted over all trainings from then on."""

    def arrange(*steps: int) -> None:
        calls = 0
        original = loop._require_finite

        def counted(*args: Any) -> None:
            nonlocal calls
            original(*args)
            calls += 1
            if calls in steps:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(loop, "_require_finite", counted)

    return arrange


def test_sentences_are_not_broken_where_no_terminal_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(loop, "_console", Console(file=out, width=20))
    loop._say(Fabric(accelerator="cpu", devices=1), "one sentence of more than twenty letters")
    assert out.getvalue() == "one sentence of more than twenty letters\n"


def test_a_run_leaves_what_the_other_verbs_need(photos: Path, tmp_path: Path) -> None:
    run = train(vice(photos, tmp_path / "run"), progress=False)
    assert Embedder.load(run / "embedder").dim == 8
    lines = read_log(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "lr", "progress", "images_per_second", "data_wait", "effective_rank"} <= lines[0].keys()
    assert (run / "recipe.yaml").is_file()
    assert list((run / "tensorboard").iterdir())


# LARS is every method's optimiser in the test of kill -9.
@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS)
def test_stopped_and_resumed_equals_straight_bit_for_bit(
    photos: Path, tmp_path: Path, stop_after: Any, method: str
) -> None:
    settings = {"optimizer": OptimizerConfig(name="adamw", base_lr=0.01)}
    train(RUNS[method](photos, tmp_path / "straight", **settings), progress=False)
    stop_after(3, 4)  # at an epoch's edge, and within the next one
    stopped = RUNS[method](photos, tmp_path / "stopped", **settings)
    for step in (3, 4):
        with pytest.raises(Interrupted, match=f"after step {step} of 6"):
            train(stopped, progress=False)
    train(stopped, progress=False)
    assert_same_state(tmp_path / "straight", tmp_path / "stopped")
    losses = [[line["loss"] for line in read_log(tmp_path / name)] for name in ("straight", "stopped")]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_the_loss_scale_of_half_precision_goes_on_where_it_was(
    photos: Path, tmp_path: Path, stop_after: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def make_fabric(recipe: Any) -> Fabric:
        """Fabric refuses 16-mixed on a CPU. The scale overflows at once, and then grows with every other step."""
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=2)
        fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
        fabric.launch()
        return fabric

    monkeypatch.setattr(loop, "make_fabric", make_fabric)
    settings = {"precision": "16-mixed", "steps": 16, "optimizer": OptimizerConfig(name="adamw", base_lr=0.01)}
    train(vice(photos, tmp_path / "straight", **settings), progress=False)
    stop_after(11)
    with pytest.raises(Interrupted):
        train(vice(photos, tmp_path / "stopped", **settings), progress=False)
    shutil.copytree(tmp_path / "stopped", tmp_path / "old")
    train(vice(photos, tmp_path / "stopped", **settings), progress=False)
    assert_same_state(tmp_path / "straight", tmp_path / "stopped")
    scalers = [load_newest(tmp_path / name / "checkpoints").meta["scaler"] for name in ("straight", "stopped")]
    assert scalers[0] == scalers[1]
    assert 0 < scalers[0]["scale"] < 2.0**24
    # A checkpoint of a version that did not keep it.
    meta = next((tmp_path / "old" / "checkpoints").glob("step_*/state.json"))
    values = json.loads(meta.read_text())
    del values["meta"]["scaler"]
    meta.write_text(json.dumps(values))
    sizes = {name: (meta.parent / name).stat().st_size for name in ("state.safetensors", "state.json")}
    (meta.parent / "COMPLETE").write_text(json.dumps(sizes))
    train(vice(photos, tmp_path / "old", **settings), progress=False)
    assert "did not keep the loss scale" in " ".join(capfd.readouterr().err.split())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_on_a_gpu_stopped_and_resumed_equals_straight(
    photos: Path, tmp_path: Path, stop_after: Any, precision: Any
) -> None:
    settings = {"precision": precision, "accelerator": "cuda", "devices": 1, "steps": 20}
    settings["optimizer"] = OptimizerConfig(name="adamw", base_lr=0.01)
    train(vice(photos, tmp_path / "straight", **settings), progress=False)
    stop_after(9)
    with pytest.raises(Interrupted):
        train(vice(photos, tmp_path / "stopped", **settings), progress=False)
    train(vice(photos, tmp_path / "stopped", **settings), progress=False)
    straight, stopped = (load_newest(tmp_path / name / "checkpoints") for name in ("straight", "stopped"))
    assert straight.meta["scaler"] == stopped.meta["scaler"]
    assert straight.model.keys() == stopped.model.keys()
    # Sums on a GPU are added up in any order: not to the bit, but near.
    for key, value in straight.model.items():
        torch.testing.assert_close(stopped.model[key], value, rtol=0.05, atol=0.02, msg=key)


def test_half_precision_needs_a_gpu(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="16-mixed needs a GPU"):
        train(vice(photos, tmp_path / "run", precision="16-mixed", accelerator="cpu"), progress=False)
    assert not (tmp_path / "run").exists()


# Workers are the loader's, whatever the method; each of their starts takes seconds.
@pytest.mark.slow
@pytest.mark.parametrize(("method", "workers"), [*((method, 0) for method in RECIPES), ("vice", 2)])
def test_kill_9_and_resume_equals_straight_bit_for_bit(photos: Path, tmp_path: Path, workers: int, method: str) -> None:
    settings = {"workers": workers, "steps": 10, "checkpoint_every": 2}
    victim = ready_to_fork().Process(target=train_tiny, args=(method, photos, tmp_path / "killed", settings))
    victim.start()
    log = tmp_path / "killed" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= 3) and time.monotonic() < deadline:
        time.sleep(0.002)
    victim.kill()
    victim.join()
    before = load_newest(tmp_path / "killed" / "checkpoints")
    assert before is not None
    assert 0 < before.step < 10
    settings["workers"] = 0  # whoever loads the images, they are the same
    train_tiny(method, photos, tmp_path / "killed", settings)
    train_tiny(method, photos, tmp_path / "straight", settings)
    assert_same_state(tmp_path / "straight", tmp_path / "killed")


@pytest.mark.slow
def test_a_signal_to_all_processes_exits_with_its_own_code_and_the_same_command_goes_on(
    photos: Path, tmp_path: Path
) -> None:
    # What a scheduler does: SIGTERM to every process of the group, those of the loader, too.
    run = tmp_path / "run"
    words = [sys.executable, "-m", "selfseg", "train", "vice", str(photos), "--out", str(run), "--steps", "4000"]
    words += "--batch-size 2 --workers 2 --log-every 1 --precision 32-true --method.views.size 32 --max-bad 0.2".split()
    words += "--method.views.short-side 48 --method.embedder.dim 8 --method.queue 10".split()
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (run / "log.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    _, text = process.communicate()
    assert process.returncode == Interrupted.exit_code, text
    assert "the same command continues" in " ".join(text.split())
    assert "Traceback" not in text
    done = load_newest(run / "checkpoints")
    assert done is not None
    assert 0 < done.step < 4000


def test_two_trainings_at_once_in_one_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    recipe = vice(photos, tmp_path / "run", steps=1)
    mark_output(recipe.out)
    with sole_use(recipe.out), pytest.raises(RunError, match="another process is at work on"):
        train(recipe, progress=False)
    assert not (recipe.out / "recipe.yaml").exists()
    train(recipe, progress=False)


def test_another_recipe_on_a_run_shows_the_difference(photos: Path, tmp_path: Path) -> None:
    recipe = vice(photos, tmp_path / "run", steps=1)
    train(recipe, progress=False)
    with pytest.raises(RecipeMismatch, match=r"method\.temperature: 0\.1 → 0\.3"):
        train(replace(recipe, method=replace(recipe.method, temperature=0.3)), progress=False)


def test_a_failed_first_attempt_does_not_hold_the_folder(photos: Path, tmp_path: Path) -> None:
    recipe = vice(photos, tmp_path / "run", steps=1)
    typo = replace(recipe, method=replace(recipe.method, embedder=replace(recipe.method.embedder, backbone="resnet81")))
    with pytest.raises(ConfigError, match="resnet18"):
        train(typo, progress=False)
    assert len(read_log(train(recipe, progress=False))) == 1


def test_a_finished_run_is_left_alone_and_a_foreign_folder_refused(photos: Path, tmp_path: Path) -> None:
    recipe = vice(photos, tmp_path / "run", steps=1)
    train(recipe, progress=False)
    weights = (tmp_path / "run" / "embedder" / "weights.safetensors").read_bytes()
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    identity = checkpoint.stat().st_ino
    train(recipe, progress=False)
    assert checkpoint.stat().st_ino == identity
    assert (tmp_path / "run" / "embedder" / "weights.safetensors").read_bytes() == weights
    with pytest.raises(RunError, match="is not a run of selfseg"):
        train(vice(photos, photos), progress=False)


def test_a_run_goes_on_with_the_images_it_began_with(photos: Path, tmp_path: Path, stop_after: Any) -> None:
    stop_after(2)
    recipe = vice(photos, tmp_path / "run")
    with pytest.raises(Interrupted):
        train(recipe, progress=False)
    (photos / "photo0.jpg").rename(photos / "a_new_name.jpg")
    run = train(recipe, progress=False)
    lines = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert [(line["name"], line["reason"]) for line in lines] == [("photo0", "missing")]
    assert list(json.loads((run / "images.json").read_text())) == [f"photo{i}" for i in range(6)]


def test_a_run_keeps_the_whole_path_of_its_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(vice(Path("photos"), Path("run"), steps=0), progress=False)
    assert read_recipe(run / "recipe.yaml").images == photos.resolve()


def test_other_images_cannot_continue_a_run(photos: Path, tmp_path: Path, stop_after: Any) -> None:
    stop_after(2)
    recipe = vice(photos, tmp_path / "run")
    with pytest.raises(Interrupted):
        train(recipe, progress=False)
    shutil.copytree(photos, tmp_path / "camera2")
    shutil.copy(photos / "photo5.jpg", tmp_path / "camera2" / "photo2.jpg")
    with pytest.raises(CheckpointError, match=r"1 of the 6 images .* have the same names, such as photo2"):
        train(vice(tmp_path / "camera2", tmp_path / "run"), progress=False)
    (tmp_path / "run" / "images.json").write_text('{"photo1": "photo1.jpg"}')
    with pytest.raises(CheckpointError, match="other images"):
        train(recipe, progress=False)
    (tmp_path / "run" / "images.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"images\.json.* is damaged"):
        train(recipe, progress=False)
    (tmp_path / "run" / "images.json").unlink()
    for path in list(photos.iterdir()):
        path.rename(photos / f"new_{path.name}")
    with pytest.raises(CheckpointError, match="other images"):
        train(recipe, progress=False)


def test_initial_weights_are_needed_at_the_start_only(photos: Path, tmp_path: Path, stop_after: Any) -> None:
    weights = {key: torch.full_like(v, 0.01) for key, v in make_backbone("test_resnet", 32).state_dict().items()}
    save_file(weights, tmp_path / "init.safetensors")
    recipe = vice(photos, tmp_path / "run", steps=3, init=str(tmp_path / "init.safetensors"))
    stop_after(1)
    with pytest.raises(Interrupted):
        train(recipe, progress=False)
    (tmp_path / "init.safetensors").unlink()
    train(recipe, progress=False)
    with pytest.raises(CheckpointError, match="no weights at"):
        train(replace(recipe, out=tmp_path / "other"), progress=False)


def test_a_start_killed_while_it_wrote_the_recipe_can_be_repeated(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".tmp-x1.yaml").write_text("name: ")
    train(vice(photos, tmp_path / "run", steps=1), progress=False)


def test_a_loss_that_is_no_number_stops_before_the_weights_change(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ViCE.compare
    weights: list[torch.Tensor] = []

    def poisoned(self: ViCE, vectors: torch.Tensor, *rest: Any, **named: Any) -> Any:
        weights.append(self.prototypes.weight.detach().clone())
        return original(self, vectors * (float("nan") if len(weights) == 3 else 1.0), *rest, **named)

    monkeypatch.setattr(ViCE, "compare", poisoned)
    saves: list[int] = []
    monkeypatch.setattr(loop, "save_checkpoint", lambda *a, **k: saves.append(a[1]))
    with pytest.raises(NonFiniteLoss, match="loss of step 3 is nan"):
        train(vice(photos, tmp_path / "run"), progress=False)
    assert saves == []
    (record,) = (tmp_path / "run").glob("nonfinite*.json")
    content = json.loads(record.read_text())
    assert content["step"] == 3
    assert len(content["index"]) == 2
    assert [f"photo{index}" for index in content["index"]] == content["names"]


def test_bad_images_are_skipped_listed_and_too_many_stop(photos: Path, tmp_path: Path) -> None:
    (photos / "empty.jpg").write_bytes(b"")
    train(vice(photos, tmp_path / "run", steps=1), progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [(line["name"], line["reason"]) for line in lines] == [("empty", "empty")]
    for name in "abc":
        (photos / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(TooManyBadImages):
        train(vice(photos, tmp_path / "other", steps=1), progress=False)


def test_an_image_removed_during_the_run_is_listed(photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    original = loop.make_loader

    def remove_then_load(*args: Any) -> Any:
        (photos / "photo3.jpg").unlink()
        return original(*args)

    monkeypatch.setattr(loop, "make_loader", remove_then_load)
    train(vice(photos, tmp_path / "run"), progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [(line["name"], line["reason"]) for line in lines] == [("photo3", "missing")]


def test_images_without_a_usable_mask_are_left_out_and_listed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = masks_of(photos)
    for number in (1, 2, 3):
        (masks / f"photo{number}.png").unlink()
    (masks / "photo5.png").write_bytes(b"no image")
    run = train(maskcontrast(photos, tmp_path / "run", max_bad=0.01), progress=False)
    lines = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    listed = sorted((line["name"], line["reason"]) for line in lines)
    missing = [(f"photo{number}", "mask-missing") for number in (1, 2, 3)]
    assert listed == [*missing, ("photo5", "mask-unreadable")]
    assert list(json.loads((run / "images.json").read_text())) == ["photo0", "photo4"]
    assert "2 of 6 images have a usable mask (3 missing, 1 unreadable)" in capsys.readouterr().err


def test_no_mask_at_all_says_so(photos: Path, tmp_path: Path) -> None:
    for path in masks_of(photos).iterdir():
        path.unlink()
    with pytest.raises(EmptyCollection, match=r"0 of 6 images have a usable mask \(6 missing\)"):
        train(maskcontrast(photos, tmp_path / "run"), progress=False)
    masks_of(photos).rmdir()
    with pytest.raises(DataError, match="is no folder; give the one that holds the masks"):
        train(maskcontrast(photos, tmp_path / "run"), progress=False)


def test_masks_that_break_during_a_run_are_counted(photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    original = image_list.settle_masks

    def settle_and_break(*arguments: Any) -> Any:
        result = original(*arguments)
        for number in (0, 1):
            (masks_of(photos) / f"photo{number}.png").write_bytes(b"no image")
        return result

    monkeypatch.setattr(image_list, "settle_masks", settle_and_break)
    with pytest.raises(TooManyBadImages, match=r"2 of 6 images can't be used .* 2 mask-unreadable"):
        train(maskcontrast(photos, tmp_path / "run", max_bad=0.2), progress=False)


def test_masks_are_part_of_what_a_run_is(photos: Path, tmp_path: Path) -> None:
    run = train(maskcontrast(photos, tmp_path / "run", steps=1), progress=False)
    regions = read_recipe(run / "recipe.yaml").method.views.regions
    assert regions.content.startswith("auto ")

    # Moved, or with a mask for an image that is not the run's: still the same.
    moved = masks_of(photos).rename(tmp_path / "moved")
    (moved / "photo99.png").write_bytes((moved / "photo1.png").read_bytes())
    views = replace(maskcontrast(photos, run).method.views, regions=ObjectMasks(moved))
    recipe = maskcontrast(photos, run, steps=1)
    recipe = replace(recipe, method=replace(recipe.method, views=views))
    train(recipe, progress=False)

    # One pixel of one mask: another run, which can't go on in this folder.
    with Image.open(moved / "photo3.png") as image:
        pixels = np.array(image)
    pixels[0, 0] = 1
    Image.fromarray(pixels).save(moved / "photo3.png")
    with pytest.raises(CheckpointError, match=r"masks in .*moved are not those that .*run began with"):
        train(recipe, progress=False)
    other = train(replace(recipe, out=tmp_path / "other"), progress=False)
    assert read_recipe(other / "recipe.yaml").method.views.regions.content != regions.content
    hashes = [load_newest(folder / "checkpoints").meta["recipe_hash"] for folder in (run, other)]  # type: ignore[union-attr]
    assert hashes[0] != hashes[1]


def test_what_values_mean_is_decided_for_the_whole_folder_once(photos: Path, tmp_path: Path) -> None:
    masks = masks_of(photos)
    for number in range(6):
        with Image.open(masks / f"photo{number}.png") as image:
            soft = np.where(np.array(image) > 0, 200, 3).astype(np.uint8)
        soft[:, 0] = 100
        Image.fromarray(soft).save(masks / f"photo{number}.png")
    dark = np.zeros((90, 120), np.uint8)  # a soft mask of an image in which next to nothing was found
    dark[30:60, 30:60], dark[60:70, 30:60] = 9, 5
    Image.fromarray(dark).save(masks / "photo2.png")
    run = train(maskcontrast(photos, tmp_path / "run", steps=1), progress=False)
    assert read_recipe(run / "recipe.yaml").method.views.regions.content.startswith("soft ")
    assert "photo2" not in json.loads((run / "images.json").read_text())


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(EmptyCollection):
        train(vice(tmp_path / "images", tmp_path / "run"), progress=False)


def test_a_full_disk_is_an_error_not_a_traceback(photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space left while writing x; free some and run the same command again")

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(StorageError, match="no space left"):
        train(vice(photos, tmp_path / "run", steps=1), progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_region_cache_that_cannot_be_written_is_one_sentence(photos: Path, tmp_path: Path, workers: int) -> None:
    train(vice(photos, tmp_path / "run", steps=1, cache=False), progress=False)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "cache").write_text("in the way")
    with pytest.raises(StorageError, match=r"^can't write \S*\.regions: .*[a-z]$"):
        train(vice(photos, tmp_path / "run", steps=1, workers=workers), progress=False)


def test_training_in_a_thread_works(photos: Path, tmp_path: Path) -> None:
    # Notebooks' servers run cells outside the main thread, where signals can't be handled.
    problems: list[BaseException] = []

    def work() -> None:
        try:
            train(vice(photos, tmp_path / "run", steps=1), progress=False)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert problems == []


def test_a_collection_smaller_than_a_batch_trains(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "only.png")
    run = train(vice(tmp_path / "images", tmp_path / "run", steps=2, batch_size=4), progress=False)
    assert len(read_log(run)) == 2


def scenes_in_shards(tmp_path: Path, count: int) -> tuple[Path, str]:
    """A folder of photographs, and the same ones in shards of one each."""
    photos = tmp_path / "scenes"
    photos.mkdir()
    for seed in range(count):
        Image.fromarray(draw_scene(seed)[0]).save(photos / f"scene{seed:02d}.jpg")
    return photos, f"shards:{layouts.shards(photos, tmp_path / 'shards', each=1)}"


def test_shards_train_as_the_files_in_them(tmp_path: Path) -> None:
    photos, shards = scenes_in_shards(tmp_path, 6)  # within one window: the order is that of a folder
    train(vice(photos, tmp_path / "files"), progress=False)
    train(vice(Path(shards), tmp_path / "local"), progress=False)
    assert_same_state(tmp_path / "files", tmp_path / "local")
    system = fsspec.filesystem("memory")
    for path in (tmp_path / "shards").iterdir():
        system.pipe_file(f"/run/{path.name}", path.read_bytes())
    train(vice(Path("shards:memory://run/part-{000..005}.tar"), tmp_path / "remote"), progress=False)
    assert_same_state(tmp_path / "files", tmp_path / "remote")
    assert len(list((tmp_path / "remote" / "cache" / "shards").glob("*.tar"))) == 6
    system.rm("/run", recursive=True)


@pytest.mark.slow
def test_a_run_on_many_shards_is_resumed_exactly(tmp_path: Path, stop_after: Any) -> None:
    photos, shards = scenes_in_shards(tmp_path, WINDOW + 3)
    straight = train(vice(Path(shards), tmp_path / "straight", steps=8), progress=False)
    train(vice(photos, tmp_path / "files", steps=8), progress=False)
    assert read_log(straight) != read_log(tmp_path / "files")  # another order: a window of shards first
    stop_after(3)
    stopped = vice(Path(shards), tmp_path / "stopped", steps=8)
    with pytest.raises(Interrupted):
        train(stopped, progress=False)
    next((tmp_path / "stopped" / "cache" / "shards").glob("*.json")).unlink()  # an index is made again
    train(stopped, progress=False)
    assert_same_state(straight, tmp_path / "stopped")
