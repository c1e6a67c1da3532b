"""DenseCL: MoCo v2 beside a contrast of cells, each with the cell of the other crop that looks most like it.

Wang, Zhang, Shen, Kong, Li: "Dense Contrastive Learning for Self-Supervised Visual Pre-Training", CVPR 2021. Two heads
stand on the backbone's feature map: one projects the image's mean, one every cell. A cell's positive is found by the
backbone's features, not by geometry; its negatives are other images' mean dense projections.
A baseline: its dense embedding is the backbone's feature map, without the heads.

Deviations from the paper, and why: those of MoCo v2 (`selfseg.methods.pretraining.moco`): statistics over all
processes' batch instead of a shuffled one, the momentum network moves before its forward, queues begin empty.

Letters: B images, S x S cells of the dense projection, C channels of the backbone, D dimension of the projections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import MomentumMethod, seen_cells
from selfseg.models.distributed import gather_rows, mean_of_counted
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.heads import ProjectionMLP
from selfseg.models.queue import FeatureQueue
from selfseg.models.twin import Twin
from selfseg.ops.objectives.losses import effective_rank, info_nce
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class DenseCLConfig:
    """DenseCL's settings; the defaults are the paper's (section 4.1).

    Attributes:
        embedder: the network; both heads stand on its output.
        views: the view plan: two independent crops.
        hidden: width of both heads' hidden layers.
        dim: D, the dimensions of both projections.
        grid: S; the feature map is pooled to S x S cells before the dense head.
        queue: keys of earlier batches, in each of the two queues.
        temperature: tau of both softmaxes.
        momentum: momentum of the momentum network: the share of its weights that it keeps in each step.
        dense_weight: lambda, the dense loss's share in [0, 1]; the image's has the rest.
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(backbone="resnet50", output_stride=32, decoder="none")
    )
    views: RandomCrops = field(default_factory=RandomCrops)
    hidden: int = 2048
    dim: int = 128
    grid: int = 7
    queue: int = 65_536
    temperature: float = 0.2
    momentum: float = 0.999
    dense_weight: float = 0.5

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "grid", "queue", "temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        for name in ("momentum", "dense_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"method.{name} must be in [0, 1], not {getattr(self, name)}")
        if (self.views.views, self.views.small_views) != (2, 0):
            raise ConfigError(
                "DenseCL compares two crops: method.views.views must be 2 and small_views 0, not "
                f"{self.views.views} and {self.views.small_views}"
            )


@dataclass(frozen=True)
class Projections:
    """What one network makes of a crop, of any length.

    Attributes:
        image: (B, D).
        cells: (B, S*S, D), row-major.
        features: (B, S*S, C) of the backbone, on the same cells, without gradient.
        seen: (B, S*S) bool, which cells show something that was measured; None = all.
    """

    image: Tensor
    cells: Tensor
    features: Tensor
    seen: Tensor | None = None


