"""Maps smoothed over superpixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from selfseg.ops.regions.smoothing import STRIDE, affinity, neighbours, pool_map, smooth, smooth_map


def test_a_map_is_pooled_as_if_it_were_enlarged_first() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(5, 4, 6)).astype(np.float32)
    regions = random.integers(0, 7, (37, 50))
    large = cv2.resize(values.transpose(1, 2, 0), (50, 37), interpolation=cv2.INTER_LINEAR)
    expected = np.stack([large[regions == i].mean(0) for i in range(7)])
    np.testing.assert_allclose(pool_map(values, regions), expected, atol=1e-5)


def test_neighbours_beside_a_loop() -> None:
    regions = np.random.default_rng(1).permutation(np.arange(12).repeat(4)).reshape(6, 8)
    adjacent, near = neighbours(regions)
    expected = np.zeros((12, 12), bool)
    for y in range(6):
        for x in range(8):
            for other in (regions[y, min(x + 1, 7)], regions[min(y + 1, 5), x]):
                if other != regions[y, x]:
                    expected[regions[y, x], other] = expected[other, regions[y, x]] = True
    np.testing.assert_array_equal(adjacent, expected)
    for i in range(12):
        for j in range(12):
            assert near[i, j] == (i != j and (expected[i, j] or (expected[i] & expected[j]).any()))


def test_a_graph_is_as_close_as_its_distances() -> None:
    edges = np.array([[False, True, False], [True, False, True], [False, True, False]])
    distance = np.array([[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]])
    weights = affinity(edges, (distance, np.zeros((3, 3))), 0.1)
    np.testing.assert_allclose(weights, [[0, np.exp(-1.25), 0], [np.exp(-1.25), 0, np.exp(-5)], [0, np.exp(-5), 0]])


def test_smoothing_keeps_the_mean_and_brings_neighbours_together() -> None:
    random = np.random.default_rng(2)
    graph = random.uniform(size=(9, 9))
    graph = np.triu(graph, 1) + np.triu(graph, 1).T
    areas, values = random.integers(1, 9, 9), random.normal(size=(9, 2))
    spread = []
    for strength in (0.0, 1.0, 100.0):
        found = smooth(graph, areas, values, strength)
        np.testing.assert_allclose(areas @ found, areas @ values, atol=1e-9)
        spread.append(float(found.std(0).sum()))
    np.testing.assert_allclose(smooth(graph, areas, values, 0.0), values, atol=1e-12)
    np.testing.assert_allclose(smooth(graph, areas, values[:, 0], 1.0), smooth(graph, areas, values, 1.0)[:, 0])
    assert spread[0] > 2 * spread[1] > 20 * spread[2]


def test_what_guides_says_where_the_edge_is() -> None:
    image = np.full((32, 64, 3), 90, np.uint8)
    guide = np.zeros((2, 8, 16), np.float32)
    guide[0, :, :10], guide[1, :, 10:] = 1, 1  # an edge at 40 px that colours don't show
    values = np.zeros((2, 2, 4), np.float32)
    values[0, :, :2], values[1, :, 2:] = 1, 1  # and at 32 px
    found = smooth_map(values, image, 100, [guide]).argmax(0)
    assert (found[:, :9] == 0).all()
    assert (found[:, 11:] == 1).all()
    assert (smooth_map(values, image, 0).argmax(0)[:, 9] == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (37, 50), (130, 90)])
def test_any_size_and_unit_length(size: tuple[int, int]) -> None:
    random = np.random.default_rng(3)
    image = random.integers(0, 255, (*size, 3), np.uint8)
    found = smooth_map(random.normal(size=(4, 2, 3)).astype(np.float32), image, 6.7)
    assert found.shape == (4, -(-size[0] // STRIDE), -(-size[1] // STRIDE))
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_map_of_measured_channels_has_their_edges(channels: int) -> None:
    image = np.full((32, 64, channels), 60, np.uint8)
    image[:, 36:, channels - 1] = 220
    image[:8, :16] = 0  # void looks as what is beside it, and is no edge
    coarse = np.zeros((2, 2, 4), np.float32)
    coarse[0, :, :2], coarse[1, :, 2:] = 1, 1  # the edge is at 32 px, the image's at 36
    smoothed = smooth_map(coarse, image, 100, rgb=False)
    assert smoothed[1, 4, 7:10].round().tolist() == [0, 0, 1]
    assert smoothed[0, :2, :4].min() > 0.9
