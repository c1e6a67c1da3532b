"""Modified DeepCluster: cells are clustered, and a linear layer learns to tell the clusters apart.

The baseline of PiCIE (Cho, Mall, Bala, Hariharan, CVPR 2021, section 4), made of Caron, Bojanowski, Joulin, Douze:
"Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018: DeepCluster's labels and classifier, for each
cell of a feature pyramid instead of for each image. There is one view of an image, so neither invariance nor
equivariance is asked for.

From the program of PiCIE's authors, which made the published numbers:
- vectors have unit length, for clustering and for the classifier;
- the classifier is new whenever there are new clusters;
- a cell weighs as much as its cluster's share of all cells, so that large clusters count more (`weighting`).

Deviations, and why: those of PiCIE (`selfseg.methods.picie`), whose clustering this is: k-means over a queue of the
newest cells, `reclusterings` times at even distances and besides whenever the queue has doubled; labels of the step's
own embedding. Besides:
- a crop is a square of half to all of the image; the program scales to 320 to 640 px first and crops twice;
- a new classifier begins at zero, where the program draws near it: all processes then have the same;
- the optimiser keeps its averages for the classifier's weights when these begin anew.

Letters: B images, D embedding dimension, h w cells, N cells of the batch, K clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method, seen_cells
from selfseg.methods.picie import cluster, part_of
from selfseg.models.distributed import gather_rows, sum_over_processes, world_size
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.queue import FeatureQueue
from selfseg.ops.objectives.losses import effective_rank, usage_entropy
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class ModifiedDeepClusterConfig:
    """Modified DeepCluster's settings; the defaults are those of PiCIE's paper and program.

    Attributes:
        embedder: the network.
        views: the view plan: one crop.
        prototypes: K, the number of clusters.
        classifier: "linear", which learns (DeepCluster), or "centres", the clusters' own, which stay as they are
            (PiCIE's softmax without its views).
        weighting: how a cell is weighted in the cross entropy: by its cluster's share of the cells ("frequency"), or
            not at all ("none").
        temperature: temperature of the softmax over clusters. The program has none, which is the same as 1. With a
            lower one the classifier learns in fewer steps.
        reclusterings: k-means runs in the training; the paper's is one an epoch, in 10 epochs.
        queue: cells that k-means looks at.
        sample_stride: every n-th row and column of cells joins the queue.
    """

    embedder: EmbedderConfig = field(default_factory=EmbedderConfig)
    views: RandomCrops = field(
        default_factory=lambda: RandomCrops(
            views=1, size=320, scale=(0.5, 1.0), ratio=(1.0, 1.0), jitter=(0.3, 0.3, 0.3, 0.1)
        )
    )
    prototypes: int = 27
    classifier: Literal["linear", "centres"] = "linear"
    weighting: Literal["frequency", "none"] = "frequency"
    temperature: float = 1.0
    reclusterings: int = 10
    queue: int = 100_000
    sample_stride: int = 16

    def __post_init__(self) -> None:
        for name in ("temperature", "reclusterings", "sample_stride"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if self.prototypes < 2:
            raise ConfigError(f"method.prototypes must be at least 2, not {self.prototypes}")
        if self.queue < self.prototypes:
            raise ConfigError(f"method.queue ({self.queue}) must hold a cell for each of {self.prototypes} clusters")
        for name, known in (("classifier", ("linear", "centres")), ("weighting", ("frequency", "none"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"method.{name} is one of {', '.join(known)}, not {getattr(self, name)!r}")
        if (self.views.views, self.views.small_views) != (1, 0):
            raise ConfigError(
                "modified DeepCluster sees one crop: method.views.views must be 1 and small_views 0, not "
                f"{self.views.views} and {self.views.small_views}"
            )


class ModifiedDeepCluster(Method):
    """The method; `compare` is DeepCluster's eq. 1, `_remember` its eq. 2.

    Logs: loss_uniform (loss of a guess, log K), prototype_entropy (use of the clusters by the labels, fraction of log
    K), assignment_entropy (of one cell's prediction, fraction of log K), agreement (share of cells whose cluster the
    classifier tells), effective_rank (of the cells), queue_filled.
    """

    Config: ClassVar[type[ModifiedDeepClusterConfig]] = ModifiedDeepClusterConfig
    centres: Tensor
    shares: Tensor
    clustered_at: Tensor
    clustered_cells: Tensor

    def __init__(self, config: ModifiedDeepClusterConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config.embedder)
        dim = self.embedder.dim
        self.queue = FeatureQueue(config.queue, dim)
        # (K, D) unit rows: random directions until there are as many cells as clusters; and each cluster's share.
        self.register_buffer("centres", F.normalize(torch.randn(config.prototypes, dim), dim=1))
        self.register_buffer("shares", torch.full((config.prototypes,), 1 / config.prototypes))
        # When centres were last computed: in which of the `reclusterings` parts of the training, and of how many cells.
        self.register_buffer("clustered_at", torch.tensor(-1))
        self.register_buffer("clustered_cells", torch.tensor(0))
        self.classifier = nn.Linear(dim, config.prototypes) if config.classifier == "linear" else None
        self._renew_classifier()

    def views(self) -> RandomCrops:
        """One crop."""
        return self.config.views

    @torch.no_grad()
    def concept_vectors(self) -> Tensor:
        """The clusters' centres."""
        return F.normalize(self.centres, dim=1)

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Embed the crop; cluster if it is time; compare."""
        embedding = self.embedder.raw(batch.views[0].image)
        # In float32 under every precision, as all comparisons.
        with torch.autocast(embedding.device.type, enabled=False):
            vectors = F.normalize(embedding.float(), dim=1)
            seen = seen_cells(self.embedder, batch.views[0].image, vectors.shape[2:])
            if self.training:
                self._remember(vectors.detach(), progress, seen)
            return self.compare(vectors, seen)

    def compare(self, vectors: Tensor, seen: Tensor | None = None) -> StepOutput:
        """Cross entropy of the classifier with the cells' clusters.

        Args:
            vectors: (B, D, h, w) unit length.
            seen: (B, h, w) bool, which cells are not void; others have no loss. None = all.
        """
        config = self.config
        cells = vectors.permute(0, 2, 3, 1).flatten(0, 2)  # (N, D)
        with torch.no_grad():
            labels = (cells @ self.centres.to(cells).T).max(1).indices
        scores = self.classifier(cells) if self.classifier is not None else cells @ self.centres.to(cells).T
        scores = scores / config.temperature
        weight = self.shares.to(cells) if config.weighting == "frequency" else torch.ones_like(self.shares).to(cells)
        # Torch's mean with weights: of all processes' cells, divided by the sum of their weights.
        counts = weight[labels] if seen is None else weight[labels] * seen.flatten()
        total = sum_over_processes(counts.sum())
        if seen is None:
            loss = F.cross_entropy(scores, labels, weight, reduction="sum")
        else:
            loss = (F.cross_entropy(scores, labels, reduction="none") * counts).sum()
        loss = loss * (world_size() / total.clamp(min=1e-12))
        with torch.no_grad():
            probability = scores.softmax(1)
            log_k = math.log(config.prototypes)
            logs = {
                "loss_uniform": loss.new_tensor(log_k),
                "prototype_entropy": usage_entropy(F.one_hot(labels, config.prototypes).to(cells.dtype)),
                "assignment_entropy": torch.special.entr(probability).sum(1).mean() / log_k,
                "agreement": (scores.max(1).indices == labels).float().mean(),
                "queue_filled": self.queue.filled / config.queue,
            }
        rows = cells.detach()
        return StepOutput(loss, LazyLogs(logs, effective_rank=lambda: effective_rank(rows)))

    @torch.no_grad()
    def _remember(self, vectors: Tensor, progress: float, seen: Tensor | None = None) -> None:
        """Put cells of (B, D, h, w) into the queue, but for void; compute the centres again if it is time."""
        step = self.config.sample_stride
        rows = vectors[:, :, ::step, ::step].permute(0, 2, 3, 1).flatten(0, 2)
        rows = rows if seen is None else rows[seen[:, ::step, ::step].flatten()]
        self.queue.push(gather_rows(rows)[0])
        part, filled = part_of(progress, self.config.reclusterings), int(self.queue.filled)
        if part <= int(self.clustered_at) and filled < 2 * int(self.clustered_cells):
            return
        found = cluster(self.queue.newest, self.config.prototypes)
        if found is None:
            return
        self.centres.copy_(found[0])
        self.shares.copy_(found[1])
        self.clustered_at.fill_(part)
        self.clustered_cells.fill_(filled)
        self._renew_classifier()

    @torch.no_grad()
    def _renew_classifier(self) -> None:
        """The classifier knows nothing of new clusters."""
        if self.classifier is not None:
            self.classifier.weight.zero_()
            self.classifier.bias.zero_()
