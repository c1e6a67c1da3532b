"""Networks for RGB on images of more channels: three channels at a time, whose features lie side by side.

A frozen network can't get used to other filters in its first convolution: what it has learned is tied to those it has.
Shown three channels at a time, as if they were red, green and blue, it sees each group as well as it sees photographs,
and what comes after it (a pyramid's components, a linear layer) weighs the groups. That costs one pass for each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

Group = tuple[int, int, int]

_COLOURS = ("red", "green", "blue")


def groups_of(names: Sequence[str]) -> tuple[Group, ...]:
    """Which channels are shown together.

    Args:
        names: of the C channels. Those that are called red, green and blue (if all three are there) are a group of
            their own and the first one; the others follow in their order. A last group of fewer repeats its own.

    Returns:
        Indices of channels, three for each group.

    Example:
        >>> groups_of(["blue", "green", "red", "near infrared", "height"])
        ((2, 1, 0), (3, 4, 3))
        >>> groups_of(["a", "b", "c", "d"])
        ((0, 1, 2), (3, 3, 3))
    """
    lowered = [name.lower() for name in names]
    order = list(range(len(names)))
    if all(lowered.count(colour) == 1 for colour in _COLOURS):
        first = [lowered.index(colour) for colour in _COLOURS]
        order = first + [channel for channel in order if channel not in first]
    found = []
    for start in range(0, len(order), 3):
        own = order[start : start + 3]
        found.append((own[0], own[1 % len(own)], own[2 % len(own)]))
    return tuple(found)


class ChannelGroups(nn.Module):
    """A backbone for RGB, used for each group of channels.

    Args:
        network: made by `selfseg.models.backbones.make_backbone`.
        groups: see `groups_of`.

    Attributes:
        grouped: the network.
        feature_info: its strides, and as many times its channels as there are groups.
    """

    def __init__(self, network: nn.Module, groups: Sequence[Group]) -> None:
        super().__init__()
        self.grouped, self.groups = network, tuple(groups)
        info = cast(Any, network.feature_info)
        self.feature_info = _Info([channels * len(self.groups) for channels in info.channels()], list(info.reduction()))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, H, W) to its stages, finest first: (B, G C_i, h_i, w_i), group after group."""
        shown = torch.stack([image[:, list(group)] for group in self.groups], 1).flatten(0, 1)  # (B G, 3, H, W)
        shown = shown.contiguous(memory_format=torch.channels_last)
        count = len(self.groups)
        return [each.reshape(-1, count * each.shape[1], each.shape[2], each.shape[3]) for each in self.grouped(shown)]


class _Info:
    """What timm's `feature_info` tells, of groups."""

    def __init__(self, channels: list[int], strides: list[int]) -> None:
        self._channels, self._strides = channels, strides

    def channels(self) -> list[int]:
        """Of each stage."""
        return self._channels

    def reduction(self) -> list[int]:
        """The stride of each stage, in px."""
        return self._strides
