"""Region contrast: a region is found again in another view, among all regions of the batch (InfoNCE)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.errors import ConfigError
from selfseg.methods.base import Method, fit_both, load_both
from selfseg.models.distributed import gather_rows, sum_over_processes, world_size
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.twin import Twin
from selfseg.ops.objectives.losses import effective_rank
from selfseg.ops.regions.pool_regions import common_regions, pool_regions
from selfseg.types import Batch, StepOutput


@dataclass(frozen=True)
class RegionContrastConfig:
    """Settings of region contrast.

    Attributes:
        embedder: the network.
        views: the view plan; `region_stride` must be the embedder's stride.
        temperature: of the softmax over candidates.
        momentum: of the teacher at the start; it rises to 1.
    """

    embedder: EmbedderConfig = field(default_factory=lambda: EmbedderConfig(output_stride=32, centred=True))
    views: ContentCentredViews = field(
        default_factory=lambda: ContentCentredViews(views=2, size=128, short_side=256, region_stride=4)
    )
    temperature: float = 0.2
    momentum: float = 0.99

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.views.views != 2:
            raise ConfigError(f"need temperature > 0 and two views, not {self.temperature} and {self.views.views}")


class RegionContrast(Method):
    """The method. Logs: effective_rank, found (share of regions found again), regions_per_image."""

    Config: ClassVar[type[RegionContrastConfig]] = RegionContrastConfig

    def __init__(self, config: RegionContrastConfig) -> None:
        super().__init__()
        self.config = config
        self.twin = Twin(Embedder(config.embedder), buffers="own")

    @property
    def embedder(self) -> Embedder:  # type: ignore[override]
        """What is kept: the student."""
        return cast(Embedder, self.twin.student)

    def views(self) -> ContentCentredViews:
        """Two views around a drawn centre."""
        return self.config.views

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Queries of the first view against the teacher's keys of the second."""
        first, second = batch.views
        regions = common_regions(torch.stack([first.regions, second.regions]))
        queries = self._pool(self.twin.student, first.image, regions.row[0], regions.count)  # (I, D)
        with torch.no_grad():
            keys = self._pool(self.twin.teacher, second.image, regions.row[1], regions.count)
        candidates, start = gather_rows(keys)  # (N, D), everybody's
        scores = queries @ candidates.T / self.config.temperature
        target = torch.arange(start, start + regions.count, device=scores.device)
        total = sum_over_processes(torch.tensor(float(regions.count), device=scores.device)).clamp(min=1)
        loss = F.cross_entropy(scores, target, reduction="sum") * (world_size() / total)
        found = (scores.max(1).indices == target).float().mean() if regions.count else total * 0
        count = total.new_tensor(regions.count / len(batch.index))
        logs = {"effective_rank": effective_rank(queries.detach()), "found": found, "regions_per_image": count}
        return StepOutput(loss, logs)

    def load_backbone(self, source: str) -> str:
        """Into the student; the teacher starts as its copy."""
        return load_both(self.embedder, cast(Embedder, self.twin.teacher), source)

    def fit_start(self, samples: Sequence[Tensor]) -> None:
        """The same for a pyramid."""
        fit_both(self.embedder, cast(Embedder, self.twin.teacher), samples)

    def _pool(self, network: nn.Module, image: Tensor, row: Tensor, rows: int) -> Tensor:
        return F.normalize(pool_regions(network(image), row, rows), dim=1)

    def after_step(self, progress: float) -> None:
        """The teacher follows."""
        rest = (1 - self.config.momentum) * (math.cos(math.pi * progress) + 1) / 2
        self.twin.update(1 - rest)
