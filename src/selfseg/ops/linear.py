"""Products of float32 matrices on a CPU by oneDNN.

torch multiplies float32 matrices by MKL, which leaves AVX-512 unused on processors of AMD: 105 GFLOPS on a core of Zen
5 where oneDNN, which torch takes for convolutions and bf16, has 230. torch.compile calls oneDNN's product by the name
used here; there is no public one. Where it is missing, and for everything but float32 on a CPU, torch's own serves.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `torch.nn.functional.linear`: rows @ weight.T + bias.

    Args:
        rows: (N, D) float.
        weight: (K, D) float.
        bias: (K,) float, or None.

    Returns:
        (N, K); differentiable once.

    Example:
        >>> linear(torch.tensor([[1.0, 2.0]]), torch.eye(2), torch.tensor([0.5, 0.0])).tolist()
        [[1.5, 2.0]]
    """
    if not _serves(rows, weight):
        return F.linear(rows, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (rows, weight, bias)):
        result: Tensor = _Linear.apply(rows, weight, bias)
        return result
    return _product(rows, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` whose products are `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, D) to (N, K)."""
        return linear(input, self.weight, self.bias)


def _serves(rows: Tensor, weight: Tensor) -> bool:
    return (
        rows.dtype == weight.dtype == torch.float32
        and rows.device.type == weight.device.type == "cpu"
        and rows.ndim == weight.ndim == 2
        and min(*rows.shape, len(weight)) > 0
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(rows), _dense(weight), bias, "none", [], "")
    return result


def _dense(matrix: Tensor) -> Tensor:
    """The matrix as it is if its rows or its columns lie one after the other, which oneDNN reads equally fast."""
    return matrix if matrix.is_contiguous() or matrix.T.is_contiguous() else matrix.contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.T) if of_rows else None,
            _product(gradient.T, rows.T) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )
