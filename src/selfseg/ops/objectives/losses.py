"""Objectives and what is logged beside them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def swapped_prediction(scores: Tensor, assignment: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Cross entropy between assignments and predictions (SwAV; ViCE eq. 3).

    Args:
        scores: (V, I, K) cosines of V views' regions to the prototypes.
        assignment: (I, K) targets, no gradient.
        weight: (I,) weight of each region.
        temperature: of the softmax over scores.

    Returns:
        Scalar: sum over regions of weight * cross entropy, mean over the V views.
    """
    log_prediction = F.log_softmax(scores / temperature, dim=2)
    per_region = torch.einsum("vik,ik->vi", log_prediction, assignment)
    loss: Tensor = -(per_region * weight).sum() / scores.shape[0]
    return loss


def info_nce(queries: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Contrast with one positive each and shared negatives (InfoNCE; MoCo, He et al., CVPR 2020, eq. 1).

    Args:
        queries: (N, D) unit length.
        positives: (N, D) unit length, each query's own.
        negatives: (M, D) unit length, the same for all queries; M may be 0.
        temperature: of the softmax over the positive and the negatives.

    Returns:
        (N,) the loss of each query, and (N,) bool, whether it is at least as near to its positive as to all negatives.

    Example:
        >>> each, found = info_nce(torch.eye(2), torch.eye(2), torch.eye(2)[:1], 1.0)
        >>> each, found  # log 2, log(1 + 1 / e)
        (tensor([0.6931, 0.3133]), tensor([True, True]))
    """
    own = (queries * positives).sum(1, keepdim=True)
    scores = torch.cat([own, queries @ negatives.T], dim=1) / temperature  # (N, 1 + M)
    return scores.logsumexp(1) - scores[:, 0], scores.detach().amax(1) <= scores.detach()[:, 0]


def balanced_bce(logits: Tensor, foreground: Tensor, background_share: Tensor) -> Tensor:
    """Binary cross entropy in which both classes have the same say (S. Xie, Z. Tu: HED, ICCV 2015, eq. 2).

    Args:
        logits: (...) float, of the foreground.
        foreground: (...) bool.
        background_share: scalar w, the share of background in the whole batch, in [0, 1].

    Returns:
        Scalar: the mean over pixels of w * cross entropy where there is foreground, (1 - w) * cross entropy elsewhere.

    Example:
        >>> foreground = torch.tensor([True, False, False, False])
        >>> balanced_bce(torch.zeros(4), foreground, torch.tensor(0.75))  # ln 2 * (0.75 + 3 * 0.25) / 4
        tensor(0.2599)
    """
    weight = torch.where(foreground, background_share, 1 - background_share).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, foreground.to(logits.dtype), weight)


def usage_entropy(assignment: Tensor) -> Tensor:
    """How evenly prototypes are used: entropy of the mean assignment as a fraction of log K.

    Args:
        assignment: (N, K) rows that sum to 1.

    Returns:
        Scalar in [0, 1]; 1 = all equally, 0 = one takes everything. 0 for N = 0.
    """
    if assignment.shape[0] == 0:
        return assignment.new_zeros(())
    usage = assignment.mean(0)
    entropy: Tensor = torch.special.entr(usage).sum()
    return entropy / math.log(max(assignment.shape[1], 2))


def effective_rank(vectors: Tensor) -> Tensor:
    """Effective rank: exp of the entropy of the covariance's spectrum (Roy and Vetterli 2007).

    Args:
        vectors: (N, D) float.

    Example:
        >>> effective_rank(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])).round(decimals=3)
        tensor(2.)

    Returns:
        Scalar in [1, D]; near 1 = all vectors vary along one direction. 0 for fewer than two vectors or
        when one is not finite.
    """
    if vectors.shape[0] < 2 or not bool(torch.isfinite(vectors).all()):
        return vectors.new_zeros(())
    centred = (vectors - vectors.mean(0)).double()
    spectrum = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0)
    share = spectrum / spectrum.sum().clamp(min=1e-30)
    rank: Tensor = torch.special.entr(share).sum().exp()
    return rank.to(vectors.dtype)
