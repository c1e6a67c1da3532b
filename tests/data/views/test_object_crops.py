"""What MaskContrast relies on: crops with objects, drawn in a bounded time, whose ids follow the pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selfseg.data.views import object_crops
from selfseg.data.views.object_crops import ObjectCrops
from selfseg.errors import ConfigError
from selfseg.ops.geometry import warp

PLAIN = ObjectCrops(size=64, jitter_probability=0, gray_probability=0, blur_probability=0)


def _scene(height: int = 120, width: int = 160) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Two discs on gray: the image's red channel tells the id, 100 of the first and 200 of the second."""
    rows, columns = np.mgrid[:height, :width]
    ids = np.full((height, width), -1, np.int32)
    ids[np.hypot(rows - 0.3 * height, columns - 0.3 * width) < 0.2 * height] = 0
    ids[np.hypot(rows - 0.7 * height, columns - 0.7 * width) < 0.25 * height] = 1
    image = np.full((height, width, 3), 30, np.uint8)
    image[:, :, 0] = 100 * (ids + 1)
    return image, ids


def _share(crop_ids: NDArray[np.int32]) -> float:
    return float((crop_ids >= 0).mean())


@pytest.mark.parametrize("min_share", [0.01, 0.1, 0.25])
def test_every_view_holds_as_much_of_objects_as_is_asked_for(min_share: float) -> None:
    image, ids = _scene()
    plan, rng = replace(PLAIN, min_share=min_share, tries=200), np.random.default_rng(0)
    shares = [_share(crop.regions) for _ in range(60) for crop in plan.make(image, ids, rng)]
    assert min(shares) > min_share - 0.02  # nearest cells
    boxes = [plan.place(ids, rng) for _ in range(200)]
    assert all((ids[y0:y1, x0:x1] >= 0).mean() >= min_share for x0, y0, x1, y1 in boxes)


def test_too_full_crops_are_drawn_again() -> None:
    ids = np.zeros((100, 100), np.int32)
    ids[:, 80:] = -1
    plan, rng = replace(PLAIN, max_share=0.9, tries=200), np.random.default_rng(0)
    boxes = [plan.place(ids, rng) for _ in range(100)]
    assert all((ids[y0:y1, x0:x1] >= 0).mean() <= 0.9 for x0, y0, x1, y1 in boxes)


def test_chance_is_left_alone_where_every_crop_will_do() -> None:
    """With nothing to ask for, crops are those of a plain random resized crop: uniform in area."""
    ids = np.zeros((1000, 1000), np.int32)
    plan, rng = replace(PLAIN, scale=(0.2, 0.5)), np.random.default_rng(0)
    boxes = np.array([plan.place(ids, rng) for _ in range(4000)])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 1e6
    assert areas.mean() == pytest.approx(0.35, abs=0.01)
    assert areas.min() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("content", ["speck", "nothing", "everything"])
