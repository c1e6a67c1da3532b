"""PiCIE: cells keep their cluster under changes of colour (invariance) and move with the picture (equivariance).

Cho, Mall, Bala, Hariharan: "PiCIE: Unsupervised Semantic Segmentation using Invariance and Equivariance in Clustering",
CVPR 2021. Every image is embedded twice: z1 = G(f(P1(x))) and z2 = f(G(P2(x))) with colours P1, P2 and a geometric
change G. Each view has clusters of its own by k-means; a cell of either view must be nearest to its own cluster's
centre (within) and to the centre of the other view's cluster (cross). +H: a second clustering with more clusters.

From the reference implementation, because the paper doesn't tell it and its numbers were made so: the cross entropy is
weighted by the clusters' frequencies (`weighting`), so that large clusters count more yet.

Deviations from the paper, and why:
- The paper clusters the whole set before each epoch. Here k-means runs over a queue of the newest cells of all
  processes, `reclusterings` times in the training at even distances, and besides whenever the queue has doubled, as in
  the beginning: a step knows no epochs, and a run must go on exactly from buffers alone. Centres thus come from recent
  weights and as many images as the queue holds, not from one state of the weights and all images.
- Labels are those of the step's own embedding, not of the embedding before the epoch.
- The queue holds every `sample_stride`-th row and column of cells: neighbours are nearly the same.
- Frequencies are those of the queue's cells when the centres were computed, not of all cells of the set.
- With several processes the weights are divided by their sum over all of them.
- k-means is of the unit sphere with k-means++, instead of mini-batch k-means: the queue fits into memory.

Letters: B images, D embedding dimension, h w cells, N cells of the batch, K clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import NestedCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method, seen_cells
from selfseg.models.distributed import gather_rows, rank, sum_over_processes, world_size
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.queue import FeatureQueue
from selfseg.ops.geometry import compose, invert, warp
from selfseg.ops.kmeans import kmeans
from selfseg.ops.objectives.losses import effective_rank, usage_entropy
from selfseg.types import Batch, LazyLogs, StepOutput

_ITERATIONS = 20  # of k-means; more move few cells, and the centres are only good until the next time


@dataclass(frozen=True)
class PiCIEConfig:
    """PiCIE's settings; the defaults are the paper's (section 4).

    Attributes:
        embedder: the network.
        views: the view plan: a crop, and a crop of it.
        prototypes: K, the number of clusters; 27 in the paper.
        overclusters: K of the auxiliary clustering, 100 in PiCIE+H; 0 = none (PiCIE).
        temperature: temperature of the softmax over cosines. The paper has none, which is the same as 1.
        reclusterings: k-means runs in the training; the paper's is one an epoch, in 10 epochs.
        queue: cells of each view that k-means looks at.
        sample_stride: every n-th row and column of cells joins the queue.
        weighting: how cells are weighted in the cross entropy: by the "frequency" of their cluster (reference
            implementation), or not at all ("none").
    """

    embedder: EmbedderConfig = field(default_factory=EmbedderConfig)
    views: NestedCrops = field(default_factory=NestedCrops)
    prototypes: int = 27
    overclusters: int = 0
    temperature: float = 1.0
    reclusterings: int = 10
    queue: int = 100_000
    sample_stride: int = 16
    weighting: Literal["frequency", "none"] = "frequency"

    WHEN_MISSING: ClassVar[dict[str, Any]] = {"weighting": "none"}  # in recipes from before there was a choice

    def __post_init__(self) -> None:
        for name in ("temperature", "reclusterings", "sample_stride"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if self.weighting not in ("frequency", "none"):
            raise ConfigError(f'method.weighting is "frequency" or "none", not {self.weighting!r}')
        if self.prototypes < 2 or self.overclusters == 1 or self.overclusters < 0:
            raise ConfigError(
                f"method.prototypes ({self.prototypes}) must be at least 2, method.overclusters ({self.overclusters}) "
                "too, or 0 for none"
            )
        most = max(self.prototypes, self.overclusters)
        if self.queue < most:
            raise ConfigError(f"method.queue ({self.queue}) must hold a cell for each of {most} clusters at least")


class PiCIE(Method):
    """The method; `compare` is section 3.

    Logs: loss_within, loss_cross, loss_uniform (loss of a guess, with PiCIE+H of both clusterings), prototype_entropy
    (use of the K clusters by the first view, fraction of log K), assignment_entropy (of one cell's softmax over them,
    fraction of log K), agreement (share of cells that have the same nearest centre of the first view in both views),
    effective_rank (of the first view), queue_filled.
    """

    Config: ClassVar[type[PiCIEConfig]] = PiCIEConfig
    centres: Tensor
    overcentres: Tensor
    shares: Tensor
    overshares: Tensor
    clustered_at: Tensor
    clustered_cells: Tensor

    def __init__(self, config: PiCIEConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config.embedder)
        dim = self.embedder.dim
        self.queues = nn.ModuleList(FeatureQueue(config.queue, dim) for _ in range(2))
        # (2, K, D) of the two views, unit rows: random directions until there are as many cells as clusters.
        self.register_buffer("centres", F.normalize(torch.randn(2, config.prototypes, dim), dim=2))
        self.register_buffer("overcentres", F.normalize(torch.randn(2, config.overclusters, dim), dim=2))
        # (2, K) of the queue's cells. Runs from before there was a weighting know nothing of them.
        weighted = config.weighting == "frequency"
        self.register_buffer("shares", torch.ones(2, config.prototypes) / config.prototypes, persistent=weighted)
        over = torch.ones(2, config.overclusters) / max(config.overclusters, 1)
        self.register_buffer("overshares", over, persistent=weighted)
        # When centres were last computed: in which of the `reclusterings` parts of the training, and of how many cells.
        self.register_buffer("clustered_at", torch.tensor(-1))
        self.register_buffer("clustered_cells", torch.tensor(0))

    def views(self) -> NestedCrops:
        """A crop, and a crop of it."""
        return self.config.views

    @torch.no_grad()
    def concept_vectors(self) -> Tensor:
        """The centres of the first view, whose images are not cropped further."""
        return F.normalize(self.centres[0], dim=1)

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Embed both views in one pass, move the first as the second was; cluster and compare."""
        first, second = batch.views
        embedding = self.embedder.raw(torch.cat([first.image, second.image]))
        # In float32 under every precision, as all comparisons.
        with torch.autocast(embedding.device.type, enabled=False):
            one, two = embedding.float().chunk(2)
            change = compose(invert(first.to_image), second.to_image)  # from the second view's frame to the first's
            moved = warp(one, change, (two.shape[2], two.shape[3]))
            vectors = torch.stack([F.normalize(moved, dim=1), F.normalize(two, dim=1)])
            there = [seen_cells(self.embedder, view.image, two.shape[2:]) for view in batch.views]
            seen = None
            if there[0] is not None and there[1] is not None:
                shown = warp(there[0][:, None].to(two.dtype), change, (two.shape[2], two.shape[3]))[:, 0]
                seen = (shown > 0.5) & there[1]
            if self.training:
                self._remember(vectors.detach(), progress, seen)
            return self.compare(vectors, seen)

    def compare(self, vectors: Tensor, seen: Tensor | None = None) -> StepOutput:
        """Within- and cross-view losses (eq. 4 to 8), of both clusterings if there are two.

        Args:
            vectors: (2, B, D, h, w) unit length, the two views of the same places.
            seen: (B, h, w) bool, which places are not void; others have no loss. None = all.
        """
        kept = None if seen is None else seen.flatten()
        cells = vectors.transpose(1, 2).flatten(2).mT  # (2, N, D)
        within, cross = self._losses(cells, self.centres, self.shares, kept)
        share, guess = 1.0, math.log(self.config.prototypes)
        if self.config.overclusters:
            # Each clustering's loss grows with the logarithm of its clusters; the weights make them equal.
            log_k, log_over = guess, math.log(self.config.overclusters)
            share = log_over / (log_k + log_over)
            more_within, more_cross = self._losses(cells, self.overcentres, self.overshares, kept)
            within = share * within + (1 - share) * more_within
            cross = share * cross + (1 - share) * more_cross
            guess = share * log_k + (1 - share) * log_over
        with torch.no_grad():
            cosines = cells @ self.centres[0].to(cells).T  # (2, N, K)
            probability = (cosines[0] / self.config.temperature).softmax(1)
            nearest = cosines.max(2).indices
            usage = F.one_hot(nearest[0], self.config.prototypes).to(cells.dtype)
            logs = {
                "loss_within": within.detach(),
                "loss_cross": cross.detach(),
                "loss_uniform": within.new_tensor(4 * guess),  # of four terms
                "prototype_entropy": usage_entropy(usage),
                "assignment_entropy": torch.special.entr(probability).sum(1).mean() / math.log(cosines.shape[2]),
                "agreement": (nearest[0] == nearest[1]).float().mean(),
                "queue_filled": cast(FeatureQueue, self.queues[0]).filled / self.config.queue,
            }
        first = cells[0].detach()
        return StepOutput(within + cross, LazyLogs(logs, effective_rank=lambda: effective_rank(first)))

    def _losses(
        self, cells: Tensor, centres: Tensor, shares: Tensor, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Within and cross losses of cells (2, N, D) and centres (2, K, D): softmax of minus the cosine distance.

        Clusters have the shares (2, K) of all cells; `kept` (N,) is False where there is no loss.
        """
        scores = torch.einsum("vnd,ckd->vcnk", cells, centres.to(cells))  # view of the cells, of the centres
        labels = [scores[view, view].max(1).indices for view in range(2)]
        # A constant of all scores (1 - cosine is the distance) leaves the softmax as it is.
        terms = [
            [
                self._cross_entropy(scores[view, other] / self.config.temperature, labels[other], shares[other], kept)
                for other in range(2)
            ]
            for view in range(2)
        ]
        return terms[0][0] + terms[1][1], terms[0][1] + terms[1][0]

    def _cross_entropy(self, scores: Tensor, labels: Tensor, shares: Tensor, kept: Tensor | None) -> Tensor:
        """The mean over cells of (N, K) scores and (N,) labels, weighted by (K,) shares if that is wanted."""
        if self.config.weighting == "none" and kept is None:
            # Every process has as many cells, so the mean of their means is the mean of all.
            return F.cross_entropy(scores, labels)
        weight = shares.to(scores)[labels] if self.config.weighting == "frequency" else torch.ones_like(scores[:, 0])
        weight = weight if kept is None else weight * kept
        total = sum_over_processes(weight.sum()) / world_size()
        each = F.cross_entropy(scores, labels, reduction="none")
        return (each * weight).sum() / total.clamp(min=torch.finfo(total.dtype).tiny)

    @torch.no_grad()
    def _remember(self, vectors: Tensor, progress: float, seen: Tensor | None = None) -> None:
        """Put cells of (2, B, D, h, w) into the queues, but for void; compute the centres again if it is time."""
        step = self.config.sample_stride
        for view, queue in zip(vectors, cast("list[FeatureQueue]", self.queues), strict=True):
            rows = view[:, :, ::step, ::step].permute(0, 2, 3, 1).flatten(0, 2)
            rows = rows if seen is None else rows[seen[:, ::step, ::step].flatten()]
            queue.push(gather_rows(rows)[0])
        part = part_of(progress, self.config.reclusterings)
        filled = int(cast(FeatureQueue, self.queues[0]).filled)
        if part <= int(self.clustered_at) and filled < 2 * int(self.clustered_cells):
            return
        done = [self._cluster(self.centres, self.shares), self._cluster(self.overcentres, self.overshares)]
        if all(done):
            self.clustered_at.fill_(part)
            self.clustered_cells.fill_(filled)

    def _cluster(self, centres: Tensor, shares: Tensor) -> bool:
        """Centres (2, K, D) of the queues' cells and their shares of them (2, K), in place.

        Both are left as they are if there are too few different cells.
        """
        found = [cluster(queue.newest, centres.shape[1]) for queue in cast("list[FeatureQueue]", self.queues)]
        complete = [each for each in found if each is not None]
        if len(complete) < len(found):
            return False
        centres.copy_(torch.stack([one for one, _ in complete]))
        shares.copy_(torch.stack([held for _, held in complete]))
        return True


def part_of(progress: float, parts: int) -> int:
    """Which of so many equal parts of the training it is, from 0."""
    return min(int(progress * parts), parts - 1)


@torch.no_grad()
def cluster(cells: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """Centres by k-means and the share of the cells that each has, the same in every process.

    Args:
        cells: (N, D) unit rows, the same in every process.
        count: K; 0 gives no centre.

    Returns:
        (K, D) unit rows and (K,) shares, or None if there are too few different cells.
    """
    centres, shares = cells.new_zeros(count, cells.shape[1]), cells.new_zeros(count)
    if len(cells) < count:
        return None
    if count:
        try:
            centres.copy_(kmeans(cells, count, iterations=_ITERATIONS).centroids)
        except ConfigError:  # fewer distinct cells than clusters, as of a plain image
            return None
        nearest = (cells @ centres.T).max(1).indices
        shares.copy_(torch.bincount(nearest, minlength=count) / len(cells))
    # The cells are the same everywhere, but sums on several GPUs need not be, to the last bit.
    first = rank() == 0
    return (
        sum_over_processes(centres if first else torch.zeros_like(centres)),
        sum_over_processes(shares if first else torch.zeros_like(shares)),
    )
