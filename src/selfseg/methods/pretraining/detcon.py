"""DetCon: a region's vector is found again in another view, among the regions of the same and of all other images.

Hénaff, Koppula, Alayrac, van den Oord, Vinyals, Carreira: "Efficient Visual Pretraining with Contrastive Detection",
ICCV 2021 (arXiv 2103.10957). Masks go through both views' crops; the backbone's features are averaged over each mask
and projected; eq. 3 contrasts them. DetCon_B is BYOL's pair of networks (a predictor, and targets of a momentum
network), DetCon_S is SimCLR's one network, whose targets have a gradient too.
A baseline: its dense embedding is the backbone's feature map, without the heads.

The masks are those that the views carry (`views.regions`): superpixels, a grid or objects in files. The paper's are
segments by Felzenszwalb and Huttenlocher's method or by MCG.

From the authors' program, which is of DetCon_B: the negatives of a mask are all targets of the other view and all of
its own view but its own, of the same image too; the loss is the sum of both directions.

Deviations, and why:
- Of a view, a mask is drawn once at most, and pairs of views overlap (`selfseg.data.views.region_crops`).
- The loss is the mean over masks that both views have, of all processes, not over all drawn masks: the same but for a
  factor of the batch, and its value can be read.
- The momentum network moves before its forward, in the same step, not after the optimiser's: nothing then happens
  between a step and its checkpoint.

Letters: B images, h w cells of the features, C their channels, H W cells of the ids, N regions of a view of the batch,
D dimension of the projections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.region_crops import RegionCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method, fit_both, load_both, rising_momentum
from selfseg.models.distributed import gather_rows, rank, sum_over_processes, sum_with_gradient, world_size
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.heads import ProjectionMLP
from selfseg.models.twin import Twin
from selfseg.ops.objectives.losses import effective_rank
from selfseg.ops.regions.pool_regions import common_regions
from selfseg.types import Batch, LazyLogs, StepOutput, View


@dataclass(frozen=True)
class DetConConfig:
    """DetCon's settings; the defaults are DetCon_B's (section 4, and the authors' program).

    Attributes:
        embedder: the network; its output is averaged over regions and projected.
        views: the view plan: two crops with the ids of up to 16 regions each.
        form: "byol" (DetCon_B) or "simclr" (DetCon_S).
        hidden: width of the heads' hidden layers.
        dim: D, the dimensions of the projections.
        temperature: tau of the softmax over regions.
        momentum: momentum of the momentum network at the start; it rises to 1. DetCon_S doesn't use it.
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(backbone="resnet50", output_stride=32, decoder="none")
    )
    views: RegionCrops = field(default_factory=RegionCrops)
    form: Literal["byol", "simclr"] = "byol"
    hidden: int = 4096
    dim: int = 256
    temperature: float = 0.1
    momentum: float = 0.996

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.momentum <= 1:
            raise ConfigError(f"method.momentum must be in [0, 1], not {self.momentum}")
        if self.form not in ("byol", "simclr"):
            raise ConfigError(f'method.form is "byol" (DetCon_B) or "simclr" (DetCon_S), not {self.form!r}')


@dataclass(frozen=True)
class Regions:
    """The regions of one view of the batch, as rows.

    Attributes:
        row: (B, H, W) int64, the row of each cell's region, -1 = none.
        name: (N,) int64, equal for the same region of the same image in any view, and for nothing else of any process.
        image: (N,) int64 in 0..B-1, ascending.
    """

    row: Tensor
    name: Tensor
    image: Tensor

    @classmethod
    def of(cls, view: View) -> Regions:
        """All regions that a view shows."""
        found = common_regions(view.regions[None])
        images = rank() * len(view.regions) + found.image
        return cls(found.row[0], (images << 32) + found.id, found.image)