def test_what_cannot_be_had_ends_after_the_tries_with_the_best_crop(
    monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    ids = np.full((200, 300), 0 if content == "everything" else -1, np.int32)
    if content == "speck":
        ids[100:104, 100:104] = 0
    drawn: list[tuple[int, int, int, int]] = []
    original = object_crops.draw_crop

    def counted(*arguments: Any) -> tuple[int, int, int, int]:
        drawn.append(original(*arguments))
        return drawn[-1]

    monkeypatch.setattr(object_crops, "draw_crop", counted)
    plan = replace(PLAIN, tries=7, min_share=0.3, max_share=0.9)
    box = plan.place(ids, np.random.default_rng(3))
    assert len(drawn) == 7
    shares = [float((ids[y0:y1, x0:x1] >= 0).mean()) for x0, y0, x1, y1 in drawn]
    x0, y0, x1, y1 = box
    assert (ids[y0:y1, x0:x1] >= 0).mean() == max(shares)
    if content == "speck":
        assert max(shares) > 0


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("stride", [1, 4])
def test_ids_lie_where_their_pixels_are(flip: float, stride: int) -> None:
    image, ids = _scene()
    plan = replace(PLAIN, flip_probability=flip, region_stride=stride)
    for seed in range(10):
        for crop in plan.make(image, ids, np.random.default_rng(seed)):
            assert crop.regions.shape == (64 // stride, 64 // stride)
            assert crop.regions.dtype == np.int32
            assert (np.linalg.det(crop.to_image[:, :2]) < 0) == bool(flip)
            seen = cv2.resize(crop.image[:, :, 0], crop.regions.shape, interpolation=cv2.INTER_AREA)
            told = 100 * (crop.regions + 1)
            assert (np.abs(seen.astype(int) - told) < 50).mean() > 0.9  # edges are mixed


def test_ids_are_equal_across_views_and_follow_the_affine() -> None:
    image, ids = _scene()
    whole = torch.from_numpy(ids).float()[None, None]
    for seed in range(10):
        crops = PLAIN.make(image, ids, np.random.default_rng(seed))
        for crop in crops:
            affine = torch.from_numpy(crop.to_image)[None]
            expected = warp(whole, affine, (64, 64), mode="nearest")[0, 0].numpy()
            assert (expected == crop.regions).mean() > 0.98  # ties at pixel borders


def test_the_second_view_is_the_first_again_if_that_is_wanted() -> None:
    image, ids = _scene()
    plan = ObjectCrops(size=64)
    first, second = replace(plan, same_view=True).make(image, ids, np.random.default_rng(0))
    usual = plan.make(image, ids, np.random.default_rng(0))[0]
    for crop in (second, usual):
        assert np.array_equal(first.image, crop.image)
        assert np.array_equal(first.regions, crop.regions)
        assert np.array_equal(first.to_image, crop.to_image)


def test_views_are_a_function_of_the_generator_and_differ() -> None:
    image, ids = _scene()
    plan = ObjectCrops(size=64)
    a, b, c = (plan.make(image, ids, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(
        np.array_equal(x.image, y.image) and np.array_equal(x.regions, y.regions) for x, y in zip(a, b, strict=True)
    )
    assert not np.array_equal(a[0].image, c[0].image)
    assert not np.array_equal(a[0].image, a[1].image)


@pytest.mark.parametrize("shape", [(1, 1), (9, 12), (300, 2000), (4000, 60)])
def test_the_smallest_and_thinnest_images_too(shape: tuple[int, int]) -> None:
    image, ids = np.full((*shape, 3), 90, np.uint8), np.zeros(shape, np.int32)
    for crop in PLAIN.make(image, ids, np.random.default_rng(0)):
        assert (crop.image == 90).all()
        assert (crop.regions == 0).all()


def test_large_images_are_reduced_and_never_enlarged_or_cut() -> None:
    image = np.zeros((300, 600, 3), np.uint8)
    assert replace(PLAIN, short_side=100).prepare(image).shape == (100, 200, 3)
    assert replace(PLAIN, longest=300).prepare(image).shape == (150, 300, 3)
    assert replace(PLAIN, short_side=400).prepare(image).shape == (300, 600, 3)


def test_ids_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"regions are \(5, 5\) but the image is \(9, 9\)"):
        PLAIN.make(np.zeros((9, 9, 3), np.uint8), np.zeros((5, 5), np.int32), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tries": 0}, "tries must be at least 1, not 0"),
        ({"region_stride": 5}, r"region_stride \(5\) must divide size \(64\); use size 60"),
        ({"scale": (0.0, 1.0)}, "scale must be"),
        ({"min_share": 0.5, "max_share": 0.4}, "min_share 0.5 and max_share 0.4"),
        ({"flip_probability": 1.5}, "flip_probability is a fraction"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "jitter must be"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma must be"),
    ],
)
def test_settings_that_cannot_work_say_why(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(PLAIN, **change)