class _Network(nn.Module):
    """What query and momentum network both are."""

    def __init__(self, config: DenseCLConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.embedder = Embedder(config.embedder)
        self.image_head = ProjectionMLP(self.embedder.dim, config.hidden, config.dim)
        # 1x1 convolutions, computed as linear maps of cells.
        self.dense_head = ProjectionMLP(self.embedder.dim, config.hidden, config.dim)

    def forward(self, image: Tensor) -> Projections:
        features = self.embedder.raw(image)  # (B, C, h, w)
        there = seen_cells(self.embedder, image, features.shape[2:])
        whole = features.mean((2, 3)) if there is None else _mean_of_seen(features.flatten(2), there.flatten(1))
        cells = F.adaptive_avg_pool2d(features, self.grid).flatten(2).mT  # (B, S*S, C)
        dense = self.dense_head(cells.flatten(0, 1)).view(*cells.shape[:2], -1)
        seen = seen_cells(self.embedder, image, (self.grid, self.grid))
        return Projections(
            self.image_head(whole).float(),
            dense.float(),
            cells.detach().float(),
            None if seen is None else seen.flatten(1),
        )


class DenseCL(MomentumMethod):
    """The method; `compare` is section 3.

    Logs: loss_image, loss_dense, found (share of images that are nearest to their own key), found_cells (the same of
    cells), matched_cells (share of the second crop's cells that some cell of the first was matched with), queue_filled,
    effective_rank (of the first crop's dense projections).
    """

    Config: ClassVar[type[DenseCLConfig]] = DenseCLConfig

    def __init__(self, config: DenseCLConfig) -> None:
        super().__init__()
        self.config = config
        self.twin = Twin(_Network(config), buffers="own")
        self.image_queue = FeatureQueue(config.queue, config.dim)
        self.dense_queue = FeatureQueue(config.queue, config.dim)

    def views(self) -> RandomCrops:
        """Two independent crops."""
        return self.config.views

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Queries of the first crop, keys of the second; compare."""
        first, second = batch.views
        queries, keys = self.queries_and_keys(first.image, second.image, self.config.momentum)
        # In float32 under every precision, as all comparisons.
        with torch.autocast(first.image.device.type, enabled=False):
            return self.compare(queries, keys)

    def compare(self, queries: Projections, keys: Projections) -> StepOutput:
        """Both losses (eq. 1 to 4); then the keys go into the queues.

        Args:
            queries: of the first crop.
            keys: of the second crop by the momentum network, without gradient.
        """
        config = self.config
        image, key = F.normalize(queries.image, dim=1), F.normalize(keys.image, dim=1)  # (B, D)
        cells, key_cells = F.normalize(queries.cells, dim=2), F.normalize(keys.cells, dim=2)  # (B, S*S, D)
        match = _most_alike(queries.features, keys.features, keys.seen)  # (B, S*S)
        positives = key_cells.gather(1, match[:, :, None].expand_as(key_cells))
        each_image, found = info_nce(image, key, self.image_queue.newest.to(key), config.temperature)
        each_cell, found_cells = info_nce(
            cells.flatten(0, 1), positives.flatten(0, 1), self.dense_queue.newest.to(key), config.temperature
        )
        # A negative is an image's mean dense projection ("pooled feature vector", section 3.2).
        if queries.seen is None or keys.seen is None:
            # Every process has as many images and cells, so the mean of their means is the mean of all.
            loss_image, loss_dense = each_image.mean(), each_cell.mean()
            pooled = keys.cells.mean(1)
        else:  # void is compared with nothing, and images of nothing else are no negatives
            both = queries.seen.any(1) & keys.seen.any(1)
            loss_image = mean_of_counted(each_image, both)
            loss_dense = mean_of_counted(each_cell, (queries.seen & both[:, None]).flatten())
            kept = keys.seen.any(1)
            key, pooled = key[kept], _mean_of_seen(keys.cells.mT, keys.seen)[kept]
        if self.training:
            self.image_queue.push(gather_rows(key)[0])
            self.dense_queue.push(gather_rows(F.normalize(pooled, dim=1))[0])
        with torch.no_grad():
            taken = torch.zeros_like(match, dtype=torch.bool).scatter_(1, match, True)
            logs = {
                "loss_image": loss_image.detach(),
                "loss_dense": loss_dense.detach(),
                "found": found.float().mean(),
                "found_cells": found_cells.float().mean(),
                "matched_cells": taken.float().mean(),
                "queue_filled": self.image_queue.filled / self.image_queue.size,
            }
        projections = cells.detach().flatten(0, 1)
        return StepOutput(
            (1 - config.dense_weight) * loss_image + config.dense_weight * loss_dense,
            LazyLogs(logs, effective_rank=lambda: effective_rank(projections)),
        )


def _most_alike(first: Tensor, second: Tensor, seen: Tensor | None = None) -> Tensor:
    """For each cell of `first` (B, N, C) the number of its most similar cell of `second` (eq. 4): (B, N).

    Of those of `second` that are `seen`, (B, N), where any is.
    """
    cosines = F.normalize(first, dim=2) @ F.normalize(second, dim=2).mT
    if seen is not None:
        cosines = cosines.masked_fill(~seen[:, None], -2)
    return cosines.max(2).indices


def _mean_of_seen(cells: Tensor, seen: Tensor) -> Tensor:
    """The mean (B, C) of those cells (B, C, N) that are `seen`, (B, N); 0 of none."""
    return (cells * seen[:, None]).sum(2) / seen.sum(1, keepdim=True).clamp(min=1)
