"""Decoders: from a backbone's stages to one map of raw embeddings (B, D, h, w).

A decoder is its `features` and, on them, `project`, the last linear map. Other heads (saliency) stand beside `project`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.errors import ConfigError, MissingExtra
from selfseg.models.heads import VectorBatchNorm, VectorMLP
from selfseg.ops.pca import fit_pca

_SAMPLES = 1 << 14  # vectors that are standardised at a time


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


class Decoder(nn.Module):
    """What all decoders have.

    Attributes:
        channels: C of `features`.
        project: the last linear map, C to D.
    """

    channels: int
    project: Callable[[Tensor], Tensor]

    def features(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, C, h, w)."""
        raise NotImplementedError

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, D, h, w)."""
        return self.project(self.features(stages))


class LightFPN(Decoder):
    """The light feature pyramid of ViCE's low-resolution model (as in PiCIE).

    1x1 lateral convolutions from the last four stages to D, top-down bilinear + add, no smoothing convolutions.
    Output at the stride of the first of the four stages (4 for ResNets). The sum is linear in the stages already, so
    the features are the raw embedding.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, dim, 1) for count in channels[-4:])
        self.channels, self.project = dim, nn.Identity()

    def features(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, D, h, w) at the finest of the last four."""
        used = stages[-len(self.laterals) :]
        top: Tensor = self.laterals[-1](used[-1])
        for lateral, stage in zip(reversed(self.laterals[:-1]), reversed(used[:-1]), strict=True):
            here: Tensor = lateral(stage)
            if top.shape[2:] != here.shape[2:]:
                top = F.interpolate(top, size=here.shape[2:], mode="bilinear", align_corners=False)
            top = here + top
        return top


class LinearDecoder(Decoder):
    """A 1x1 convolution on the last stage."""

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.channels, self.project = channels[-1], nn.Conv2d(channels[-1], dim, 1)

    def features(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to its last."""
        return stages[-1]


class LastStage(LinearDecoder):
    """No decoder: the backbone's last stage as it is."""

    def __init__(self, channels: Sequence[int]) -> None:
        super(LinearDecoder, self).__init__()
        self.channels, self.project = channels[-1], nn.Identity()


class StegoHead(Decoder):
    """STEGO's segmentation head: a linear map of the last stage, and a two-layer ReLU network added to it.

    Hamilton et al.: "Unsupervised Semantic Segmentation by Distilling Feature Correspondences", ICLR 2022. The hidden
    layer is as wide as the stage.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.channels = count = channels[-1]
        self.linear = nn.Conv2d(count, dim, 1)
        self.network = nn.Sequential(nn.Conv2d(count, count, 1), nn.ReLU(), nn.Conv2d(count, dim, 1))

    def features(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to its last."""
        return stages[-1]

    def project(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w)."""
        out: Tensor = self.linear(features) + self.network(features)
        return out


class Projector(Decoder):
    """SlotCon's projector: three 1x1 convolutions on the last stage, BatchNorm and GELU after the first two.

    Computed as linear maps of cells, which is faster than convolutions.
    """

    def __init__(self, channels: Sequence[int], hidden: int, dim: int) -> None:
        super().__init__()
        self.mlp = VectorMLP(channels[-1], hidden, dim)
        self.channels = hidden

    def features(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, hidden, h, w) at the last stage's stride."""
        return self._cells(list(self.mlp)[:-1], stages[-1])

    def project(self, features: Tensor) -> Tensor:
        """(B, hidden, h, w) to (B, D, h, w)."""
        return self._cells([self.mlp[-1]], features)

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

    @staticmethod
    def _cells(layers: Sequence[nn.Module], values: Tensor) -> Tensor:
        cells = values.permute(0, 2, 3, 1)  # (B, h, w, C)
        rows = cells.flatten(0, 2)
        for layer in layers:
            rows = layer(rows)
        return rows.view(*cells.shape[:3], -1).permute(0, 3, 1, 2)


