from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pytest
from scipy.optimize import linprog

from selfseg.errors import ConfigError
from selfseg.ops.matching import match_hungarian, match_largest_iou, match_majority


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


def tables(shape: tuple[int, int], cases: int) -> Iterator[np.ndarray]:
    """Small tables with many zeros: clusters without pixels, classes without truth, equal counts."""
    generator = np.random.default_rng(shape)
    for case in range(cases):
        counts = generator.integers(0, (3, 60)[case % 2], shape) * (generator.random(shape) < generator.random())
        counts[generator.random(shape[0]) < 0.3] = 0
        counts[:, generator.random(shape[1]) < 0.3] = 0
        yield counts


def measure(counts: np.ndarray, mapping: np.ndarray) -> tuple[float, float]:
    """mIoU and accuracy by their definitions, pixel by pixel: sets of pixels for every class."""
    k, classes = counts.shape
    pixels = [(j, c) for j in range(k) for c in range(classes) for _ in range(counts[j, c])]
    ious = []
    for label in range(classes):
        truth = {i for i, (_, c) in enumerate(pixels) if c == label}
        predicted = {i for i, (j, _) in enumerate(pixels) if mapping[j] == label}
        if truth | predicted:
            ious.append(len(truth & predicted) / len(truth | predicted))
    right = sum(mapping[j] == c for j, c in pixels)
    return sum(ious) / max(len(ious), 1), right / max(len(pixels), 1)


def every_map(k: int, classes: int) -> Iterator[np.ndarray]:
    """Every way to give as many clusters as possible a class of their own."""
    if k <= classes:
        yield from (np.array(p) for p in permutations(range(classes), k))
    else:
        for chosen in permutations(range(k), classes):
            mapping = np.full(k, -1)
            mapping[list(chosen)] = range(classes)
            yield mapping


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 4), (3, 3), (4, 4), (3, 2), (5, 3), (5, 1)])
def test_hungarian_beats_every_map_in_what_it_maximises(shape):
    maps = list(every_map(*shape))
    for counts in tables(shape, 60):
        best = [measure(counts, mapping) for mapping in maps]
        assert measure(counts, match_hungarian(counts, "pixels"))[1] == pytest.approx(max(a for _, a in best))
        mapping = match_hungarian(counts)
        assert any((mapping == one).all() for one in maps)
        assert total(counts, mapping, "iou") == pytest.approx(max(total(counts, one, "iou") for one in maps))
        if shape[0] <= shape[1]:
            assert measure(counts, mapping)[0] == pytest.approx(max(miou for miou, _ in best)), counts


def test_a_cluster_is_rather_a_class_that_is_there():
    # The second cluster has no pixel of its own class: two, three and four give no IoU, but only three has truth.
    counts = np.array([[0, 9, 0, 0, 0], [0, 4, 0, 0, 0], [0, 0, 0, 0, 0], [9, 0, 0, 1, 0]])
    assert match_hungarian(counts)[[0, 1, 3]].tolist() == [1, 3, 0]
    # ... and rather than a cluster without pixels.
    assert match_hungarian(np.array([[0, 0, 0], [5, 0, 0], [9, 1, 0]]))[[1, 2]].tolist() in ([0, 1], [1, 0])
    assert match_hungarian(np.array([[5, 0, 0], [0, 0, 0], [9, 0, 0]]), background=True)[0] == 0


@pytest.mark.parametrize("shape", [(21, 21), (27, 40), (64, 21), (300, 11)])
@pytest.mark.parametrize("maximise", ["iou", "pixels"])
def test_hungarian_equals_the_linear_programme(shape, maximise):
    """The corners of the assignment polytope are assignments, so that a linear solver finds the best of them."""
    generator = np.random.default_rng(sum(shape))
    counts = generator.integers(0, 1000, shape) * (generator.random(shape) < 0.3)
    union = counts.sum(1, keepdims=True) + counts.sum(0) - counts
    gain = (counts / union if maximise == "iou" else counts).ravel()
    rows = np.kron(np.eye(shape[0]), np.ones(shape[1]))
    columns = np.tile(np.eye(shape[1]), shape[0])
    found = linprog(-gain, np.vstack([rows, columns]), np.ones(sum(shape)), bounds=(0, 1), method="highs")
    assert total(counts, match_hungarian(counts, maximise), maximise) == pytest.approx(-found.fun)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3), (4, 2), (6, 3)])
def test_majority_is_the_most_accurate_of_all_maps(shape):
    k, classes = shape
    maps = [np.array(p) for p in product(range(classes), repeat=k)]
    for counts in tables(shape, 20):
        mapping = match_majority(counts)
        assert ((mapping == -1) == (counts.sum(1) == 0)).all()
        best = max(sum(counts[j, c] for j, c in enumerate(one)) for one in maps)
        assert sum(counts[j, c] for j, c in enumerate(mapping) if c >= 0) == best
        for j, label in enumerate(mapping):  # the first of equals
            assert label == -1 or all(counts[j, c] < counts[j, label] for c in range(label))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3), (6, 3)])
def test_largest_iou_is_each_cluster_s_own_largest(shape):
    for counts in tables(shape, 20):
        mapping = match_largest_iou(counts)
        for j, label in enumerate(mapping):
            if counts[j].sum() == 0:
                assert label == -1
                continue
            iou = [counts[j, c] / (counts[j].sum() + counts[:, c].sum() - counts[j, c]) for c in range(shape[1])]
            assert label == iou.index(max(iou))
