"""What a method relies on: two crops that overlap, where they lie, and how often each change of appearance happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.loader import Sample, collate
from selfseg.data.views.overlapping_crops import OverlappingCrops, resize_crop
from selfseg.errors import ConfigError
from selfseg.ops.geometry import Box, overlap

PLAIN = OverlappingCrops(
    size=64,
    jitter_probability=0,
    gray_probability=0,
    blur_probability=(0, 0),
    blur_sigma=(1.5, 1.5),
    solarise_probability=(0, 0),
)
SHAPES = [(375, 500), (500, 333), (64, 64), (12, 9), (300, 2000), (4000, 60)]


def _picture(height: int = 120, width: int = 160, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def _views(plan: OverlappingCrops, image: NDArray[np.uint8], seed: int = 0) -> list[NDArray[np.uint8]]:
    crops = plan.make(image, plan.regions.compute(image), np.random.default_rng(seed))
    return [crop.image for crop in crops]


def _area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _common(a: Box, b: Box) -> int:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


# Where the crops lie


@pytest.mark.parametrize("shape", SHAPES)
def test_every_pair_overlaps(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    plan = OverlappingCrops()
    for _ in range(20_000 // len(SHAPES)):
        first, second = plan.place(shape, rng)
        assert _common(first, second) >= plan.min_overlap * _area(second)
        for x0, y0, x1, y1 in (first, second):
            assert 0 <= x0 < x1 <= shape[1]
            assert 0 <= y0 < y1 <= shape[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 3), (1, 5000), (5000, 1)])
def test_the_smallest_and_thinnest_images_too(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    assert all(_common(*OverlappingCrops().place(shape, rng)) > 0 for _ in range(500))
    image = np.full((*shape, 3), 90, np.uint8)
    plan = replace(PLAIN, size=32)
    assert all((view == 90).all() for view in _views(plan, plan.prepare(image)))


@pytest.mark.parametrize(("scale", "ratio", "least"), [((0.05, 0.05), (0.5, 2.0), 0.5), ((0.04, 0.2), (1.0, 1.0), 0.2)])
def test_the_most_overlap_that_may_be_asked_for_is_kept(
    scale: tuple[float, float], ratio: tuple[float, float], least: float
) -> None:
    plan = OverlappingCrops(scale=scale, ratio=ratio, min_overlap=least, tries=1)
    rng = np.random.default_rng(0)
    pairs = [plan.place((1000, 1400), rng) for _ in range(2000)]
    shares = np.array([_common(first, second) / _area(second) for first, second in pairs])
    assert shares.min() > least * 0.98  # whole pixels
    with pytest.raises(ConfigError, match="min_overlap"):
        replace(plan, min_overlap=least * 1.01)


def test_the_overlap_is_asked_for_and_not_forced_where_it_comes_by_itself() -> None:
    rng = np.random.default_rng(0)
    pairs = [OverlappingCrops(scale=(0.1, 0.1), min_overlap=0.01).place((1000, 1000), rng) for _ in range(4000)]
    shares = np.array([_common(first, second) / _area(second) for first, second in pairs])
    assert (shares < 0.1).mean() > 0.1  # many pairs share little
    # Crops moved onto the first one's centre would share a half and more.
    assert (shares > 0.5).mean() < 0.25


def test_scale_is_uniform_and_so_is_the_logarithm_of_ratio() -> None:
    plan = OverlappingCrops(scale=(0.1, 0.5))  # every such crop fits into a square
    rng = np.random.default_rng(0)
    boxes = np.array([plan.place((1000, 1000), rng)[0] for _ in range(8000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    quantiles = np.linspace(0, 1, 11)
    assert np.quantile(width * height / 1e6, quantiles) == pytest.approx(0.1 + 0.4 * quantiles, abs=0.01)
    expected = np.log(3 / 4) + (np.log(4 / 3) - np.log(3 / 4)) * quantiles
    assert np.quantile(np.log(width / height), quantiles) == pytest.approx(expected, abs=0.02)
    across = boxes[:, 0] / (1000 - width)
    assert np.quantile(across, quantiles) == pytest.approx(quantiles, abs=0.02)


def test_a_view_knows_where_it_lies() -> None:
    rows, columns = np.mgrid[:200, :250]
    image = np.stack([columns, rows, np.full_like(rows, 7)], 2).astype(np.uint8)  # a pixel's colour is its place
    plan = replace(PLAIN, size=48)
    place = (2 * (np.arange(48) + 0.5) / 48 - 1)[6:-6]  # within: a cubic kernel bends at the border of a crop
    turned = 0
    for seed in range(40):
        for crop in plan.make(image, plan.regions.compute(image), np.random.default_rng(seed)):
            (a, zero, x), (other, d, y) = crop.to_image
            assert zero == other == 0
            assert d > 0
            seen = crop.image[6:-6, 6:-6].astype(float)
            wanted_x = ((a * place + x) + 1) / 2 * 250 - 0.5
            wanted_y = ((d * place + y) + 1) / 2 * 200 - 0.5
            assert np.abs(seen[..., 0] - wanted_x[None]).max() < 1.6
            assert np.abs(seen[..., 1] - wanted_y[:, None]).max() < 1.6
            assert np.abs(seen[..., 2] - 7).max() <= 1
            turned += a < 0
    assert 22 <= turned <= 58  # of 80, with probability 1/2


def test_the_two_views_are_flipped_independently() -> None:
    image = _picture()
    ids = PLAIN.regions.compute(image)
    turned = np.array(
        [[c.to_image[0, 0] < 0 for c in PLAIN.make(image, ids, np.random.default_rng(i))] for i in range(400)]
    )
    counts = [int((turned == pair).all(1).sum()) for pair in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert min(counts) > 65
    never = replace(PLAIN, flip_probability=0)
    assert all(c.to_image[0, 0] > 0 for i in range(20) for c in never.make(image, ids, np.random.default_rng(i)))


# What they look like


def test_two_views_of_the_same_crop_differ_in_colours_alone() -> None:
    image = _picture()
    plan = OverlappingCrops(size=64, same_crop=True)
    mirrored = set()
    for seed in range(8):
        first, second = plan.make(image, plan.regions.compute(image), np.random.default_rng(seed))
        assert np.array_equal(first.to_image, second.to_image)
        assert not np.array_equal(first.image, second.image)
        mirrored.add(bool(np.linalg.det(first.to_image[:, :2]) < 0))
        one, other = _views(replace(PLAIN, same_crop=True), image, seed)
        assert np.array_equal(one, other)
    assert mirrored == {True, False}


def test_views_are_a_function_of_the_generator() -> None:
    image = _picture()
    before = image.copy()
    plan = OverlappingCrops(size=40)
    for seed in range(10):
        first, again, other = (_views(plan, image, s) for s in (seed, seed, seed + 100))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not np.array_equal(first[0], other[0])
    assert np.array_equal(image, before)


def test_a_crop_has_no_regions_and_no_noise() -> None:
    image = _picture()
    for crop in PLAIN.make(image, PLAIN.regions.compute(image), np.random.default_rng(0)):
        assert crop.image.shape == (64, 64, 3)
        assert crop.image.dtype == np.uint8
        assert crop.to_image.dtype == np.float32
        assert crop.regions.shape == (0, 0)
        assert crop.noise.shape == (64, 64)
        assert not crop.noise.any()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"jitter_probability": 0.8}, (0.8, 0.8)),
        ({"gray_probability": 0.2}, (0.2, 0.2)),
        ({"blur_probability": (1.0, 0.1)}, (1.0, 0.1)),
        ({"solarise_probability": (0.0, 0.2)}, (0.0, 0.2)),
    ],
)
def test_each_change_happens_as_often_as_asked(changes: dict[str, Any], expected: tuple[float, float]) -> None:
    image = _picture()
    image[::4, ::3] = (250, 10, 240)  # something for every change to act on
    plan = replace(PLAIN, **changes)
    view = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(0)
    count = 1000
    for which, share in enumerate(expected):
        changed = sum(not np.array_equal(plan.change_appearance(view, which, rng), view) for _ in range(count))
        assert abs(changed / count - share) <= 4 * np.sqrt(share * (1 - share) / count)


def test_a_batch_of_them_moves_like_any_other() -> None:
    ids = PLAIN.regions.compute(_picture())
    samples = [Sample(PLAIN.make(_picture(seed=i), ids, np.random.default_rng(i)), i) for i in range(3)]
    first, second = collate(samples).to("cpu").views
    assert first.image.shape == second.image.shape == (3, 3, 64, 64)
    assert first.regions.shape == second.regions.shape == (3, 0, 0)
    shared = overlap(first.to_image, second.to_image)
    assert (shared[:, 2:] > shared[:, :2]).all()


def test_solarisation_inverts_what_is_bright() -> None:
    plan = replace(PLAIN, solarise_probability=(1, 1), solarise_threshold=100)
    bright, dark = np.full((50, 50, 3), 100, np.uint8), np.full((50, 50, 3), 99, np.uint8)
    assert all((view == 155).all() for view in _views(plan, bright))
    assert all((view == 99).all() for view in _views(plan, dark))


@pytest.mark.parametrize(
    ("height", "width", "limit"), [(60, 90, 1.5), (140, 110, 1.5), (190, 200, 2.2), (250, 260, 3.0), (700, 600, 3.5)]
)
def test_resizing_is_near_to_antialiased_bicubic(height: int, width: int, limit: float) -> None:
    fine = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    image = np.clip(_picture(height, width) + fine, 0, 255).astype(np.uint8)
    wanted = np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BICUBIC)).astype(float)
    assert np.sqrt(np.square(wanted - resize_crop(image, 112, 112)).mean()) < limit


def test_resizing_one_side_up_and_the_other_down() -> None:
    stripes = np.zeros((20, 900, 3), np.uint8)
    stripes[:, ::2] = 200  # aliases unless all of them are averaged
    assert np.abs(resize_crop(stripes, 100, 100).astype(int) - 100).max() <= 12


# Before cropping


@pytest.mark.parametrize(
    ("short_side", "longest", "expected"),
    [
        (None, None, (120, 160)),
        (60, None, (60, 80)),
        (200, None, (120, 160)),  # never enlarged
        (None, 80, (60, 80)),
        (100, 80, (60, 80)),
        (1, 1, (1, 1)),
    ],
)
def test_preparing_only_reduces(short_side: int | None, longest: int | None, expected: tuple[int, int]) -> None:
    plan = OverlappingCrops(short_side=short_side, longest=longest)
    assert plan.prepare(_picture()).shape[:2] == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 0},
        {"tries": 0},
        {"short_side": 0},
        {"longest": -1},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 0.2)},
        {"scale": (0.5, 1.1)},
        {"ratio": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"blur_sigma": (0.0, 1.0)},
        {"blur_sigma": (2.0, float("inf"))},
        {"min_overlap": 0.0},
        {"min_overlap": 0.09},
        {"flip_probability": 1.5},
        {"jitter_probability": -0.1},
        {"gray_probability": float("nan")},
        {"blur_probability": (0.5, 1.5)},
        {"solarise_probability": (-0.5, 0.5)},
        {"jitter": (0.4, 0.4, -0.1, 0.1)},
        {"jitter": (0.4, 0.4, 0.2, 0.6)},
        {"solarise_threshold": 257},
    ],
)
def test_values_that_cannot_work(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(ConfigError, match=name):
        OverlappingCrops(**changes)
