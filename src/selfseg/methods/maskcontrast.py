"""MaskContrast: pixels are contrasted with the objects that unsupervised masks tell apart.

Van Gansbeke, Vandenhende, Georgoulis, Van Gool: "Unsupervised Semantic Segmentation by Contrasting Object Mask
Proposals", ICCV 2021 (arXiv 2102.06191). A pixel of an object in one view must find the same object, as a momentum
network sees it in another view, among all objects of the batch and those of a queue. Background is not contrasted; a
saliency head beside the embedding keeps it from collapsing to one vector per image.

Where the paper and its reference implementation, which made the published numbers, disagree, the default is the paper;
the reference's is `weighting="object"`, `saliency_loss="balanced"`, and settings of the views and of the recipes. From
the reference, where the paper says something else or nothing:
- the momentum network moves before its forward, in the same step (algorithm 1 moves it after the optimiser's);
- an object's vector sums pixel vectors that were normalised before (eq. 2 doesn't tell).

Deviations, and why:
- An image may hold several objects: a row of the keys is an object, not an image.
- An object that has no pixel in the momentum network's view (cropped away) is neither a key nor enqueued, and its
  pixels in the other view are not contrasted, for want of a positive.
- BatchNorms see the batch of all processes instead of a batch that is shuffled among them.
- The queue is empty at first and used as far as it is filled, instead of starting with random vectors.
- Several processes: the loss is the mean over the pixels of all processes, not the mean of their means.
- The loss is taken on the grid of the views' ids (`views.region_stride`): 1 is the paper's, a coarser one is faster.

Letters: B images, D embedding dimension, h w cells of the grid, N objects of the batch, M keys, P contrasted pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.data.views.object_crops import ObjectCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method, fit_both, load_both, seen_cells
from selfseg.models.distributed import gather_rows, sum_over_processes, world_size
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.queue import FeatureQueue
from selfseg.models.twin import Twin
from selfseg.ops.objectives.losses import balanced_bce, effective_rank
from selfseg.ops.objectives.pixel_contrast import balanced_object_weight, contrast_pixels, object_vectors
from selfseg.ops.phases import in_phase
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class MaskContrastConfig:
    """MaskContrast's settings; the defaults are the paper's (section 4.1).

    Attributes:
        embedder: the network; it must have a saliency head.
        views: the view plan: two crops with objects, and the folder of masks.
        queue: K, object vectors of earlier batches.
        temperature: tau of the softmax over objects.
        momentum: momentum of the momentum network: the share of its weights that it keeps in each step.
        weighting: what the contrast is averaged over: every "pixel" (paper), or with small objects counting more
            ("object": 1 / ln(1.02 + share of the contrasted pixels); reference implementation).
        saliency_weight: weight of the saliency loss beside the contrast.
        saliency_loss: the "plain" binary cross entropy (algorithm 1), or the "balanced" one, in which foreground and
            background have the same say (reference implementation).
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(
            backbone="resnet50", output_stride=8, decoder="deeplabv3", dim=32, resolution=None, saliency=True
        )
    )
    views: ObjectCrops = field(default_factory=ObjectCrops)
    queue: int = 128
    temperature: float = 0.5
    momentum: float = 0.999
    weighting: Literal["pixel", "object"] = "pixel"
    saliency_weight: float = 1.0
    saliency_loss: Literal["plain", "balanced"] = "plain"

    WHEN_MISSING: ClassVar[dict[str, Any]] = {"saliency_loss": "balanced"}  # in recipes from before there was a choice

    def __post_init__(self) -> None:
        if not self.embedder.saliency:
            raise ConfigError("MaskContrast learns saliency: method.embedder.saliency must be True, not False")
        if self.temperature <= 0:
            raise ConfigError(f"method.temperature must be above 0, not {self.temperature}")
        if not 0 <= self.momentum <= 1:
            raise ConfigError(f"method.momentum must be in [0, 1], not {self.momentum}")
        if self.queue < 0:
            raise ConfigError(f"method.queue must be 0 (none) or more, not {self.queue}")
        if self.saliency_loss not in ("plain", "balanced"):
            raise ConfigError(f'method.saliency_loss is "plain" or "balanced", not {self.saliency_loss!r}')
        if self.saliency_weight < 0:
            raise ConfigError(f"method.saliency_weight can't be negative: {self.saliency_weight}")


