"""PixPro: each cell, smoothed by the cells that look like it, must be what a momentum network sees at the same place.

Xie, Lin, Zhang, Cao, Lin, Hu: "Propagate Yourself: Exploring Pixel-Level Consistency for Unsupervised Visual
Representation Learning", CVPR 2021. Two crops are laid over their image; cells of the one and of the other that lie
near each other are positive pairs. The online network's cells pass the pixel propagation module first.
A baseline: its dense embedding is the backbone's feature map, without the heads.

Where the paper and its reference implementation, which made the published numbers, disagree, this is the reference:
- the projection head's hidden layer is 4,096 wide (the paper: 2,048);
- what is propagated has unit length before the similarities weigh it;
- a pair's loss is 2 - 2 cos in each direction (the paper: -cos), here with the constant;
- a pair is positive below the threshold, not at it, and distances are measured where the image is a square of side 1.

Deviations from both, and why:
- A crop's place is that of its edges, in the reference that of its outermost pixels' centres, half a pixel inside: the
  affine of a view has it so.
- The image-level loss that the paper can add (section 3.4) is left out: the published weights are without it.

Letters: B images, N cells of a crop, D dimension of the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import MultiCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import MomentumMethod, rising_momentum, seen_cells
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.heads import ProjectionMLP
from selfseg.models.twin import Twin
from selfseg.ops.linear import Linear
from selfseg.ops.objectives.losses import effective_rank
from selfseg.ops.phases import in_phase
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class PixProConfig:
    """PixPro's settings; the defaults are the paper's (section 4.1) and its reference's.

    Attributes:
        embedder: the network; the heads stand on its output.
        views: the view plan: two independent crops.
        hidden: width of the projection head's hidden layer.
        dim: D, the dimensions of the projection.
        threshold: T, the distance below which two cells are a positive pair, in diagonals of the larger of both crops'
            cells.
        sharpness: gamma, the power of the similarity (eq. 5).
        transform_layers: l, the number of linear layers for what is propagated: 0 to 2, with BatchNorm and ReLU between
            two.
        momentum: momentum of the momentum network at the start; it rises to 1 by a cosine.
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(backbone="resnet50", output_stride=32, decoder="none")
    )
    views: MultiCrops = field(default_factory=MultiCrops)
    hidden: int = 4096
    dim: int = 256
    threshold: float = 0.7
    sharpness: float = 2.0
    transform_layers: int = 1
    momentum: float = 0.99

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "threshold", "sharpness"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.momentum <= 1:
            raise ConfigError(f"method.momentum must be in [0, 1], not {self.momentum}")
        if self.transform_layers not in (0, 1, 2):
            raise ConfigError(f"method.transform_layers must be 0, 1 or 2, not {self.transform_layers}")
        if self.views.small_views:
            raise ConfigError(f"PixPro compares two crops: method.views.small_views is 0, not {self.views.small_views}")


class _Network(nn.Module):
    """What online and momentum network both have."""

    def __init__(self, config: PixProConfig) -> None:
        super().__init__()
        self.embedder = Embedder(config.embedder)
        # 1x1 convolutions, computed as linear maps of cells.
        self.head = ProjectionMLP(self.embedder.dim, config.hidden, config.dim, batch_norm=True)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to the cells' projections (B, h, w, D), of any length."""
        features = self.embedder.raw(image).permute(0, 2, 3, 1)  # (B, h, w, C)
        cells: Tensor = self.head(features.flatten(0, 2)).view(*features.shape[:3], -1)
        return cells


