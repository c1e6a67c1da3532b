from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.stats.contingency import crosstab
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

from selfseg.errors import ConfigError, LabelError
from selfseg.evaluation.measure.confusion import ConfusionMatrix, cross_counts, map_clusters, mean_class_iou, metrics_of


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


def test_arrays_that_may_not_be_written():
    """As `np.asarray(Image.open(file))` gives them."""
    truth, prediction = np.array([[0, 1], [1, 255]], np.uint8), np.array([[0, 1], [0, 0]])
    truth.flags.writeable = prediction.flags.writeable = False
    matrix = ConfusionMatrix(2)
    matrix.add(truth, prediction)
    assert matrix.counts.tolist() == [[1, 0, 0], [1, 1, 0]]


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


def cases(count: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Small images of a few classes: some only true, some only predicted, some neither; void; the prediction none."""
    generator = np.random.default_rng(7)
    for case in range(count):
        classes = int(generator.integers(1, 7))
        size = tuple(generator.integers(1, 9, 2))
        true = generator.choice(classes, int(generator.integers(1, classes + 1)), replace=False)
        predicted = generator.choice(classes, int(generator.integers(1, classes + 1)), replace=False)
        truth, prediction = generator.choice(true, size), generator.choice(predicted, size)
        truth[generator.random(size) < (0, 0.2, 1)[case % 3] * generator.random()] = 255
        prediction[generator.random(size) < (0, 0.3)[case % 2]] = -1
        yield classes, truth, prediction


def by_definition(classes: int, truth: np.ndarray, prediction: np.ndarray):
    """Counts, void, IoU of each class and accuracy, pixel by pixel."""
    counts, void = np.zeros((classes, classes + 1), np.int64), 0
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t == 255:
            void += 1
        else:
            counts[t, p] += 1  # -1 is the last column
    known = truth != 255
    iou = []
    for label in range(classes):
        intersection = ((truth == label) & (prediction == label) & known).sum()
        union = (((truth == label) | (prediction == label)) & known).sum()
        iou.append(intersection / union if union else None)
    accuracy = (truth == prediction)[known].mean() if known.any() else 0.0
    return counts, void, iou, accuracy


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.int16])
def test_equals_the_definitions_on_small_images(kind):
    for classes, truth, prediction in cases(150):
        counts, void, iou, accuracy = by_definition(classes, truth, prediction)
        matrix = ConfusionMatrix(classes)
        matrix.add(truth.astype(kind), prediction.astype(np.int32 if kind is np.int16 else np.int64))
        assert (matrix.counts == counts).all()
        assert matrix.void == void
        assert matrix.metrics.class_iou == pytest.approx(tuple(iou))
        present = [value for value in iou if value is not None]
        assert matrix.metrics.miou == pytest.approx(np.mean(present) if present else 0)
        assert matrix.metrics.accuracy == pytest.approx(accuracy)


def test_equals_torchmetrics_and_scipy_on_small_images():
    compared = 0
    for classes, truth, prediction in cases(150):
        prediction = np.maximum(prediction, 0)  # they know no "none"
        known = truth != 255
        if classes < 2 or not known.any():  # nor tasks of one class, nor images without a label
            continue
        matrix = ConfusionMatrix(classes)
        matrix.add(truth.astype(np.uint8), prediction)
        levels = (range(classes), range(classes))
        assert (matrix.counts[:, :classes] == crosstab(truth[known], prediction[known], levels=levels).count).all()
        tensors = torch.from_numpy(prediction.copy()), torch.from_numpy(truth.copy())
        options = {"num_classes": classes, "ignore_index": 255}
        assert (matrix.counts[:, :classes] == multiclass_confusion_matrix(*tensors, **options).numpy()).all()
        theirs = multiclass_jaccard_index(*tensors, average="none", **options).tolist()
        for mine, other in zip(matrix.metrics.class_iou, theirs, strict=True):
            assert (mine or 0.0) == pytest.approx(other, rel=1e-5)  # an absent class is 0 there
        # Their mean also leaves out classes with neither truth nor prediction.
        mean = float(multiclass_jaccard_index(*tensors, average="macro", **options))
        assert matrix.metrics.miou == pytest.approx(mean, rel=1e-5)
        accuracy = float(multiclass_accuracy(*tensors, average="micro", **options))
        assert matrix.metrics.accuracy == pytest.approx(accuracy, rel=1e-5)
        compared += 1
    assert compared > 80


def test_a_split_in_parts_is_the_split_at_once():
    for seed in range(10):
        generator = np.random.default_rng(seed)
        truth, prediction = (values.ravel() for values in draw(5, seed))
        prediction[generator.random(len(prediction)) < 0.1] = -1
        whole, parts = ConfusionMatrix(5), ConfusionMatrix(5)
        whole.add(truth, prediction)
        cuts = np.sort(generator.integers(0, len(truth), 7))  # some parts may be empty
        pieces = list(zip(np.split(truth, cuts), np.split(prediction, cuts), strict=True))
        for place in generator.permutation(len(pieces)):
            parts.add(*pieces[place])
        assert (whole.counts == parts.counts).all()
        assert (whole.void, whole.metrics) == (parts.void, parts.metrics)


@pytest.mark.parametrize("columns", [1, 3, 21, 500])
def test_labels_as_they_come_are_counted_as_any_others(columns):
    """uint8 labels have a compiled path; the same as int64 take the general one."""
    generator = np.random.default_rng(columns)
    for size in (0, 1, 2, 3, 4, 5, 63, 1000):
        truth = generator.integers(0, 22, size).astype(np.uint8)
        truth[truth == 21] = 255
        prediction = generator.integers(-1, columns, size)
        # What is predicted where nothing is known does not matter, not even if it is nonsense.
        prediction[(truth == 255) & (generator.random(size) < 0.5)] = generator.choice([-9, columns, 2**62, -(2**63)])
        fast, general = (cross_counts(truth.astype(kind), prediction, 21, columns) for kind in (np.uint8, np.int64))
        assert (fast[0] == general[0]).all()
        assert fast[0].sum() + fast[1] == size
        assert fast[1] == general[1]
    strided = np.zeros((40, 60), np.uint8)[::2, ::3]
    assert cross_counts(strided, np.zeros((40, 60), np.int32)[::2, ::3], 255, columns)[0][0, 0] == strided.size


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_whatever_does_not_fit_is_named(kind):
    truth, prediction = np.array([0, 2, 255, 1], kind), np.array([0, 1, -7, -1])
    assert cross_counts(truth, prediction, 3, 3)[0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    with pytest.raises(LabelError, match=r"label 2 is outside of the 2 classes"):
        cross_counts(truth, prediction, 2, 3)
    for wrong in (-2, 3, 2**62, -(2**63), 2**63 - 1):
        with pytest.raises(LabelError, match=rf"prediction {wrong} is outside of -1\.\.2"):
            cross_counts(truth, np.array([0, 1, 0, wrong]), 3, 3)
