"""IIC: cells are classified so that a cell's cluster tells as much as possible about its changed neighbour's.

Ji, Henriques, Vedaldi: "Invariant Information Clustering for Unsupervised Image Classification and Segmentation", ICCV
2019, section 3.3: the mutual information between the cluster of a cell in an image, and the cluster of a cell up to T
pixels away in the same image after a change of colours and a mirroring that is turned back. A second head with more
clusters is trained beside the first (auxiliary overclustering, section 3.4).
A baseline: what is evaluated is the embedding that both heads, linear maps and softmax, stand on.

Deviations from the paper, and why:
- Both heads learn in every step, with equal weight, instead of in alternate epochs: a step has no counter.
- The network is any embedder, as of all methods here, instead of a shallow VGG with Sobel-filtered input.
- The loss is taken on the embedder's own grid, or any with `loss_stride`; 1 is the paper's, the embedder's own spares
  most of the work. The displacement is rounded to cells.
- Several processes: the joint distribution is that of all processes' cells.

Letters: B images, D embedding dimension, h w cells of the loss, K clusters, T displacement in cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import NestedCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method, seen_cells
from selfseg.models.distributed import sum_with_gradient
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops.geometry import compose, invert, warp
from selfseg.ops.objectives.losses import effective_rank, usage_entropy
from selfseg.ops.objectives.mutual_information import displaced_joint, mutual_information
from selfseg.types import Batch, LazyLogs, StepOutput


def _views() -> NestedCrops:
    return NestedCrops(size=128, scale=(0.2, 1.0), inner_scale=(1.0, 1.0), blur_probability=0.0, plain_first=True)


@dataclass(frozen=True)
class IICConfig:
    """IIC's settings.

    Attributes:
        embedder: the network that both heads stand on.
        views: the view plan: a crop, and the same or a smaller crop of it, changed.
        clusters: K, the clusters of the main head; the field takes the number of classes.
        overclusters: K of the auxiliary head; 0 = none. The paper has three times as many as classes, and more.
        displacement: T, in pixels of the first view; 0 compares a cell with itself only.
        loss_stride: pixels of the first view per cell of the loss; must divide `views.size`.
    """

    embedder: EmbedderConfig = field(default_factory=EmbedderConfig)
    views: NestedCrops = field(default_factory=_views)
    clusters: int = 27
    overclusters: int = 81
    displacement: int = 10
    loss_stride: int = 1

    def __post_init__(self) -> None:
        if self.clusters < 2 or self.overclusters == 1 or self.overclusters < 0:
            raise ConfigError(
                f"method.clusters ({self.clusters}) must be at least 2, method.overclusters ({self.overclusters}) too, "
                "or 0 for none: a single cluster tells nothing"
            )
        if self.loss_stride < 1 or self.views.size % self.loss_stride:
            raise ConfigError(
                f"method.loss_stride ({self.loss_stride}) must divide method.views.size ({self.views.size})"
            )
        if not 0 <= self.displacement < self.views.size - self.loss_stride:
            raise ConfigError(
                f"method.displacement must be at least 0 and leave cells of the view ({self.views.size} px), not "
                f"{self.displacement}"
            )


class IIC(Method):
    """The method; `compare` is section 3.3.

    Logs: information (of the main head, share of log K), information_over (of the auxiliary head, 0 without),
    prototype_entropy (use of the main head's clusters, fraction of log K), assignment_entropy (of one cell, fraction
    of log K), agreement (share of cells whose cluster survives the change), effective_rank (of the embedding).
    """

    Config: ClassVar[type[IICConfig]] = IICConfig

    def __init__(self, config: IICConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config.embedder)
        counts = [config.clusters, config.overclusters] if config.overclusters else [config.clusters]
        self.heads = nn.ModuleList(nn.Conv2d(self.embedder.dim, count, 1) for count in counts)

    def views(self) -> NestedCrops:
        """A crop, and the same place changed."""
        return self.config.views

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Embed both views in one pass; classify and compare."""
        first, second = batch.views
        cells = self.config.views.size // self.config.loss_stride
        embedding = self.embedder.raw(torch.cat([first.image, second.image]))
        # In float32 under every precision, as all comparisons: information is a difference of logarithms.
        with torch.autocast(embedding.device.type, enabled=False):
            embedding = embedding.float()
            if embedding.shape[2:] != (cells, cells):
                embedding = F.interpolate(embedding, size=(cells, cells), mode="bilinear", align_corners=False)
            one, two = embedding.chunk(2)
            there = [seen_cells(self.embedder, view.image, (cells, cells)) for view in batch.views]
            return self.compare(one, two, compose(invert(second.to_image), first.to_image), there)

    def compare(
        self, first: Tensor, second: Tensor, back: Tensor, there: Sequence[Tensor | None] = (None, None)
    ) -> StepOutput:
        """Minus the mutual information, mean over displacements and heads (eq. 5).

        Args:
            first: (B, D, h, w) embedding of the first view.
            second: the same of the second view.
            back: (B, 2, 3) affines that show the second view in the first one's frame: g^-1.
            there: (B, h, w) bool of each view, which cells are not void; others count for nothing. None = all.
        """
        reach = round(self.config.displacement / self.config.loss_stride)
        # The second view may show only a part of the first: a cell counts where all of it is seen.
        whole = torch.ones_like(second[:, :1]) if there[1] is None else there[1][:, None].to(second.dtype)
        seen = warp(whole, back, (first.shape[2], first.shape[3])) > 1 - 1e-3
        if there[0] is not None:
            seen = seen & there[0][:, None]
        maps, shares, terms = [], [], []
        for head in self.heads:
            one = head(first).softmax(1)  # (B, K, h, w)
            one = one if there[0] is None else one * there[0][:, None]
            two = warp(head(second).softmax(1), back, (first.shape[2], first.shape[3])) * seen
            joint = sum_with_gradient(displaced_joint(one, two, reach))  # (2T+1, 2T+1, K, K)
            information = mutual_information((joint + joint.mT) / 2).mean()
            maps.append((one, two))
            shares.append(information / math.log(one.shape[1]))
            terms.append(-information)
        with torch.no_grad():
            one, two = maps[0]
            chosen = one.max(1).indices == two.max(1).indices
            logs = {
                "information": shares[0],
                "information_over": shares[1] if len(shares) > 1 else torch.zeros_like(shares[0]),
                "prototype_entropy": usage_entropy(one.transpose(0, 1).flatten(1).T),
                "assignment_entropy": torch.special.entr(one).sum(1).mean() / math.log(one.shape[1]),
                "agreement": (chosen & seen[:, 0]).sum() / seen.sum().clamp(min=1),
            }
        # The joint distribution is everybody's, and so the loss is the same in all processes.
        vectors = first.detach().transpose(0, 1).flatten(1).T
        return StepOutput(torch.stack(terms).mean(), LazyLogs(logs, effective_rank=lambda: effective_rank(vectors)))
