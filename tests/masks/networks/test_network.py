from __future__ import annotations

import pytest
import torch

from selfseg.errors import ConfigError
from selfseg.masks.networks.network import BoundaryNet, Refinement, SaliencyNet, predict


@pytest.mark.parametrize("size", [(64, 64), (50, 75)])
def test_all_outputs_have_the_images_size(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    assert [tuple(output.shape) for output in SaliencyNet("resnet18", 8)(image)] == [(2, *size)]
    outputs = BoundaryNet("resnet18", 8, 4)(image)
    assert [tuple(output.shape) for output in outputs] == [(2, *size)] * 7  # refined, five stages, bridge


def test_every_weight_gets_a_gradient() -> None:
    network = BoundaryNet("resnet18", 8, 4)
    sum(output.square().mean() for output in network(torch.rand(2, 3, 64, 64))).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_the_first_output_is_the_second_plus_a_residual() -> None:
    network = BoundaryNet("resnet18", 8, 4).eval()
    with torch.no_grad():
        refined, coarse, *_ = network(torch.rand(1, 3, 64, 64))
        residual = network.refinement(coarse[:, None])[:, 0]
        torch.testing.assert_close(refined, coarse + residual)
        assert residual.abs().max() > 0


def test_refinement_sees_far() -> None:
    """A change in one corner reaches the other: four levels down is 1/16 of 48 px."""
    module = Refinement(4).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.rand_like(parameter))
        logits = torch.zeros(1, 1, 48, 48)
        before = module(logits)
        logits[..., 0, 0] = 1
        assert (module(logits)[..., -1, -1] != before[..., -1, -1]).all()


def test_predict_is_the_first_output_in_evaluation_mode_and_leaves_the_mode() -> None:
    network = BoundaryNet("resnet18", 8, 4).train()
    images = torch.randint(0, 256, (3, 40, 56, 3), dtype=torch.uint8)
    found = predict(network, images)
    assert network.training
    assert found.shape == (3, 40, 56)
    alone = predict(network, images[1:2])  # no BatchNorm over the batch
    torch.testing.assert_close(found[1:2], alone, rtol=1e-4, atol=1e-5)
    network.eval()
    with torch.no_grad():
        expected = network(images.permute(0, 3, 1, 2).float() / 255)[0].sigmoid()
    torch.testing.assert_close(found, expected)


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match="resnet180"):
        SaliencyNet("resnet180")
