"""Views of measured images: any number of channels, and void that stays void."""

from typing import Any

import cv2
import numpy as np
import pytest

from selfseg.data.regions import Grid, RegionCache, Superpixels
from selfseg.data.views import augment, channels
from selfseg.data.views.base import Crop, make_views, prepare_image
from selfseg.data.views.content_centred import ContentCentredViews, content_map
from selfseg.data.views.object_crops import ObjectCrops
from selfseg.data.views.overlapping_crops import OverlappingCrops
from selfseg.data.views.random_crops import MultiCrops, NestedCrops, RandomCrops
from selfseg.data.views.region_crops import RegionCrops

PLANS: dict[str, Any] = {
    "content_centred": ContentCentredViews(views=2, size=32, short_side=48, regions=Superpixels(8)),
    "content_centred_coarse": ContentCentredViews(
        views=3, size=32, short_side=48, centre_square=False, outside="clip", region_stride=4, regions=Grid(6)
    ),
    "overlapping": OverlappingCrops(size=32),
    "random": RandomCrops(size=32, small_views=1, small_size=16),
    "multi": MultiCrops(size=32, small_views=1, small_size=16),
    "nested": NestedCrops(size=32),
    "region": RegionCrops(size=32, scale=(0.5, 1.0), min_overlap=0.3, regions=Superpixels(10), masks=4),
    "object": ObjectCrops(size=32, region_stride=4),
}


def levels(count: int, seed: int = 0, height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth levels with noise; the left of it is void."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (6, 8, count), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, count)
    image = np.clip(image.astype(int) + rng.integers(-9, 10, image.shape), 1, 255).astype(np.uint8)
    image[:, : width // 3] = 0
    return image


def views_of(name: str, image: np.ndarray, seed: int = 0) -> tuple[Crop, ...]:
    plan = PLANS[name]
    source = prepare_image(plan, image, rgb=False)
    if name == "object":
        ids = np.full(source.shape[:2], -1, np.int32)
        ids[10:50, 10:60] = 0
        ids[~source.any(2)] = -1
    else:
        ids = RegionCache(None, plan.regions, rgb=False).get(source)
    return make_views(plan, source, ids, np.random.default_rng(seed), rgb=False)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("name", PLANS)
def test_views_have_all_channels_and_void_has_no_region(name: str, count: int) -> None:
    image = levels(count)
    for seed in range(3):
        for crop in views_of(name, image, seed):
            assert crop.image.dtype == np.uint8
            assert crop.image.shape[2] == count
            assert crop.image.flags.c_contiguous
            some, every = crop.image.any(2), crop.image.all(2)
            noise = crop.noise if crop.noise.shape == some.shape else np.zeros_like(some)
            np.testing.assert_array_equal(some[~noise], every[~noise])  # void in all channels, or measured in all
            if crop.regions.size:
                assert crop.regions.min() >= -1
                stride = len(some) // len(crop.regions)
                cells = some[stride // 2 :: stride, stride // 2 :: stride]
                assert (crop.regions[~cells] == -1).all()


@pytest.mark.parametrize("name", ["overlapping", "random", "multi", "nested"])  # others' places follow what is shown
def test_places_are_drawn_alike_whatever_the_channels(name: str) -> None:
    for one, five in zip(views_of(name, levels(1), 3), views_of(name, levels(5), 3), strict=True):
        np.testing.assert_array_equal(one.to_image, five.to_image)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_channel_is_changed_without_a_look_at_the_others(count: int) -> None:
    image = levels(count)
    together = augment.jitter(image, (0.4, 0.4, 0.4, 0.1), np.random.default_rng(5), rgb=False)
    for c in range(count):
        single = np.ascontiguousarray(image[..., c : c + 1])
        alone = augment.jitter(single, (0.4, 0.4, 0.4, 0.1), np.random.default_rng(5), rgb=False)
        np.testing.assert_array_equal(together[..., c], alone[..., 0])


def test_changes_leave_void_void_and_measured_pixels_measured() -> None:
    image = levels(5)
    image[30, 60] = 1  # the least measured level
    where = image.any(2)
    rng = np.random.default_rng(0)
    changed = [
        channels.adjust_brightness(image, 0.0),
        channels.adjust_contrast(image, 3.0),
        channels.distort(image, -200.0, 0.5),
        channels.solarise(image, 0),
        augment.blur(image, 2.0, rgb=False),
        *(augment.photometric_distortion(image, rng, rgb=False) for _ in range(4)),
    ]
    for each in changed:
        np.testing.assert_array_equal(each.any(2), where)
        np.testing.assert_array_equal(each.all(2), where)


def test_contrast_is_about_each_channels_mean_of_what_was_measured() -> None:
    image = levels(2)
    where = image.any(2)
    flat = channels.adjust_contrast(image, 0.0)
    for c in range(2):
        assert abs(float(image[where][:, c].mean()) - float(flat[where][0, c])) <= 0.51


def test_centres_are_drawn_where_something_was_measured() -> None:
    image = levels(4)
    content = content_map(image, rgb=False)
    assert content.shape == image.shape[:2]
    assert content[~image.any(2)].max() == 0
    assert content[image.any(2)].min() > 0
    assert content_map(np.zeros((20, 20, 4), np.uint8), rgb=False).min() > 0  # else nothing could be drawn


def test_a_plan_that_knows_nothing_of_channels_still_takes_photographs() -> None:
    class Plain:
        def prepare(self, image: np.ndarray) -> np.ndarray:
            return image

        def make(self, image: np.ndarray, regions: np.ndarray, rng: np.random.Generator) -> tuple[Crop, ...]:
            return ()

    plan: Any = Plain()
    image = np.zeros((8, 8, 3), np.uint8)
    assert prepare_image(plan, image) is image
    assert make_views(plan, image, np.zeros((0, 0), np.int32), np.random.default_rng(0)) == ()
