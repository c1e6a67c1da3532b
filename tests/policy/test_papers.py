"""Every row of docs/papers.md is whole, and every command of it is one that the command line takes."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from timm import is_model

from selfseg.cli import main, masks
from selfseg.collection import concepts as discovery
from selfseg.collection.picturing import film, probabilities
from selfseg.data.labelled.datasets import DATASETS
from selfseg.evaluation import evaluator as run
from selfseg.evaluation import nearest
from selfseg.evaluation.protocols import few_labels as fewlabels
from selfseg.evaluation.protocols import transfer
from selfseg.evaluation.protocols.detection import DetectionConfig
from selfseg.evaluation.protocols.object_vectors import Retrieval
from selfseg.evaluation.references import is_reference, parse_reference
from selfseg.evaluation.sheet import EvaluationConfig
from selfseg.models.published import importing
from selfseg.timing import steps as timing
from selfseg.training import loop

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "papers.md").read_text("utf-8")
COMMANDS = re.findall(r"^(selfseg .*)$", DOCUMENT, re.MULTILINE) + re.findall(r"`(selfseg [^`]+)`", DOCUMENT)
ROWS = [line for line in DOCUMENT.splitlines() if line.startswith("| ") and not line.startswith("| row |")]
OUTS = {words[words.index("--out") + 1] for words in map(shlex.split, COMMANDS) if "--out" in words}
FILES = {"random", "FILE"}  # what `transfer` takes besides runs


class Called(Exception):
    """Carries what a verb called its public function with."""


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command up to its public function: (verb, arguments)."""
    places = {
        "train": (loop, "train"),
        "evaluate": (run, "evaluate"),
        "transfer": (transfer, "transfer"),
        "finetune": (fewlabels, "finetune"),
        "concepts": (discovery, "concepts"),
        "masks": (masks, "mine_masks"),
        "time": (timing, "time_recipe"),
        "nearest": (nearest, "nearest"),
        "probabilities": (probabilities, "probabilities"),
        "film": (film, "film"),
        "weights": (importing, "import_weights"),
    }

    def go(words: list[str]) -> SimpleNamespace:
        module, name = places[words[0]]

        def stop(*args: Any, **kwargs: Any) -> None:
            raise Called(args, kwargs)

        monkeypatch.setattr(module, name, stop)
        with pytest.raises(Called) as caught:
            main(words)
        args, kwargs = caught.value.args
        return SimpleNamespace(verb=words[0], args=[str(a) if isinstance(a, Path) else a for a in args], kwargs=kwargs)

    return go


def test_the_section_has_commands_of_every_kind() -> None:
    assert len(COMMANDS) > 60
    assert {command.split()[1] for command in COMMANDS} == {
        "train", "evaluate", "transfer", "finetune", "concepts", "masks", "time", "nearest", "probabilities", "film",
        "weights",
    }  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_a_row_says_what_is_published_and_what_we_have(row: str) -> None:
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 5, "row, published, command, what differs, ours"
    name, published, command, _, ours = cells
    assert name
    assert published
    assert command
    if ours.startswith("not run"):
        assert re.fullmatch(r"not run: (needs .+|no command)", ours), ours
        assert ("selfseg " in command or "the f" in command or "the second" in command) or "no command" in ours
    else:
        assert re.search(r"\d{4}-\d{2}-\d{2}", ours), "a figure of ours has its date"


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS), ids=lambda command: command[8:60])
def test_the_command_line_takes_it(command: str, called: Any) -> None:
    call = called(shlex.split(command)[1:])
    if call.verb == "train":
        recipe = call.args[0]
        if str(recipe.init).startswith("imagenet"):
            own = "." in recipe.method.embedder.backbone  # the backbone's name has a tag itself
            assert recipe.init == ("imagenet" if own else "imagenet:tv_in1k")
            assert own or "--init imagenet:tv_in1k" in command, "a command for a table names its weights"
        assert recipe.name == command.split()[2], "the recipe itself, no method that stands for one"
        check_data(str(recipe.images))
    elif call.verb == "time":
        assert call.args[0].name == command.split()[2]
        check_data(str(call.args[0].images))
    elif call.verb == "weights":
        assert call.args[1] is not None, "without --out there is no run to measure"
    elif call.verb == "masks":
        check_data(str(call.args[0]))
    elif call.verb in ("concepts", "nearest", "probabilities", "film"):
        assert call.args[0] in OUTS, f"no command makes {call.args[0]}"
        check_data(str(call.args[1]))
    else:
        source, data = call.args[:2]
        if is_reference(source):
            reference = parse_reference(source)
            assert is_model(reference.backbone)
            assert "." in reference.backbone or reference.weights != "timm", "a command for a table names its weights"
        else:
            assert source in OUTS | FILES, f"no command of the section makes {source}"
        check_labelled(data, call)


def check_data(data: str) -> None:
    """NAME:ROOT or NAME/SPLIT:ROOT, or a folder that the section tells of."""
    if ":" not in data:
        assert re.search(rf"`{data}` is a folder", DOCUMENT), data
        return
    name, _, split = data.split(":")[0].partition("/")
    assert not split or split in DATASETS[name].splits


def check_labelled(data: str, call: SimpleNamespace) -> None:
    """Data set and splits, which have labels, and what is asked of them."""
    dataset = DATASETS[data.split(":")[0]]
    if call.verb == "evaluate":
        splits = call.kwargs["reading"].fit_split, call.kwargs["reading"].split
        protocols = EvaluationConfig(call.args[2]).protocols
        retrieved = (protocol for protocol in protocols if isinstance(protocol, Retrieval))
        assert all(set(protocol.classes) <= set(dataset.classes) for protocol in retrieved)
    else:
        config = call.kwargs["config"] if call.verb == "finetune" else call.args[2]
        assert isinstance(config, DetectionConfig) == (dataset.name == "coco")
        if isinstance(config, DetectionConfig):  # its splits are names of annotation files
            return
        splits = config.fit_split, config.split
    for split in splits:
        assert split in dataset.splits
        assert split not in dataset.unlabelled


def test_the_benchmarks_are_there() -> None:
    files = re.findall(r"python (benchmarks/\S+\.py)", DOCUMENT)
    assert files
    assert all((ROOT / file).is_file() for file in files)
