"""Mutual information between two maps of soft assignments, and between a map and its neighbourhood.

X. Ji, J. Henriques, A. Vedaldi: "Invariant Information Clustering for Unsupervised Image Classification and
Segmentation", ICCV 2019, section 3.3.

Letters: B images, K clusters of the first map and L of the second, h w cells, T the largest displacement in cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.ops.linear import linear


def displaced_joint(first: Tensor, second: Tensor, displacement: int) -> Tensor:
    """How often cluster k of the first map meets cluster l of the second, for every displacement between them.

    Args:
        first: (B, K, h, w) non-negative; a cell of zeros takes no part.
        second: (B, L, h, w) non-negative, of the same cells.
        displacement: T, in cells, less than h and w.

    Returns:
        (2 T + 1, 2 T + 1, K, L) sums over images and cells u of first[u] second[u + t]^T, not normalised; entry
        (T + y, T + x) is that of t = (y, x). Cells that t moves out of the map take no part.

    Example:
        >>> left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
        >>> displaced_joint(left, right, 1)[1].flatten().tolist()  # t = (0, -1), (0, 0), (0, 1)
        [0.0, 0.0, 1.0]
    """
    joint: Tensor = _DisplacedJoint.apply(first, second, displacement)
    return joint


class _DisplacedJoint(torch.autograd.Function):
    """A product of matrices for each displacement, in both directions.

    Autograd would keep a moved copy of the second map for each; a convolution with a kernel as large as the map takes
    several times as long.
    """

    @staticmethod
    def forward(context: Any, first: Tensor, second: Tensor, displacement: int) -> Tensor:
        context.save_for_backward(first, second)
        context.displacement = displacement
        rows = first.transpose(0, 1).flatten(1)  # (K, N)
        side = 2 * displacement + 1
        joint = first.new_empty(side, side, rows.shape[0], second.shape[1])
        for y, x, moved in _moves(second, displacement):
            joint[y, x] = linear(rows, moved.flatten(1))
        return joint

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        first, second = context.saved_tensors
        reach, gradient = context.displacement, gradients[0]
        rows = first.transpose(0, 1).flatten(1)  # (K, N)
        for_first = torch.zeros_like(rows)
        for_second = F.pad(torch.zeros_like(second.transpose(0, 1)), [reach] * 4)  # (L, B, h + 2T, w + 2T)
        places = _windows(for_second, reach)
        for (y, x, moved), (_, _, place) in zip(_moves(second, reach), places, strict=True):
            for_first.addmm_(gradient[y, x], moved.flatten(1))
            place += (gradient[y, x].T @ rows).view_as(place)
        inner = for_second[:, :, reach : reach + second.shape[2], reach : reach + second.shape[3]]
        return for_first.view_as(first.transpose(0, 1)).transpose(0, 1), inner.transpose(0, 1), None


def _moves(second: Tensor, reach: int) -> Iterator[tuple[int, int, Tensor]]:
    """(T + y, T + x, second[u + t] as (L, B, h, w), 0 outside) for each displacement t = (y, x)."""
    return _windows(F.pad(second.transpose(0, 1), [reach] * 4), reach)


def _windows(padded: Tensor, reach: int) -> Iterator[tuple[int, int, Tensor]]:
    height, width = padded.shape[2] - 2 * reach, padded.shape[3] - 2 * reach
    for y in range(2 * reach + 1):
        for x in range(2 * reach + 1):
            yield y, x, padded[:, :, y : y + height, x : x + width]


def mutual_information(joint: Tensor) -> Tensor:
    """The mutual information of the two variables of joint distributions, in nats.

    Args:
        joint: (..., K, L) non-negative float; each is normalised to a sum of 1. All zeros have an information of 0.

    Returns:
        (...) in [0, log min(K, L)], up to rounding.

    Example:
        >>> mutual_information(torch.eye(4)), mutual_information(torch.ones(4, 4))  # log 4, independent
        (tensor(1.3863), tensor(0.))
    """
    tiny = torch.finfo(joint.dtype).tiny
    total = joint.sum((-2, -1), keepdim=True)
    share = joint / torch.where(total > 0, total, 1)
    rows, columns = share.sum(-1, keepdim=True), share.sum(-2, keepdim=True)
    # 0 log 0 is 0, with a finite gradient.
    logarithm = share.clamp(min=tiny).log() - rows.clamp(min=tiny).log() - columns.clamp(min=tiny).log()
    return (share * logarithm).sum((-2, -1))
