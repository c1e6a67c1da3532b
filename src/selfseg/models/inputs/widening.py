"""Weights of networks for RGB in networks for other numbers of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from selfseg.errors import CheckpointError
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD


def widen(
    rgb: Mapping[str, Tensor], wanted: Mapping[str, Tensor], rule: Literal["repeat", "mean"]
) -> dict[str, Tensor]:
    """The weights of a network for RGB, with a first convolution that takes other channels.

    Args:
        rgb: the state of the network for RGB.
        wanted: the state of the same network for C channels.
        rule: "repeat": filters of R, G, B, R, ... in turn (timm's rule; of one channel their sum); "mean": each channel
            has the mean of the three. Both times 3 / C, so that an image of equal channels gives what it gave.

    Returns:
        By the names of `wanted`; everything but filters of images is as it was.

    Raises:
        CheckpointError: if the two are not the same network.

    Example:
        >>> filters = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
        >>> wanted = {"conv.weight": torch.zeros(1, 4, 1, 1)}
        >>> widen({"conv.weight": filters}, wanted, "repeat")["conv.weight"].flatten().tolist()
        [0.75, 1.5, 2.25, 0.75]
        >>> widen({"conv.weight": filters}, wanted, "mean")["conv.weight"].flatten().tolist()
        [1.5, 1.5, 1.5, 1.5]
    """
    found = {}
    for name, like in wanted.items():
        value = rgb.get(name)
        if value is None:
            raise CheckpointError(f"the network for RGB has no {name}")
        if value.shape != like.shape:
            channels = like.shape[1]
            if value.ndim != 4 or value.shape[1] != 3 or value.shape[:1] != like.shape[:1]:
                raise CheckpointError(f"{name} is {tuple(value.shape)} for RGB and {tuple(like.shape)} here")
            if rule == "mean" or channels == 1:
                value = value.mean(1, keepdim=True).expand(-1, channels, -1, -1)
            else:
                value = value[:, [c % 3 for c in range(channels)]]
            value = value * (3 / channels)
        found[name] = value
    return found


def expected_levels(
    mean: Sequence[float], std: Sequence[float], expected_mean: Sequence[float], expected_std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What to subtract from measured channels and to divide them by, so that a network sees what it saw of photographs.

    A network that was trained on photographs, whose channels have ImageNet's mean and deviation, with other numbers
    subtracted (.5 and .5, say) saw values of a certain mean and deviation. Measured channels get the same.

    Args:
        mean: of each channel's levels / 255.
        std: their deviation.
        expected_mean: of R, G and B, that belongs to the weights.
        expected_std: what they are divided by.

    Returns:
        Mean and deviation of each channel.

    Example:
        >>> expected_levels([0.3], [0.1], IMAGENET_MEAN, IMAGENET_STD) == ((0.3,), (0.1,))
        True
    """
    seen = [(m - e) / s for m, e, s in zip(IMAGENET_MEAN, expected_mean, IMAGENET_STD, strict=True)]
    wide = [e / s for e, s in zip(expected_std, IMAGENET_STD, strict=True)]
    shift, scale = sum(seen) / 3, sum(wide) / 3
    return tuple(m - s * shift for m, s in zip(mean, std, strict=True)), tuple(s * scale for s in std)


@torch.no_grad()
def inputs_of(network: torch.nn.Module) -> int:
    """How many channels a network's first convolution takes; 3 if it has none.

    Example:
        >>> inputs_of(torch.nn.Sequential(torch.nn.Conv2d(5, 2, 1)))
        5
    """
    return next((m.in_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)), 3)
