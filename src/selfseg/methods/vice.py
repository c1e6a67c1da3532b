"""ViCE: visual concept embeddings by superpixels and contrasting cluster assignments.

Karlsson, Hayashi, Fujii, Carballo, Ohtani, Takeda: "ViCE: Improving Dense Representation Learning by Superpixelization
and Contrasting Cluster Assignment", BMVC 2022 (P2); preprint 2021 (P1). Views of an image share superpixels; a region's
mean vector in one view must predict the prototype that the same region was assigned in another.

Deviations from the paper, and why:
- The queue keeps region vectors and scores them with today's prototypes; the papers say score vectors, and scores by
  prototypes that have moved since are wrong.
- The queue is one for all processes, filled with everybody's regions (size = the paper's 5,000 times the processes'
  number, if wanted): its content, and so the run, doesn't depend on the number of processes.
- It is used once it is full, and from `queue_start` on: the reference implementation has it from iteration 313 on, with
  random content where nothing was there yet, and the papers don't tell. The recipes of the papers' models start there.
- `prototypes_frozen` is a share of the training, not 313 steps: the step has no counter. The recipes convert.
- With `pool` "normalised" the embedder's cells are normalised before they are enlarged to the regions' grid, not each
  pixel after it: a fraction of the work, and the region's mean is normalised at the end in both cases.

Letters: V views, B images, D embedding dimension, h w embedding cells, I common regions of the batch, K prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.errors import ConfigError
from selfseg.methods.base import Method
from selfseg.models.distributed import gather_rows, sum_over_processes, world_size
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.queue import FeatureQueue
from selfseg.ops.objectives.losses import effective_rank, swapped_prediction, usage_entropy
from selfseg.ops.objectives.sinkhorn import sinkhorn
from selfseg.ops.regions.pool_regions import CommonRegions, common_regions, pool_regions
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class ViCEConfig:
    """ViCE's settings; the defaults are the paper's low-resolution model (P2, section 4).

    Attributes:
        embedder: the network.
        views: the view plan.
        prototypes: K, the number of concept vectors.
        temperature: tau of the prediction's softmax (eq. 3).
        epsilon: entropy of the assignment by Sinkhorn-Knopp.
        sinkhorn_iterations: iterations of Sinkhorn-Knopp.
        queue: how many region vectors of earlier batches join the assignment.
        queue_start: share of the training after which they join it, in [0, 1]; the queue is filled from the first step
            on.
        prototypes_frozen: share of the training in which the prototypes get no gradient, in [0, 1].
        pool: whether a region's mean is that of "normalised" pixel vectors (papers) or of "raw" ones.
        pool_stride: regions are pooled on a grid of every n-th input pixel. The papers have 1; the embedder's own
            stride makes upsampling unnecessary.
        average: whether the loss is averaged within each image first ("image", papers) or over all regions at once
            ("batch").
        symmetric: whether every view assigns once (SwAV), instead of only the first one.
    """

    embedder: EmbedderConfig = field(default_factory=EmbedderConfig)
    views: ContentCentredViews = field(default_factory=ContentCentredViews)
    prototypes: int = 128
    temperature: float = 0.1
    epsilon: float = 0.05
    sinkhorn_iterations: int = 3
    queue: int = 5000
    queue_start: float = 0.0
    prototypes_frozen: float = 0.0
    pool: Literal["normalised", "raw"] = "normalised"
    pool_stride: int = 1
    average: Literal["image", "batch"] = "image"
    symmetric: bool = False

    def __post_init__(self) -> None:
        for name in ("temperature", "epsilon", "sinkhorn_iterations", "pool_stride"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if self.prototypes < 2:
            raise ConfigError(f"method.prototypes must be at least 2, not {self.prototypes}: all would be the same")
        for name in ("prototypes_frozen", "queue_start"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"method.{name} is a share in [0, 1], not {getattr(self, name)}")
        if self.queue < 0:
            raise ConfigError(f"method.queue must be 0 (none) or more, not {self.queue}")
        if self.views.views < 2:
            raise ConfigError(f"ViCE compares views: method.views.views must be at least 2, not {self.views.views}")
        if self.views.region_stride != self.pool_stride:
            raise ConfigError(
                f"method.views.region_stride ({self.views.region_stride}) must equal method.pool_stride "
                f"({self.pool_stride}): regions are pooled on that grid"
            )


class ViCE(Method):
    """The method; `forward` is P2's algorithm 2.

    Logs: loss_uniform (loss of a guess, log K), prototype_entropy (use of the prototypes by the predictions, fraction
    of log K), assignment_entropy (of one region's assignment, fraction of log K), effective_rank (of the region
    vectors), agreement (share of regions whose views choose the same prototype), regions_per_image, queue_filled.
    """

    Config: ClassVar[type[ViCEConfig]] = ViCEConfig

    def __init__(self, config: ViCEConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config.embedder)
        self.prototypes = nn.Linear(self.embedder.dim, config.prototypes, bias=False)
        self.queue = FeatureQueue(config.queue, self.embedder.dim)
        self.after_step(0.0)

    def views(self) -> ContentCentredViews:
        """Views around a drawn centre, with the regions they share."""
        return self.config.views

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Embed the views, pool common regions, predict each other's assignments."""
        regions = common_regions(torch.stack([view.regions for view in batch.views]))
        embedding = self._embed(torch.cat([view.image for view in batch.views]), regions.row.shape[-2:])
        vectors = self.pool(embedding, regions)  # (V, I, D)
        # In float32 under every precision: bf16 has 3 digits, and an assignment hangs on differences of cosines.
        with torch.autocast(vectors.device.type, enabled=False):
            return self.compare(vectors, regions, len(batch.index), progress)

    def _embed(self, images: Tensor, size: tuple[int, ...]) -> Tensor:
        """(V*B, 3, H, W) to (V*B, D, *size)."""
        embedding = self.embedder.raw(images)
        if self.config.pool == "normalised":
            embedding = F.normalize(embedding, dim=1)
        if embedding.shape[2:] != size:
            embedding = F.interpolate(embedding, size=size, mode="bilinear", align_corners=False)
        return embedding

    def pool(self, embedding: Tensor, regions: CommonRegions) -> Tensor:
        """Unit-length mean vectors of the common regions.

        Args:
            embedding: (V*B, D, H, W), view-major.
            regions: of the same views.

        Returns:
            (V, I, D) float32.
        """
        views = regions.row.shape[0]
        first_row = torch.arange(views, device=embedding.device).mul_(regions.count).view(views, 1, 1, 1)
        row = torch.where(regions.row < 0, -1, regions.row + first_row)
        means = pool_regions(embedding, row.flatten(0, 1), views * regions.count)
        return F.normalize(means, dim=1).view(views, regions.count, means.shape[1])

    def compare(self, vectors: Tensor, regions: CommonRegions, images: int, progress: float) -> StepOutput:
        """Assign, predict, and put the assigning view's regions into the queue.

        Args:
            vectors: (V, I, D) unit length.
            regions: the common regions.
            images: B.
            progress: in [0, 1].
        """
        config = self.config
        prototypes = self.prototypes.weight  # (K, D), unit rows
        if progress < config.prototypes_frozen:
            # Multiplying by 0 instead of detaching keeps the gradient's buckets the same in every step of DDP.
            prototypes = prototypes.detach() + 0 * prototypes
        scores = F.linear(vectors, prototypes.to(vectors.dtype))  # (V, I, K)
        weight = self._weight(regions, images)
        assigning = range(vectors.shape[0]) if config.symmetric else range(1)
        terms = []
        for view in assigning:
            assignment = self.assign(vectors[view], progress)
            others = torch.cat([scores[:view], scores[view + 1 :]])
            terms.append(swapped_prediction(others, assignment, weight, config.temperature))
            if view == 0:
                first = assignment
        loss = torch.stack(terms).mean()
        if self.training:
            self.queue.push(gather_rows(vectors[0])[0])
        return StepOutput(loss, self._logs(scores.detach(), first, vectors.detach(), images))

    @torch.no_grad()
    def assign(self, vectors: Tensor, progress: float = 1.0) -> Tensor:
        """Equal assignment of one view's regions among all processes' regions and the queue.

        Args:
            vectors: (I, D) unit length.
            progress: in [0, 1]; before `queue_start` the queue has no part in it.

        Returns:
            (I, K) float32.
        """
        rows, start = gather_rows(vectors)
        if self.queue.full and progress >= self.config.queue_start:
            rows = torch.cat([rows, self.queue.vectors.to(rows)])
        assignment = sinkhorn(
            F.linear(rows, self.prototypes.weight.to(rows.dtype)), self.config.epsilon, self.config.sinkhorn_iterations
        )
        return assignment[start : start + vectors.shape[0]]

    def _weight(self, regions: CommonRegions, images: int) -> Tensor:
        """(I,) weights that sum to 1 over all processes, times the number of processes (DDP takes the mean)."""
        if self.config.average == "batch":
            total = sum_over_processes(torch.tensor(float(regions.count), device=regions.image.device))
            return torch.ones_like(regions.image, dtype=torch.float32) * (world_size() / total.clamp(min=1))
        per_image = torch.bincount(regions.image, minlength=images).float()
        filled = sum_over_processes((per_image > 0).sum().float()).clamp(min=1)
        return world_size() / (filled * per_image[regions.image])

    @torch.no_grad()
    def _logs(self, scores: Tensor, assignment: Tensor, vectors: Tensor, images: int) -> LazyLogs:
        choice = scores.max(2).indices  # (V, I)
        count = choice.shape[1]
        log_k = torch.log(torch.tensor(float(scores.shape[2]), device=scores.device))
        prediction = torch.softmax(scores[-1] / self.config.temperature, dim=1)
        per_region = torch.special.entr(assignment).sum(1).mean() / log_k if count else log_k.new_zeros(())
        logs = {
            "loss_uniform": log_k,
            "prototype_entropy": usage_entropy(prediction),
            "assignment_entropy": per_region,
            "agreement": (choice[1:] == choice[:1]).float().mean() if count else log_k.new_zeros(()),
            "regions_per_image": log_k.new_tensor(count / max(images, 1)),
            "queue_filled": self.queue.filled / max(self.queue.size, 1),
        }
        return LazyLogs(logs, effective_rank=lambda: effective_rank(vectors[0]))

    @torch.no_grad()
    def concept_vectors(self) -> Tensor:
        """The prototypes."""
        return F.normalize(self.prototypes.weight, dim=1)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Prototypes have unit length after every step."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
