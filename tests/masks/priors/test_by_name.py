from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import get_args

import cv2
import numpy as np
import pytest
from scipy.sparse.csgraph import floyd_warshall

from selfseg.errors import ConfigError
from selfseg.masks.priors.background import boundary_connectivity, optimise
from selfseg.masks.priors.barrier import backgroundness, barrier_distance
from selfseg.masks.priors.by_name import Prior, all_priors, saliency
from selfseg.masks.priors.contrast import merge, quantise
from selfseg.masks.priors.markov import absorbed_time
from selfseg.masks.priors.ranking import affinity, rank_all
from selfseg.masks.priors.scene import distances, enhance, look_at, picture_inside, shrink, to_lab, unit_range
from selfseg.ops.kernels import saliency_cpu as cpu

PRIORS = get_args(Prior)
MAPS = [name for name in PRIORS if name != "mean"]


def scene_image(height: int = 90, width: int = 120, seed: int = 0) -> np.ndarray:
    """A red disc in the middle of a ground with soft blotches."""
    random = np.random.default_rng(seed)
    ground = random.integers(90, 140, (height // 15 + 1, width // 15 + 1, 3), np.uint8)
    image = cv2.resize(ground, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.circle(image, (width // 2, height // 2), min(height, width) // 4, (210, 50, 40), -1)
    return np.clip(image + random.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def disc(height: int = 90, width: int = 120) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2, height // 2), min(height, width) // 4, 1, -1)
    return mask > 0


@pytest.mark.parametrize("prior", PRIORS)
def test_an_object_on_a_plain_ground_is_found_at_one_half(prior: Prior) -> None:
    found, truth = saliency(scene_image(), prior) >= 0.5, disc()
    assert (found & truth).sum() / (found | truth).sum() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (60, 1), (2, 2), (3, 5), (17, 400), (9, 9), (420, 300)])
@pytest.mark.parametrize("kind", ["picture", "noise", "constant", "gray", "black and white"])
def test_any_image_gives_maps_of_its_size(shape: tuple[int, int], kind: str) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*shape, 3), np.uint8)
    if kind == "picture":
        image = scene_image(*shape)
    elif kind == "constant":
        image[:] = 90
    elif kind == "gray":
        image[:] = image[..., :1]
    elif kind == "black and white":
        image = np.where(image[..., :1] > 128, np.uint8(255), np.uint8(0)).repeat(3, 2)
    before = image.copy()
    maps, again = all_priors(image), all_priors(image)
    np.testing.assert_array_equal(image, before)
    for prior, values in maps.items():
        assert values.shape == shape
        assert values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= 1  # false for not-a-number, too
        np.testing.assert_array_equal(again[prior], values)
        if kind == "constant":
            assert values.max() == 0, f"{prior}: nothing stands out"


@pytest.mark.parametrize("prior", PRIORS)
def test_the_size_of_a_photograph_changes_little(prior: Prior) -> None:
    image = scene_image(300, 400)
    small, large = saliency(image, prior), saliency(cv2.resize(image, (1200, 900)), prior)
    assert np.abs(cv2.resize(large, (400, 300), interpolation=cv2.INTER_AREA) - small).mean() < 0.08


def test_the_mean_is_the_mean_and_one_prior_is_as_among_all() -> None:
    image = scene_image()
    maps = all_priors(image)
    assert list(maps) == list(PRIORS)
    np.testing.assert_allclose(maps["mean"], enhance(np.mean([maps[name] for name in MAPS], 0)), atol=1e-6)
    for name in PRIORS:
        np.testing.assert_array_equal(saliency(image, name), maps[name])


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 3])
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="image"):
        saliency(image)


def test_an_unknown_prior_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'salient'; there are rbd, mbd, ranking"):
        saliency(scene_image(), "salient")  # type: ignore[arg-type]


@pytest.mark.slow
def test_numba_is_imported_with_the_first_map_only() -> None:
    code = "import sys, selfseg.masks.mining; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the superpixels' graph ---


