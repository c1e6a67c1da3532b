"""Absorbing Markov chain: how long a random walk from a superpixel takes to reach the image's frame.

Jiang, Zhang, Lu, Yang, Yang, "Saliency Detection via Absorbing Markov Chain", ICCV 2013
(https://doi.org/10.1109/ICCV.2013.209), with the paper's parameters.

Each superpixel at the frame has a virtual copy that absorbs. A walk goes to neighbours (two steps wide) of like colour
with more probability; the expected number of steps until it is absorbed, y = (I - Q)^-1 1, is the saliency.

Deviations: superpixels at the frame reach every absorbing copy, not only the near ones, in place of the paper's update
for homogeneous backgrounds, which needs a threshold of its own; colour distances are scaled as in `ranking`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfseg.masks.priors.ranking import weigh
from selfseg.masks.priors.scene import Array, Scene, enhance


def absorbed_time(inner: NDArray[np.float64], absorbing: NDArray[np.float64]) -> NDArray[np.float64]:
    """The expected number of steps of a random walk until it is absorbed.

    Args:
        inner: (N, N) weights between the transient states.
        absorbing: (N, A) weights to the absorbing states.

    Returns:
        (N,) for a walk that begins in each transient state.

    Example:
        >>> absorbed_time(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0], [0.0]])).tolist()
        [3.0, 4.0]
    """
    total = inner.sum(1) + absorbing.sum(1)
    # Multiplied by the sums of weights, so that states whose colours are unlike all others stay finite.
    steps: NDArray[np.float64] = np.linalg.solve(np.diag(total) - inner, total)
    return steps


def markov(scene: Scene) -> Array:
    """Saliency by absorbed time: (h, w) float32 in [0, 1]."""
    at_frame = scene.at_frame
    # Copies of frame superpixels have their neighbours and themselves as neighbours; and see above.
    to_copies = scene.near | at_frame[:, None] | np.eye(len(at_frame), dtype=bool)
    absorbing = weigh(scene, to_copies & at_frame)[:, at_frame]
    return scene.spread(enhance(absorbed_time(weigh(scene, scene.near), absorbing)))
