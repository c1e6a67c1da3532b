"""SlotCon: learned semantic slots that group pixels, and are contrasted between two overlapping crops.

Wen, Zhao, Zheng, Zhang, Qi: "Self-Supervised Visual Representation Learning with Semantic Grouping", NeurIPS 2022.
Every pixel of both networks is assigned to K prototypes; assignments of the same place must agree (grouping loss);
pixels pooled by their assignment make slots, and a slot must be found again among all slots of the teacher (slot loss).

Where the paper and its reference implementation, which made the published numbers, disagree, this is the reference:
- the teacher moves before its forward, in the same step, not after the optimiser's;
- inverse augmentation cuts the overlap out of the cosines, not out of the assignments;
- attention has the teacher's temperature in both networks and no centre;
- the slot loss is multiplied by 2 tau_c, which eq. 6 doesn't have: .4 with the default temperature, so that lambda_g
  weighs the two losses otherwise than the paper's equation says;
- the teacher's BatchNorms see batches (train mode) and keep statistics of their own.

Deviations from the reference, and why:
- The overlap is cut by two small interpolation matrices instead of RoIAlign, the flip folded in: equal, and faster.
- No matched slot in a batch gives a slot loss of 0 with gradient (there: not a number), one gives BatchNorm's bias.
- Several processes: the slot loss is the mean over the pairs of all processes, not the mean of their means.

Letters: B images, h w cells of the projection, D its dimension, K prototypes, M matched slots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.overlapping_crops import OverlappingCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method, fit_both, load_both, rising_momentum, seen_cells
from selfseg.models.distributed import gather_rows, sum_over_processes, world_size
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.heads import VectorMLP
from selfseg.models.twin import Twin
from selfseg.ops.geometry import interpolation_matrices, overlap
from selfseg.ops.objectives.losses import effective_rank, usage_entropy
from selfseg.ops.phases import in_phase
from selfseg.types import Batch, LazyLogs, StepOutput

_EPSILON = 1e-6  # of the attention, so that a prototype without any pixel has a mean


@dataclass(frozen=True)
class SlotConConfig:
    """SlotCon's settings; the defaults are the paper's on COCO (section 4.1).

    Attributes:
        embedder: the network; its output is the projection that prototypes group.
        views: the view plan: two crops.
        prototypes: K, the number of prototypes; the paper has 256 (COCO), 2048 (ImageNet), 64 (BDD100K), 27 (COCO-Stuff
            segmentation).
        predictor_hidden: width of the predictor's two hidden layers.
        student_temperature: tau_s of the student's assignment.
        teacher_temperature: tau_t of the teacher's assignment, and of the attention in both networks.
        slot_temperature: tau_c of the contrast between slots.
        group_weight: lambda_g, the grouping loss's share in [0, 1]; the slot loss has the rest.
        momentum: momentum of the teacher at the start; it rises to 1 by a cosine.
        centre_momentum: momentum of the mean logit.
        slots: "contrast" compares a slot with all slots of the teacher (InfoNCE); "regression" only pulls it towards
            its own (as BYOL; table 8b).
        align: what the overlap is cut out of: the "assignments" (their cosines), or the "projections" before anything
            else is done (table 8c).
        image_weight: weight of an additional contrast of whole images (as MoCo v3; table 8d), 0 = none.
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(
            backbone="resnet50", output_stride=32, decoder="projector", dim=256, resolution=320
        )
    )
    views: OverlappingCrops = field(default_factory=OverlappingCrops)
    prototypes: int = 256
    predictor_hidden: int = 4096
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    slot_temperature: float = 0.2
    group_weight: float = 0.5
    momentum: float = 0.99
    centre_momentum: float = 0.9
    slots: Literal["contrast", "regression"] = "contrast"
    align: Literal["assignments", "projections"] = "assignments"
    image_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("student_temperature", "teacher_temperature", "slot_temperature", "predictor_hidden"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        if self.prototypes < 2:
            raise ConfigError(f"method.prototypes must be at least 2, not {self.prototypes}: all would be the same")
        for name in ("group_weight", "momentum", "centre_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"method.{name} must be in [0, 1], not {getattr(self, name)}")
        if self.image_weight < 0:
            raise ConfigError(f"method.image_weight can't be negative: {self.image_weight}")


class _Network(nn.Module):
    """What student and teacher both have."""

    def __init__(self, config: SlotConConfig) -> None:
        super().__init__()
        self.embedder = Embedder(config.embedder)
        dim = self.embedder.dim
        self.prototypes = nn.Parameter(torch.randn(config.prototypes, dim))
        # The image's projection is MoCo v3's own head; without that loss nothing of it exists.
        self.image_head = VectorMLP(dim, config.predictor_hidden, dim) if config.image_weight else None


class SlotCon(Method):
    """The method; `forward` and `compare` are section 3, in its order.

    Logs: loss_group, loss_slots, loss_image (0 without), active_slots (slots that hold a pixel, per view of an image),
    matched_slots (pairs per image and direction), dead_prototypes (share, active in < 1 of 1,000 views of late),
    centre_norm, prototype_entropy (use of the prototypes by the teacher's pixels, fraction of log K),
    assignment_entropy (of one teacher pixel, fraction of log K), effective_rank (of the student's projections),
    agreement (share of the overlap's cells where student and teacher choose the same prototype).
    """

    Config: ClassVar[type[SlotConConfig]] = SlotConConfig
    centre: Tensor
    usage: Tensor

    def __init__(self, config: SlotConConfig) -> None:
        super().__init__()
        self.config = config
        self.twin = Twin(_Network(config), buffers="own")
        dim = self.student.embedder.dim
        self.predictor = VectorMLP(dim, config.predictor_hidden, dim)
        self.image_predictor = VectorMLP(dim, config.predictor_hidden, dim) if config.image_weight else None
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self.register_buffer("usage", torch.ones(config.prototypes))  # share of views a prototype was active in

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

    def views(self) -> OverlappingCrops:
        """Two crops that overlap."""
        return self.config.views

    def load_backbone(self, source: str) -> str:
        """Into both networks."""
        return load_both(self.student.embedder, self.teacher.embedder, source)

    def fit_start(self, samples: Sequence[Tensor]) -> None:
        """Into both networks."""
        fit_both(self.student.embedder, self.teacher.embedder, samples)

    @torch.no_grad()
    def concept_vectors(self) -> Tensor:
        """The teacher's prototypes."""
        return F.normalize(self.teacher.prototypes, dim=1)

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Project both crops by both networks, then compare."""
        images = [view.image for view in batch.views]
        student = [_cells_last(x) for x in self.student.embedder.raw_views(images)]
        with torch.no_grad():
            if self.training:
                self.twin.update(self.momentum(progress))
            teacher = [_cells_last(y) for y in self.teacher.embedder.raw_views(images)]
        first, second = (view.to_image for view in batch.views)
        seen = [seen_cells(self.embedder, image, x.shape[1:3]) for image, x in zip(images, student, strict=True)]
        # In float32 under every precision: an assignment hangs on differences of cosines.
        with torch.autocast(first.device.type, enabled=False):
            return self.compare([x.float() for x in student], [y.float() for y in teacher], (first, second), seen)

    def momentum(self, progress: float) -> float:
        """The teacher's momentum: from `config.momentum` to 1 by a cosine."""
        return rising_momentum(self.config.momentum, progress)

    def compare(
        self,
        student: list[Tensor],
        teacher: list[Tensor],
        to_image: tuple[Tensor, Tensor],
        seen: Sequence[Tensor | None] = (None, None),
    ) -> StepOutput:
        """Group, align, compare; then the centre moves.

        Args:
            student: projections of the two views, (B, h, w, D) each.
            teacher: the same of the teacher, without gradient.
            to_image: affines of the two views, (B, 2, 3) each.
            seen: (B, h, w) bool of each view, which cells are not void; others are in no slot and no loss. None = all.
        """
        config = self.config
        box = overlap(*to_image)
        size = (student[0].shape[1], student[0].shape[2])
        cuts = [interpolation_matrices(affine, box, size) for affine in to_image]
        image_loss = self._contrast_images(student, teacher, seen)
        shared = [
            None if s is None else _cut(s[..., None].float(), cut)[..., 0] > 0.5
            for s, cut in zip(seen, cuts, strict=True)
        ]
        if config.align == "projections":
            student = [_cut(x, cut) for x, cut in zip(student, cuts, strict=True)]
            teacher = [_cut(y, cut) for y, cut in zip(teacher, cuts, strict=True)]
            seen = shared
        # Cosines to the prototypes (B, h, w, K), slots (B, K, D), and which slots hold a pixel (B, K).
        mine = [self._group(x, self.student.prototypes, s) for x, s in zip(student, seen, strict=True)]
        with torch.no_grad():
            theirs = [self._group(y, self.teacher.prototypes, s) for y, s in zip(teacher, seen, strict=True)]
        if config.align == "projections":
            aligned, targets = [group.cosines for group in mine], [group.cosines for group in theirs]
        else:
            aligned = [_cut(group.cosines, cut) for group, cut in zip(mine, cuts, strict=True)]
            targets = [_cut(group.cosines, cut) for group, cut in zip(theirs, cuts, strict=True)]

        pairs = ((0, 1), (1, 0))  # student's view, teacher's view
        both = None if shared[0] is None or shared[1] is None else shared[0] & shared[1]
        group_loss = torch.stack([self._compare_cells(aligned[a], targets[b], both) for a, b in pairs]).sum()
        slot_loss = self._compare_slots([(mine[a], theirs[b]) for a, b in pairs])
        loss = config.group_weight * group_loss + (1 - config.group_weight) * slot_loss
        if config.image_weight:
            loss = loss + config.image_weight * image_loss
        with torch.no_grad():
            logs = {"loss_group": group_loss, "loss_slots": slot_loss, "loss_image": image_loss}
            logs |= self._logs(mine, theirs, aligned, targets)
            if self.training:
                self._move_centre(theirs)
        projections = student[0].detach().flatten(0, 2)
        return StepOutput(loss, LazyLogs(logs, effective_rank=lambda: effective_rank(F.normalize(projections, dim=1))))

    @in_phase("regions")
    def _group(self, projections: Tensor, prototypes: Tensor, seen: Tensor | None = None) -> _Groups:
        """Assign cells to prototypes and pool them (eq. 4 and 5); projections (B, h, w, D), seen (B, h, w)."""
        cells = projections.flatten(1, 2)  # (B, N, D)
        cosines = F.linear(F.normalize(cells, dim=2), F.normalize(prototypes, dim=1))  # (B, N, K)
        attention = torch.softmax(cosines / self.config.teacher_temperature, dim=2) + _EPSILON
        if seen is not None:
            attention = attention * seen.flatten(1)[:, :, None]
        total = attention.sum(1)[:, :, None]
        pooled = attention.transpose(1, 2) @ cells / (total if seen is None else total.clamp(min=_EPSILON))  # (B, K, D)
        winner = cosines.detach().max(2).indices
        active = torch.zeros_like(cosines[:, 0], dtype=torch.bool)
        if seen is None:
            active.scatter_(1, winner, True)
        else:
            found = torch.zeros_like(cosines[:, 0]).scatter_reduce_(
                1, winner, seen.flatten(1).to(cosines.dtype), "amax"
            )
            active = found > 0
        return _Groups(cosines.view(*projections.shape[:3], -1), pooled, active, seen)

    def _compare_cells(self, student: Tensor, teacher: Tensor, seen: Tensor | None) -> Tensor:
        """Grouping loss of one direction (eq. 1 and 2); aligned cosines (B, h, w, K), seen (B, h, w)."""
        target = torch.softmax((teacher - self.centre) / self.config.teacher_temperature, dim=3)
        prediction = torch.log_softmax(student / self.config.student_temperature, dim=3)
        each = -(target * prediction).sum(3)
        return each.mean() if seen is None else (each * seen).sum() / seen.sum().clamp(min=1)

    def _compare_slots(self, pairs: Sequence[tuple[_Groups, _Groups]]) -> Tensor:
        """Slot loss of both directions (eq. 6), over slots that are active in the student's and the teacher's view."""
        matches = [student.active & teacher.active for student, teacher in pairs]  # (B, K) each
        slots = [student.slots[matched] for (student, _), matched in zip(pairs, matches, strict=True)]
        sizes = [len(rows) for rows in slots]
        queries = torch.split(F.normalize(self.predictor(torch.cat(slots), sizes), dim=1), sizes)  # (M, D) each
        terms = [
            self._compare_queries(each, teacher, matched)
            for each, (_, teacher), matched in zip(queries, pairs, matches, strict=True)
        ]
        return torch.stack(terms).sum()

    def _compare_queries(self, queries: Tensor, teacher: _Groups, matched: Tensor) -> Tensor:
        """One direction: each query (M, D) finds its slot among the teacher's; times 2 tau_c as the reference."""
        total = sum_over_processes(matched.sum().to(queries.dtype)).clamp(min=1)
        if self.config.slots == "regression":
            own = F.normalize(teacher.slots[matched], dim=1)
            return (2 - 2 * (queries * own).sum(1)).sum() * (world_size() / total)
        keys, start = gather_rows(F.normalize(teacher.slots[teacher.active], dim=1))
        place = torch.cumsum(teacher.active.flatten(), 0) - 1 + start  # of each active slot among everybody's
        tau = self.config.slot_temperature
        each = F.cross_entropy(queries @ keys.T / tau, place[matched.flatten()], reduction="sum")
        return each * (2 * tau * world_size() / total)

    def _contrast_images(self, student: list[Tensor], teacher: list[Tensor], seen: Sequence[Tensor | None]) -> Tensor:
        """MoCo v3's loss of the mean projections, both directions; 0 if it is not wanted."""
        if self.image_predictor is None or self.student.image_head is None or self.teacher.image_head is None:
            return student[0].new_zeros(())
        tau, terms = self.config.slot_temperature, []
        queries = [
            self.image_predictor(self.student.image_head(_mean(x, s))) for x, s in zip(student, seen, strict=True)
        ]  # (B, D)
        with torch.no_grad():
            means = [_mean(y, s) for y, s in zip(teacher, seen, strict=True)]
            keys = [gather_rows(F.normalize(self.teacher.image_head(mean), dim=1)) for mean in means]
        for query, (key, start) in zip(queries, keys[::-1], strict=True):
            own = torch.arange(start, start + len(query), device=query.device)
            terms.append(2 * tau * F.cross_entropy(F.normalize(query, dim=1) @ key.T / tau, own))
        return torch.stack(terms).sum()

    def _move_centre(self, teacher: list[_Groups]) -> None:
        """The mean logit follows the teacher's cosines of both views, all cells and processes (eq. 3)."""
        mean = torch.stack([_mean_of_all(group) for group in teacher]).mean(0)
        self.centre.lerp_(sum_over_processes(mean) / world_size(), 1 - self.config.centre_momentum)
        active = torch.cat([group.active for group in teacher]).to(self.usage.dtype).mean(0)
        self.usage.lerp_(sum_over_processes(active) / world_size(), 0.01)

    def _logs(
        self,
        student: list[_Groups],
        teacher: list[_Groups],
        aligned: list[Tensor],
        targets: list[Tensor],
    ) -> dict[str, Tensor]:
        log_k = math.log(self.config.prototypes)
        assignment = torch.softmax((teacher[0].cosines - self.centre) / self.config.teacher_temperature, dim=3)
        assignment = assignment.flatten(0, 2)  # (B h w, K)
        return {
            "active_slots": torch.cat([group.active for group in student]).sum(1).float().mean(),
            "matched_slots": (student[0].active & teacher[1].active).sum(1).float().mean(),
            "dead_prototypes": (self.usage < 1e-3).float().mean(),
            "centre_norm": self.centre.norm(),
            "prototype_entropy": usage_entropy(assignment),
            "assignment_entropy": torch.special.entr(assignment).sum(1).mean() / log_k,
            "agreement": (aligned[0].max(3).indices == targets[1].max(3).indices).float().mean(),
        }


@dataclass(frozen=True)
class _Groups:
    """One view's cells in groups: cosines (B, h, w, K), slots (B, K, D), active (B, K) bool, seen (B, h, w) or None."""

    cosines: Tensor
    slots: Tensor
    active: Tensor
    seen: Tensor | None


def _mean(cells: Tensor, seen: Tensor | None) -> Tensor:
    """(B, h, w, D) to the (B, D) mean of the cells that are seen."""
    if seen is None:
        return cells.mean((1, 2))
    return (cells * seen[..., None]).sum((1, 2)) / seen.sum((1, 2)).clamp(min=1)[:, None]


def _mean_of_all(group: _Groups) -> Tensor:
    """The (K,) mean cosine of all cells of a batch that are seen."""
    if group.seen is None:
        return group.cosines.mean((0, 1, 2))
    return (group.cosines * group.seen[..., None]).sum((0, 1, 2)) / group.seen.sum().clamp(min=1)


def _cells_last(embedding: Tensor) -> Tensor:
    """(B, D, h, w) to (B, h, w, D)."""
    return embedding.permute(0, 2, 3, 1)


def _cut(cells: Tensor, matrices: tuple[Tensor, Tensor]) -> Tensor:
    """Inverse augmentation: (B, h, w, K) to the same shape over the overlap, in the image's orientation."""
    rows, columns = matrices  # (B, h, h), (B, w, w)
    cells = columns[:, None] @ cells  # (B, h, w, K)
    return (rows @ cells.flatten(2)).view_as(cells)
