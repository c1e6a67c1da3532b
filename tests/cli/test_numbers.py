"""Numbers that nothing can work with: a sentence with the option, for every verb."""

import inspect
from pathlib import Path

import pytest

from selfseg.cli import main
from selfseg.errors import ConfigError
from selfseg.fitting.supervised import FineTuningConfig
from selfseg.methods.vice import ViCEConfig
from selfseg.training.recipe import OptimizerConfig, Recipe

LONG = "9" * 23
TRAIN = ["train", "vice", "images", "--out", "run"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*TRAIN, "--optimizer.base-lr", "nan"], "optimizer.base_lr must be a finite number, not nan"),
        ([*TRAIN, "--epochs", "nan"], "epochs must be a finite number, not nan"),
        ([*TRAIN, "--epochs", "inf"], "epochs must be a finite number, not inf"),
        ([*TRAIN, "--steps", "99999999999999"], "steps can be at most"),
        ([*TRAIN, "--seed", LONG], "seed must have at most 19 digits"),
        ([*TRAIN, "--method.temperature", "nan"], "method.temperature must be"),
        (["cluster", "run", "images", "-k", LONG], "--k must have at most 19 digits"),
        (["cluster", "run", "images", "-k", "3", "--position", "nan"], "--position must be a finite number"),
        (["evaluate", "run", "data", "--scales", "inf"], "--scales must be a finite number, not inf"),
        (["masks", "images", "--out", "out", "--max-bad", "nan"], "--max-bad must be a finite number"),
        (["transfer", "ade20k", "run", "data", "--out", "out", "--lr", "nan"], "lr must be a finite number"),
        (["finetune", "run", "data", "--lr", "nan"], "lr must be a finite number"),
    ],
)
def test_numbers_that_nothing_can_work_with(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_in_python_too() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.base_lr must be a finite number"):
        Recipe(Path("images"), Path("run"), ViCEConfig(), OptimizerConfig(base_lr=float("nan")), steps=1)
    with pytest.raises(ConfigError, match="can make at most"):
        Recipe(Path("images"), Path("run"), ViCEConfig(), epochs=1e300).total_steps(100)
    with pytest.raises(ConfigError, match="lr must be a finite number"):
        FineTuningConfig(lr=float("nan"))


def test_a_wrapped_verb_keeps_its_options() -> None:
    from selfseg.cli import runs
    from selfseg.cli.console import _checked

    assert inspect.signature(_checked(runs.cluster)) == inspect.signature(runs.cluster)
