import numpy as np

from selfseg.exchange.coding.runs import runs_of


def test_the_runs_of_a_label_give_its_pixels_back() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        labels = random.integers(0, 4, random.integers(1, 9, 2)).astype(np.uint16)
        found = runs_of(labels, ignored=3)
        assert list(found) == [value for value in np.unique(labels) if value != 3]
        for label, counts in found.items():
            pixels = np.repeat(np.arange(counts.size) % 2, counts).reshape(labels.shape)
            assert (pixels == (labels == label)).all()
            assert (counts[1:] > 0).all()


def test_only_the_ignored_label_gives_nothing() -> None:
    assert runs_of(np.full((2, 2), 9), ignored=9) == {}
