"""Which class does a cluster stand for? Maps from clusters to classes, made from counts of pixels.

Letters: k clusters, C classes. Counts are (k, C): counts[j, c] = labelled pixels of class c in cluster j.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from selfseg.errors import ConfigError

Maximise = Literal["iou", "pixels"]
"""What a one-to-one matching adds up."""
NONE = -1  # a cluster that stands for no class


def match_hungarian(
    counts: NDArray[np.int64], maximise: Maximise = "iou", background: bool = False
) -> NDArray[np.int64]:
    """One cluster per class, one class per cluster: the assignment with the largest total.

    Args:
        counts: (k, C) pixels. With k > C, k - C clusters stay without a class; with k < C, C - k classes stay
            without a cluster.
        maximise: "iou" adds up the IoU of each matched pair, and thereby mIoU; "pixels" adds up pixels, and thereby
            accuracy. Of equal totals one is taken that gives clusters with pixels as few classes without truth as can
            be, which makes the mIoU of "iou" the largest there is for k <= C.
        background: the first cluster is the first class, whatever it holds; the others get other classes.

    Returns:
        (k,) int64, the class of each cluster or -1.

    Raises:
        ConfigError: for counts of another shape or an unknown `maximise`.

    Example:
        >>> match_hungarian(np.array([[1, 9], [8, 2]])).tolist()
        [1, 0]
    """
    counts = _checked(counts)
    if maximise == "iou":
        gain = _iou(counts)
    elif maximise == "pixels":
        gain = counts.astype(np.float64)
    else:
        raise ConfigError(f'maximise must be "iou" or "pixels", not {maximise!r}')
    mapping, first = np.full(len(counts), NONE, np.int64), int(background)
    mapping[:first] = 0
    clusters, classes = linear_sum_assignment(gain[first:, first:], maximize=True)
    mapping[clusters + first] = classes + first
    return _without_false_alarms(mapping, counts, first)


def _without_false_alarms(mapping: NDArray[np.int64], counts: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """A map with the same total gain, in which a class without truth is a cluster's only if no other class is open.

    A class that is nowhere true and nowhere predicted has no IoU; a cluster with its name gives it one of 0, which mIoU
    counts. Open to that cluster is a true class of no cluster or of one without pixels; with it the gain stays 0, or
    the assignment would not have been the best.
    """
    true, filled = counts.sum(0) > 0, counts.sum(1) > 0
    for cluster in range(first, len(mapping)):
        if not filled[cluster] or mapping[cluster] == NONE or true[mapping[cluster]]:
            continue
        named = np.zeros(len(true), bool)
        named[mapping[filled & (mapping != NONE)]] = True
        named[:first] = True
        open_classes = np.flatnonzero(true & ~named)
        if len(open_classes):
            mapping[mapping == open_classes[0]] = mapping[cluster]
            mapping[cluster] = open_classes[0]
    return mapping


def match_majority(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each cluster stands for the class that most of its labelled pixels have; several may share a class.

    Args:
        counts: (k, C) pixels.

    Returns:
        (k,) int64, the class of each cluster (the first of equals), or -1 for a cluster without labelled pixels.

    Raises:
        ConfigError: for counts of another shape.

    Example:
        >>> match_majority(np.array([[1, 9], [2, 7], [0, 0]])).tolist()
        [1, 1, -1]
    """
    counts = _checked(counts)
    return np.where(counts.sum(1) > 0, counts.argmax(1), NONE).astype(np.int64)


def match_largest_iou(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each cluster stands for the class that its IoU is largest with; several may share a class.

    A small class gets clusters that the majority gives to a large one which reaches into them.

    Args:
        counts: (k, C) pixels.

    Returns:
        (k,) int64, the class of each cluster (the first of equals), or -1 for a cluster without labelled pixels.

    Raises:
        ConfigError: for counts of another shape.

    Example:
        >>> counts = np.array([[90, 9], [10, 9]])  # of 100 and 18 pixels
        >>> match_largest_iou(counts).tolist(), match_majority(counts).tolist()
        ([0, 1], [0, 0])
    """
    counts = _checked(counts)
    return np.where(counts.sum(1) > 0, _iou(counts).argmax(1), NONE).astype(np.int64)


def _iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(k, C) IoU of each cluster with each class."""
    union = counts.sum(1, keepdims=True) + counts.sum(0, keepdims=True) - counts
    shares: NDArray[np.float64] = counts / np.maximum(union, 1)
    return shares


def overlaps(first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]], k: int) -> NDArray[np.int64]:
    """How many points are in which two clusters.

    Args:
        first: integers in [0, K), of any shape.
        second: of the same points, in [0, K).
        k: K.

    Returns:
        (K, K) int64, rows are the first's clusters.

    Example:
        >>> overlaps(np.array([[0, 0, 1]]), np.array([[1, 1, 0]]), 2).tolist()
        [[0, 2], [1, 0]]
    """
    joined = first.astype(np.int64).ravel() * k + second.astype(np.int64).ravel()
    return np.bincount(joined, minlength=k * k).reshape(k, k)


def adjusted_rand(counts: NDArray[np.int64]) -> float:
    """How far two groupings of the same points agree on which pairs belong together, beyond chance.

    L. Hubert & P. Arabie, "Comparing partitions", Journal of Classification 1985.

    Args:
        counts: (k, C) points in both.

    Returns:
        1 for equal groupings, about 0 for independent ones; below 0 for less than chance.

    Raises:
        ConfigError: for counts of another shape, or of fewer than two points.

    Example:
        >>> adjusted_rand(np.array([[3, 0], [0, 5]])), adjusted_rand(np.array([[4, 4], [4, 4]])) < 0
        (1.0, True)
    """
    table = _checked(counts).astype(np.float64)
    if table.sum() < 2:
        raise ConfigError(f"agreement is that of pairs of points; here are {table.sum():.0f} points")

    def pairs(numbers: NDArray[np.float64]) -> float:
        return float((numbers * (numbers - 1) / 2).sum())

    both, first, second = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    chance = first * second / pairs(table.sum(keepdims=True))
    most = (first + second) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


def _checked(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = np.asarray(counts)
    if counts.ndim != 2 or 0 in counts.shape or (counts < 0).any():
        raise ConfigError(f"matching needs a (k, C) table of counts of at least 0, not shape {counts.shape}")
    return counts
