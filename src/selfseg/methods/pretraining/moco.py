"""MoCo v2: an image is found again, in another crop, among many images that a momentum network remembers.

He, Fan, Wu, Xie, Girshick: "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020; Chen, Fan,
Girshick, He: "Improved Baselines with Momentum Contrastive Learning", arXiv 2003.04297 (v2: head, blur, cosine).
A baseline: it compares whole images, and its dense embedding is the backbone's feature map, without the head.

Deviations from the papers, and why:
- BatchNorms see the batch of all processes instead of a batch that is shuffled among them: what is learned doesn't
  depend on how many processes there are.
- The momentum network moves before its forward, in the same step, not after the optimiser's: nothing then happens
  between a step and its checkpoint.
- The queue is empty at first and used as far as it is filled, instead of starting with random vectors.

Letters: B images, D dimension of the projection, M vectors of the queue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import MomentumMethod
from selfseg.models.distributed import gather_rows
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.heads import ProjectionMLP
from selfseg.models.queue import FeatureQueue
from selfseg.models.twin import Twin
from selfseg.ops.objectives.losses import effective_rank, info_nce
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class MoCoConfig:
    """MoCo v2's settings; the defaults are the papers' on ImageNet.

    Attributes:
        embedder: the network; its output is pooled over the image and projected.
        views: the view plan: two independent crops.
        hidden: width of the head's hidden layer.
        dim: D, the dimensions of the projection that is contrasted.
        queue: keys of earlier batches.
        temperature: tau of the softmax over keys.
        momentum: momentum of the momentum network: the share of its weights that it keeps in each step.
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(backbone="resnet50", output_stride=32, decoder="none")
    )
    views: RandomCrops = field(default_factory=RandomCrops)
    hidden: int = 2048
    dim: int = 128
    queue: int = 65_536
    temperature: float = 0.2
    momentum: float = 0.999

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "queue", "temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.momentum <= 1:
            raise ConfigError(f"method.momentum must be in [0, 1], not {self.momentum}")
        if (self.views.views, self.views.small_views) != (2, 0):
            raise ConfigError(
                "MoCo compares two crops: method.views.views must be 2 and small_views 0, not "
                f"{self.views.views} and {self.views.small_views}"
            )


class _Network(nn.Module):
    """What query and momentum network both are."""

    def __init__(self, config: MoCoConfig) -> None:
        super().__init__()
        self.embedder = Embedder(config.embedder)
        self.head = ProjectionMLP(self.embedder.dim, config.hidden, config.dim)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D), of any length."""
        projection: Tensor = self.head(self.embedder.raw(image).mean((2, 3)))
        return projection


class MoCo(MomentumMethod):
    """The method; `forward` is algorithm 1 of the first paper.

    Logs: found (share of images that are nearest to their own key), queue_filled, effective_rank (of the queries).
    """

    Config: ClassVar[type[MoCoConfig]] = MoCoConfig

    def __init__(self, config: MoCoConfig) -> None:
        super().__init__()
        self.config = config
        self.twin = Twin(_Network(config), buffers="own")
        self.queue = FeatureQueue(config.queue, config.dim)

    def views(self) -> RandomCrops:
        """Two independent crops."""
        return self.config.views

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Queries of the first crop, keys of the second; compare."""
        first, second = batch.views
        queries, keys = self.queries_and_keys(first.image, second.image, self.config.momentum)
        # In float32 under every precision, as all comparisons.
        with torch.autocast(queries.device.type, enabled=False):
            return self.compare(queries.float(), keys.float())

    def compare(self, queries: Tensor, keys: Tensor) -> StepOutput:
        """The loss (eq. 1); then the keys go into the queue.

        Args:
            queries: (B, D) projections of the first crop.
            keys: (B, D) projections of the second crop by the momentum network, without gradient.
        """
        queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
        each, found = info_nce(queries, keys, self.queue.newest.to(keys), self.config.temperature)  # (B,)
        if self.training:
            self.queue.push(gather_rows(keys)[0])
        logs = {
            "found": found.float().mean(),
            "queue_filled": self.queue.filled / self.queue.size,
        }
        # Every process has as many images, so the mean of their means is the mean of all.
        vectors = queries.detach()
        return StepOutput(each.mean(), LazyLogs(logs, effective_rank=lambda: effective_rank(vectors)))
