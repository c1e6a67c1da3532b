"""The views of the baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import draw_scene
from selfseg.data.views import random_crops
from selfseg.data.views.overlapping_crops import OverlappingCrops
from selfseg.data.views.random_crops import MultiCrops, NestedCrops, RandomCrops
from selfseg.errors import ConfigError
from selfseg.ops.geometry import bounds, compose, invert, warp

NO_IDS = np.zeros((0, 0), np.int32)
PLAIN: dict[str, Any] = {"jitter_probability": 0.0, "gray_probability": 0.0, "blur_probability": 0.0}


def box_of(affine: NDArray[np.float32]) -> list[float]:
    """(x0, y0, x1, y1) in [0, 1] of the image."""
    box: list[float] = ((bounds(torch.from_numpy(affine)[None])[0] + 1) / 2).tolist()
    return box


def area(affine: NDArray[np.float32]) -> float:
    x0, y0, x1, y1 = box_of(affine)
    return (x1 - x0) * (y1 - y0)


def test_crops_have_the_sizes_and_areas_asked_for() -> None:
    plan = RandomCrops(size=32, scale=(0.14, 1.0), small_views=6, small_size=16, small_scale=(0.05, 0.14))
    image, _ = draw_scene(0, 200, 200)
    rng = np.random.default_rng(0)
    large, small = [], []
    for _ in range(50):
        crops = plan.make(image, NO_IDS, rng)
        assert [crop.image.shape[0] for crop in crops] == [32] * 2 + [16] * 6
        large += [area(crop.to_image) for crop in crops[:2]]
        small += [area(crop.to_image) for crop in crops[2:]]
    assert 0.13 < min(large) < 0.3
    assert 0.7 < max(large) <= 1
    assert 0.045 < min(small) < 0.06  # rounding to whole pixels
    assert 0.13 < max(small) < 0.15


def test_each_kind_of_crop_has_its_own_appearance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first large one, the second and the small ones are blurred and solarised as often as BYOL and DINO say."""
    asked: list[tuple[int, float, float]] = []

    def note(view: NDArray[np.uint8], *, blur: float, solarise: float, **_: Any) -> NDArray[np.uint8]:
        asked.append((len(view), blur, solarise))
        return view

    monkeypatch.setattr(random_crops, "change_as_byol", note)
    image, _ = draw_scene(0)
    MultiCrops(size=32, small_views=2, small_size=16).make(image, NO_IDS, np.random.default_rng(0))
    assert asked == [(32, 1.0, 0.0), (32, 0.1, 0.2), (16, 0.5, 0.0), (16, 0.5, 0.0)]


def test_the_defaults_of_multi_crops_are_the_appearance_of_overlapping_crops() -> None:
    """Both are BYOL's; but for where the second crop may lie."""
    mine, theirs = vars(MultiCrops()), vars(OverlappingCrops())
    assert {name: mine[name] for name in theirs if name in mine} == {
        name: value for name, value in theirs.items() if name not in ("min_overlap", "tries", "same_crop")
    }
    assert MultiCrops().small_views == 0


def test_large_crops_may_lie_apart() -> None:
    plan = MultiCrops(size=16, scale=(0.05, 0.1))
    image, _ = draw_scene(0, 200, 200)
    rng = np.random.default_rng(0)
    apart = 0
    for _ in range(50):
        first, second = (box_of(crop.to_image) for crop in plan.make(image, NO_IDS, rng))
        apart += first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
    assert 10 < apart < 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"small_views": -1}, r"small_views must be 0 \(none\) or more, not -1"),
        ({"small_scale": (0.5, 0.1)}, "small_scale must be"),
        ({"small_blur_probability": 2}, r"small_blur_probability is a fraction in \[0, 1\], not 2"),
        ({"solarise_probability": (0.0, 2.0)}, r"solarise_probability is two fractions in \[0, 1\]"),
        ({"solarise_threshold": 300}, r"solarise_threshold is a level in \[0, 256\], not 300"),
    ],
)
def test_multi_crops_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultiCrops(**changes)


@pytest.mark.parametrize(
    "plan", [RandomCrops(size=40, small_views=2), NestedCrops(size=40), MultiCrops(size=40, small_views=2)]
)
def test_views_are_a_function_of_the_generator(plan: RandomCrops | NestedCrops | MultiCrops) -> None:
    image, _ = draw_scene(1)
    first, again, other = (plan.make(image, NO_IDS, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.to_image, b.to_image) for a, b in zip(first, other, strict=True))


