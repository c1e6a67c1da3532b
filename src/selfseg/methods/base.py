"""What a method is to the rest of the program."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.data.views.base import ViewPlan
from selfseg.models.embedder import Embedder
from selfseg.models.twin import Twin
from selfseg.types import Batch, StepOutput


class Method(nn.Module, ABC):
    """A way to learn an embedder from views of images.

    A method knows no optimiser, device, rank, step counter or logger. What must survive a restart is a parameter or
    a registered buffer; what changes with time is a function of `progress`.

    Attributes:
        Config: the frozen dataclass of its settings; `Method(config)` builds it.
        embedder: what is kept when training is over.
    """

    Config: ClassVar[type[Any]]
    embedder: Embedder

    @abstractmethod
    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """The training step, up to the loss.

        Args:
            batch: the views, on the device, images in [0, 1].
            progress: share of the training that is done, in [0, 1].

        Returns:
            The loss and the logs. With P processes the loss is scaled so that the mean over processes is the
            loss of the global batch.
        """

    @abstractmethod
    def views(self) -> ViewPlan:
        """Which views and regions the step wants."""

    def expect_images(self, count: int) -> None:
        """Called once, before weights are loaded or restored: a method that remembers every image makes room for them.

        Args:
            count: images of the run; `Batch.index` is below it.
        """

    def load_backbone(self, source: str) -> str:
        """Give the backbone its initial weights (`Embedder.begin_from`); returns a sentence on it."""
        return self.embedder.begin_from(source)

    def fit_start(self, samples: Sequence[Tensor]) -> None:
        """Find what the embedder's pyramid begins as, of an embedder that has one.

        Args:
            samples: see `Embedder.fit_pyramid`.
        """
        self.embedder.fit_pyramid(samples)

    def concept_vectors(self) -> Tensor | None:
        """The method's own concepts: (K, D) unit rows in the space of the embedder's output, or None if it has none."""
        return None

    def after_step(self, progress: float) -> None:
        """Called after the optimiser's step: averages, centres, normalised weights."""


class MomentumMethod(Method):
    """A method whose query network is followed by a momentum network, and whose query network is what is kept.

    Attributes:
        twin: both networks; each has its own `embedder`.
    """

    twin: Twin

    @property
    def embedder(self) -> Embedder:  # type: ignore[override]
        """The query network's."""
        return cast(Embedder, self.twin.student.embedder)

    def load_backbone(self, source: str) -> str:
        """Into both networks."""
        return load_both(self.embedder, cast(Embedder, self.twin.teacher.embedder), source)

    def fit_start(self, samples: Sequence[Tensor]) -> None:
        """Into both networks."""
        fit_both(self.embedder, cast(Embedder, self.twin.teacher.embedder), samples)

    def queries_and_keys(self, first: Tensor, second: Tensor, momentum: float) -> tuple[Any, Any]:
        """The first view by the query network, then the second by the momentum network, which moves before it.

        Args:
            first: (B, 3, H, W) in [0, 1].
            second: the same.
            momentum: of the move; there is none in evaluation mode.

        Returns:
            What the networks return; the keys are without gradient.
        """
        queries = self.twin.student(first)
        with torch.no_grad():
            if self.training:
                self.twin.update(momentum)
            return queries, self.twin.teacher(second)


def load_both(student: Embedder, teacher: Embedder, source: str) -> str:
    """Initial weights into the backbones of a student and its teacher; returns a sentence on them.

    The teacher's BatchNorm statistics would not follow the student's by themselves.

    Args:
        student: loads the weights, see `Embedder.begin_from`.
        teacher: takes over the student's.
        source: which weights.
    """
    sentence = student.begin_from(source)
    teacher.backbone.load_state_dict(student.backbone.state_dict())
    teacher.expect_colours(*student.colours)
    teacher.start = student.start
    return sentence


def fit_both(student: Embedder, teacher: Embedder, samples: Sequence[Tensor]) -> None:
    """Give a student and its teacher the same pyramid to begin as.

    Args:
        student: is fitted, see `Embedder.fit_pyramid`.
        teacher: takes over all of the student's tensors.
        samples: of the stages.
    """
    student.fit_pyramid(samples)
    teacher.load_state_dict(student.state_dict())


def seen_cells(embedder: Embedder, image: Tensor, size: Sequence[int]) -> Tensor | None:
    """Which cells of a view show something that was measured, so that void takes no part in a loss.

    Args:
        embedder: says whether images are photographs.
        image: (B, C, H, W) in [0, 1]; 0 in all channels of measured images is void (`selfseg.ops.levels`).
        size: (h, w) of the cells.

    Returns:
        (B, h, w) bool, whether at least half of a cell was measured; None for photographs, in which nothing is void.
    """
    if embedder.config.channels is None:
        return None
    there = (image > 0).any(1, keepdim=True).float()
    if tuple(size) == tuple(image.shape[2:]):
        return there[:, 0] > 0
    return F.adaptive_avg_pool2d(there, (size[0], size[1]))[:, 0] >= 0.5


def rising_momentum(first: float, progress: float) -> float:
    """A momentum that rises to 1 by half a cosine (BYOL, section 3.3; also SlotCon's, PixPro's and DINO's).

    Args:
        first: at the start, in [0, 1].
        progress: share of the training that is done, in [0, 1].

    Example:
        >>> [round(rising_momentum(0.9, progress), 3) for progress in (0.0, 0.5, 1.0)]
        [0.9, 0.95, 1.0]
    """
    return 1 - (1 - first) * (math.cos(math.pi * progress) + 1) / 2
