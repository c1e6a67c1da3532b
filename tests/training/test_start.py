"""What a run begins from is told, whichever of its networks is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import selfseg
from selfseg.evaluation.protocols.contenders import contenders
from selfseg.training.loop import train
from tiny import RECIPES, vice_on_pyramid


@pytest.mark.parametrize("method", ["vice", "slotcon", "moco"])
@pytest.mark.parametrize("named", [False, True])
def test_every_run_says_what_it_began_from(method: str, named: bool, photos: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 1}
    if named:
        torch.manual_seed(0)
        network = RECIPES[method](photos, tmp_path / "other").build_method().embedder.backbone
        header = {"mean": "0.1 0.2 0.3", "std": "0.4 0.5 0.6"}
        save_file(dict(network.state_dict()), tmp_path / "weights.safetensors", metadata=header)
        settings["init"] = str(tmp_path / "weights.safetensors")
    embedder = selfseg.load(train(RECIPES[method](photos, tmp_path / "run", **settings), progress=False), "cpu")
    assert embedder.start.startswith("the file weights.safetensors: 90 tensors" if named else "random weights")
    assert embedder.colours[0] == pytest.approx((0.1, 0.2, 0.3) if named else (0.485, 0.456, 0.406))


def test_few_labels_fine_tune_all_of_a_pyramid(photos: Path, tmp_path: Path) -> None:
    run = train(vice_on_pyramid(photos, tmp_path / "run", steps=2), progress=False)
    held = selfseg.load(run, "cpu")
    for contender in contenders(run):
        network = contender.make(0)
        assert not network.config.frozen
        assert all(value.requires_grad for value in network.backbone.parameters())
        assert torch.equal(network.decoder.mean_0, held.decoder.mean_0)
        assert torch.equal(network.decoder.components.weight, held.decoder.components.weight)
        last = network.decoder.correction[-1].weight
        assert bool((last != 0).any()) == contender.trained