def test_the_second_nested_crop_lies_in_the_first_and_has_the_area_asked_for() -> None:
    plan = NestedCrops(size=32, scale=(0.3, 1.0), inner_scale=(0.5, 0.8))
    image, _ = draw_scene(2, 300, 240)
    rng = np.random.default_rng(0)
    shares, flips = [], []
    for _ in range(100):
        first, second = plan.make(image, NO_IDS, rng)
        outer, inner = box_of(first.to_image), box_of(second.to_image)
        assert all(a <= b + 1e-6 for a, b in zip(outer[:2], inner[:2], strict=True))
        assert all(a >= b - 1e-6 for a, b in zip(outer[2:], inner[2:], strict=True))
        assert first.to_image[0, 0] > 0
        shares.append(area(second.to_image) / area(first.to_image))
        flips.append(second.to_image[0, 0] < 0)
    assert 0.49 < min(shares) < 0.55
    assert 0.75 < max(shares) < 0.81
    assert 30 < sum(flips) < 70


@pytest.mark.parametrize("shape", [(90, 120), (240, 60), (7, 300), (1, 1)])
def test_any_image_gives_a_pair(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    for plan in (NestedCrops(size=24), RandomCrops(size=24, small_views=1, small_size=8)):
        for crop in plan.make(plan.prepare(image), NO_IDS, np.random.default_rng(1)):
            assert crop.image.dtype == np.uint8
            assert crop.regions.shape == (0, 0)


def test_the_affines_tell_the_change_between_the_nested_views() -> None:
    """What PiCIE and IIC rely on: the first view, moved by G, is the second."""
    plan = NestedCrops(size=64, inner_scale=(0.4, 0.9), **PLAIN)
    image, _ = draw_scene(3, 200, 200)
    rng = np.random.default_rng(0)
    for _ in range(6):
        first, second = plan.make(image, NO_IDS, rng)
        change = compose(
            *(x[None] for x in (invert(torch.from_numpy(first.to_image)[None])[0], torch.from_numpy(second.to_image)))
        )
        pixels = torch.from_numpy(first.image).permute(2, 0, 1)[None].float()
        moved = warp(pixels, change, (64, 64))[0].permute(1, 2, 0).numpy()[2:-2, 2:-2]
        assert np.abs(moved - second.image[2:-2, 2:-2]).mean() < 6  # the other way round: about 50
        assert np.abs(moved[:, ::-1] - second.image[2:-2, 2:-2]).mean() > 10


def test_a_plain_first_view_keeps_its_colours() -> None:
    strong = {"jitter_probability": 1.0, "gray_probability": 1.0}
    image, _ = draw_scene(4)
    changed, plain = (
        NestedCrops(size=32, plain_first=value, **strong).make(image, NO_IDS, np.random.default_rng(0))
        for value in (False, True)
    )
    gray = [bool((crop.image == crop.image[:, :, :1]).all()) for crop in (*changed, *plain)]
    assert gray == [True, True, False, True]


def test_the_same_crop_again_is_the_same_crop() -> None:
    plan = NestedCrops(size=32, scale=(0.2, 0.5), inner_scale=(1.0, 1.0), flip_probability=0.0, **PLAIN)
    first, second = plan.make(draw_scene(5)[0], NO_IDS, np.random.default_rng(0))
    assert np.array_equal(first.to_image, second.to_image)
    assert np.array_equal(first.image, second.image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size must be at least 1, not 0"),
        ({"scale": (0.5, 0.2)}, r"scale must be .* not \(0.5, 0.2\)"),
        ({"ratio": (0.0, 1.0)}, "ratio must be"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma must be"),
        ({"flip_probability": 1.5}, r"flip_probability is a fraction in \[0, 1\], not 1.5"),
        ({"jitter": (0.1, 0.1, 0.1, 0.6)}, "hue at most 0.5"),
    ],
)
@pytest.mark.parametrize("plan", [RandomCrops, NestedCrops])
def test_settings_that_cannot_work_are_named(plan: type[Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(**changes)


def test_settings_of_one_plan_that_cannot_work_are_named() -> None:
    with pytest.raises(ConfigError, match=r"small_views \(-1\) at least 0"):
        RandomCrops(small_views=-1)
    with pytest.raises(ConfigError, match=r"small_scale must be .* not \(0, 0.1\)"):
        RandomCrops(small_scale=(0, 0.1))
    with pytest.raises(ConfigError, match=r"inner_scale must be .* not \(0.5, 1.5\)"):
        NestedCrops(inner_scale=(0.5, 1.5))
