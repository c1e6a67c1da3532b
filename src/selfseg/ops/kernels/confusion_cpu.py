"""The compiled CPU kernel of `selfseg.evaluation.measure.confusion.cross_counts`.

Imported on the first call only, see `selfseg.ops.kernels.slic_cpu`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfseg.ops.kernels.slic_cpu import compiled


@compiled("void(u1[::1], i8[::1], u8[::1], u8, i8[::1])")
def count_pairs(
    truth: NDArray[np.uint8],
    prediction: NDArray[np.int64],
    start: NDArray[np.uint64],
    last: np.uint64,
    table: NDArray[np.int64],
) -> None:
    """Count pairs of values.

    Neighbouring pixels mostly are the same pair, and adding to a number in memory waits for the addition before: four
    quarters of the image take turns. Nothing branches, so that ragged regions cost no more than smooth ones.

    Args:
        truth: (N,).
        prediction: (N,).
        start: (256,), where in the table the row of each true value begins.
        last: the place in a row of predictions below -1 or above last - 2; any p in between has the place p + 1.
        table: flat, added to.
    """
    quarter = len(truth) // 4
    for i in range(quarter):
        j, k, m = i + quarter, i + 2 * quarter, i + 3 * quarter
        # Without its sign, a prediction below -1 is huge.
        table[start[truth[i]] + min(np.uint64(prediction[i] + 1), last)] += 1
        table[start[truth[j]] + min(np.uint64(prediction[j] + 1), last)] += 1
        table[start[truth[k]] + min(np.uint64(prediction[k] + 1), last)] += 1
        table[start[truth[m]] + min(np.uint64(prediction[m] + 1), last)] += 1
    for i in range(4 * quarter, len(truth)):
        table[start[truth[i]] + min(np.uint64(prediction[i] + 1), last)] += 1
