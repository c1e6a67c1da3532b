import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tiny
from selfseg.cli import main
from selfseg.collection.assigning import assign_pixels
from selfseg.errors import ConfigError
from selfseg.ops.phases import PHASES, in_phase, listening, phase
from selfseg.timing.inference import nearest_of_pixels
from selfseg.timing.recorder import Recorder
from selfseg.timing.steps import TimingConfig, time_recipe

CPU = torch.device("cpu")
SHORT = TimingConfig(measured=2, warm_up=1, rows=5, looks=2)


def test_every_moment_belongs_to_the_innermost_phase_and_all_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    @in_phase("regions")
    def pool() -> None:
        now[0] += 4

    recorder = Recorder(CPU, "time")
    with recorder.step():
        now[0] += 1
        with phase("loss"):
            now[0] += 2
            with phase("forward"):
                now[0] += 8
                pool()
            now[0] += 16
        now[0] += 32
    (found,) = recorder.seconds
    assert found == dict.fromkeys(PHASES, 0.0) | {"other": 33.0, "loss": 18.0, "forward": 8.0, "regions": 4.0}
    assert sum(found.values()) == now[0]


def test_nobody_is_told_when_nobody_listens_and_an_error_ends_its_phases() -> None:
    recorder = Recorder(CPU, "time")

    @in_phase("loss")
    def fail() -> None:
        raise ValueError("on purpose")

    recorder._open = ["other"]
    with listening(recorder), pytest.raises(ValueError, match="on purpose"):
        fail()
    assert recorder._open == ["other"]
    with phase("loss"):
        pass
    assert recorder.seconds == []


def test_the_nearest_of_every_pixels_own_vector_is_found() -> None:
    torch.manual_seed(0)
    embedding, centroids = torch.randn(5, 6, 7), torch.randn(9, 5)
    pixels = F.interpolate(embedding[None], size=(40, 30), mode="bilinear", align_corners=False)[0]
    expected = torch.cdist(pixels.flatten(1).T, centroids).argmin(1).view(40, 30)
    assert torch.equal(nearest_of_pixels(embedding, centroids, (40, 30)), expected)
    # For unit centroids and cells of one length it is the cluster that selfseg gives.
    unit, cells = F.normalize(centroids, dim=1), F.normalize(embedding, dim=0)
    assert np.array_equal(nearest_of_pixels(cells, unit, (40, 30)).numpy(), assign_pixels(cells, unit, (40, 30)))


@pytest.mark.slow
@pytest.mark.parametrize("method", tiny.RECIPES)
def test_a_recipe_is_timed_by_phase_and_leaves_nothing(method: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    timing = time_recipe(tiny.RECIPES[method](photos, out), SHORT)
    assert not out.exists()
    assert len(timing.steps) == len(timing.unmarked) == 2
    for step in timing.steps:
        assert all(step[name] > 0 for name in ("data", "forward", "loss", "backward", "optimiser"))
    if method in ("vice", "slotcon", "maskcontrast"):
        assert timing.phases["regions"] > 0
    values = json.loads(json.dumps(timing.to_dict()))
    assert values["images_per_second"] > 0
    assert [len(part["each"]) for part in values["inference"]] == [2] * 6
    assert values["peak_bytes"] > 50_000_000
    if Path("/proc/self/clear_refs").exists() and timing.peaks:
        assert max(timing.memory.values()) <= 2 * timing.peak
    assert [table.row_count for table in timing.tables()][1:] == [4, 6]


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_json(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "time vice {} --measured 2 --warm-up 1 --looks 2 --rows 5 --json {} --batch-size 2 --workers 0 "
        "--method.views.size 32 --method.views.short-side 48 --method.embedder.dim 8 --method.embedder.resolution 64"
    ).format(photos, tmp_path / "time.json")
    assert main(words.split()) == 0
    told = capsys.readouterr().out
    assert "step as trained, not marked" in told
    assert "5 clusters, pixels" in told
    values = json.loads((tmp_path / "time.json").read_text())
    assert values["recipe"] == "vice_small"
    assert values["settings"]["batch_size"] == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"devices": 2}, "one process is timed, not 2"), ({"precision": "auto"}, "precision auto is chosen by time")],
)
def test_what_can_not_be_timed_is_told(changes: dict[str, Any], sentence: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        time_recipe(tiny.vice(photos, tmp_path / "run", **changes), SHORT)


@pytest.mark.slow
def test_a_recipe_that_learns_nothing_has_no_steps(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    assert main(["time", "pyramid", str(photos), "--batch-size", "2", "--workers", "0"]) == 2
    assert "learns nothing" in " ".join(capsys.readouterr().err.split())


def test_wrong_numbers_and_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["time", "vise", "images"]) == 2
    with pytest.raises(ConfigError, match="measured must be at least 1, not 0"):
        TimingConfig(measured=0)
    assert main(["time", "--help"]) == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.gpu
def test_on_a_gpu_the_phases_fill_the_step(photos: Path, tmp_path: Path) -> None:
    recipe = tiny.vice(photos, tmp_path / "run", accelerator="cuda")
    timing = time_recipe(recipe, TimingConfig(measured=4, warm_up=3, rows=5, looks=2))
    assert timing.reserved is not None
    assert 0 < timing.memory["forward"] <= timing.peak <= timing.reserved
    for step in timing.steps:
        assert sum(step.values()) > 0
        assert min(step.values()) >= 0
