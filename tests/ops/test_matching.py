from itertools import permutations

import numpy as np
import pytest

from selfseg.errors import ConfigError
from selfseg.ops.matching import match_hungarian, match_majority


def total(counts: np.ndarray, mapping: np.ndarray, maximise: str) -> float:
    value = 0.0
    for cluster, label in enumerate(mapping):
        if label >= 0:
            hit = counts[cluster, label]
            union = counts[cluster].sum() + counts[:, label].sum() - hit
            value += hit / max(union, 1) if maximise == "iou" else hit
    return value


def brute_force(counts: np.ndarray, maximise: str) -> float:
    k, classes = counts.shape
    labels = list(range(classes)) + [-1] * max(k - classes, 0)
    return max(total(counts, np.array(p), maximise) for p in set(permutations(labels, k)))


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (1, 3), (6, 1)])
@pytest.mark.parametrize("maximise", ["iou", "pixels"])
def test_hungarian_is_the_best_of_all(shape, maximise):
    generator = np.random.default_rng(0)
    for _ in range(10):
        counts = generator.integers(0, 50, shape) * generator.integers(0, 2, shape)
        mapping = match_hungarian(counts, maximise)
        used = mapping[mapping >= 0]
        assert len(used) == len(set(used)) == min(shape)
        assert total(counts, mapping, maximise) == pytest.approx(brute_force(counts, maximise))


def test_iou_and_pixels_can_disagree():
    counts = np.array([[4, 0, 0], [8, 1, 8], [1, 0, 9]])
    assert match_hungarian(counts, "pixels").tolist() == [1, 0, 2]  # 8 + 9 pixels beat 4 + 1 + 9
    assert match_hungarian(counts).tolist() == [0, 1, 2]


def test_majority_lets_clusters_share_a_class():
    counts = np.array([[5, 4, 0], [9, 1, 1], [0, 0, 2], [0, 0, 0], [3, 3, 0]])
    assert match_majority(counts).tolist() == [0, 0, 2, -1, 0]


def test_bad_tables():
    with pytest.raises(ConfigError, match=r"\(3,\)"):
        match_majority(np.zeros(3, np.int64))
    with pytest.raises(ConfigError, match="greedy"):
        match_hungarian(np.ones((2, 2), np.int64), "greedy")


def test_the_background_is_the_first_cluster_whatever_it_holds():
    counts = np.array([[1, 90, 0], [50, 2, 8], [40, 30, 1]])
    assert match_hungarian(counts).tolist() != [0, 2, 1]
    assert match_hungarian(counts, background=True).tolist() == [0, 2, 1]
    more = np.vstack([counts, [[0, 0, 50]]])
    assert match_hungarian(more, background=True).tolist() == [0, -1, 1, 2]
    assert match_hungarian(counts[:1], background=True).tolist() == [0]