def test_the_scene_is_what_its_regions_are() -> None:
    image = scene_image()
    scene = look_at(image, 60)
    count = scene.regions.max() + 1
    lab = to_lab(image)
    y, x = np.mgrid[:90, :120]
    for i in range(count):
        inside = scene.regions == i
        np.testing.assert_allclose(scene.colours[i], lab[inside].mean(0), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(scene.centres[i], (x[inside].mean() / 120, y[inside].mean() / 120), rtol=1e-5)
        assert scene.areas[i] == pytest.approx(inside.mean())
        around = cv2.dilate(inside.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0
        touched = set(np.unique(scene.regions[around])) - {i}
        assert set(np.flatnonzero(scene.adjacent[i])) == touched
        two = touched.union(*(np.flatnonzero(scene.adjacent[j]) for j in touched)) - {i}
        assert set(np.flatnonzero(scene.near[i])) == two
        assert scene.sides[:, i].tolist() == [
            inside[0].any(),
            inside[-1].any(),
            inside[:, 0].any(),
            inside[:, -1].any(),
        ]
    assert scene.linked[np.ix_(scene.at_frame, scene.at_frame)].sum() == scene.at_frame.sum() * (
        scene.at_frame.sum() - 1
    )
    assert shrink(np.zeros((1000, 500, 3), np.uint8)).shape == (400, 200, 3)


def test_enhancing_cuts_at_otsus_threshold_and_keeps_the_order() -> None:
    values = np.concatenate([np.linspace(3, 4, 50), np.linspace(9, 10, 20)])
    enhanced = enhance(values)
    assert (np.diff(enhanced) > 0).all()
    assert (enhanced[:50] < 0.5).all()
    assert (enhanced[50:] > 0.5).all()
    assert (enhanced[0], enhanced[-1]) == (0, 1)
    assert not unit_range(np.full(4, 7.0)).any()


def framed(image: np.ndarray, rows: tuple[int, int], columns: tuple[int, int], value: int = 0) -> np.ndarray:
    framed = np.pad(image, (rows, columns, (0, 0)), constant_values=value)
    return cv2.GaussianBlur(framed, (3, 3), 0)  # as a resized photograph's edges are


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize(("rows", "columns"), [((4, 5), (6, 3)), ((12, 12), (0, 0)), ((0, 0), (0, 9))])
def test_a_drawn_frame_is_found(rows: tuple[int, int], columns: tuple[int, int], value: int) -> None:
    down, across = picture_inside(framed(scene_image(), rows, columns, value))
    for part, (first, last), size in ((down, rows, 90), (across, columns, 120)):
        assert 0 <= part.start - first <= 2
        assert part.start == 0 or first > 0
        assert 0 <= first + size - part.stop <= 2
        assert part.stop == first + size + last or last > 0


@pytest.mark.parametrize("kind", ["plain ground", "constant", "photograph", "tiny", "wide bar"])
def test_what_is_no_frame_stays(kind: str) -> None:
    image = scene_image()
    if kind == "plain ground":
        image = np.full((90, 120, 3), 250, np.uint8)
        image[8:80, 30:100] = (200, 40, 30)
    elif kind == "constant":
        image[:] = 90
    elif kind == "tiny":
        image = image[:3, :2]
    elif kind == "wide bar":
        image[:40] = 0
    assert picture_inside(image) == (slice(0, image.shape[0]), slice(0, image.shape[1]))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_drawn_frame_changes_little(prior: Prior) -> None:
    image = framed(scene_image(), (5, 5), (5, 5))
    found, truth = saliency(image, prior) >= 0.5, np.pad(disc(), 5)
    assert (found & truth).sum() / (found | truth).sum() > 0.75


# --- robust background detection ---


def test_shortest_paths_are_scipys() -> None:
    random = np.random.default_rng(0)
    length = random.random((40, 40)).astype(np.float32)
    length = np.where(random.random((40, 40)) < 0.1, length, np.float32(np.inf))
    length = np.minimum(length, length.T)
    np.fill_diagonal(length, 0)
    expected = floyd_warshall(np.where(np.isinf(length), 0, length), directed=False)
    cpu.shortest_paths(length)
    np.testing.assert_allclose(length, expected, rtol=1e-5)


def test_the_connectivity_of_an_object_and_a_ground_of_one_colour_each() -> None:
    image = np.full((90, 120, 3), 100, np.uint8)
    image[30:60, 40:80] = (230, 40, 40)
    scene = look_at(image, 108)
    inside = scene.colours[:, 1] > 30
    connectivity = boundary_connectivity(scene)
    np.testing.assert_allclose(connectivity[inside], 0, atol=1e-4)
    # The ground spans itself: all of the frame over the root of its area, both counted in superpixels.
    np.testing.assert_allclose(connectivity[~inside], scene.at_frame.sum() / np.sqrt((~inside).sum()), rtol=1e-4)


def test_the_optimum_has_the_least_cost() -> None:
    scene = look_at(scene_image(), 60)
    random = np.random.default_rng(0)
    count = len(scene.areas)
    background, foreground = (random.random(count).astype(np.float32) for _ in range(2))
    colour = distances(scene.colours)
    best = optimise(scene, background, foreground, colour).astype(np.float64)

    def cost(s: np.ndarray) -> float:
        weight = np.where(scene.linked, np.exp(-(colour.astype(float) ** 2) / 200) + 0.1, 0)
        smooth = (weight * np.square(s[:, None] - s)).sum() / 2  # each pair once
        return float((background * s**2).sum() + (foreground * (s - 1) ** 2).sum() + smooth)

    for _ in range(50):
        assert cost(best) < cost(best + random.normal(0, 0.02, count))
    assert ((best >= 0) & (best <= 1)).all()


# --- minimum barrier distance ---


def true_barrier(values: np.ndarray) -> np.ndarray:
    """By brute force: over all pairs of a lowest and a highest value, what a flood from the frame reaches."""
    best = np.full(values.shape, np.inf)
    best[[0, -1]] = best[:, [0, -1]] = 0
    levels = np.unique(values)
    for low in levels:
        for high in levels[levels >= low]:
            open_ = ((values >= low) & (values <= high)).astype(np.uint8)
            _, ids = cv2.connectedComponents(open_, connectivity=4)
            at_frame = np.unique(np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]]))
            reached = np.isin(ids, at_frame[at_frame > 0])
            best[reached] = np.minimum(best[reached], high - low)
    return best


