"""Equal assignment of vectors to prototypes by optimal transport (SwAV, Caron et al. 2020, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Sinkhorn-Knopp: assignments near to softmax(scores / epsilon) that use every prototype equally.

    Args:
        scores: (..., N, K) cosines in [-1, 1], rows = vectors; N may be 0.
        epsilon: entropy; smaller is harder.
        iterations: of one normalisation over rows and one over columns each.

    Returns:
        (..., N, K) float32 (float64 of float64) rows that sum to 1; columns sum to about N / K. No gradient.

    Example:
        >>> sinkhorn(torch.eye(2)).round(decimals=3).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    kept = torch.promote_types(scores.dtype, torch.float32)
    if scores.shape[-2] == 0:
        return scores.detach().to(kept)
    # Scaling all by one factor changes nothing after the first normalisation; subtracting the maximum avoids overflow.
    # float32 underflows for a difference of 2 below an epsilon of 2 / 87.
    scaled = scores.detach().to(torch.float64 if epsilon < 0.025 else kept) / epsilon
    assignment = torch.exp(scaled - scaled.amax((-2, -1), keepdim=True))
    tiny = torch.finfo(assignment.dtype).tiny
    for _ in range(iterations):
        assignment /= assignment.sum(-2, keepdim=True).clamp_(min=tiny)
        assignment /= assignment.sum(-1, keepdim=True).clamp_(min=tiny)
    return assignment.to(kept)
