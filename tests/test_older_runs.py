"""Runs that 0.1.0 made, before modules moved, are still read; `fixtures/run_0_1_0` is one of ViCE's tiny run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import selfseg
import tiny
from conftest import draw_scene
from selfseg.drawing.result_charts import read_results
from selfseg.studio.decisions.log import DecisionLog
from selfseg.training.recipe import read_recipe, unsettled

KEPT = Path(__file__).parent / "fixtures" / "run_0_1_0"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "run"))


def test_the_embedding_is_what_it_was(run: Path) -> None:
    image, _ = draw_scene(0)
    vector = selfseg.load(run, "cpu").embed(image)[:, 5, 7]
    expected = [-0.2557365, 0.1408480, 0.2345572, 0.2814420, -0.5882455, -0.2280276, 0.5094947, -0.3505992]
    torch.testing.assert_close(vector, torch.tensor(expected), rtol=0, atol=1e-5)


def test_its_clusters_segment_and_its_page_is_made(run: Path, photos: Path, tmp_path: Path) -> None:
    selfseg.segment(run, photos, tmp_path / "segments", k=4, device="cpu")
    assert len(list((tmp_path / "segments").rglob("*.png"))) >= 6
    assert "ViCE" in selfseg.report(run, images=photos, device="cpu").read_text("utf-8")
    assert selfseg.export(run, "safetensors").is_dir()


def test_its_recipe_is_the_one_that_today_s_settings_make(run: Path) -> None:
    recipe = tiny.vice(Path("photos"), Path("run"), steps=4, keep=1)
    # There was no choice yet: views were clipped.
    views = replace(recipe.method.views, outside="clip")
    recipe = replace(recipe, method=replace(recipe.method, views=views))
    assert unsettled(read_recipe(run / "recipe.yaml")) == recipe


def test_its_checkpoint_would_be_gone_on_with(run: Path) -> None:
    """`checkpoint.json` has the names and shapes of the tensors of its checkpoint, which is too large to be kept."""
    held = json.loads((run / "checkpoint.json").read_text("utf-8"))
    state = read_recipe(run / "recipe.yaml").build_method().state_dict()
    now = {f"model.{name}": list(value.shape) for name, value in state.items()}
    assert {name: shape for name, shape in held.items() if name.startswith("model.")} == now


def test_its_result_and_its_decisions_are_read(run: Path) -> None:
    (result,) = read_results(run)
    assert (result.what, result.metrics["miou"], result.class_iou) == ("version 3", 0.5, (0.5, None))
    assert result.confusion == ((3, 0), (0, 3))
    state = DecisionLog.open(run / "studio").state()
    assert dict(state.names) == {"4/3": "road", "4/1": "road"}
    assert not state.left_out  # undone
