"""DINO: a student predicts, from crops of an image, how its own moving average sorts two large crops of it.

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin: "Emerging Properties in Self-Supervised Vision Transformers",
ICCV 2021. The teacher's output is centred, so that no prototype takes everything, and sharpened, so that they are not
used alike for every image; small crops predict but are not predicted (multi-crop). The teacher is what is kept.
A baseline: it compares whole images. Its dense embedding is the backbone's feature map, of a ViT the tokens of the
patches, without the head; what the head sees is the class token, of a ResNet the mean of the map.

Deviations from the paper and from its authors' program, and why:
- What changes in steps of an epoch there, the teacher's temperature and the freezing of the prototypes, is a function
  of the training's share: the step has no counter. The recipes convert.
- While the prototypes are frozen, weight decay still reaches their lengths where those are learned; it is of no effect
  on their directions.
- Stochastic depth draws by image and progress: what is learned doesn't depend on how many processes there are.

Letters: V crops, B images, D dimension of the bottleneck, K prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.random_crops import MultiCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method, fit_both, load_both, rising_momentum
from selfseg.models.backbones import class_token
from selfseg.models.distributed import sum_over_processes
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.heads import VectorMLP
from selfseg.models.twin import Twin
from selfseg.ops.objectives.losses import effective_rank, swapped_prediction, usage_entropy
from selfseg.ops.phases import in_phase
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class DINOConfig:
    """DINO's settings; the defaults are those of the paper's ViT-S/16 (section 3.2), shares for 100 epochs.

    Attributes:
        embedder: the network.
        views: the view plan: two large crops, which teacher and student see, and small ones for the student.
        hidden: width of the head's two hidden layers.
        bottleneck: D, the dimensions of the vectors that prototypes are compared with.
        prototypes: K, the number of prototypes.
        batch_norm: whether the head has BatchNorms, as for ResNets.
        unit_prototypes: whether prototypes keep a length of 1, instead of learning theirs.
        student_temperature: tau_s of the student's softmax.
        teacher_temperature: tau_t of the teacher's softmax after the warm-up.
        first_temperature: the teacher's temperature at the start, from which it rises in a straight line.
        temperature_warmup: share of the training in which it rises, in [0, 1].
        momentum: momentum of the teacher at the start; it rises to 1 by a cosine.
        centre_momentum: momentum of the mean output.
        prototypes_frozen: share of the training in which the prototypes get no gradient, in [0, 1].
        drop_path: for ViTs: how often a branch of the student's last block leaves an image out (stochastic depth). It
            falls to 0 in a straight line towards the first block.
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(backbone="vit_small_patch16_224.dino", decoder="none", resolution=320)
    )
    views: MultiCrops = field(default_factory=lambda: MultiCrops(scale=(0.4, 1.0), small_views=8))
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65_536
    batch_norm: bool = False
    unit_prototypes: bool = True
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    first_temperature: float = 0.04
    temperature_warmup: float = 0.3
    momentum: float = 0.996
    centre_momentum: float = 0.9
    prototypes_frozen: float = 0.01
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in ("hidden", "bottleneck", "student_temperature", "teacher_temperature", "first_temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if self.prototypes < 2:
            raise ConfigError(f"method.prototypes must be at least 2, not {self.prototypes}: all would be the same")
        for name in ("temperature_warmup", "momentum", "centre_momentum", "prototypes_frozen"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"method.{name} must be in [0, 1], not {getattr(self, name)}")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"method.drop_path must be in [0, 1), not {self.drop_path}")


class _Head(nn.Module):
    """Three layers, unit length, and the scores of the prototypes (appendix C)."""

    def __init__(self, dim: int, config: DINOConfig) -> None:
        super().__init__()
        self.layers = VectorMLP(dim, config.hidden, config.bottleneck, config.batch_norm)
        self.directions = nn.Parameter(nn.Linear(config.bottleneck, config.prototypes, bias=False).weight.detach())
        self.lengths = None if config.unit_prototypes else nn.Parameter(torch.ones(config.prototypes, 1))

    @in_phase("forward")
    def forward(self, images: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """(N, C) to the bottleneck (N, D), of unit length, and its scores (N, K)."""
        rows = self.layers(images)
        vectors = F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1)
        prototypes = F.normalize(self.directions, dim=1)
        if self.lengths is not None:
            prototypes = prototypes * self.lengths
        if frozen:
            # Multiplying by 0 instead of detaching keeps the gradient's buckets the same in every step of DDP.
            prototypes = prototypes.detach() + 0 * prototypes
        return vectors, F.linear(vectors, prototypes)