class DeepLabV3(Decoder):
    """DeepLabV3's head: ASPP on the last stage, a 3x3 convolution, then a 1x1 convolution to D.

    Chen, Papandreou, Schroff, Adam: "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv 1706.05587,
    section 3.3: a 1x1 convolution, three 3x3 ones of rates 12, 24 and 36 (of an output stride of 8; half of it at 16)
    and the mean of the image, 256 channels each, are brought together to 256. Without dropout: the embedding is
    compared, not classified, and a step shall not depend on how many processes share it.
    """

    def __init__(self, channels: Sequence[int], dim: int, output_stride: int) -> None:
        super().__init__()
        if output_stride == 32:
            raise ConfigError("the decoder deeplabv3 needs output_stride 8 or 16, not 32")
        width, inputs = 256, channels[-1]
        self.branches = nn.ModuleList([convolution_block(inputs, width, 1)])
        self.branches.extend(convolution_block(inputs, width, 3, rate * 8 // output_stride) for rate in (12, 24, 36))
        # One vector per image: for a batch of one torch's BatchNorm raises.
        self.pooled = nn.Sequential(nn.Linear(inputs, width, bias=False), VectorBatchNorm(width), nn.ReLU())
        self.merge = nn.Sequential(convolution_block(5 * width, width, 1), convolution_block(width, width, 3))
        self.channels, self.project = width, nn.Conv2d(width, dim, 1)

    def features(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, 256, h, w) at the last stage's stride."""
        last = stages[-1]
        whole: Tensor = self.pooled(last.mean((2, 3)))[:, :, None, None].expand(-1, -1, *last.shape[2:])
        out: Tensor = self.merge(torch.cat([*(branch(last) for branch in self.branches), whole], dim=1))
        return out


def convolution_block(inputs: int, outputs: int, kernel: int = 3, rate: int = 1) -> nn.Sequential:
    """Convolution without bias that keeps the size, BatchNorm, ReLU: (B, inputs, h, w) to (B, outputs, h, w)."""
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=rate, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class DeepLabV3Plus(Decoder):
    """DeepLabV3+ of segmentation_models_pytorch (ASPP 12/24/36), then a 1x1 convolution to D; output stride 4.

    Raises:
        MissingExtra: if segmentation_models_pytorch is not installed.
        ConfigError: if the backbone's output stride is 32.
    """

    def __init__(self, channels: Sequence[int], dim: int, output_stride: int) -> None:
        super().__init__()
        if output_stride == 32:
            raise ConfigError("the decoder deeplabv3plus needs output_stride 8 or 16, not 32")
        try:
            from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
        except ImportError as error:
            raise MissingExtra("the decoder deeplabv3plus", "segmentation_models_pytorch", "smp") from error
        self.decoder = DeepLabV3PlusDecoder(
            encoder_channels=[3, *channels],
            encoder_depth=len(channels),
            out_channels=256,
            atrous_rates=(12, 24, 36),
            output_stride=output_stride,
            aspp_separable=True,
            aspp_dropout=0.0,
        )
        self.channels, self.project = 256, nn.Conv2d(256, dim, 1)

    def features(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, 256, h, w) at stride 4."""
        # smp expects the input image before the stages and never reads it.
        out: Tensor = self.decoder([stages[0], *stages])
        return out


class Pyramid(Decoder):
    """Several stages of a pretrained backbone, put together without any training: `fit` finds its numbers.

    Each stage is standardised per channel over a collection and its vectors get unit length, so that no stage or
    channel outweighs the others; at the finest stage's cells the stages are concatenated, and principal components,
    partly whitened, are what is left. `correction` is a small network on the standardised stages whose last layer
    begins at zero, so that training begins at the pyramid itself.

    Args:
        channels: of the backbone's stages, finest first.
        dim: D.
        stages: places of the used ones in the list of stages, finest first, e.g. (-2, -1).
        correction: channels inside of the correction; 0 = none.
    """

    def __init__(self, channels: Sequence[int], dim: int, stages: Sequence[int], correction: int = 0) -> None:
        super().__init__()
        used = [channels[stage] for stage in stages]
        self.stages, self.channels = tuple(stages), sum(used)
        if dim > self.channels:
            raise ConfigError(f"a pyramid of {self.channels} channels has no {dim} components; lower dim")
        for index, count in enumerate(used):
            self.register_buffer(f"mean_{index}", torch.zeros(count, 1, 1))
            self.register_buffer(f"deviation_{index}", torch.ones(count, 1, 1))
        self.components = nn.Conv2d(self.channels, dim, 1)
        self.components.requires_grad_(False)  # found, not learned
        self.correction: nn.Sequential | None = None
        if correction:
            last = nn.Conv2d(correction, dim, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
            self.correction = nn.Sequential(nn.Conv2d(self.channels, correction, 1), nn.GELU(), last)

    def standardised(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """The used stages with mean 0 and deviation 1 in each channel, and unit length: (B, C_i, h_i, w_i) each."""
        found = []
        for index, stage in enumerate(self.stages):
            mean, deviation = getattr(self, f"mean_{index}"), getattr(self, f"deviation_{index}")
            found.append(F.normalize((stages[stage] - mean) / deviation, dim=1))
        return found

    def features(self, stages: Sequence[Tensor]) -> Tensor:
        """Finest first list of (B, C_i, h_i, w_i) to (B, C, h, w) at the finest used stage."""
        first, *coarser = self.standardised(stages)
        size = (first.shape[2], first.shape[3])
        larger = [F.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in coarser]
        return torch.cat([first, *larger], dim=1)

    def project(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w)."""
        out: Tensor = self.components(features)
        return out if self.correction is None else out + self.correction(features)

    def fit(self, samples: Sequence[Tensor], whiten: float) -> None:
        """Find the components.

        Args:
            samples: of each used stage (N, C_i) float, vectors of drawn places, the same places in all of them.
            whiten: 0 leaves the components' deviations as they are, 1 makes them equal; in between, their power.

        Raises:
            ConfigError: if there are fewer than 2 samples, or they are not finite.
        """
        joined = torch.empty(len(samples[0]), sum(values.shape[1] for values in samples))
        parts = torch.split(joined, [values.shape[1] for values in samples], dim=1)
        for index, (values, part) in enumerate(zip(samples, parts, strict=True)):
            mean = values.mean(0, dtype=torch.float64).float()
            deviation = values.std(0, correction=0)
            deviation = torch.where(deviation > 1e-6 * deviation.max(), deviation, torch.ones_like(deviation))
            getattr(self, f"mean_{index}").copy_(mean[:, None, None])
            getattr(self, f"deviation_{index}").copy_(deviation[:, None, None])
            # In pieces and in its place: a copy of all samples is hundreds of MB.
            for source, place in zip(torch.split(values, _SAMPLES), torch.split(part, _SAMPLES), strict=True):
                place.copy_(F.normalize((source - mean) / deviation, dim=1))
        basis = fit_pca(joined, self.components.out_channels)
        spread = basis.project(joined).std(0, correction=0)
        spread = spread.clamp(min=1e-6 * float(spread.max()))
        weight = basis.components / spread[:, None] ** whiten
        with torch.no_grad():
            self.components.weight.copy_(weight[:, :, None, None])
            cast(Tensor, self.components.bias).copy_(-weight @ basis.mean)


def make_decoder(
    name: str,
    channels: Sequence[int],
    dim: int,
    output_stride: int,
    hidden: int,
    stages: Sequence[int] = (-2, -1),
    correction: int = 0,
) -> Decoder:
    """Build a decoder by name.

    Args:
        name: "fpn", "deeplabv3", "deeplabv3plus", "linear", "projector", "pyramid", "stego" or "none".
        channels: of the backbone's stages, finest first.
        dim: D; of no use to "none".
        output_stride: of the last stage, for the rates of the two DeepLabs.
        hidden: channels inside of the projector.
        stages: that the pyramid uses.
        correction: channels inside of the pyramid's correction.

    Raises:
        ConfigError: for another name.
    """
    if name == "fpn":
        return LightFPN(channels, dim)
    if name == "deeplabv3":
        return DeepLabV3(channels, dim, output_stride)
    if name == "deeplabv3plus":
        return DeepLabV3Plus(channels, dim, output_stride)
    if name == "linear":
        return LinearDecoder(channels, dim)
    if name == "projector":
        return Projector(channels, hidden, dim)
    if name == "pyramid":
        return Pyramid(channels, dim, stages, correction)
    if name == "stego":
        return StegoHead(channels, dim)
    if name == "none":
        return LastStage(channels)
    known = "fpn, deeplabv3, deeplabv3plus, linear, projector, pyramid, stego, none"
    raise ConfigError(f"there is no decoder {name!r}; there are {known}")
