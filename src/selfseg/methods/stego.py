"""STEGO: codes of places attract each other where the features of a frozen backbone correspond, and repel elsewhere.

Hamilton, Zhang, Hariharan, Snavely, Freeman: "Unsupervised Semantic Segmentation by Distilling Feature
Correspondences", ICLR 2022. A small head turns the features of a frozen, self-supervised network into codes. Of two
images, F holds the cosines of the features of all pairs of places and S those of their codes (eq. 1 and 2). F is
centred for each place of the first image, and the loss is -(F - b) max(S, 0) (eq. 4), for an image with itself, with
one of its nearest neighbours, and with any other image (eq. 5). Prototypes are learned beside it, as k-means would.

Deviations from the paper, and why:
- Partners are not other images that are loaded, but entries of a queue: the features of drawn places of images of
  earlier steps, beside those of the same step. The backbone is frozen, so they are what they would be today, and
  today's head turns them into codes, with gradient. The paper finds the neighbours among all images before it trains;
  here they are the nearest of the newest `queue` images, each in its newest view. That needs no second pass over the
  images and no list of them, a step passes the backbone once per image, and buffers alone are enough to go on.
- Which places and partners are drawn is keyed by the image and the share of the training that is done, so that a run
  that was stopped, or is spread over processes, draws the same.
- No dropout on the features: its mask would depend on how many processes share a step.
- Places are cells of the feature map, drawn with replacement, instead of points between them that are interpolated: a
  code is then what the embedder gives for its cell. One random partner; the authors' program, we believe, draws five.
- `keep_mean` adds the mean of F over the batch again after it was centred. Eq. 4 doesn't; the authors' program, we
  believe, does, and the published shifts belong to that.
- Prototypes have unit length and the head's learning rate; the paper's have an optimiser of their own.

Letters: B images of this process, G of all, P places of an image, C channels of the features, D of the codes, K
prototypes, M images that partners are chosen from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method, seen_cells
from selfseg.models.distributed import gather_rows, mean_of_counted, sum_over_processes, world_size
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.queue import FeatureQueue
from selfseg.ops.objectives.losses import effective_rank, usage_entropy
from selfseg.types import Batch, LazyLogs, StepOutput

_DECODERS = ("stego", "pyramid", "linear", "none")
"""Those that learn nothing below their last map: what they call features is what the frozen backbone gives."""


@dataclass(frozen=True)
class STEGOConfig:
    """STEGO's settings; the defaults are those of ViT-B/8 on COCO-Stuff-27.

    Attributes:
        embedder: the network; its backbone is frozen and its decoder "stego", "pyramid" or "linear".
        views: the view plan, with one view.
        shift_self: b for an image with itself: cosines above it attract, those below repel.
        shift_neighbour: b for an image with one of its neighbours.
        shift_random: b for an image with any other image.
        weight_self: lambda for an image with itself.
        weight_neighbour: lambda for an image with one of its neighbours.
        weight_random: lambda for an image with any other image.
        keep_mean: whether the mean of all cosines of the batch is added again after they were centred.
        grid: in each image grid x grid places are drawn; 11 in the paper.
        neighbours: an image's partner is drawn from this many of its nearest images; 7 in the paper.
        queue: how many images' features are kept for partners; each takes 4 P C bytes.
        prototypes: K, the number of clusters of codes.
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig("vit_base_patch8_224.dino", decoder="stego", dim=70, frozen=True)
    )
    views: RandomCrops = field(
        default_factory=lambda: RandomCrops(
            # The paper has five fixed crops of half an image's sides, four in the corners; colours stay as they are.
            views=1,
            scale=(0.25, 0.25),
            ratio=(1.0, 1.0),
            jitter_probability=0,
            gray_probability=0,
            blur_probability=0,
        )
    )
    shift_self: float = 0.12
    shift_neighbour: float = 0.20
    shift_random: float = 1.00
    weight_self: float = 0.10
    weight_neighbour: float = 1.00
    weight_random: float = 0.15
    keep_mean: bool = False
    grid: int = 11
    neighbours: int = 7
    queue: int = 1024
    prototypes: int = 27

    def __post_init__(self) -> None:
        for name in ("grid", "neighbours", "queue"):
            if getattr(self, name) < 1:
                raise ConfigError(f"method.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("weight_self", "weight_neighbour", "weight_random"):
            if getattr(self, name) < 0:
                raise ConfigError(f"method.{name} can't be negative: {getattr(self, name)}")
        if self.prototypes < 2:
            raise ConfigError(f"method.prototypes must be at least 2, not {self.prototypes}: all would be the same")
        if self.views.views != 1 or self.views.small_views:
            found = f"{self.views.views} and {self.views.small_views}"
            raise ConfigError(f"STEGO sees one view: method.views needs views=1 and small_views=0, not {found}")
        if not self.embedder.frozen or self.embedder.decoder not in _DECODERS:
            raise ConfigError(
                f"STEGO compares codes with what a frozen backbone gives: method.embedder.frozen must be True, not "
                f"{self.embedder.frozen}, and decoder one of {', '.join(_DECODERS)}, not {self.embedder.decoder!r}"
            )


def feature_correspondence(first: Tensor, second: Tensor) -> Tensor:
    """F, and S before it is clamped: the cosines of all pairs of places (eq. 1 and 2).

    Args:
        first: (B, P, C) vectors of any length.
        second: (B, Q, C).

    Returns:
        (B, P, Q) in [-1, 1].

    Example:
        >>> feature_correspondence(torch.tensor([[[3.0, 0]]]), torch.tensor([[[2.0, 0], [0, 1]]]))
        tensor([[[1., 0.]]])
    """
    return F.normalize(first, dim=2) @ F.normalize(second, dim=2).mT


class STEGO(Method):
    """The method; `compare` is section 3.

    Logs: loss_self, loss_neighbour, loss_random (before their weights), loss_prototypes (minus the mean cosine of a
    code with its nearest prototype), pulled_self, pulled_neighbour, pulled_random (share of the pairs of places that
    attract each other), nearness (cosine of an image with its neighbour, of their mean features), prototype_entropy
    (use of the prototypes, fraction of log K), effective_rank (of the codes), queue_filled.
    """

    Config: ClassVar[type[STEGOConfig]] = STEGOConfig

    def __init__(self, config: STEGOConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config.embedder)
        channels = self.embedder.decoder.channels
        self.prototypes = nn.Parameter(torch.randn(config.prototypes, self.embedder.dim))
        # Of the newest images: features of the drawn places, the mean feature (unit length), and which image it is.
        self.points = FeatureQueue(config.queue, config.grid**2 * channels)
        self.wholes = FeatureQueue(config.queue, channels)
        self.owners = FeatureQueue(config.queue, 1, torch.int64)
        self.after_step(0.0)

    def views(self) -> RandomCrops:
        """A crop of each image."""
        return self.config.views

    @torch.no_grad()
    def concept_vectors(self) -> Tensor:
        """The prototypes."""
        return F.normalize(self.prototypes, dim=1)

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Look at each image once, find its two partners, give codes to all three, compare."""
        points, wholes, picks, seen = self._look(batch, progress)
        everybodys, start = gather_rows(points)  # (G, P, C)
        # An image of nothing but void belongs to nobody, and is nobody's partner.
        index = batch.index if seen is None else batch.index.where(seen, -1)
        owners = gather_rows(index[:, None])[0]
        all_wholes = gather_rows(wholes)[0]
        # For all images in every process: so the arithmetic doesn't depend on how many processes there are.
        chosen, nearness = self.choose(all_wholes, owners[:, 0], gather_rows(picks)[0])
        chosen = chosen[start : start + len(points)]  # (B, 2)
        partners = [self._fetch(each, everybodys) for each in chosen.T]
        if self.training:
            self.points.push(everybodys.flatten(1))
            self.wholes.push(all_wholes)
            self.owners.push(owners)
        features = torch.stack([points, *partners])  # (3, B, P, C)
        codes = self._codes(features.flatten(0, 1)).view(*features.shape[:3], -1)
        # In float32 under every precision, as all comparisons.
        with torch.autocast(codes.device.type, enabled=False):
            return self.compare(features, codes.to(features.dtype), chosen[:, 0] >= 0, seen, nearness=nearness)

    @torch.no_grad()
    def _look(self, batch: Batch, progress: float) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Features of drawn places and of whole images, both of what was measured.

        Returns:
            (B, P, C); means (B, C); what chooses partners, (B, 2) in [0, 1); and which images show anything that was
            measured, (B,) bool, or None: all.
        """
        image = batch.views[0].image
        features = self.embedder.features(image).to(self.wholes.vectors.dtype)
        cells = features.flatten(2)  # (B, C, h w)
        there = seen_cells(self.embedder, image, features.shape[2:])
        seen = None if there is None else there.flatten(1)  # (B, h w)
        usable = None if seen is None else [np.flatnonzero(each) for each in seen.cpu().numpy()]
        places, picks = [], []
        for row, index in enumerate(batch.index.tolist()):
            rng = np.random.default_rng((index, int(progress * 2**48)))
            if usable is None or not len(usable[row]):
                places.append(rng.integers(cells.shape[2], size=self.config.grid**2))
            else:
                places.append(usable[row][rng.integers(len(usable[row]), size=self.config.grid**2)])
            picks.append(rng.random(2))
        drawn = torch.from_numpy(np.stack(places)).to(cells.device)[:, None].expand(-1, cells.shape[1], -1)
        mean = cells.mean(2) if seen is None else (cells * seen[:, None]).sum(2)  # its length goes
        wholes = F.normalize(mean, dim=1)
        picked = torch.from_numpy(np.stack(picks)).to(cells.device)
        return cells.gather(2, drawn).mT, wholes, picked, None if seen is None else seen.any(1)

    @torch.no_grad()
    def choose(self, wholes: Tensor, owners: Tensor, picks: Tensor) -> tuple[Tensor, Tensor]:
        """Two partners for each image: one of its nearest neighbours, and any other.

        Args:
            wholes: (G, C) unit mean features of the step's images.
            owners: (G,) int64, which images they are; -1 = one that is nobody's partner.
            picks: (G, 2) in [0, 1): which of the nearest, and which of all.

        Returns:
            (G, 2) int64 places among the step's images, and behind them those of the queue, newest first; -1 where
            there is no other image. And the mean cosine of images and their neighbours, 0 if there are none.
        """
        candidates = torch.cat([wholes, self.wholes.newest])
        who = torch.cat([owners, self.owners.newest[:, 0]])  # (M,)
        older = (who[:, None] == who).tril(-1).any(1)  # an image has a newer view further in front
        free = (owners[:, None] != who) & ~older & (who >= 0)  # (G, M)
        count = free.sum(1)
        cosines = (wholes @ candidates.T).masked_fill(~free, -torch.inf)
        nearest = cosines.argsort(dim=1, descending=True, stable=True)
        anyone = free.int().argsort(dim=1, descending=True, stable=True)  # those that may be chosen come first
        ranks = (picks * torch.stack([count.clamp(max=self.config.neighbours), count], 1)).long()
        chosen = torch.cat([nearest.gather(1, ranks[:, :1]), anyone.gather(1, ranks[:, 1:])], 1)
        found = count > 0
        near = cosines.gather(1, chosen[:, :1])[:, 0].where(found, 0.0)
        return chosen.where(found[:, None], -1), near.sum() / found.sum().clamp(min=1)

    def _fetch(self, chosen: Tensor, everybodys: Tensor) -> Tensor:
        """The features (B, P, C) of chosen images (B,), of the step (G, P, C) or the queue; any for -1."""
        count = len(everybodys)
        new = everybodys[chosen.clamp(0, count - 1)]
        old = self.points.vectors[(chosen - count).clamp(min=0)].view_as(new)
        return torch.where((chosen < count)[:, None, None], new, old)

    def _codes(self, features: Tensor) -> Tensor:
        """The head on (N, P, C): codes (N, P, D) of any length."""
        codes: Tensor = self.embedder.centre(self.embedder.decoder.project(features.mT[..., None]))
        return codes[..., 0].mT

    def compare(
        self, features: Tensor, codes: Tensor, paired: Tensor, seen: Tensor | None = None, **more: Tensor
    ) -> StepOutput:
        """The correspondence loss (eq. 5), and that of the prototypes.

        Args:
            features: (3, B, P, C) of the images, their neighbours and other images; without gradient.
            codes: (3, B, P, D) of the same places.
            paired: (B,) bool, which images have partners.
            seen: (B,) bool, which images show anything that was measured; others count for nothing. None = all.
            more: further logs.
        """
        config = self.config
        whole = torch.ones_like(paired) if seen is None else seen
        paired = paired & whole
        settings = {
            "self": (config.shift_self, config.weight_self, whole),
            "neighbour": (config.shift_neighbour, config.weight_neighbour, paired),
            "random": (config.shift_random, config.weight_random, paired),
        }
        logs, total = dict(more), codes.sum() * 0
        for number, (name, (shift, weight, counted)) in enumerate(settings.items()):
            pulls = self.pulls(feature_correspondence(features[0], features[number]), shift, counted)
            similarity = feature_correspondence(codes[0], codes[number]).clamp(min=0)  # S
            loss = mean_of_counted(-(pulls * similarity).mean((1, 2)), counted)
            total = total + weight * loss
            logs[f"loss_{name}"] = loss.detach()
            logs[f"pulled_{name}"] = (pulls > 0).to(codes.dtype).mean()
        rows = F.normalize(codes[0].detach().flatten(0, 1), dim=1)  # (B P, D)
        scores = rows @ F.normalize(self.prototypes, dim=1).T
        best = scores.max(1)
        places = None if seen is None else whole[:, None].expand(codes.shape[1:3]).flatten()  # (B P,)
        prototypes = -best.values.mean() if places is None else -mean_of_counted(best.values, places)
        logs["loss_prototypes"] = prototypes.detach()
        logs["prototype_entropy"] = usage_entropy(F.one_hot(best.indices, config.prototypes).to(rows.dtype))
        logs["queue_filled"] = self.points.filled / config.queue
        return StepOutput(total + prototypes, LazyLogs(logs, effective_rank=lambda: effective_rank(rows)))

    @torch.no_grad()
    def pulls(self, correspondence: Tensor, shift: float, counted: Tensor) -> Tensor:
        """How strongly pairs of places attract each other: F - b, with F centred for each place of the first image.

        Args:
            correspondence: (B, P, Q), F.
            shift: b.
            counted: (B,) bool, whose cosines are counted in the mean that `keep_mean` keeps.

        Returns:
            (B, P, Q); what is below 0 repels.
        """
        centred = correspondence - correspondence.mean(2, keepdim=True)
        if self.config.keep_mean:
            centred = centred + sum_over_processes(mean_of_counted(correspondence.mean((1, 2)), counted)) / world_size()
        return centred - shift

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Prototypes back to unit length: longer ones would turn more and more slowly."""
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
