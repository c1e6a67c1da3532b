"""Networks for RGB that are shown more channels, three at a time."""

from __future__ import annotations

from pathlib import Path

import torch

from selfseg.models.backbones import cell_centres, make_backbone
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.inputs.groups import ChannelGroups, groups_of
from selfseg.ops.channels import Channels


def channels_of(*names: str) -> Channels:
    count = len(names)
    zeros, ones, halves = (0.0,) * count, (1.0,) * count, (0.5,) * count
    return Channels(names, tuple(range(count)), count, zeros, ones, halves, halves)


def test_each_group_is_seen_as_the_network_sees_a_photograph() -> None:
    torch.manual_seed(0)
    network = make_backbone("test_resnet", 32).eval()
    grouped = ChannelGroups(network, groups_of(["red", "green", "blue", "near", "height"]))
    image = torch.rand(2, 5, 64, 64)
    found = grouped(image)
    for stage, first, second in zip(found, network(image[:, :3]), network(image[:, [3, 4, 3]]), strict=True):
        torch.testing.assert_close(stage, torch.cat([first, second], dim=1))
    assert grouped.feature_info.channels() == [2 * c for c in network.feature_info.channels()]
    assert cell_centres(grouped) == cell_centres(network)


def test_a_frozen_backbone_has_groups_and_a_learning_one_has_not() -> None:
    five = channels_of("a", "b", "c", "d", "e")
    config = {"backbone": "test_resnet", "output_stride": 32, "dim": 4, "channels": five}
    assert isinstance(Embedder(EmbedderConfig(frozen=True, **config)).backbone, ChannelGroups)
    assert not isinstance(Embedder(EmbedderConfig(**config)).backbone, ChannelGroups)
    assert not EmbedderConfig(frozen=True, channels=channels_of("a", "b", "c")).groups
    assert EmbedderConfig(from_rgb="groups", **config).groups == ((0, 1, 2), (3, 4, 3))


def test_weights_for_rgb_are_every_groups(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = make_backbone("test_resnet", 32)
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    config = EmbedderConfig(
        backbone="test_resnet", output_stride=32, dim=4, frozen=True, channels=channels_of("a", "b", "c", "d")
    )
    embedder = Embedder(config)
    embedder.begin_from(tmp_path / "weights.pth")
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(embedder.backbone.grouped.state_dict()[name], value)  # type: ignore[union-attr]
    embedder.save(tmp_path / "embedder")
    again = Embedder.load(tmp_path / "embedder")
    image = torch.rand(1, 4, 64, 64)
    torch.testing.assert_close(again(image), embedder.eval()(image))
