"""SwAV: a crop of an image predicts the prototypes that another crop of it was assigned.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin: "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", NeurIPS 2020. Assignments use all prototypes equally (Sinkhorn-Knopp); small crops predict but don't
assign (multi-crop).
A baseline: it compares whole images, and its dense embedding is the backbone's feature map, without the head.

Deviations from the paper, and why (those of ViCE, which has this loss from SwAV):
- The queues keep projections and score them with today's prototypes, are one for all processes, and are used once full.
- `prototypes_frozen` and `queue_start` are shares of the training, not an epoch's number: the step has no counter. The
  recipes convert.

Letters: V views, B images, D dimension of the projection, K prototypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method
from selfseg.models.distributed import gather_rows
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.heads import ProjectionMLP
from selfseg.models.queue import FeatureQueue
from selfseg.ops.objectives.losses import effective_rank, swapped_prediction, usage_entropy
from selfseg.ops.objectives.sinkhorn import sinkhorn
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class SwAVConfig:
    """SwAV's settings; the defaults are the paper's with large batches (section 4, appendix A).

    Attributes:
        embedder: the network; its output is pooled over the image and projected.
        views: the view plan: large crops, which assign and predict, and small ones, which only predict.
        hidden: width of the head's hidden layer.
        dim: D, the dimensions of the projection that prototypes are compared with.
        prototypes: K, the number of prototypes.
        temperature: tau of the prediction's softmax (eq. 2).
        epsilon: entropy of the assignment by Sinkhorn-Knopp (eq. 3).
        sinkhorn_iterations: iterations of Sinkhorn-Knopp.
        queue: projections of earlier batches that join the assignment of each large view. With large batches it is 0;
            with 256 images a batch the paper has 3,840.
        queue_start: share of the training after which the queue is used, in [0, 1].
        prototypes_frozen: share of the training in which the prototypes get no gradient, in [0, 1].
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(backbone="resnet50", output_stride=32, decoder="none")
    )
    views: RandomCrops = field(
        default_factory=lambda: RandomCrops(scale=(0.14, 1.0), small_views=6, jitter=(0.8, 0.8, 0.8, 0.2))
    )
    hidden: int = 2048
    dim: int = 128
    prototypes: int = 3000
    temperature: float = 0.1
    epsilon: float = 0.05
    sinkhorn_iterations: int = 3
    queue: int = 0
    queue_start: float = 0.0
    prototypes_frozen: float = 0.0

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "temperature", "epsilon", "sinkhorn_iterations"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if self.prototypes < 2:
            raise ConfigError(f"method.prototypes must be at least 2, not {self.prototypes}: all would be the same")
        if self.queue < 0:
            raise ConfigError(f"method.queue must be 0 (none) or more, not {self.queue}")
        for name in ("queue_start", "prototypes_frozen"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"method.{name} is a share in [0, 1], not {getattr(self, name)}")
        if self.views.views < 1 or self.views.views + self.views.small_views < 2:
            raise ConfigError(
                "SwAV compares crops: method.views.views and small_views must be 2 together at least, not "
                f"{self.views.views} and {self.views.small_views}"
            )


class SwAV(Method):
    """The method; `compare` is section 3.

    Logs: loss_uniform (loss of a guess, log K), prototype_entropy (use of the prototypes by the predictions, fraction
    of log K), assignment_entropy (of one image's assignment, fraction of log K), effective_rank (of the projections),
    agreement (share of images whose first two crops choose the same prototype), queue_filled.
    """

    Config: ClassVar[type[SwAVConfig]] = SwAVConfig

    def __init__(self, config: SwAVConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config.embedder)
        self.head = ProjectionMLP(self.embedder.dim, config.hidden, config.dim, batch_norm=True)
        self.prototypes = nn.Linear(config.dim, config.prototypes, bias=False)
        self.queues = nn.ModuleList(FeatureQueue(config.queue, config.dim) for _ in range(config.views.views))
        self.after_step(0.0)

    def views(self) -> RandomCrops:
        """Large and small crops."""
        return self.config.views

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Project all crops, those of a size in one pass; compare."""
        pooled = []
        for _, crops in groupby((view.image for view in batch.views), key=lambda image: image.shape[2:]):
            pooled.append(self.embedder.raw(torch.cat(list(crops))).mean((2, 3)))
        projections = self.head(torch.cat(pooled)).view(len(batch.views), len(batch.index), -1)
        # In float32 under every precision: an assignment hangs on differences of cosines.
        with torch.autocast(projections.device.type, enabled=False):
            return self.compare(projections.float(), progress)

    def compare(self, projections: Tensor, progress: float) -> StepOutput:
        """Assign each large crop, and let all other crops predict its assignment (eq. 1 to 5); then fill the queues.

        Args:
            projections: (V, B, D), of any length; the first `views.views` are the large crops'.
            progress: in [0, 1].
        """
        config = self.config
        vectors = F.normalize(projections, dim=2)
        prototypes = self.prototypes.weight  # (K, D), unit rows
        if progress < config.prototypes_frozen:
            # Multiplying by 0 instead of detaching keeps the gradient's buckets the same in every step of DDP.
            prototypes = prototypes.detach() + 0 * prototypes
        scores = F.linear(vectors, prototypes)  # (V, B, K)
        # Every process has as many images, so the mean of their means is the mean of all.
        weight = scores.new_full((scores.shape[1],), 1 / scores.shape[1])
        terms, assignments = [], []
        for view, queue in enumerate(cast("list[FeatureQueue]", self.queues)):
            gathered, start = gather_rows(vectors[view])
            assignment = self._assign(gathered, queue, progress)[start : start + len(weight)].to(scores)
            others = torch.cat([scores[:view], scores[view + 1 :]])
            terms.append(swapped_prediction(others, assignment, weight, config.temperature))
            assignments.append(assignment)
            if self.training:
                queue.push(gathered)
        return StepOutput(
            torch.stack(terms).mean(), self._logs(scores.detach(), assignments[0], vectors.detach().flatten(0, 1))
        )

    @torch.no_grad()
    def _assign(self, rows: Tensor, queue: FeatureQueue, progress: float) -> Tensor:
        """Equal assignment (N, K) of everybody's projections (N, D), among them and the queue."""
        others = queue.vectors.to(rows) if queue.full and progress >= self.config.queue_start else rows[:0]
        scores = F.linear(torch.cat([rows, others]), self.prototypes.weight)
        return sinkhorn(scores, self.config.epsilon, self.config.sinkhorn_iterations)[: len(rows)]

    @torch.no_grad()
    def _logs(self, scores: Tensor, assignment: Tensor, vectors: Tensor) -> LazyLogs:
        choice = scores.max(2).indices  # (V, B)
        log_k = scores.new_tensor(math.log(scores.shape[2]))
        queue = cast(FeatureQueue, self.queues[0])
        logs = {
            "loss_uniform": log_k,
            "prototype_entropy": usage_entropy(torch.softmax(scores / self.config.temperature, dim=2).flatten(0, 1)),
            "assignment_entropy": torch.special.entr(assignment).sum(1).mean() / log_k,
            "agreement": (choice[1] == choice[0]).float().mean(),
            "queue_filled": queue.filled / max(queue.size, 1),
        }
        return LazyLogs(logs, effective_rank=lambda: effective_rank(vectors))

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Prototypes have unit length after every step."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
