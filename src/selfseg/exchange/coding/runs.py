"""The runs of equal pixels in a label image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def runs_of(labels: NDArray[Any], ignored: int) -> dict[int, NDArray[np.int64]]:
    """For each label, how many pixels are not its, are its, are not its, ... in turn.

    Args:
        labels: any shape of whole numbers, gone through in C order; `labels.T` for columns first.
        ignored: a label that is passed over.

    Returns:
        By label in ascending order, (n,) int64 counts whose sum is the number of pixels; the first may be 0, the others
        are not.

    Example:
        >>> {label: runs.tolist() for label, runs in runs_of(np.array([7, 7, 5, 9, 7]), ignored=9).items()}
        {5: [2, 1, 2], 7: [0, 2, 2, 1]}
    """
    flat = labels.reshape(-1)
    first = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(first[1:], flat.size)
    value = flat[first]
    order = np.argsort(value, kind="stable")
    bounds = np.flatnonzero(np.diff(value[order])) + 1
    found = {}
    for chosen in np.split(order, bounds):
        label = int(value[chosen[0]])
        if label == ignored:
            continue
        edges = np.stack([first[chosen], ends[chosen]], 1).ravel()
        if edges[-1] < flat.size:
            edges = np.append(edges, flat.size)
        found[label] = np.diff(edges, prepend=0).astype(np.int64)
    return found
