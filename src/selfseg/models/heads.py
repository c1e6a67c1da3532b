"""Heads on vectors: the projectors and predictors of student-teacher methods."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfseg.models.distributed import moments, world_size
from selfseg.ops.linear import Linear
from selfseg.ops.phases import in_phase


class VectorBatchNorm(nn.Module):
    """BatchNorm of vectors over the rows of all processes, for any number of rows, even none.

    torch's raises for a single row, and its synchronised form on the CPU. Here a single row becomes the bias, and no
    row at all gives no row with a gradient of zero for the weights. Fewer than two rows leave the statistics alone.

    Args:
        features: D.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, rows: Tensor) -> Tensor:
        """(N, D) to (N, D), N may differ between processes."""
        alone = world_size() == 1
        if not self.training or (alone and rows.shape[0] > 1):
            if self.training:
                self.num_batches_tracked.add_(1)
            return F.batch_norm(
                rows,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                self.training,
                self.momentum,
                self.eps,
            )
        values = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
        mean, variance, total = moments(values)
        if not alone:  # a row alone has no statistics, and a change here would spoil the gradient of an earlier call
            with torch.no_grad():
                # A step of 0 instead of a condition, which would wait for the device.
                enough = total > 1
                step = (self.momentum * enough).to(self.running_mean)
                unbiased = variance * (total / (total - 1).clamp(min=1))
                self.running_mean.lerp_(mean.to(self.running_mean), step)
                self.running_var.lerp_(unbiased.to(self.running_var), step)
                self.num_batches_tracked.add_(enough)
        out: Tensor = (values - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return out.to(rows.dtype)


class VectorMLP(nn.Sequential):
    """SlotCon's projector and predictor, and DINO's: three linear layers, BatchNorm and GELU after the first two.

    Weights begin as a normal distribution of deviation 0.02 cut at 2 (absolute), biases at 0.

    Args:
        dim: of the input vectors.
        hidden: width of both hidden layers.
        out: of the output vectors.
        batch_norm: whether there are the two BatchNorms.
    """

    def __init__(self, dim: int, hidden: int, out: int, batch_norm: bool = True) -> None:
        super().__init__(
            Linear(dim, hidden),
            VectorBatchNorm(hidden) if batch_norm else nn.Identity(),
            nn.GELU(),
            Linear(hidden, hidden),
            VectorBatchNorm(hidden) if batch_norm else nn.Identity(),
            nn.GELU(),
            Linear(hidden, out),
        )
        for layer in self:
            if isinstance(layer, Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    @in_phase("forward")
    def forward(self, rows: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """Vectors to vectors.

        Args:
            rows: (N, dim).
            sizes: of groups of rows that have BatchNorm statistics of their own, one after the other. The same as one
                call for each, but the matrix products are one, and so is each weight's gradient.

        Returns:
            (N, out).
        """
        for layer in self:
            if sizes is not None and isinstance(layer, VectorBatchNorm):
                rows = torch.cat([layer(part) for part in torch.split(rows, list(sizes))])
            else:
                rows = layer(rows)
        return rows


class ProjectionMLP(nn.Sequential):
    """The projection head of SimCLR, MoCo v2, BYOL and SwAV: two linear layers, ReLU between them.

    Args:
        dim: of the input vectors.
        hidden: width of the hidden layer.
        out: of the output vectors.
        batch_norm: a BatchNorm before the ReLU (SwAV, BYOL).
        bias: whether the last layer has one (not BYOL's).
    """

    def __init__(self, dim: int, hidden: int, out: int, batch_norm: bool = False, bias: bool = True) -> None:
        norm = VectorBatchNorm(hidden) if batch_norm else nn.Identity()
        super().__init__(Linear(dim, hidden), norm, nn.ReLU(), Linear(hidden, out, bias=bias))

    @in_phase("forward")
    def forward(self, rows: Tensor) -> Tensor:
        """(N, dim) to (N, out)."""
        for layer in self:
            rows = layer(rows)
        return rows
