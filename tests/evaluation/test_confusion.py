import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

from selfseg.errors import ConfigError, LabelError
from selfseg.evaluation.confusion import ConfusionMatrix, map_clusters, mean_class_iou, metrics_of


def draw(classes: int, seed: int, size: tuple[int, ...] = (40, 50)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, size).astype(np.uint8)
    prediction = np.where(generator.random(size) < 0.5, truth, generator.integers(0, classes, size)).astype(np.int64)
    truth[generator.random(size) < 0.1] = 255
    return truth, prediction


def test_equals_torchmetrics_over_a_stream():
    matrix = ConfusionMatrix(6)
    pairs = [draw(6, seed) for seed in range(3)]
    for truth, prediction in pairs:
        matrix.add(truth, prediction)
    truth = torch.from_numpy(np.stack([t for t, _ in pairs])).long()
    prediction = torch.from_numpy(np.stack([p for _, p in pairs]))
    options = {"num_classes": 6, "ignore_index": 255}
    assert (matrix.counts[:, :6] == multiclass_confusion_matrix(prediction, truth, **options).numpy()).all()
    assert matrix.void == int((truth == 255).sum())
    metrics = matrix.metrics
    theirs = multiclass_jaccard_index(prediction, truth, average="none", **options)
    np.testing.assert_allclose(metrics.class_iou, theirs.numpy(), rtol=1e-5)
    assert metrics.miou == pytest.approx(float(theirs.mean()), rel=1e-5)
    accuracy = multiclass_accuracy(prediction, truth, average="micro", **options)
    assert metrics.accuracy == pytest.approx(float(accuracy), rel=1e-5)


def test_an_absent_class_is_left_out_but_a_false_alarm_counts():
    absent = metrics_of(np.array([[4, 0, 0], [0, 4, 0], [0, 0, 0]]))
    assert absent.class_iou == (1.0, 1.0, None)
    assert absent.miou == 1.0
    alarmed = metrics_of(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]))
    assert alarmed.class_iou == (0.75, 1.0, 0.0)
    assert alarmed.miou == pytest.approx(1.75 / 3)


def test_none_is_a_miss_and_no_false_alarm():
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([0, 0, 1, 1]), np.array([0, -1, 1, 1]))
    assert matrix.counts.tolist() == [[1, 0, 1], [0, 2, 0]]
    assert matrix.metrics.class_iou == (0.5, 1.0)
    assert matrix.metrics.accuracy == 0.75


def test_all_void():
    matrix = ConfusionMatrix(3)
    matrix.add(np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.int64))
    assert matrix.void == 16
    assert matrix.metrics.miou == 0.0
    assert matrix.metrics.class_iou == (None, None, None)


def test_values_outside_of_the_classes():
    with pytest.raises(LabelError, match=r"label 3 .* 3 classes 0\.\.2"):
        ConfusionMatrix(3).add(np.array([0, 3]), np.array([0, 0]))
    with pytest.raises(LabelError, match="prediction 7"):
        ConfusionMatrix(3).add(np.array([0, 1]), np.array([0, 7]))
    with pytest.raises(LabelError, match="must be equal"):
        ConfusionMatrix(3).add(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.int64))
    with pytest.raises(ConfigError, match=r"\(2, 5\)"):
        metrics_of(np.zeros((2, 5), np.int64))


def test_clusters_that_share_a_class_add_up():
    counts = np.array([[5, 1], [3, 0], [0, 6], [2, 2]])
    assert map_clusters(counts, np.array([0, 0, 1, -1])).tolist() == [[8, 0, 2], [1, 6, 2]]


def test_class_means_skip_seeds_without_the_class():
    seeds = [metrics_of(np.array([[2, 0], [0, 0]])), metrics_of(np.array([[1, 1], [0, 0]]))]
    assert mean_class_iou(seeds) == (0.75, 0.0)
