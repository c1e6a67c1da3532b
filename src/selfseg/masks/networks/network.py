"""Saliency networks: a photograph to a map of what stands out, on any of timm's backbones.

`SaliencyNet`     a light encoder-decoder, for the many networks that learn from the priors
`BoundaryNet`     after BASNet (X. Qin et al., CVPR 2019): an output at every stage of the decoder, all supervised, and
                  a second small encoder-decoder that corrects the finest one (the residual refinement module)

Where `BoundaryNet` is not as in the paper, because it shall train on a few cores
- the encoder is a timm backbone as it is (ResNet-18 by default): its first stage has stride 2 and there are no stages
  behind the last; BASNet's ResNet-34 starts without a stride and has two more.
- all decoder stages have `width` channels; BASNet's have 64 to 512.
- the refinement module has `refine_width` channels, 16 by default; BASNet's has 64, which at full resolution costs more
  than all the rest.

Letters in shapes: B images, C_i channels of stage i, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.models.backbones import make_backbone
from selfseg.models.decoders import convolution_block
from selfseg.models.start import load_backbone
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD


class Encoder(nn.Module):
    """A timm backbone with its normalisation: (B, 3, H, W) in [0, 1] to its stages, finest first."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = make_backbone(backbone, 32)
        self.channels: list[int] = list(cast(Any, self.backbone.feature_info).channels())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def begin_from(self, word: str | Path, name: str) -> None:
        """Give the backbone, timm's `name`, its initial weights and their normalisation (`selfseg.models.start`)."""
        initial = load_backbone(self.backbone, word, name)
        self.mean.copy_(self.mean.new_tensor(initial.mean).view(1, 3, 1, 1))
        self.std.copy_(self.std.new_tensor(initial.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] to its stages, finest first."""
        image = image.contiguous(memory_format=torch.channels_last)
        stages: list[Tensor] = self.backbone((image - self.mean) / self.std)
        return stages


class SaliencyNet(nn.Module):
    """Encoder-decoder: from the last stage up, each stage's 1x1 projection is added and a 3x3 convolution follows.

    Args:
        backbone: timm name; weights are random.
        width: channels of the decoder.

    Example:
        >>> network = SaliencyNet("resnet18", width=8).eval()
        >>> [tuple(logits.shape) for logits in network(torch.rand(1, 3, 64, 96))]
        [(1, 64, 96)]
    """

    def __init__(self, backbone: str = "resnet18", width: int = 64) -> None:
        super().__init__()
        self.encoder = Encoder(backbone)
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in self.encoder.channels)
        self.blocks = nn.ModuleList(convolution_block(width, width) for _ in self.encoder.channels)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The logits of what stands out.

        Args:
            image: (B, 3, H, W) float, RGB in [0, 1], not normalised.

        Returns:
            One tensor of logits (B, H, W).
        """
        stages = self.encoder(image)
        top: Tensor | None = None
        for lateral, block, stage in zip(reversed(self.laterals), reversed(self.blocks), reversed(stages), strict=True):
            here = lateral(stage)
            top = block(here if top is None else here + _to_size(top, here))
        return (_to_size(self.head(top), image)[:, 0],)


class BoundaryNet(nn.Module):
    """Encoder-decoder with an output at every stage, and residual refinement of the finest.

    Args:
        backbone: timm name; weights are random.
        width: channels of the decoder.
        refine_width: channels of the refinement module.

    Example:
        >>> network = BoundaryNet("resnet18", width=8, refine_width=4).eval()
        >>> outputs = network(torch.rand(1, 3, 64, 96))
        >>> len(outputs), {tuple(logits.shape) for logits in outputs}
        (7, {(1, 64, 96)})
    """

    def __init__(self, backbone: str = "resnet18", width: int = 64, refine_width: int = 16) -> None:
        super().__init__()
        self.encoder = Encoder(backbone)
        last = self.encoder.channels[-1]
        # Three dilated convolutions see the whole object before the way up begins.
        self.bridge = nn.Sequential(
            convolution_block(last, width, rate=2),
            convolution_block(width, width, rate=2),
            convolution_block(width, width, rate=2),
        )
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in self.encoder.channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(convolution_block(2 * width, width), convolution_block(width, width))
            for _ in self.encoder.channels
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for _ in range(len(self.blocks) + 1))
        self.refinement = Refinement(refine_width)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The logits of all outputs, the best first.

        Args:
            image: (B, 3, H, W) float, RGB in [0, 1], not normalised.

        Returns:
            Logits (B, H, W): refined, then of the decoder's stages from the finest on, then of the bridge.
        """
        stages = self.encoder(image)
        top = self.bridge(stages[-1])
        outputs = [_to_size(self.heads[-1](top), image)]
        for i in reversed(range(len(stages))):
            here = self.laterals[i](stages[i])
            top = self.blocks[i](torch.cat([here, _to_size(top, here)], 1))
            outputs.append(_to_size(self.heads[i](top), image))
        refined = outputs[-1] + self.refinement(outputs[-1])
        return tuple(output[:, 0] for output in (refined, *reversed(outputs)))


class Refinement(nn.Module):
    """What must be added to a coarse map: a small U-Net of four levels on the map alone (BASNet's section 3.3).

    Args:
        width: channels of all levels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.ModuleList(convolution_block(width, width) for _ in range(4))
        self.bridge = convolution_block(width, width)
        self.up = nn.ModuleList(convolution_block(2 * width, width) for _ in range(4))
        self.leave = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, logits: Tensor) -> Tensor:
        """(B, 1, H, W) logits to the residual, (B, 1, H, W)."""
        here = self.enter(logits)
        kept = []
        for block in self.down:
            here = block(here)
            kept.append(here)
            here = F.max_pool2d(here, 2, ceil_mode=True)
        here = self.bridge(here)
        for block, before in zip(self.up, reversed(kept), strict=True):
            here = block(torch.cat([_to_size(here, before), before], 1))
        residual: Tensor = self.leave(here)
        return residual


def _to_size(maps: Tensor, like: Tensor) -> Tensor:
    if maps.shape[2:] == like.shape[2:]:
        return maps
    return F.interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)


def predict(network: nn.Module, images: Tensor) -> Tensor:
    """What stands out, from a network in evaluation mode.

    Args:
        network: `SaliencyNet` or `BoundaryNet`; its mode is put back afterwards.
        images: (B, H, W, 3) uint8 RGB.

    Returns:
        (B, H, W) float32 in [0, 1], on the CPU.
    """
    return predict_there(network, images).cpu()


def predict_there(network: nn.Module, images: Tensor) -> Tensor:
    """`predict` on the network's device, which may still be at work."""
    device = next(network.parameters()).device
    pixels = images.to(device).permute(0, 3, 1, 2).float() / 255
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits: Tensor = network(pixels)[0]
            return logits.float().sigmoid()
    finally:
        network.train(training)