class _Network(nn.Module):
    """What student and teacher both are."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.embedder = Embedder(config.embedder)
        self.head = _Head(self.embedder.dim, config)

    def forward(self, images: Sequence[Tensor], frozen: bool = False) -> tuple[Tensor, Tensor]:
        """V crops (B, 3, H, W), those of a size in one pass, to the bottleneck (V, B, D) and the scores (V, B, K)."""
        wholes = [whole(self.embedder, torch.cat(list(crops))) for _, crops in groupby(images, key=_size)]
        vectors, scores = self.head(torch.cat(wholes), frozen)
        return vectors.unflatten(0, (len(images), -1)), scores.unflatten(0, (len(images), -1))


def _size(image: Tensor) -> torch.Size:
    return image.shape[2:]


def whole(embedder: Embedder, image: Tensor) -> Tensor:
    """One vector for each whole image, of any length.

    Args:
        embedder: a ViT's without a decoder gives its class token, all others the mean of what they embed.
        image: (B, 3, H, W) float, RGB in [0, 1].

    Returns:
        (B, D) float.
    """
    token = None
    if embedder.config.decoder == "none":
        token = class_token(embedder.backbone, (image - embedder.mean) / embedder.std)
    return embedder.raw(image).mean((2, 3)) if token is None else token


class DINO(Method):
    """The method; `forward`, `compare` and `after_step` are algorithm 1.

    Logs: loss_uniform (loss of a guess, log K), prototype_entropy (use of the prototypes by the teacher, fraction of
    log K), assignment_entropy (of one crop by the teacher, fraction of log K), centre_norm, agreement (share of images
    whose two large crops choose the same prototype, the first by the student, the second by the teacher),
    effective_rank (of the student's vectors).
    """

    Config: ClassVar[type[DINOConfig]] = DINOConfig
    centre: Tensor

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.config = config
        self.twin = Twin(_Network(config), buffers="own")
        self.depth = StochasticDepth(self.student.embedder.backbone, config.drop_path)
        self.register_buffer("centre", torch.zeros(config.prototypes))

    @property
    def student(self) -> _Network:
        """The network that learns."""
        return cast(_Network, self.twin.student)

    @property
    def teacher(self) -> _Network:
        """Its moving average."""
        return cast(_Network, self.twin.teacher)

    @property
    def embedder(self) -> Embedder:  # type: ignore[override]
        """What is kept: the teacher's."""
        return self.teacher.embedder

    def load_backbone(self, source: str) -> str:
        """Into both networks."""
        return load_both(self.student.embedder, self.teacher.embedder, source)

    def fit_start(self, samples: Sequence[Tensor]) -> None:
        """Into both networks."""
        fit_both(self.student.embedder, self.teacher.embedder, samples)

    def views(self) -> MultiCrops:
        """Large and small crops."""
        return self.config.views

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """All crops by the student, the large ones by the teacher; compare."""
        images = [view.image for view in batch.views]
        with torch.no_grad():
            _, teacher = self.teacher(images[:2])
        if self.training:
            self.depth.draw(batch.index, len(images), progress)
        vectors, student = self.student(images, progress < self.config.prototypes_frozen)
        self.depth.rest()
        # In float32 under every precision, as all comparisons.
        with torch.autocast(images[0].device.type, enabled=False):
            return self.compare(student.float(), teacher.float(), vectors, progress)

    def temperature(self, progress: float) -> float:
        """The teacher's."""
        config = self.config
        share = min(progress / config.temperature_warmup, 1.0) if config.temperature_warmup else 1.0
        return config.first_temperature + share * (config.teacher_temperature - config.first_temperature)

    def compare(self, student: Tensor, teacher: Tensor, vectors: Tensor, progress: float) -> StepOutput:
        """Each large crop is predicted from all other crops (eq. 1 to 3); then the centre moves (eq. 4).

        Args:
            student: scores (V, B, K); the first two crops are the large ones.
            teacher: scores (2, B, K) of the large crops, without gradient.
            vectors: (V, B, D) the student's, for the logs.
            progress: in [0, 1].
        """
        targets = torch.softmax((teacher - self.centre) / self.temperature(progress), dim=2)
        # Every process has as many images, so the mean of their means is the mean of all.
        weight = student.new_full((student.shape[1],), 1 / student.shape[1])
        terms = [
            swapped_prediction(
                torch.cat([student[:crop], student[crop + 1 :]]), target, weight, self.config.student_temperature
            )
            for crop, target in enumerate(targets)
        ]
        logs = self._logs(student.detach(), targets)
        if self.training:
            self._move_centre(teacher)
        seen = vectors.detach().flatten(0, 1)
        return StepOutput(torch.stack(terms).mean(), LazyLogs(logs, effective_rank=lambda: effective_rank(seen)))

    @torch.no_grad()
    def _move_centre(self, teacher: Tensor) -> None:
        rows = teacher.flatten(0, 1)
        count = sum_over_processes(rows.new_tensor(float(len(rows))))
        self.centre.lerp_(sum_over_processes(rows.sum(0)) / count, 1 - self.config.centre_momentum)

    @torch.no_grad()
    def _logs(self, student: Tensor, targets: Tensor) -> dict[str, Tensor]:
        log_k = student.new_tensor(math.log(student.shape[2]))
        return {
            "loss_uniform": log_k,
            "prototype_entropy": usage_entropy(targets.flatten(0, 1)),
            "assignment_entropy": torch.special.entr(targets).sum(2).mean() / log_k,
            "centre_norm": self.centre.norm(),
            "agreement": (student[0].max(1).indices == targets[1].max(1).indices).float().mean(),
        }

    def after_step(self, progress: float) -> None:
        """The teacher follows."""
        self.twin.update(rising_momentum(self.config.momentum, progress))


class StochasticDepth:
    """Lets the residual branches of a ViT leave images out, as drawn for each image and share of the training.

    G. Huang et al.: "Deep Networks with Stochastic Depth", ECCV 2016.

    Args:
        backbone: its blocks get switches; with a rate of 0, or if it is no ViT, nothing happens.
        rate: of the last block's branches, in [0, 1); the first one's is 0, the others' lie in between.
    """

    def __init__(self, backbone: nn.Module, rate: float) -> None:
        blocks: Any = getattr(getattr(backbone, "model", None), "blocks", []) if rate else []
        self.switches: list[_Switch] = []
        for number, block in enumerate(blocks):
            share = rate * number / max(len(blocks) - 1, 1)
            for name in ("drop_path1", "drop_path2"):
                if share and hasattr(block, name):
                    setattr(block, name, _Switch(share))
                    self.switches.append(getattr(block, name))

    def draw(self, index: Tensor, crops: int, progress: float) -> None:
        """Decide which images each branch leaves out, until `rest`.

        Args:
            index: (B,) which images they are.
            crops: of each image; the network sees all first crops, then all second ones, in one pass or several.
            progress: share of the training that is done, in [0, 1].
        """
        if not self.switches:
            return
        moment = int(progress * 2**48)
        size = (len(self.switches), crops)
        drawn = np.stack([np.random.default_rng((image, moment)).random(size, np.float32) for image in index.tolist()])
        rows = torch.from_numpy(drawn).permute(1, 2, 0).flatten(1).to(index.device)  # (switches, crops * B)
        for switch, row in zip(self.switches, rows, strict=True):
            switch.wait(row)

    def rest(self) -> None:
        """Leave nothing out any more."""
        for switch in self.switches:
            switch.wait(None)


class _Switch(nn.Module):
    """One residual branch's; it has no weights."""

    TURNS: ClassVar[tuple[str, ...]] = ("drawn",)

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.drawn: Tensor | None = None

    def wait(self, drawn: Tensor | None) -> None:
        """Take numbers in [0, 1) for the images that come next, in their order; None = none is left out."""
        self.drawn = drawn

    def forward(self, branch: Tensor) -> Tensor:
        """(B, N, C) to the same; what is kept is scaled so that the mean stays."""
        if self.drawn is None:
            return branch
        mine, self.drawn = self.drawn[: len(branch)], self.drawn[len(branch) :]
        kept = (mine >= self.share).to(branch) / (1 - self.share)
        return branch * kept[:, None, None]