def pool_masks(features: Tensor, regions: Regions) -> Tensor:
    """The mean of the features over each mask, which is averaged over the features' cells (section 3.1).

    Args:
        features: (B, C, h, w) float32 or float64.
        regions: N of them; their ids may be on a finer or on a coarser grid.

    Returns:
        (N, C).
    """
    images, _, height, width = features.shape
    count, device = len(regions.name), features.device
    row = regions.row
    # Ids that are coarser than the features are repeated.
    grid = [max(old, new) for old, new in zip(row.shape[1:], (height, width), strict=True)]
    y, x = (torch.arange(n, device=device) * old // n for n, old in zip(grid, row.shape[1:], strict=True))
    row = row[:, y][:, :, x]
    down, across = (torch.arange(n, device=device) * cells // n for n, cells in zip(grid, (height, width), strict=True))
    cell = (down[:, None] * width + across).expand_as(row)
    # How many cells of the ids each region has in each cell of the features: (N, h w); one more row for "none".
    places = torch.where(row < 0, count, row) * (height * width) + cell
    weight = torch.bincount(places.flatten(), minlength=(count + 1) * height * width)
    share = weight.view(count + 1, height * width)[:count].to(features)
    share = share / share.sum(1, keepdim=True)
    # One product for each image, of as many rows as the image with most regions has.
    each = torch.bincount(regions.image, minlength=images)
    slot = torch.arange(count, device=device) - (each.cumsum(0) - each)[regions.image]
    table = share.new_zeros(images, int(each.max()), height * width)
    table[regions.image, slot] = share
    pooled: Tensor = (table @ features.flatten(2).mT)[regions.image, slot]
    return pooled


class _Network(nn.Module):
    """What query and momentum network both are."""

    def __init__(self, config: DetConConfig) -> None:
        super().__init__()
        self.embedder = Embedder(config.embedder)
        self.head = ProjectionMLP(self.embedder.dim, config.hidden, config.dim, batch_norm=True)

    def forward(self, image: Tensor, regions: Regions) -> Tensor:
        """(B, 3, H, W) to (N, D), of any length."""
        features = self.embedder.raw(image)
        with torch.autocast(image.device.type, enabled=False):
            if features.dtype in (torch.bfloat16, torch.float16):
                features = features.float()
            pooled = pool_masks(features, regions)
        projection: Tensor = self.head(pooled)
        return projection


class DetCon(Method):
    """The method; `compare` is eq. 3.

    Logs: found (share of matched regions that are nearest to themselves in the other view), regions_per_image (in the
    first view), matched (share of the first view's regions that the second has too), effective_rank (of the first
    view's projections).
    """

    Config: ClassVar[type[DetConConfig]] = DetConConfig

    def __init__(self, config: DetConConfig) -> None:
        super().__init__()
        self.config = config
        network = _Network(config)
        self.twin: Twin | None = None
        if config.form == "byol":
            self.twin = Twin(network, buffers="own")
            self.predictor = ProjectionMLP(config.dim, config.hidden, config.dim, batch_norm=True)
        else:
            self.network = network

    @property
    def query_network(self) -> _Network:
        """The network that learns."""
        return cast(_Network, self.network if self.twin is None else self.twin.student)

    @property
    def embedder(self) -> Embedder:  # type: ignore[override]
        """What is kept: that of the network that learns."""
        return self.query_network.embedder

    def views(self) -> RegionCrops:
        """Two crops with regions."""
        return self.config.views

    def load_backbone(self, source: str) -> str:
        """Into both networks, if there are two."""
        if self.twin is None:
            return super().load_backbone(source)
        return load_both(self.embedder, cast(Embedder, self.twin.teacher.embedder), source)

    def fit_start(self, samples: Sequence[Tensor]) -> None:
        """Into both networks, if there are two."""
        if self.twin is None:
            super().fit_start(samples)
        else:
            fit_both(self.embedder, cast(Embedder, self.twin.teacher.embedder), samples)

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Project the regions of both views; predict and find the targets, if there are two networks; compare."""
        regions = [Regions.of(view) for view in batch.views]
        seen = list(zip((view.image for view in batch.views), regions, strict=True))
        queries = [self.query_network(image, each) for image, each in seen]
        targets = queries  # with their gradient
        if self.twin is not None:
            queries = [self.predictor(each) for each in queries]
            with torch.no_grad():
                if self.training:
                    self.twin.update(self.momentum(progress))
                targets = [self.twin.teacher(image, each) for image, each in seen]
        # In float32 under every precision, as all comparisons.
        with torch.autocast(batch.views[0].image.device.type, enabled=False):
            return self.compare([q.float() for q in queries], [t.float() for t in targets], regions)

    def momentum(self, progress: float) -> float:
        """Of the momentum network: from its setting to 1, along half a cosine (BYOL)."""
        return rising_momentum(self.config.momentum, progress)

    def compare(self, queries: list[Tensor], targets: list[Tensor], regions: list[Regions]) -> StepOutput:
        """The loss (eq. 3), in both directions.

        Args:
            queries: of both views (N, D), of any length.
            targets: of both views (N, D).
            regions: of both views.
        """
        queries = [F.normalize(each, dim=1) for each in queries]
        keys = [_everybodys(F.normalize(each, dim=1)) for each in targets]
        names = [gather_rows(each.name)[0] for each in regions]
        terms, found = [], []
        for mine, other in ((0, 1), (1, 0)):
            matched = torch.isin(regions[mine].name, names[other])
            name = regions[mine].name[matched, None]
            rows = queries[mine][matched]  # as many in both directions
            across = rows @ keys[other].T / self.config.temperature
            # A region's own target in its own view is neither positive nor negative.
            within = (rows @ keys[mine].T / self.config.temperature).masked_fill(name == names[mine], -torch.inf)
            positive = (across * (name == names[other])).sum(1)
            scores = torch.cat([across, within], dim=1)
            terms.append((scores.logsumexp(1) - positive).sum())
            found.append((scores <= positive[:, None]).all(1).sum())
        shared, count = float(len(rows)), float(len(regions[0].name))
        total = sum_over_processes(terms[0].new_tensor(shared)).clamp(min=1)
        loss = (terms[0] + terms[1]) * (world_size() / total)
        logs = {
            "found": found[0] / max(shared, 1.0),
            "regions_per_image": total.new_tensor(count / len(regions[0].row)),
            "matched": total.new_tensor(shared / max(count, 1.0)),
        }
        vectors = queries[0].detach()
        return StepOutput(loss, LazyLogs(logs, effective_rank=lambda: effective_rank(vectors)))


def _everybodys(rows: Tensor) -> Tensor:
    """Every process's rows (N, D), in the order of the processes; with gradient, if they have one."""
    gathered, start = gather_rows(rows)
    if world_size() == 1:
        return rows
    if not rows.requires_grad:
        return gathered
    place = torch.zeros_like(gathered)
    return sum_with_gradient(torch.cat([place[:start], rows, place[start + len(rows) :]]))
