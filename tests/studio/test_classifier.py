"""The classifier of regions: what it must bear, and that it learns what can be learned."""

import numpy as np
import pytest

from selfseg.errors import ConfigError
from selfseg.studio.classifier import UNSEEN, RegionClassifier


def blobs(classes: int, each: int, dim: int = 16, spread: float = 0.4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around a direction for each class, and their classes."""
    random = np.random.default_rng(seed)
    centres = np.linalg.qr(random.normal(size=(dim, dim)))[0][:classes]
    labels = np.repeat(np.arange(classes), each)
    vectors = centres[labels] + spread * random.normal(size=(len(labels), dim)) / np.sqrt(dim)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels


def test_it_learns_what_differs() -> None:
    vectors, labels = blobs(5, 20)
    scores = RegionClassifier(5, 16).fit(vectors[::2], labels[::2]).scores(vectors[1::2])
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    assert (scores.argmax(1) == labels[1::2]).all()


def test_nothing_learned_says_nothing() -> None:
    classifier = RegionClassifier(3, 4)
    assert (classifier.scores(np.eye(4)) == 0).all()
    classifier.fit(np.zeros((0, 4)), np.zeros(0, int))
    assert (classifier.scores(np.eye(4)) == 0).all()


def test_one_class_is_certain_and_others_are_not_seen() -> None:
    vectors, _ = blobs(2, 3)
    classifier = RegionClassifier(3, 16).fit(vectors, np.full(6, 1))
    np.testing.assert_array_equal(classifier.scores(vectors), np.tile([0, 1, 0], (6, 1)))


def test_an_unseen_class_is_never_predicted() -> None:
    vectors, labels = blobs(3, 10)
    classifier = RegionClassifier(5, 16).fit(vectors, np.array([0, 2, 4])[labels])
    scores = classifier.scores(vectors)
    assert (scores[:, [1, 3]] == 0).all()
    assert (classifier.bias[[1, 3]] == UNSEEN).all()
    assert np.isfinite(classifier.weights).all()


def test_contradictions_are_weighed() -> None:
    one = np.eye(4, dtype=np.float32)[:1]
    other = np.eye(4, dtype=np.float32)[1:2]
    rows = np.concatenate([one, one, other])
    classifier = RegionClassifier(2, 4, balance=0).fit(rows, np.array([0, 1, 1]), np.array([3.0, 1.0, 1.0]))
    assert classifier.scores(one)[0].argmax() == 0
    classifier.fit(rows, np.array([0, 1, 1]), np.array([1.0, 3.0, 1.0]))
    assert classifier.scores(one)[0].argmax() == 1


def test_an_example_without_weight_is_none() -> None:
    vectors, labels = blobs(2, 5)
    classifier = RegionClassifier(2, 16).fit(vectors, labels, (labels == 0).astype(float))
    assert (classifier.bias == [0, UNSEEN]).all()


def test_a_rare_class_is_heard() -> None:
    vectors, labels = blobs(2, 200, spread=2.5)
    few = np.concatenate([np.arange(200), [200, 201]])
    found = [
        (RegionClassifier(2, 16, balance=b).fit(vectors[few], labels[few]).scores(vectors[202:]).argmax(1) == 1).mean()
        for b in (0.0, 0.5, 1.0)
    ]
    assert found[0] < found[1] < found[2]


def test_the_same_answers_give_the_same_bits_and_a_warm_start_the_same_classifier() -> None:
    vectors, labels = blobs(4, 25, spread=1.5)
    cold = RegionClassifier(4, 16).fit(vectors, labels)
    again = RegionClassifier(4, 16).fit(vectors, labels)
    np.testing.assert_array_equal(cold.weights, again.weights)
    warm = RegionClassifier(4, 16).fit(vectors[:60], labels[:60]).fit(vectors, labels)
    np.testing.assert_allclose(warm.scores(vectors), cold.scores(vectors), atol=0.02)


def test_classes_can_be_added() -> None:
    vectors, labels = blobs(3, 10)
    classifier = RegionClassifier(2, 16).fit(vectors[:20], labels[:20])
    before = classifier.scores(vectors)
    classifier.grow(3)
    np.testing.assert_array_equal(classifier.scores(vectors)[:, :2], before)
    assert (classifier.fit(vectors, labels).scores(vectors).argmax(1) == labels).all()
    with pytest.raises(ConfigError, match="3 classes already; 2 are fewer"):
        classifier.grow(2)


def test_half_precision_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels = blobs(3, 30)
    half = vectors.astype(np.float16)
    classifier = RegionClassifier(3, 16).fit(half, labels)
    whole = classifier.scores(half)
    monkeypatch.setattr("selfseg.studio.classifier._ROWS", 7)
    np.testing.assert_allclose(classifier.scores(half), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("vectors", "labels", "weights", "message"),
    [
        (np.ones((2, 3)), [0, 1], None, r"vectors are \(n, 4\)"),
        (np.ones((2, 4)), [0], None, r"\(2, 4\), \(1,\)"),
        (np.ones((2, 4)), [0, 2], None, "from 0 to 1, not 0 to 2"),
        (np.full((2, 4), np.nan), [0, 1], None, "must be finite"),
        (np.ones((2, 4)), [0, 1], [1, -1], "at least 0"),
    ],
)
def test_what_cant_be_used(vectors: np.ndarray, labels: list[int], weights: list[float] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegionClassifier(2, 4).fit(vectors, np.array(labels), None if weights is None else np.array(weights))


@pytest.mark.parametrize("options", [{"classes": 0, "dim": 3}, {"classes": 2, "dim": 3, "strength": 0}])
def test_settings_that_cant_work(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        RegionClassifier(**options)
