"""BYOL: a network predicts what its own moving average makes of another crop of the image, without any negatives.

Grill, Strub, Altché, Tallec, Richemond, Buchatskaya, Doersch, Avila Pires, Guo, Gheshlaghi Azar, Piot, Kavukcuoglu,
Munos, Valko: "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", NeurIPS 2020.
A baseline: it compares whole images, and its dense embedding is the backbone's feature map, without the heads.

Deviations from the paper, and why: none that we know of in the step. The heads' last layers have no bias and the
target's BatchNorms see batches (train mode) and keep statistics of their own, which the paper leaves open and its
authors' program has. BatchNorms see the batch of all processes, as theirs.

Letters: B images, D dimension of the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import MultiCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import MomentumMethod, rising_momentum
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.heads import ProjectionMLP
from selfseg.models.twin import Twin
from selfseg.ops.objectives.losses import effective_rank
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class BYOLConfig:
    """BYOL's settings; the defaults are the paper's for 1,000 epochs of ImageNet (section 3.3, appendix B).

    Attributes:
        embedder: the network; its output is pooled over the image and projected.
        views: the view plan: two independent crops.
        hidden: width of the hidden layer of the projector and of the predictor.
        dim: D, the dimensions of the projection and of the prediction.
        momentum: tau, the momentum of the target network at the start; it rises to 1 by a cosine.
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(backbone="resnet50", output_stride=32, decoder="none")
    )
    views: MultiCrops = field(default_factory=MultiCrops)
    hidden: int = 4096
    dim: int = 256
    momentum: float = 0.996

    def __post_init__(self) -> None:
        for name in ("hidden", "dim"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.momentum <= 1:
            raise ConfigError(f"method.momentum must be in [0, 1], not {self.momentum}")
        if self.views.small_views:
            raise ConfigError(f"BYOL compares two crops: method.views.small_views is 0, not {self.views.small_views}")


class _Network(nn.Module):
    """What online and target network both have."""

    def __init__(self, config: BYOLConfig) -> None:
        super().__init__()
        self.embedder = Embedder(config.embedder)
        self.projector = ProjectionMLP(self.embedder.dim, config.hidden, config.dim, batch_norm=True, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D), of any length."""
        projection: Tensor = self.projector(self.embedder.raw(image).mean((2, 3)))
        return projection


class BYOL(MomentumMethod):
    """The method; `forward` and `compare` are section 3.1, `after_step` its last equation.

    Logs: similarity (mean cosine of a prediction and its target), effective_rank (of the first crop's targets; near 1
    they have collapsed).
    """

    Config: ClassVar[type[BYOLConfig]] = BYOLConfig

    def __init__(self, config: BYOLConfig) -> None:
        super().__init__()
        self.config = config
        self.twin = Twin(_Network(config), buffers="own")
        self.predictor = ProjectionMLP(config.dim, config.hidden, config.dim, batch_norm=True, bias=False)

    def views(self) -> MultiCrops:
        """Two independent crops."""
        return self.config.views

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Predictions of both crops by the online network, targets of both by the other; compare."""
        images = [view.image for view in batch.views]
        # Crop by crop: each has BatchNorm statistics of its own.
        predictions = [self.predictor(self.twin.student(image)) for image in images]
        with torch.no_grad():
            targets = [self.twin.teacher(image) for image in images]
        # In float32 under every precision, as all comparisons.
        with torch.autocast(images[0].device.type, enabled=False):
            return self.compare([q.float() for q in predictions], [z.float() for z in targets])

    def compare(self, predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> StepOutput:
        """The loss (eq. 2), made symmetric: each crop's prediction against the other one's target.

        Args:
            predictions: (B, D) of each of the two crops, of any length.
            targets: (B, D) of each by the target network, of any length, without gradient.
        """
        cosines = torch.stack([F.cosine_similarity(predictions[a], targets[b]) for a, b in ((0, 1), (1, 0))])  # (2, B)
        # Every process has as many images, so the mean of their means is the mean of all.
        loss = (2 - 2 * cosines).sum(0).mean()
        vectors, logs = F.normalize(targets[0], dim=1), {"similarity": cosines.mean()}
        return StepOutput(loss, LazyLogs(logs, effective_rank=lambda: effective_rank(vectors)))

    def after_step(self, progress: float) -> None:
        """The target network follows (eq. 1)."""
        self.twin.update(rising_momentum(self.config.momentum, progress))