class _Propagation(nn.Module):
    """The pixel propagation module (section 3.3)."""

    def __init__(self, config: PixProConfig) -> None:
        super().__init__()
        self.sharpness = config.sharpness
        self.transform: nn.Module = nn.Identity()
        if config.transform_layers == 1:
            self.transform = Linear(config.dim, config.dim)
        elif config.transform_layers == 2:
            self.transform = ProjectionMLP(config.dim, config.dim, config.dim, batch_norm=True)

    @in_phase("forward")
    def forward(self, cells: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, N, D) of any length to the same (eq. 4 and 5); from cells that are `seen`, (B, N) bool, None = all."""
        exact = torch.promote_types(cells.dtype, torch.float32)
        values = F.normalize(self.transform(cells.flatten(0, 1)).view_as(cells).to(exact), dim=2)
        unit = F.normalize(cells.to(exact), dim=2)
        with torch.autocast(cells.device.type, enabled=False):
            similarity = (unit @ unit.mT).clamp(min=0)  # (B, N, N)
            if seen is not None:
                similarity = similarity * seen[:, None]
            if self.sharpness < 1:
                similarity = similarity + 1e-6  # its power has no gradient at 0
            return similarity.pow(self.sharpness) @ values


class PixPro(MomentumMethod):
    """The method; `forward` and `compare` are section 3.3.

    Logs: similarity (mean cosine of the positive pairs), pairs (positive pairs per cell), matched_images (share of
    images with a positive pair), effective_rank (of the first crop's cells by the momentum network).
    """

    Config: ClassVar[type[PixProConfig]] = PixProConfig

    def __init__(self, config: PixProConfig) -> None:
        super().__init__()
        self.config = config
        self.twin = Twin(_Network(config), buffers="own")
        self.propagation = _Propagation(config)

    def views(self) -> MultiCrops:
        """Two independent crops."""
        return self.config.views

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Propagated cells of both crops, cells of both by the momentum network, which moves before; compare."""
        images = [view.image for view in batch.views]
        cells = [self.twin.student(image) for image in images]  # (B, h, w, D)
        size = (cells[0].shape[1], cells[0].shape[2])
        there = [seen_cells(self.embedder, image, size) for image in images]
        seen = [None if each is None else each.flatten(1) for each in there]  # (B, N)
        propagated = [self.propagation(x.flatten(1, 2), each) for x, each in zip(cells, seen, strict=True)]
        with torch.no_grad():
            if self.training:
                self.twin.update(rising_momentum(self.config.momentum, progress))
            keys = [self.twin.teacher(image).flatten(1, 2) for image in images]
        first, second = (view.to_image for view in batch.views)
        # In float32 under every precision, as all comparisons.
        with torch.autocast(images[0].device.type, enabled=False):
            return self.compare([y.float() for y in propagated], [k.float() for k in keys], (first, second), size, seen)

    def compare(
        self,
        propagated: Sequence[Tensor],
        keys: Sequence[Tensor],
        to_image: tuple[Tensor, Tensor],
        size: tuple[int, int],
        seen: Sequence[Tensor | None] = (None, None),
    ) -> StepOutput:
        """The loss (eq. 1 and 6): mean over an image's positive pairs, then over images, of both directions.

        Args:
            propagated: y, (B, N, D) of each crop, of any length; cells are row-major.
            keys: x', (B, N, D) of each crop by the momentum network, of any length, without gradient.
            to_image: affines of the two crops, (B, 2, 3) each.
            size: h, w; N = h * w.
            seen: (B, N) bool of each crop, which cells show something that was measured; others are in no pair. None =
                all.
        """
        near = near_cells(*to_image, size, self.config.threshold)
        if seen[0] is not None and seen[1] is not None:
            near = near & seen[0][:, :, None] & seen[1][:, None]
        positive = near.to(propagated[0].dtype)  # (B, N, N)
        count = positive.sum((1, 2))
        has = (count > 0).to(count.dtype)
        terms = []
        for a, b, pairs in ((0, 1, positive), (1, 0, positive.mT)):
            cosines = F.normalize(propagated[a], dim=2) @ F.normalize(keys[b], dim=2).mT
            terms.append((cosines * pairs).sum((1, 2)) / count.clamp(min=1))  # (B,)
        cosine = torch.stack(terms)  # (2, B), 0 for an image without a pair
        # Every process has as many images, so the mean of their means is the mean of all.
        loss = (2 * has - 2 * cosine).sum(0).mean()
        logs = {
            "similarity": cosine.sum() / (2 * has.sum()).clamp(min=1),
            "pairs": count.mean() / positive.shape[1],
            "matched_images": has.mean(),
        }
        vectors = F.normalize(keys[0], dim=2).flatten(0, 1)
        return StepOutput(loss, LazyLogs(logs, effective_rank=lambda: effective_rank(vectors)))


def near_cells(first: Tensor, second: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Which cells of two crops are positive pairs (eq. 1).

    Args:
        first: (B, 2, 3) affines from crop to image, both in [-1, 1].
        second: the same of the other crop.
        size: h, w cells of either crop.
        threshold: of the distance, in diagonals of the larger of both crops' cells.

    Returns:
        (B, h * w, h * w) bool, [b, i, j]: cell i of the first crop and j of the second; cells are row-major.

    Example:
        >>> same = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
        >>> near_cells(same, same, (2, 2), 0.7)[0].int()
        tensor([[1, 0, 0, 0],
                [0, 1, 0, 0],
                [0, 0, 1, 0],
                [0, 0, 0, 1]], dtype=torch.int32)
    """
    height, width = size
    y, x = torch.meshgrid(
        (2 * torch.arange(height, device=first.device) + 1) / height - 1,
        (2 * torch.arange(width, device=first.device) + 1) / width - 1,
        indexing="ij",
    )
    centres = torch.stack([x, y, torch.ones_like(x)]).flatten(1).to(first.dtype)  # (3, N)
    step = first.new_tensor([2 / width, 2 / height])
    diagonals = [(affine[:, :, :2] @ step).norm(dim=1) for affine in (first, second)]  # (B,), in the image's frame
    unit = torch.maximum(*diagonals)[:, None, None]
    places = [(affine @ centres).mT for affine in (first, second)]  # (B, N, 2)
    distance = (places[0][:, :, None] - places[1][:, None]).norm(dim=3)
    return cast(Tensor, distance < threshold * unit)
