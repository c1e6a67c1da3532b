"""Schedules: pure functions of progress, so a restart needs no state."""

from __future__ import annotations

import math
from collections.abc import Sequence


def warmup_cosine(progress: float, peak: float, warmup: float, final: float) -> float:
    """Linear warm-up, then half a cosine.

    Args:
        progress: share of the training that is done, in [0, 1].
        peak: the highest value.
        warmup: share of the training that the warm-up takes; it starts at 0.
        final: the value at progress 1.

    Returns:
        The value at `progress`.

    Example:
        >>> [round(warmup_cosine(p, 1.0, 0.2, 0.1), 3) for p in (0.0, 0.1, 0.2, 0.6, 1.0)]
        [0.0, 0.5, 1.0, 0.55, 0.1]
    """
    if progress < warmup:
        return peak * progress / warmup
    share = (progress - warmup) / max(1 - warmup, 1e-12)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def warmup_steps(progress: float, peak: float, warmup: float, milestones: Sequence[float]) -> float:
    """Linear warm-up, then a constant value that becomes a tenth at each milestone.

    Args:
        progress: share of the training that is done, in [0, 1].
        peak: the highest value.
        warmup: share of the training that the warm-up takes; it starts at 0.
        milestones: shares of the training.

    Returns:
        The value at `progress`.

    Example:
        >>> [round(warmup_steps(p, 1.0, 0.0, (0.6, 0.8)), 3) for p in (0.0, 0.5, 0.6, 0.7, 0.9)]
        [1.0, 1.0, 0.1, 0.1, 0.01]
    """
    if progress < warmup:
        return peak * progress / warmup
    return peak * math.pow(0.1, sum(progress >= milestone for milestone in milestones))


def warmup_poly(progress: float, peak: float, warmup: float, final: float, power: float = 0.9) -> float:
    """Linear warm-up, then a polynomial decay, (1 - share) ** power ("poly" of DeepLab, where power is 0.9).

    Args:
        progress: share of the training that is done, in [0, 1].
        peak: the highest value.
        warmup: share of the training that the warm-up takes; it starts at 0.
        final: the value at progress 1.
        power: of the polynomial, above 0; 1 is a straight line.

    Returns:
        The value at `progress`.

    Example:
        >>> [round(warmup_poly(p, 1.0, 0.0, 0.0), 3) for p in (0.0, 0.5, 0.9, 1.0)]
        [1.0, 0.536, 0.126, 0.0]
    """
    if progress < warmup:
        return peak * progress / warmup
    share = (progress - warmup) / max(1 - warmup, 1e-12)
    return final + (peak - final) * math.pow(1 - min(share, 1.0), power)