class MaskContrast(Method):
    """The method; `forward` and `compare` are algorithm 1.

    Logs: loss_contrast, loss_saliency, found (share of contrasted pixels that are nearest to their own object),
    found_guess (the share that a guess among the keys would find), objects_per_image (keys), contrasted (share of the
    view's pixels), saliency_iou (of the predicted foreground with the masks' in the view), queue_filled, effective_rank
    (of the batch's object vectors and the queue's).
    """

    Config: ClassVar[type[MaskContrastConfig]] = MaskContrastConfig

    def __init__(self, config: MaskContrastConfig) -> None:
        super().__init__()
        self.config = config
        self.twin = Twin(Embedder(config.embedder), buffers="own")
        self.queue = FeatureQueue(config.queue, self.embedder.dim)

    @property
    def embedder(self) -> Embedder:  # type: ignore[override]
        """What is kept: the query network, with its saliency head."""
        return cast(Embedder, self.twin.student)

    def views(self) -> ObjectCrops:
        """Two crops with objects."""
        return self.config.views

    def load_backbone(self, source: str) -> str:
        """Into both networks."""
        return load_both(self.embedder, cast(Embedder, self.twin.teacher), source)

    def fit_start(self, samples: Sequence[Tensor]) -> None:
        """Into both networks."""
        fit_both(self.embedder, cast(Embedder, self.twin.teacher), samples)

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Embed the first view by the query network, the second by the momentum network; compare."""
        first, second = batch.views
        queries, saliency = self.embedder.raw_and_saliency(first.image)
        with torch.no_grad():
            if self.training:
                self.twin.update(self.config.momentum)
            keys = cast(Embedder, self.twin.teacher).raw(second.image)
        # In float32 under every precision, as all comparisons.
        with torch.autocast(queries.device.type, enabled=False):
            size = first.regions.shape[1:]
            queries, keys, saliency = (_resize(x.float(), size) for x in (queries, keys, saliency[:, None]))
            seen = seen_cells(self.embedder, first.image, size)
            return self.compare(queries, saliency[:, 0], keys, first.regions, second.regions, seen)

    def compare(
        self,
        queries: Tensor,
        saliency: Tensor,
        keys: Tensor,
        query_objects: Tensor,
        key_objects: Tensor,
        seen: Tensor | None = None,
    ) -> StepOutput:
        """Both losses; then this batch's objects go into the queue.

        Args:
            queries: (B, D, h, w) raw embedding of the first view.
            saliency: (B, h, w) logits of the first view.
            keys: (B, D, h, w) raw embedding of the second view by the momentum network, without gradient.
            query_objects: (B, h, w) int64 ids of objects in the first view, equal across views, -1 = background.
            key_objects: the same of the second view.
            seen: (B, h, w) bool, what of the first view is not void and has a say in saliency; None = all.
        """
        mine, theirs, count = _object_rows(query_objects, key_objects)
        gathered, start = gather_rows(object_vectors(keys, theirs, count))  # (N, D) of all processes
        remembered = self.queue.vectors[: int(self.queue.filled)].to(gathered)
        candidates = torch.cat([gathered, remembered])  # (M, D)
        target = torch.where(mine < 0, -1, mine + start)
        each, found = contrast_pixels(queries, target, candidates, self.config.temperature)  # (P,)
        contrast = self._average(each, mine, count)

        foreground = query_objects >= 0
        # Void is no background: it is left out, and a batch of nothing else has a loss of 0.
        logits, truth = (saliency, foreground) if seen is None else (saliency[seen], foreground[seen])
        weighed = logits.numel() > 0
        if self.config.saliency_loss == "balanced":
            background = (~truth).to(saliency.dtype).mean() if weighed else saliency.new_zeros(())
            share = sum_over_processes(background) / world_size()
            apart = balanced_bce(logits, truth, share) if weighed else 0 * saliency.sum()
        else:
            apart = (
                F.binary_cross_entropy_with_logits(logits, truth.to(saliency.dtype)) if weighed else 0 * saliency.sum()
            )
        loss = contrast + self.config.saliency_weight * apart
        if self.training:
            self.queue.push(gathered)
        with torch.no_grad():
            predicted = saliency > 0
            either = (predicted | foreground).sum()
            logs = {
                "loss_contrast": contrast,
                "loss_saliency": apart,
                "found": found.float().sum() / max(len(found), 1),
                "found_guess": contrast.new_tensor(1 / max(len(candidates), 1)),
                "objects_per_image": contrast.new_tensor(count / len(queries)),
                "contrasted": (mine >= 0).float().mean(),
                "saliency_iou": (predicted & foreground).sum() / either.clamp(min=1),
                "queue_filled": self.queue.filled / max(self.queue.size, 1),
            }
        return StepOutput(loss, LazyLogs(logs, effective_rank=lambda: effective_rank(candidates)))

    def _average(self, each: Tensor, mine: Tensor, count: int) -> Tensor:
        """The mean of the pixels' losses over all processes, weighted as configured; 0 with gradient for no pixel."""
        row = mine[mine >= 0]  # (P,), the object of each contrasted pixel
        weight = torch.ones_like(each)
        if self.config.weighting == "object":
            total = sum_over_processes(each.new_tensor(len(row))).clamp(min=1)
            share = torch.bincount(row, minlength=count).to(each.dtype) / total
            weight = balanced_object_weight(share)[row]
        weights = sum_over_processes(weight.sum())
        # Every weight is above 1.4 or exactly 1: the least sum with a pixel is 1.
        return (each * weight).sum() * (world_size() / weights.clamp(min=1))


@in_phase("regions")
def _object_rows(query_objects: Tensor, key_objects: Tensor) -> tuple[Tensor, Tensor, int]:
    """Objects with pixels in the second view as rows, image-major, ids ascending.

    Takes ids (B, h, w) of both views; returns the rows of both (B, h, w), -1 = none, and the number of rows N.
    """
    images = len(query_objects)
    # Key 0 of an image is its background: ids are shifted by one.
    stride = max(int(query_objects.max()), int(key_objects.max())) + 2
    offset = torch.arange(images, device=query_objects.device).mul_(stride)[:, None, None]
    key = key_objects + 1 + offset
    present = torch.zeros(images * stride, dtype=torch.bool, device=key.device)
    present[key.flatten()] = True
    present[::stride] = False
    row_of_key = torch.where(present, present.cumsum(0) - 1, -1)
    return row_of_key[query_objects + 1 + offset], row_of_key[key], int(present.sum())


def _resize(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, C, h, w) to (B, C, *size)."""
    if values.shape[2:] == size:
        return values
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)
