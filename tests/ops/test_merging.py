"""A tree of clusters, against scipy's own cuts and joins by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster

from selfseg.errors import ConfigError
from selfseg.ops.merging import cut_tree, merge_tree


@pytest.mark.parametrize("spherical", [True, False])
def test_every_cut_is_scipys(spherical: bool) -> None:
    centroids = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    tree = merge_tree(centroids, spherical)
    for k in range(1, 41):
        groups, theirs = cut_tree(tree, k), fcluster(tree, k, "maxclust")
        assert sorted(set(groups.tolist())) == list(range(k))
        assert len({*zip(groups.tolist(), theirs.tolist(), strict=True)}) == k  # the same parts by other names


def test_joins_are_by_the_mean_of_all_pairs() -> None:
    centroids = F.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(1)).double(), dim=1)
    distance = 1 - (centroids @ centroids.T).numpy()
    parts = [{i} for i in range(12)]
    tree = merge_tree(centroids)
    for left in range(11, 0, -1):
        pairs = [(np.mean([distance[i, j] for i in a for j in b]), a, b) for a in parts for b in parts if a is not b]
        _, a, b = min(pairs, key=lambda pair: pair[0])
        parts = [part for part in parts if part is not a and part is not b] + [a | b]
        groups = cut_tree(tree, left)
        assert {frozenset(np.flatnonzero(groups == g).tolist()) for g in range(left)} == set(map(frozenset, parts))


def test_clusters_that_are_equal_can_still_be_cut_at_any_number() -> None:
    tree = merge_tree(torch.ones(6, 3))
    assert [len(set(cut_tree(tree, k).tolist())) for k in range(1, 7)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("k", [0, 7])
def test_more_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(ConfigError, match=r"6 clusters can be merged to 1 .* 6, not to k="):
        cut_tree(merge_tree(torch.rand(6, 3)), k)
