"""Counting agreement: a streaming confusion matrix and the metrics of a whole split.

Letters: C classes. Rows are truth, columns prediction. A column after the last class, "none", takes pixels whose
prediction is no class (clusters that matching left over): they are misses of their true class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError, LabelError

VOID = 255
"""The label of pixels that are left out of everything."""


@dataclass(frozen=True)
class Metrics:
    """What a confusion matrix says, as fractions.

    Attributes:
        miou: the mean of `class_iou` over the classes that have one.
        accuracy: labelled pixels predicted right.
        class_iou: C intersections over unions; None for a class with neither truth nor prediction, which the mean
            leaves out.
    """

    miou: float
    accuracy: float
    class_iou: tuple[float | None, ...]


def metrics_of(counts: NDArray[np.int64]) -> Metrics:
    """Metrics of a table of counts.

    Args:
        counts: (C, C) or, with "none" as the last column, (C, C + 1).

    Returns:
        The metrics; all 0 for a table without pixels.

    Raises:
        ConfigError: for another shape.

    Example:
        >>> metrics_of(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
        Metrics(miou=0.775, accuracy=0.875, class_iou=(0.75, 0.8, None))
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] - counts.shape[0] not in (0, 1):
        raise ConfigError(f"a confusion matrix is (C, C) or (C, C + 1), not {counts.shape}")
    classes = len(counts)
    hit = counts.diagonal().astype(np.float64)
    union = counts.sum(1) + counts[:, :classes].sum(0) - hit
    iou = tuple(float(h / u) if u > 0 else None for h, u in zip(hit, union, strict=True))
    present = [value for value in iou if value is not None]
    total = int(counts.sum())
    return Metrics(
        miou=float(np.mean(present)) if present else 0.0,
        accuracy=float(hit.sum() / total) if total else 0.0,
        class_iou=iou,
    )


class ConfusionMatrix:
    """Adds up predictions against labels, image by image.

    Attributes:
        counts: (C, C + 1) int64; rows = truth, columns = prediction, the last one "none".
        void: pixels left out so far.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.add(np.array([[0, 1], [1, 255]]), np.array([[0, 1], [0, 0]]))
        >>> matrix.counts.tolist(), matrix.void
        ([[1, 0, 0], [1, 1, 0]], 1)
    """

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise ConfigError(f"a confusion matrix needs at least 1 class, not {classes}")
        self.classes = classes
        self.counts = np.zeros((classes, classes + 1), np.int64)
        self.void = 0

    def add(self, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> None:
        """Count an image, or any other array of pixels.

        Args:
            truth: (...) integers in [0, C) or 255 = void.
            prediction: the same shape, integers in [0, C) or -1 = none.

        Raises:
            LabelError: for shapes that differ, or a value of neither kind.
        """
        if truth.shape != prediction.shape:
            raise LabelError(f"truth is {truth.shape} and prediction {prediction.shape}; their shapes must be equal")
        counts, void = cross_counts(truth, prediction, self.classes, self.classes + 1)
        self.counts += counts
        self.void += void

    @property
    def metrics(self) -> Metrics:
        """Of what was added up to now."""
        return metrics_of(self.counts)


def cross_counts(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], rows: int, columns: int
) -> tuple[NDArray[np.int64], int]:
    """How often each pair of values occurs.

    Args:
        truth: (...) integers in [0, rows) or 255 = void.
        prediction: the same shape, integers in [0, columns); -1 counts as columns - 1.
        rows: number of true values.
        columns: number of predicted values.

    Returns:
        (rows, columns) int64 counts, and the number of void pixels.

    Raises:
        LabelError: for a value outside.
    """
    truth, prediction = truth.reshape(-1), prediction.reshape(-1)
    if truth.dtype == np.uint8 and rows <= VOID:  # as labels come
        table = _table(truth, prediction, rows, columns)
        if not table[rows + 1].any() and not table[:rows, -1].any():  # all inside; void's predictions don't matter
            table[:rows, columns] += table[:rows, 0]
            return table[:rows, 1:-1].copy(), int(table[rows].sum())
    keep = truth != VOID
    void = int(keep.size - np.count_nonzero(keep))
    if void:
        truth, prediction = truth[keep], prediction[keep]
    if truth.size == 0:
        return np.zeros((rows, columns), np.int64), void
    low, high = int(truth.min()), int(truth.max())
    if low < 0 or high >= rows:
        wrong = low if low < 0 else high
        raise LabelError(f"label {wrong} is outside of the {rows} classes 0..{rows - 1}, and is not 255 (void)")
    low, high = int(prediction.min()), int(prediction.max())
    if low < -1 or high >= columns:
        raise LabelError(f"prediction {low if low < -1 else high} is outside of -1..{columns - 1}")
    prediction = prediction.astype(np.int64)
    if low == -1:
        prediction = np.where(prediction < 0, columns - 1, prediction)
    pairs = np.bincount(truth * np.int64(columns) + prediction, minlength=rows * columns)
    return pairs.reshape(rows, columns), void


def _table(truth: NDArray[np.integer], prediction: NDArray[np.integer], rows: int, columns: int) -> NDArray[np.int64]:
    """(rows + 2, columns + 2) counts of uint8 labels.

    After the classes a row of void and one of labels outside; columns are -1, 0 ... columns - 1, predictions outside.
    """
    from selfseg.ops.kernels.confusion_cpu import count_pairs

    table = np.zeros((rows + 2, columns + 2), np.int64)
    start = np.full(256, rows + 1, np.uint64)
    start[:rows], start[VOID] = np.arange(rows), rows
    start *= np.uint64(columns + 2)
    # The compiled form takes arrays that may be written; those of np.asarray(Image.open(...)) may not.
    labels: NDArray[np.uint8] = np.require(truth, np.uint8, ["C", "W"])
    pixels = np.require(prediction, np.int64, ["C", "W"])
    count_pairs(labels, pixels, start, np.uint64(columns + 1), table.ravel())
    return table


def map_clusters(counts: NDArray[np.int64], mapping: NDArray[np.int64]) -> NDArray[np.int64]:
    """The confusion matrix that clusters give once each stands for a class.

    Args:
        counts: (k, C) pixels of class c in cluster j.
        mapping: (k,) the class of each cluster, or -1.

    Returns:
        (C, C + 1) int64; rows = truth, the last column takes clusters without a class.

    Example:
        >>> map_clusters(np.array([[5, 1], [0, 2], [1, 0]]), np.array([0, 1, -1])).tolist()
        [[5, 0, 1], [1, 2, 0]]
    """
    classes = counts.shape[1]
    result = np.zeros((classes, classes + 1), np.int64)
    np.add.at(result.T, np.where(mapping < 0, classes, mapping), counts)
    return result


def mean_class_iou(metrics: Sequence[Metrics]) -> tuple[float | None, ...]:
    """Per class, the mean over seeds of those that have an IoU; None where no seed has."""
    result: list[float | None] = []
    for values in zip(*(m.class_iou for m in metrics), strict=True):
        present = [value for value in values if value is not None]
        result.append(float(np.mean(present)) if present else None)
    return tuple(result)
