"""What methods with a momentum network share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
from selfseg.methods import Method, methods
from selfseg.methods.pretraining.moco import MoCo
from selfseg.models.twin import Twin


def make(name: str) -> Method:
    torch.manual_seed(0)
    return methods()[name](getattr(tiny, name)(Path("images"), Path("run")).method)


@pytest.mark.parametrize("name", ["moco", "densecl", "maskcontrast", "slotcon", "byol", "pixpro", "dino"])
def test_initial_weights_reach_both_networks_with_their_statistics(name: str, tmp_path: Path) -> None:
    method = make(name)
    state = {
        key: torch.randn_like(value) if value.is_floating_point() else value + 7
        for key, value in method.embedder.backbone.state_dict().items()
    }
    save_file(state, tmp_path / "weights.safetensors")
    assert str(tmp_path / "weights.safetensors") in method.load_backbone(str(tmp_path / "weights.safetensors"))
    assert isinstance(method.twin, Twin)
    for network in (method.twin.student, method.twin.teacher):
        embedder = getattr(network, "embedder", network)
        for key, value in embedder.backbone.state_dict().items():
            assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("training", [True, False])
def test_the_momentum_network_moves_before_it_gives_keys_and_only_in_training(training: bool) -> None:
    method = make("moco").train(training)
    assert isinstance(method, MoCo)
    before = [p.clone() for p in method.twin.teacher.parameters()]
    with torch.no_grad():
        for p in method.twin.student.parameters():
            p.add_(0.01)
    images = torch.rand(2, 2, 3, 64, 64)
    queries, keys = method.queries_and_keys(images[0], images[1], 0.25)
    for old, new in zip(before, method.twin.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.0075 * training)
    assert queries.requires_grad
    assert not keys.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(keys, method.twin.teacher(images[1]))  # by the weights it has now
