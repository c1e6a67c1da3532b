"""Student and teacher with one code path, so that a teacher can't be forgotten or written twice."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn

from selfseg.ops.phases import in_phase


class Twin(nn.Module):
    """A student that learns and a teacher that follows it by exponential moving average.

    Args:
        student: any module; the teacher starts as its copy and never gets gradients.
        buffers: what the teacher's buffers (BatchNorm statistics) do at each update: "copy" the student's, "average"
            them like the weights, or stay its "own".
    """

    def __init__(self, student: nn.Module, buffers: Literal["copy", "average", "own"]) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.buffers_policy = buffers

    @in_phase("optimiser")
    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Teacher ← momentum * teacher + (1 - momentum) * student, over all parameters in one call."""
        weight = 1 - momentum
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), weight)
        if self.buffers_policy == "own":
            return
        for mine, theirs in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            if self.buffers_policy == "average" and mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)
