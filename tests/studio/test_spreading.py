import numpy as np
import pytest

from selfseg.studio.spreading import ALPHA, NEIGHBOURS, LabelSpreading, _drawn
from studio.test_concepts import Drawn, drawn


@pytest.fixture
def regions() -> Drawn:
    return drawn(np.random.default_rng(4).integers(0, 3, (30, 10)))


def kinds(regions: Drawn) -> np.ndarray:
    return regions.vectors[:, :3].argmax(1)


def test_one_example_of_each_kind_tells_all_of_the_kind(regions: Drawn) -> None:
    spreading = LabelSpreading(regions)
    rows = np.array([np.flatnonzero(kinds(regions) == kind)[0] for kind in range(3)])
    labels, sure = spreading.spread(rows, np.array([2, 0, 1]), np.ones(3, np.float32), 3)
    assert (labels == np.array([2, 0, 1])[kinds(regions)]).all()
    assert (sure > 0).all()
    assert (sure <= 1).all()


def test_it_solves_the_papers_equation(regions: Drawn) -> None:
    spreading = LabelSpreading(regions)
    vectors = spreading.vectors.astype(np.float64)
    count = len(vectors)
    graph = np.zeros((count, count))
    for i in range(count):
        alike = [vectors[i] @ vectors[j] if j != i else -9 for j in range(count)]
        for j in sorted(range(count), key=lambda j: -alike[j])[:NEIGHBOURS]:
            graph[i, j] = np.exp((alike[j] - 1) / 0.1)
    graph = np.maximum(graph, graph.T)
    degree = graph.sum(1)
    smooth = graph / np.sqrt(degree[:, None] * degree)
    given = np.random.default_rng(0).random((count, 2))
    expected = np.zeros_like(given)
    for _ in range(3000):  # the paper's iteration, without its factor 1 - alpha
        expected = ALPHA * smooth @ expected + given
    np.testing.assert_allclose(spreading._flow @ given, expected, rtol=1e-2)


def test_nothing_is_said_of_a_group_without_a_link_to_an_example() -> None:
    kind = np.repeat([0, 1], 15 * NEIGHBOURS)
    regions = drawn(kind.reshape(30, -1))
    apart = regions.vectors.astype(np.float32)
    apart[kind == 1] = np.roll(apart[kind == 1], 4, axis=1)
    labels, sure = LabelSpreading(regions).spread(np.array([0]), np.array([0]), np.ones(1, np.float32), 2)
    assert set(labels[kind == 0]) == {0}
    assert (sure[kind == 0] > 0.99).all()
    assert sure[kind == 1].max() == 0 or (labels[kind == 1] == 0).all()


@pytest.mark.parametrize("count", [1, 2, NEIGHBOURS, NEIGHBOURS + 1])
def test_few_regions(count: int) -> None:
    regions = drawn(np.zeros((1, count), np.int64))
    labels, sure = LabelSpreading(regions).spread(np.array([0]), np.array([0]), np.ones(1, np.float32), 1)
    assert labels.tolist() == [0] * count
    assert np.isfinite(sure).all()
    assert sure[0] > 0


def test_examples_without_weight_say_nothing(regions: Drawn) -> None:
    labels, sure = LabelSpreading(regions).spread(np.array([0]), np.array([1]), np.zeros(1, np.float32), 3)
    assert len(labels) == len(sure)
    assert not sure.any()


def test_the_sample_is_drawn_by_area_and_by_seed() -> None:
    areas = np.ones(10_000, np.float32)
    areas[:1000] = 20
    chosen = _drawn(areas, 500, 0)
    assert len(np.unique(chosen)) == 500
    assert (chosen < 1000).mean() == pytest.approx(20 / 29, abs=0.07)
    assert (_drawn(areas, 500, 0) == chosen).all()
    assert (_drawn(areas, 500, 1) != chosen).any()