def scanned_barrier(values: np.ndarray, passes: int) -> np.ndarray:
    """The raster scans written down as in the paper's algorithm 1."""
    height, width = values.shape
    distance = np.full(values.shape, np.inf)
    distance[[0, -1]] = distance[:, [0, -1]] = 0
    high, low = values.copy(), values.copy()
    inner = [(y, x) for y in range(1, height - 1) for x in range(1, width - 1)]
    for scan in range(passes):
        order, d = (inner, -1) if scan % 2 == 0 else (inner[::-1], 1)
        for y, x in order:
            for v, u in ((y + d, x), (y, x + d)):
                top, bottom = max(high[v, u], values[y, x]), min(low[v, u], values[y, x])
                if top - bottom < distance[y, x]:
                    distance[y, x], high[y, x], low[y, x] = top - bottom, top, bottom
    return distance


@pytest.mark.parametrize("seed", range(8))
def test_the_barrier_scan_is_the_papers_and_near_the_true_distance(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, 9, random.integers(3, 11, 2)).astype(np.float64)
    exact = true_barrier(values)
    errors = []
    for passes in (1, 2, 3, 12):
        found = barrier_distance(values, passes)
        np.testing.assert_array_equal(found, scanned_barrier(values, passes))
        assert (found >= exact).all()
        errors.append(float((found - exact).mean()))
    assert all(later <= earlier for earlier, later in pairwise(errors))
    assert errors[2] < 0.5  # of values from 0 to 8, white noise: the worst case


