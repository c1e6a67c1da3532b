from __future__ import annotations

import cv2
import numpy as np
import pytest

from selfseg.errors import ConfigError
from selfseg.masks.priors.scene import Scene, look_at
from selfseg.masks.proposals import borders, connectivity, merge, proposals


def two_things(height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A red disc and a larger blue box on a ground that brightens from left to right, with noise; and their ids."""
    ids = np.zeros((height, width), np.uint8)
    cv2.rectangle(ids, (width // 2, height // 5), (width * 9 // 10, height * 4 // 5), 1, -1)
    cv2.circle(ids, (width // 4, height // 2), height // 5, 2, -1)
    image = np.tile(np.linspace(90, 170, width)[None, :, None], (height, 1, 3))
    image[ids == 1], image[ids == 2] = (40, 70, 200), (210, 50, 40)
    image += np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), ids


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("size", [(90, 120), (300, 400), (900, 1200)])
def test_each_thing_is_an_object_the_largest_first(size: tuple[int, int]) -> None:
    image, truth = two_things(*size)
    ids = proposals(image)
    assert ids.dtype == np.int32
    assert ids.shape == size
    assert set(np.unique(ids)) == {0, 1, 2}  # the gradient of the ground stays one
    assert overlap(ids == 1, truth == 1) > 0.9
    assert overlap(ids == 2, truth == 2) > 0.85
    np.testing.assert_array_equal(proposals(image), ids)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (9, 9)])
@pytest.mark.parametrize("constant", [False, True])
def test_any_image_gives_ids_of_its_size(shape: tuple[int, int], constant: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    if constant:
        image[:] = 90
    ids = proposals(image)
    assert ids.shape == shape
    assert set(np.unique(ids)) <= set(range(int(ids.max()) + 1))
    if constant:
        assert not ids.any()


def test_merging_everything_and_nothing() -> None:
    scene = look_at(two_things()[0], 60)
    np.testing.assert_array_equal(merge(scene, -1), np.arange(len(scene.areas)))
    assert not merge(scene, np.inf).any()
    counts = [len(np.unique(merge(scene, cut))) for cut in (0.1, 1, 10, 100, 1000)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 2


def merged_plainly(scene: Scene, cut: float) -> np.ndarray:
    """The same without a heap: in every step the costs of all pairs anew, from the superpixels that each holds."""
    pairs, length = borders(scene.regions)
    area, colour = scene.areas.astype(float), scene.colours.astype(float)
    strength = np.linalg.norm(colour[pairs[:, 0]] - colour[pairs[:, 1]], axis=1)
    segment = np.arange(len(area))
    while True:
        ends = np.sort(segment[pairs], axis=1)
        best = (np.inf, 0, 0)
        for a, b in np.unique(ends[ends[:, 0] < ends[:, 1]], axis=0):
            common = (ends == (a, b)).all(1)
            held = [segment == a, segment == b]
            one, other = (area[h].sum() for h in held)
            mean = [np.average(colour[h], axis=0, weights=area[h]) for h in held]
            cost = 2 * one * other / (one + other) * np.linalg.norm(mean[0] - mean[1])
            best = min(best, (cost * np.average(strength[common], weights=length[common]), a, b))
        if best[0] > cut or not np.isfinite(best[0]):
            return np.unique(segment, return_inverse=True)[1]
        segment[segment == best[2]] = best[1]


@pytest.mark.parametrize("cut", [0.5, 5, 50, 400])
def test_each_step_takes_the_cheapest_pair(cut: float) -> None:
    scene = look_at(two_things(60, 80)[0], 30)
    found, expected = merge(scene, cut), merged_plainly(scene, cut)
    np.testing.assert_array_equal(found[:, None] == found, expected[:, None] == expected)
    assert 1 < len(np.unique(found)) < len(found)


def test_borders_are_counted_and_the_frame_is_free_of_size() -> None:
    segments = np.zeros((40, 80), np.int64)
    segments[10:30, 20:60] = 1
    pairs, length = borders(segments)
    assert pairs.tolist() == [[0, 1]]
    assert length.tolist() == [2 * 20 + 2 * 40]
    found = connectivity(segments)
    np.testing.assert_allclose(found, [4 / np.sqrt(0.75), 0])
    np.testing.assert_allclose(connectivity(segments.repeat(3, 0).repeat(3, 1)), found)


def test_what_hangs_on_the_frame_is_background() -> None:
    image = np.full((90, 120, 3), 120, np.uint8)
    image[60:] = (40, 160, 60)  # a meadow
    image[30:90, 50:70] = (210, 50, 40)  # somebody whom the frame cuts off
    ids = proposals(image)
    assert ids[80, 60] == 1
    assert ids[80, 10] == ids[80, 110] == ids[5, 5] == 0
    assert proposals(image, frame=0.1)[80, 60] == 0


@pytest.mark.parametrize("options", [{"cut": -1}, {"cut": float("nan")}, {"frame": 0}])
def test_settings_that_can_not_work_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="cut"):
        proposals(two_things()[0], **options)
