"""From many small clusters to few: a tree that is cut at any number, without clustering again.

Average linkage (R. Sokal & C. Michener, "A statistical method for evaluating systematic relationships", 1958, UPGMA) of
the centroids: k-means with many clusters follows the fine differences between vectors, and the tree then joins what is
alike, whatever its size. k-means with few clusters cuts the large ones instead and drowns the small ones.

Letters: M small clusters, K that are left, D dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from torch import Tensor

from selfseg.errors import ConfigError


def merge_tree(centroids: Tensor, spherical: bool = True) -> NDArray[np.float64]:
    """Which clusters are joined, one pair after the other.

    Args:
        centroids: (M, D) float, M at least 2.
        spherical: whether distance is that of directions (1 - cosine), else Euclid's.

    Returns:
        (M - 1, 4), as `scipy.cluster.hierarchy.linkage` has it.
    """
    points = centroids.detach().cpu().double().numpy()
    tree: NDArray[np.float64] = linkage(points, "average", "cosine" if spherical else "euclidean")
    return tree


def cut_tree(tree: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """The clusters that are left when K are.

    Args:
        tree: of M clusters, from `merge_tree`.
        k: K, from 1 to M.

    Returns:
        (M,) int64 in [0, K), numbered by first occurrence.

    Raises:
        ConfigError: if there are fewer than K clusters.

    Example:
        >>> import torch
        >>> tree = merge_tree(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]]))
        >>> cut_tree(tree, 2).tolist()
        [0, 1, 0]
    """
    most = len(tree) + 1
    if not 1 <= k <= most:
        raise ConfigError(f"{most} clusters can be merged to 1 ... {most}, not to k={k}; raise merge or lower k")
    # The K - 1 last joins are undone. By number and not by distance: equal distances must not leave fewer than K.
    parent = np.arange(2 * most - 1)
    for step, (a, b) in enumerate(tree[: most - k, :2].astype(int)):
        parent[a] = parent[b] = most + step
    for node in range(len(parent) - 1, -1, -1):
        parent[node] = parent[parent[node]]
    roots = parent[:most]
    _, first, inverse = np.unique(roots, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]
