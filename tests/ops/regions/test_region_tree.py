import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage

from selfseg.errors import ConfigError
from selfseg.ops.regions.region_tree import cut_regions, region_tree


def grid(height: int, width: int) -> NDArray[np.int64]:
    return np.arange(height * width).reshape(height, width)


def drawn(count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    return generator.random((count, 3)), generator.random(count) + 0.1


def test_equals_the_definition_by_nested_loops() -> None:
    regions = grid(4, 5)
    features, areas = drawn(20)
    tree = region_tree(regions, features, areas)
    sums, weights = dict(enumerate(features * areas[:, None])), dict(enumerate(areas))
    touching = {frozenset((i * 5 + j, i * 5 + j + 1)) for i in range(4) for j in range(4)}
    touching |= {frozenset((i * 5 + j, i * 5 + j + 5)) for i in range(3) for j in range(5)}

    def cost(pair: frozenset[int]) -> float:
        a, b = pair
        difference = sums[a] / weights[a] - sums[b] / weights[b]
        return float(difference @ difference) * weights[a] * weights[b] / (weights[a] + weights[b])

    for merge, (one, two, height) in enumerate(tree):
        best = min(touching, key=cost)
        assert best == {int(one), int(two)}
        assert height == pytest.approx(max(cost(best), *tree[:merge, 2].tolist(), 0.0), rel=1e-4)
        new = 20 + merge
        sums[new], weights[new] = sum(sums[i] for i in best), sum(weights[i] for i in best)
        touching = {frozenset(new if i in best else i for i in pair) for pair in touching if pair != best}


def test_where_all_touch_it_is_wards_linkage() -> None:
    count = 7
    # Every region touches every other somewhere.
    regions = np.array([[i, j] for i in range(count) for j in range(count)]).reshape(-1, 2)
    features = drawn(count)[0]
    tree = region_tree(regions, features, np.ones(count))
    expected = linkage(features, "ward")
    assert tree[:, :2].tolist() == expected[:, :2].tolist()
    assert np.allclose(tree[:, 2], expected[:, 2] ** 2 / 2, rtol=1e-4)


def test_cuts_are_nested_connected_and_of_the_size_that_was_asked_for() -> None:
    regions = grid(6, 7)
    tree = region_tree(regions, *drawn(42))
    coarser = cut_regions(tree, 1)
    for count in range(2, 43):
        finer = cut_regions(tree, count)
        assert set(finer.tolist()) == set(range(count))
        assert all(len(set(coarser[finer == group].tolist())) == 1 for group in range(count))
        coarser = finer
    assert coarser.tolist() == list(range(42))


def test_what_is_given_is_left_as_it_was() -> None:
    features, areas = (values.astype(np.float32) for values in drawn(12))
    before = features.copy(), areas.copy()
    region_tree(grid(3, 4), features, areas)
    assert (features == before[0]).all()
    assert (areas == before[1]).all()


def test_one_region_has_an_empty_tree() -> None:
    tree = region_tree(np.zeros((3, 3), np.int64), np.ones((1, 2)), np.ones(1))
    assert tree.shape == (0, 3)
    assert cut_regions(tree, 1).tolist() == [0]


@pytest.mark.parametrize("count", [0, 13])
def test_more_groups_than_regions_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="12 regions are cut into 1 to 12 groups"):
        cut_regions(region_tree(grid(3, 4), *drawn(12)), count)
