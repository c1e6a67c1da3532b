from __future__ import annotations

import numpy as np
import pytest

from selfseg.errors import ConfigError
from selfseg.ops.regions import superpixel_quality as quality


def by_definition(regions: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Undersegmentation error and achievable accuracy, as loops over the definitions."""
    error, best = 0, 0
    for region in np.unique(regions):
        inside = regions == region
        best += max(int((inside & (truth == segment)).sum()) for segment in np.unique(truth))
        for segment in np.unique(truth):
            both = int((inside & (truth == segment)).sum())
            error += min(both, int(inside.sum()) - both)
    return error / truth.size, best / truth.size


def test_against_the_definitions() -> None:
    random = np.random.default_rng(0)
    regions, truth = random.integers(0, 12, (20, 30)), random.integers(3, 8, (20, 30)).astype(np.uint8)
    error, accuracy = by_definition(regions, truth)
    assert quality.undersegmentation_error(regions, truth) == pytest.approx(error)
    assert quality.achievable_segmentation_accuracy(regions, truth) == pytest.approx(accuracy)


def test_explained_variation_is_one_minus_the_rest() -> None:
    random = np.random.default_rng(0)
    regions, image = random.integers(0, 5, (20, 30)), random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    rest = sum(((image[regions == r] - image[regions == r].mean(0)) ** 2).sum() for r in range(5))
    total = ((image.reshape(-1, 3) - image.reshape(-1, 3).mean(0)) ** 2).sum()
    assert quality.explained_variation(regions, image) == pytest.approx(1 - rest / total)
    assert quality.explained_variation(regions, np.full((20, 30, 3), 9)) == 1


def test_a_perfect_partition_scores_best() -> None:
    truth = np.arange(60)[:, None] // 20 * 3 + np.arange(90) // 30
    assert quality.boundary_recall(truth, truth, tolerance=0) == 1
    assert quality.undersegmentation_error(truth, truth) == 0
    assert quality.achievable_segmentation_accuracy(truth, truth) == 1
    assert quality.explained_variation(truth, np.dstack([truth] * 3)) == pytest.approx(1)


@pytest.mark.parametrize(("shift", "recall"), [(0, 1), (2, 1), (3, 0), (-2, 1), (-3, 0)])
def test_boundary_recall_forgives_up_to_the_tolerance(shift: int, recall: float) -> None:
    truth, regions = np.zeros((10, 40), int), np.zeros((10, 40), int)
    truth[:, 20:] = 1
    regions[:, 20 + shift :] = 1
    assert quality.boundary_recall(regions, truth, tolerance=2) == recall


def test_without_a_boundary_in_the_truth_recall_is_one() -> None:
    assert quality.boundary_recall(np.eye(4, dtype=int), np.zeros((4, 4), int)) == 1


def test_sizes_must_agree() -> None:
    small, large = np.zeros((4, 4), int), np.zeros((4, 5), int)
    for measure in (
        quality.boundary_recall,
        quality.undersegmentation_error,
        quality.achievable_segmentation_accuracy,
    ):
        with pytest.raises(ConfigError, match=r"\(4, 4\).*\(4, 5\)"):
            measure(small, large)
    with pytest.raises(ConfigError, match=r"\(4, 4\).*\(4, 5, 3\)"):
        quality.explained_variation(small, np.zeros((4, 5, 3)))
    with pytest.raises(ConfigError, match="-1"):
        quality.boundary_recall(small, small, tolerance=-1)
