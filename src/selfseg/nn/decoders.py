"""Decoders: from a backbone's stages to one map of raw embeddings (B, D, h, w)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.errors import ConfigError, MissingExtra
from selfseg.nn.heads import VectorMLP


def move_cells(cells: Tensor, shift: float) -> Tensor:
    """What lies `shift` of a cell further right and down, between the cells (bilinear); the last row is repeated.

    Args:
        cells: (B, C, h, w).
        shift: in [-1, 1]; 0 returns the cells themselves.

    Example:
        >>> move_cells(torch.tensor([[[[0.0, 4.0]]]]), 0.25)
        tensor([[[[1., 4.]]]])
    """
    for axis in (2, 3) if shift else ():
        first, last = cells.narrow(axis, 0, 1), cells.narrow(axis, cells.shape[axis] - 1, 1)
        inner = cells.shape[axis] - 1
        if shift > 0:
            beside = torch.cat([cells.narrow(axis, 1, inner), last], dim=axis)
        else:
            beside = torch.cat([first, cells.narrow(axis, 0, inner)], dim=axis)
        cells = torch.lerp(cells, beside, abs(shift))
    return cells


class LightFPN(nn.Module):
    """The light feature pyramid of ViCE's low-resolution model (as in PiCIE).

    1x1 lateral convolutions from the last four stages to D, top-down bilinear + add, no smoothing convolutions.
    Output at the stride of the first of the four stages (4 for ResNets).
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, dim, 1) for count in channels[-4:])

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, D, h, w) at the finest of the last four."""
        used = stages[-len(self.laterals) :]
        top: Tensor = self.laterals[-1](used[-1])
        for lateral, stage in zip(reversed(self.laterals[:-1]), reversed(used[:-1]), strict=True):
            here: Tensor = lateral(stage)
            if top.shape[2:] != here.shape[2:]:
                top = F.interpolate(top, size=here.shape[2:], mode="bilinear", align_corners=False)
            top = here + top
        return top


class LinearDecoder(nn.Module):
    """A 1x1 convolution on the last stage."""

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels[-1], dim, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, D, h, w) at the last stage's stride."""
        out: Tensor = self.project(stages[-1])
        return out


class LastStage(nn.Module):
    """No decoder: the backbone's last stage as it is."""

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to its last."""
        return stages[-1]


class Projector(nn.Module):
    """SlotCon's projector: three 1x1 convolutions on the last stage, BatchNorm and GELU after the first two.

    Computed as linear maps of cells, which is faster than convolutions.
    """

    def __init__(self, channels: Sequence[int], hidden: int, dim: int) -> None:
        super().__init__()
        self.mlp = VectorMLP(channels[-1], hidden, dim)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, D, h, w) at the last stage's stride."""
        return self.views([stages])[0]

    def views(self, views: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """`forward` of the stages of each of several views, which have BatchNorm statistics of their own."""
        cells = [stages[-1].permute(0, 2, 3, 1) for stages in views]  # (B, h, w, C) each
        sizes = [each.shape[:3].numel() for each in cells]
        rows = self.mlp(torch.cat([each.flatten(0, 2) for each in cells]), sizes).split(sizes)
        return [
            vectors.unflatten(0, each.shape[:3]).permute(0, 3, 1, 2) for vectors, each in zip(rows, cells, strict=True)
        ]


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ of segmentation_models_pytorch (ASPP 12/24/36), then a 1x1 convolution to D; output stride 4.

    Raises:
        MissingExtra: if segmentation_models_pytorch is not installed.
        ConfigError: if the backbone's output stride is 32.
    """

    def __init__(self, channels: Sequence[int], dim: int, output_stride: int) -> None:
        super().__init__()
        try:
            from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
        except ImportError as error:
            raise MissingExtra("the decoder deeplabv3plus", "segmentation_models_pytorch", "smp") from error
        if output_stride == 32:
            raise ConfigError("the decoder deeplabv3plus needs output_stride 8 or 16, not 32")
        self.decoder = DeepLabV3PlusDecoder(
            encoder_channels=[3, *channels],
            encoder_depth=len(channels),
            out_channels=256,
            atrous_rates=(12, 24, 36),
            output_stride=output_stride,
            aspp_separable=True,
            aspp_dropout=0.0,
        )
        self.project = nn.Conv2d(256, dim, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, D, h, w) at stride 4."""
        # smp expects the input image before the stages and never reads it.
        out: Tensor = self.project(self.decoder([stages[0], *stages]))
        return out


def make_decoder(name: str, channels: Sequence[int], dim: int, output_stride: int, hidden: int) -> nn.Module:
    """Build a decoder by name: "fpn", "deeplabv3plus", "linear", "projector" or "none" (which has no use for `dim`).

    Raises:
        ConfigError: for another name.
    """
    if name == "fpn":
        return LightFPN(channels, dim)
    if name == "deeplabv3plus":
        return DeepLabV3Plus(channels, dim, output_stride)
    if name == "linear":
        return LinearDecoder(channels, dim)
    if name == "projector":
        return Projector(channels, hidden, dim)
    if name == "none":
        return LastStage()
    raise ConfigError(f"no decoder {name!r}; there are fpn, deeplabv3plus, linear, projector, none")