def test_the_barrier_is_exact_where_a_way_out_is_plain() -> None:
    values = np.zeros((9, 9))
    values[2:7, 2:7] = 5  # a wall, behind it a court with a gate
    values[3:6, 3:6] = 1
    closed = barrier_distance(values)
    np.testing.assert_array_equal(closed, true_barrier(values))
    assert closed[4, 4] == 5
    values[2, 4] = 0
    assert barrier_distance(values)[4, 4] == true_barrier(values)[4, 4] == 1


def test_reconstruction_is_repeated_dilation_under_the_mask() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        mask = random.random((23, 31)).astype(np.float32)
        marker = np.where(random.random(mask.shape) < 0.05, mask, np.float32(0))
        expected = marker
        while True:
            grown = np.minimum(cv2.dilate(expected, np.ones((3, 3), np.uint8)), mask)
            if (grown == expected).all():
                break
            expected = grown
        cpu.reconstruct(marker, mask)
        np.testing.assert_array_equal(marker, expected)


def test_backgroundness_leaves_out_the_side_that_holds_the_object() -> None:
    image = scene_image()
    image[76:, 14:-14] = image[45, 60]  # the object reaches the bottom
    unlike = backgroundness(to_lab(image))
    assert unlike[disc()].mean() > 4 * unlike[:30].mean()


# --- manifold ranking, Markov chain, contrast ---


def test_ranks_are_the_closed_form_of_the_iteration() -> None:
    weights = affinity(look_at(scene_image(), 60))
    np.testing.assert_array_equal(weights, weights.T)
    degree = weights.sum(1)
    transition = weights / np.sqrt(degree[:, None] * degree)  # Zhou et al.: f <- alpha S f + (1 - alpha) y
    query = np.zeros(len(weights))
    query[[3, 7]] = 1
    ranks = query.copy()
    for _ in range(6000):
        ranks = 0.99 * transition @ ranks + 0.01 * query
    # The paper's form is the unnormalised one: D^-1/2 on both sides; scale is free.
    expected = np.linalg.solve(np.diag(degree) - 0.99 * weights, query)
    mine = rank_all(weights) @ query
    others = query == 0
    full = np.linalg.inv(np.diag(degree) - 0.99 * weights)
    np.testing.assert_allclose(mine[others], expected[others], rtol=1e-3)
    np.testing.assert_allclose(mine[3], full[3, 7], rtol=1e-3)  # not its own relevance to itself
    np.testing.assert_allclose(
        ranks, 0.01 * np.linalg.solve(np.eye(len(weights)) - 0.99 * transition, query), atol=1e-9
    )


def test_absorbed_time_is_that_of_simulated_walks() -> None:
    random = np.random.default_rng(0)
    inner = random.random((4, 4)) * (1 - np.eye(4))
    absorbing = random.random((4, 2)) * 0.5
    total = inner.sum(1) + absorbing.sum(1)
    chance = np.cumsum(np.concatenate([inner, absorbing], 1) / total[:, None], 1)
    state, steps = np.zeros(40_000, int), np.zeros(40_000, int)
    while (state < 4).any():
        walking = state < 4
        steps[walking] += 1
        state[walking] = (random.random(walking.sum())[:, None] > chance[state[walking]]).sum(1)
    assert absorbed_time(inner, absorbing)[0] == pytest.approx(steps.mean(), rel=0.02)


def test_the_palette_is_near_the_image_and_merging_joins_what_is_alike() -> None:
    image = np.full((60, 90, 3), (40, 90, 160), np.uint8)
    image[20:40, 30:60] = (230, 220, 60)
    scene = look_at(image, 54)
    which, palette = quantise(scene)
    assert len(palette) == 2
    np.testing.assert_allclose(palette[which], scene.lab, atol=0.01)
    region = merge(scene)
    assert len(np.unique(region)) == 2
    assert len(np.unique(region[scene.regions][20:40, 30:60])) == 1
    noise = look_at(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    which, palette = quantise(noise)
    assert which.max() + 1 == len(palette) == len(np.unique(which))
    assert np.abs(palette[which] - noise.lab).mean() < 12
