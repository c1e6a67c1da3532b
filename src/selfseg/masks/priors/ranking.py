"""Graph-based manifold ranking: superpixels ranked by relevance to the image's sides, then to what differs from them.

Yang, Zhang, Lu, Ruan, Yang, "Saliency Detection via Graph-Based Manifold Ranking", CVPR 2013
(https://doi.org/10.1109/CVPR.2013.407), with the paper's parameters.

Colour distances are divided by the largest between neighbours, so that sigma^2 means the same in images of little
contrast (the paper gives its sigma for colours in [0, 1], without saying how they get there).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfseg.masks.priors.scene import Array, Scene, distances, enhance, unit_range

_ALPHA = 0.99
_SIGMA_SQUARED = 0.1


def affinity(scene: Scene) -> NDArray[np.float64]:
    """The weights of the graph: (N, N) float64, symmetric.

    A superpixel's neighbours are those it touches and those that they touch; all at the frame are each other's.
    """
    return weigh(scene, scene.linked)


def weigh(scene: Scene, edges: NDArray[np.bool_]) -> NDArray[np.float64]:
    """exp(-d / sigma^2) with d the distance in colour, 1 for the largest along an edge; 0 without an edge: (N, N)."""
    distance = np.asarray(distances(scene.colours), np.float64)
    largest = float(distance[edges].max(initial=0.0))
    near: NDArray[np.float64] = np.exp(-distance / max(largest * _SIGMA_SQUARED, 1e-6)) * edges
    return near


def rank_all(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """What ranks superpixels by any queries: A = (D - alpha W)^-1 with a diagonal of 0; the ranks are A y.

    The diagonal is a query's relevance to itself, which says nothing.
    """
    matrix = np.diag(weights.sum(1) + 1e-6) - _ALPHA * weights  # a superpixel that is alone has no edges at all
    ranks = np.asarray(np.linalg.inv(matrix), np.float64)
    np.fill_diagonal(ranks, 0)
    return ranks


def ranking(scene: Scene) -> Array:
    """Saliency by manifold ranking: (h, w) float32 in [0, 1]."""
    return scene.spread(enhance(rank_by(scene, affinity(scene))))


def rank_by(scene: Scene, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relevance to what is unlike all four sides, by the weights (N, N) of any graph: (N,), larger = more salient."""
    ranks = rank_all(weights)
    background = np.ones(len(scene.areas))
    for side in scene.sides:  # what is unlike all four
        background *= 1 - unit_range(ranks @ side)
    relevance: NDArray[np.float64] = ranks @ (background > background.mean())
    return relevance
