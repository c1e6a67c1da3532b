"""Maps smoothed over superpixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from selfseg.ops.regions.smoothing import (
    STRIDE,
    affinity,
    natural_spacing,
    neighbours,
    pool_map,
    smooth,
    smooth_batch,
    smooth_map,
)
from selfseg.ops.regions.smoothing_together import _lab, smooth_together


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


def several(count: int, channels: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Images (B, H, W, C) of blobs, a map of each (B, 6, h, w) and what guides it."""
    random = np.random.default_rng(3)
    images = np.stack(
        [cv2.resize(random.random((5, 7, channels)), size[::-1], interpolation=cv2.INTER_CUBIC) for _ in range(count)]
    )
    images = (np.floor(images * 4) * 50 + random.normal(0, 2, images.shape)).clip(1, 255).astype(np.uint8)
    h, w = -(-size[0] // 16), -(-size[1] // 16)
    values = random.normal(size=(count, 6, h, w)).astype(np.float32)
    guides = [random.normal(size=(count, 5, h * n, w * n)).astype(np.float32) for n in (2, 1)]
    return images, values, guides


@pytest.mark.parametrize(("channels", "guided"), [(3, True), (3, False), (5, True)])
def test_several_at_once_are_smoothed_as_each_for_itself(channels: int, guided: bool) -> None:
    images, values, guides = several(3, channels, (90, 130))
    images[2, :, 60:] = 128  # fewer superpixels in this one
    guides = guides if guided else []
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    tensors = [torch.from_numpy(each) for each in guides]
    rgb, spacing = channels == 3, natural_spacing(90, 130)
    found = smooth_together(torch.from_numpy(values), batch, 20.0, tensors, rgb, spacing, STRIDE, 0.07)
    expected = smooth_batch(torch.from_numpy(values), batch, 20.0, tensors, rgb)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
    # An image gets what it gets alone.
    alone = smooth_together(
        torch.from_numpy(values[1:2]), batch[1:2], 20.0, [g[1:2] for g in tensors], rgb, spacing, STRIDE, 0.07
    )
    torch.testing.assert_close(found[1:2], alone, atol=1e-5, rtol=0)


def test_colours_of_a_batch_are_opencvs() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.float32)
    image[:8] = np.rint(image[:8] / 20)  # dark ones
    image /= 255
    expected = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    found = _lab(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.gpu
def test_several_on_a_gpu_are_smoothed_as_on_a_cpu() -> None:
    images, values, guides = several(4, 3, (90, 130))
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    tensors = [torch.from_numpy(values), *map(torch.from_numpy, guides)]
    expected = smooth_batch(tensors[0], batch, 20.0, tensors[1:])
    there = [each.cuda() for each in tensors]
    found, again = (smooth_batch(there[0], batch.cuda(), 20.0, there[1:]) for _ in range(2))
    torch.testing.assert_close(found.cpu(), expected, atol=5e-3, rtol=0)
    assert torch.equal(found, again)
