"""What a method relies on: shared regions, exact geometry, bounded masks, the same views for the same key."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.regions import Grid, Pixels
from selfseg.data.views import content_centred as module
from selfseg.data.views.base import Crop
from selfseg.data.views.content_centred import ContentCentredViews, cut
from selfseg.errors import ConfigError
from selfseg.ops.geometry import crop_affine
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD

PLAIN = {"jitter_probability": 0.0, "gray_probability": 0.0, "blur_probability": 0.0, "mask_area": 0.0}


def _picture(height: int = 120, width: int = 160, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _plan(**changes: object) -> ContentCentredViews:
    values: dict[str, object] = {
        "size": 64,
        "short_side": None,
        "centre_square": False,
        "regions": Grid(10),
    }
    return ContentCentredViews(**(values | changes))


def _make(plan: ContentCentredViews, image: NDArray[np.uint8], seed: int = 0) -> tuple[Crop, ...]:
    source = plan.prepare(image)
    return plan.make(source, plan.regions.compute(source), np.random.default_rng(seed))


def _ids(crop: Crop) -> set[int]:
    return set(np.unique(crop.regions).tolist()) - {-1}


def test_the_same_key_gives_the_same_bytes_and_another_key_does_not() -> None:
    plan, image = _plan(), _picture()
    first, again, other = _make(plan, image, 1), _make(plan, image, 1), _make(plan, image, 2)
    for a, b in zip(first, again, strict=True):
        for name in ("image", "to_image", "regions", "noise"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("source", "stride"), [(Grid(10), 1), (Grid(10), 4), (Pixels(), 1)])
def test_views_share_their_regions(source: Grid | Pixels, stride: int) -> None:
    plan = _plan(regions=source, region_stride=stride)
    counts = []
    for seed in range(20):
        crops = _make(plan, _picture(), seed)
        assert len(crops) == 5
        assert all(_ids(crop) == _ids(crops[0]) for crop in crops)
        assert all(crop.regions.shape == (64 // stride, 64 // stride) for crop in crops)
        assert all(crop.regions.dtype == np.int32 for crop in crops)
        counts.append(len(_ids(crops[0])))
    if source == Grid(10):
        assert min(counts) > 0
    assert np.mean(counts) > 5


def test_without_masks_the_kept_regions_are_exactly_those_in_every_view() -> None:
    plan, image = _plan(**PLAIN), _picture()
    regions = plan.regions.compute(image)
    crops = plan.make(image, regions, np.random.default_rng(3))
    seen = [set(np.unique(_sample_by_affine(crop, regions)[0]).tolist()) for crop in crops]
    assert _ids(crops[0]) == set.intersection(*seen)


def test_region_zero_is_kept_and_none_is_not() -> None:
    plan, image = _plan(outside="clip", **PLAIN), _picture()
    regions = np.zeros(image.shape[:2], np.int32)
    assert all((crop.regions == 0).all() for crop in plan.make(image, regions, np.random.default_rng(0)))
    for changed in (plan, replace(plan, mask_area=0.25)):
        nothing = changed.make(image, regions - 1, np.random.default_rng(0))
        assert all((crop.regions == -1).all() for crop in nothing)
        assert not any(crop.noise.any() for crop in nothing)


def _sample_by_affine(crop: Crop, regions: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The ids at the cells' centres, mapped by `to_image`; and where rounding can't decide between two pixels."""
    cells = crop.regions.shape[0]
    centres = (2 * np.arange(cells) + 1) / cells - 1
    x, y = np.meshgrid(centres, centres)
    points = crop.to_image.astype(np.float64) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    size = np.array([[regions.shape[1]], [regions.shape[0]]])
    pixels = (points + 1) / 2 * size
    unsure = (np.abs(pixels - np.rint(pixels)) < 1e-3).any(0).reshape(cells, cells)
    column, row = np.clip(np.floor(pixels).astype(int), 0, size - 1)
    return regions[row, column].reshape(cells, cells), unsure


@pytest.mark.parametrize(("source", "stride"), [(Pixels(), 1), (Grid(8), 4)])
def test_regions_lie_where_the_affine_says(source: Grid | Pixels, stride: int) -> None:
    plan = _plan(regions=source, region_stride=stride, **PLAIN)
    image = _picture(97, 131)
    regions = source.compute(image)
    flips = checked = 0
    for seed in range(8):
        for crop in plan.make(image, regions, np.random.default_rng(seed)):
            expected, unsure = _sample_by_affine(crop, regions)
            compared = (crop.regions != -1) & ~unsure
            assert np.array_equal(crop.regions[compared], expected[compared])
            checked += compared.sum()
            flips += crop.to_image[0, 0] < 0
    assert 0 < flips < 40
    assert checked > 1000


def test_pixels_lie_where_the_affine_says() -> None:
    # Red grows to the right and green downwards, so that a pixel's colour tells where it came from.
    y, x = np.mgrid[0:200, 0:250]
    image = np.stack([x, y, 0 * x], 2).astype(np.uint8)
    plan = _plan(outside="clip", **PLAIN)
    for seed in range(6):
        for crop in _make(plan, image, seed):
            centres = (2 * np.arange(64) + 1) / 64 - 1
            red = (crop.to_image[0, 0] * centres + crop.to_image[0, 2] + 1) / 2 * 250 - 0.5
            green = (crop.to_image[1, 1] * centres + crop.to_image[1, 2] + 1) / 2 * 200 - 0.5
            assert np.abs(crop.image[:, :, 0] - red[None, :]).max() < 1.1
            assert np.abs(crop.image[:, :, 1] - green[:, None]).max() < 1.1


def test_grid_sample_sees_the_view_at_the_affine() -> None:
    """The trainer's own warp (selfseg.ops.geometry) and the plan agree on the frame."""
    from selfseg.ops.geometry import warp

    plan, image = _plan(**PLAIN, zoom=(1.0, 1.0)), _picture()
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    for crop in _make(plan, image):
        seen = warp(tensor, torch.from_numpy(crop.to_image)[None], (64, 64))[0].permute(1, 2, 0).numpy()
        assert np.abs(seen - crop.image).max() < 1


@pytest.mark.parametrize("size", [(120, 160), (8, 2000), (33, 47), (1, 1)])
@pytest.mark.parametrize("outside", ["fill", "clip"])
def test_every_view_holds_the_centre_and_is_inside_if_clipped(size: tuple[int, int], outside: str) -> None:
    plan = _plan(views=6, outside=outside)
    rng = np.random.default_rng(0)
    for _ in range(200):
        x, y = int(rng.integers(size[1])), int(rng.integers(size[0]))
        for x0, y0, x1, y1 in plan.place((x, y), size, rng):
            assert x0 <= x < x1
            assert y0 <= y < y1
            assert x1 - x0 == y1 - y0
            assert outside == "fill" or (min(x0, y0) >= 0 and x1 <= size[1] and y1 <= size[0])


def test_views_that_are_wanted_larger_than_the_image_differ_only_if_they_are_filled() -> None:
    plan, image = _plan(**PLAIN, views=5, zoom=(2.0, 4.0)), _picture()
    regions = plan.regions.compute(image)
    sizes = {}
    for outside in ("fill", "clip"):
        crops = replace(plan, outside=outside).make(image, regions, np.random.default_rng(0))
        sizes[outside] = {crop.to_image[1, 1] for crop in crops}
        beyond = [_beyond(crop) for crop in crops]
        assert all((crop.regions[out] == -1).all() for crop, out in zip(crops, beyond, strict=True))
        assert any(out.any() for out in beyond) == (outside == "fill")
    assert (len(sizes["fill"]), len(sizes["clip"])) == (5, 1)


def _beyond(crop: Crop) -> NDArray[np.bool_]:
    """Where a view's cells look beyond the image."""
    cells = crop.regions.shape[0]
    centres = (2 * np.arange(cells) + 1) / cells - 1
    x, y = np.meshgrid(centres, centres)
    points = np.einsum("ij,jyx->iyx", crop.to_image, np.stack([x, y, np.ones_like(x)]))
    return (np.abs(points) > 1).any(0)


def test_filled_views_are_the_clipped_ones_where_nothing_reaches_beyond() -> None:
    plan, image = _plan(views=4, zoom=(0.2, 0.4), mask_area=0.3), _picture()
    regions, same = plan.regions.compute(image), 0
    for seed in range(40):
        filled, clipped = (
            replace(plan, outside=outside).make(image, regions, np.random.default_rng(seed))
            for outside in ("fill", "clip")
        )
        if not any(_beyond(crop).any() for crop in filled):
            same += 1
            for one, other in zip(filled, clipped, strict=True):
                assert np.array_equal(one.image, other.image)
                assert np.array_equal(one.regions, other.regions)
                assert np.array_equal(one.to_image, other.to_image)
    assert same > 5


def test_what_lies_beyond_the_image_is_black() -> None:
    image = np.full((6, 8, 3), 200, np.uint8)
    for box in ((-3, -2, 5, 6), (2, 1, 12, 11), (-1, -1, 9, 9)):
        x0, y0, x1, y1 = box
        expected = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
        for y, x in itertools.product(range(6), range(8)):
            if y0 <= y < y1 and x0 <= x < x1:
                expected[y - y0, x - x0] = 200
        assert np.array_equal(cut(image, box), expected)
    assert cut(image, (1, 1, 4, 4)).base is image


def test_the_first_view_is_centred_and_the_others_stand_around() -> None:
    plan, rng = _plan(views=5), np.random.default_rng(0)
    for _ in range(100):
        boxes = np.array(plan.place((500, 500), (1000, 1000), rng))
        side = boxes[:, 2] - boxes[:, 0]
        assert (side >= 32).all()
        assert (side <= 128).all()
        offset = (boxes[:, :2] + boxes[:, 2:]) / 2 - 500
        assert np.abs(offset[0]).max() <= 1
        distance = np.hypot(*offset[1:].T)
        assert (distance <= side[1:] / 2 + 1).all()
        sector = (np.degrees(np.arctan2(offset[1:, 1], offset[1:, 0])) % 360) // 90
        assert len(set(sector[distance > 5])) == (distance > 5).sum() or _near_a_sector_edge(offset, distance)


def _near_a_sector_edge(offset: NDArray[np.float64], distance: NDArray[np.float64]) -> bool:
    """Whether rounding to whole pixels may have moved an offset into the next sector."""
    return bool((np.abs(offset[1:][distance > 5]).min(1) <= 1).any())


@pytest.mark.parametrize("stride", [1, 8])
def test_masks_cover_at_most_the_stated_area_and_vary(stride: int) -> None:
    plan = _plan(region_stride=stride)
    covered = [crop.noise.mean() for seed in range(40) for crop in _make(plan, _picture(), seed)]
    assert max(covered) <= 0.25
    assert 0.06 < np.mean(covered) < 0.14  # uniform in [0, 0.25], less what the last region would go over
    assert max(covered) > 0.15


def test_a_protected_share_of_the_common_regions_survives() -> None:
    image = _picture()
    masked = _plan(mask_area=0.9, protect=0.5)
    free = replace(masked, mask_area=0.0)
    for seed in range(20):
        # Up to the choice of masks both plans draw the same numbers, so that the squares are the same.
        before, after = _ids(_make(free, image, seed)[0]), _ids(_make(masked, image, seed)[0])
        assert after <= before
        assert len(after) >= 0.5 * len(before)


def test_noise_covers_whole_regions_that_no_view_keeps() -> None:
    plan, image = _plan(outside="clip"), _picture()
    regions = plan.regions.compute(image)
    for seed in range(10):
        crops = plan.make(image, regions, np.random.default_rng(seed))
        kept = _ids(crops[0])
        for crop in crops:
            ids, unsure = _sample_by_affine(crop, regions)
            painted = set(ids[crop.noise & ~unsure].tolist())
            assert not painted & kept
            assert np.array_equal(np.isin(ids, list(painted))[~unsure], crop.noise[~unsure])


def test_noise_is_uniform_around_the_mean_after_normalisation_and_only_where_painted() -> None:
    image = np.full((200, 200, 3), 7, np.uint8)
    plan = _plan(outside="clip", **(PLAIN | {"mask_area": 0.25}))
    crops = [crop for seed in range(10) for crop in _make(plan, image, seed)]
    drawn = np.concatenate([crop.image[crop.noise] for crop in crops]) / 255
    normalised = (drawn - IMAGENET_MEAN) / IMAGENET_STD
    assert np.abs(normalised).max() < 1.01
    assert np.abs(normalised.mean(0)).max() < 0.02
    assert np.abs(normalised.std(0) - 1 / np.sqrt(3)).max() < 0.02
    assert all((crop.image[~crop.noise] == 7).all() for crop in crops)


def test_the_centre_follows_the_content() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    image[30:60, 140:180] = _picture(30, 40)
    content = module.content_map(image)
    rng = np.random.default_rng(0)
    points = np.array([module.draw_centre(content, rng) for _ in range(1000)])
    inside = (np.abs(points[:, 0] - 160) < 30) & (np.abs(points[:, 1] - 45) < 25)
    assert inside.mean() > 0.8
    assert inside.mean() < 1  # the floor leaves a chance to every pixel


def test_the_centre_has_the_law_of_the_map() -> None:
    content = np.array([[1, 2, 3], [0.5, 4, 0.5]], np.float32)
    rng = np.random.default_rng(0)
    counts = np.zeros_like(content)
    for _ in range(20_000):
        x, y = module.draw_centre(content, rng)
        counts[y, x] += 1
    expected = content / content.sum() * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # chi square, 5 degrees of freedom, p = 0.001


def test_smoothing_at_half_resolution_keeps_the_law() -> None:
    image = _picture(241, 320)
    gray = cv2.blur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 3))
    edges = cv2.dilate(cv2.Canny(gray, 10, 50), np.ones((3, 3), np.uint8)).astype(np.float32) / 255
    full = cv2.GaussianBlur(edges, (0, 0), module.CONTENT_SIGMA) + module.CONTENT_FLOOR
    ours = module.content_map(image)
    assert np.abs(ours / ours.sum() - full / full.sum()).sum() / 2 < 0.01


@pytest.mark.parametrize("side", [160, 200, 256, 300, 1000])
def test_shrinking_averages_the_finest_texture_away(side: int) -> None:
    board = np.indices((side, side)).sum(0) % 2
    image = np.repeat((255 * board)[:, :, None], 3, 2).astype(np.uint8)
    assert module._resize(image, 128, 128).std() < 15  # INTER_LINEAR: 40 and more, but for multiples of 128


@pytest.mark.parametrize("side", [129, 200, 300])
def test_shrinking_agrees_with_pillow(side: int) -> None:
    image = _picture(side, side)
    pillow = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BILINEAR), float)
    assert np.sqrt(((module._resize(image, 128, 128) - pillow) ** 2).mean()) < 2


def test_a_plain_image_has_no_preferred_centre() -> None:
    content = module.content_map(np.full((40, 60, 3), 128, np.uint8))
    assert np.ptp(content) == 0


@pytest.mark.parametrize("size", [(20, 30), (8, 2000), (2000, 8), (1, 1), (480, 640)])
@pytest.mark.parametrize("low", [True, False])
def test_any_image_works(size: tuple[int, int], low: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    plan = _plan(short_side=80, centre_square=True) if low else _plan()
    crops = _make(plan, image)
    assert all(crop.image.shape == (64, 64, 3) and crop.image.dtype == np.uint8 for crop in crops)
    assert all(crop.image.flags.c_contiguous for crop in crops)
    if low:
        assert plan.prepare(image).shape == (80, 80, 3)


def test_prepare_keeps_to_its_limits() -> None:
    image = np.zeros((300, 900, 3), np.uint8)
    high = ContentCentredViews(short_side=None, centre_square=False, shortest=500, longest=2048)
    assert high.prepare(image).shape == (500, 1500, 3)
    assert high.prepare(np.zeros((300, 3000, 3), np.uint8)).shape == (205, 2048, 3)
    assert high.prepare(np.zeros((600, 700, 3), np.uint8)).shape == (600, 700, 3)
    assert replace(high, short_side=100).prepare(image).shape == (100, 300, 3)
    assert ContentCentredViews().prepare(image).shape == (320, 320, 3)


def test_arguments_are_not_changed() -> None:
    plan, image = _plan(size=32, zoom=(1.0, 1.0)), _picture()
    regions = plan.regions.compute(image)
    copies = image.copy(), regions.copy()
    plan.make(image, regions, np.random.default_rng(0))
    assert np.array_equal(image, copies[0])
    assert np.array_equal(regions, copies[1])


def test_regions_of_another_image_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(3, 4\).*prepare"):
        _plan().make(_picture(), np.zeros((3, 4), np.int32), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"views": 0}, "views"),
        ({"size": 100, "region_stride": 8}, "use size 96"),
        ({"regions": Pixels(), "region_stride": 2}, "region_stride 1"),
        ({"zoom": (0.0, 1.0)}, "zoom"),
        ({"zoom": (2.0, 1.0)}, "zoom"),
        ({"mask_area": 1.0}, "mask_area"),
        ({"protect": -0.1}, "protect"),
        ({"jitter": (0.8, 0.8, 0.8, 0.6)}, "hue"),
        ({"short_side": 0}, "short_side"),
    ],
)
def test_values_that_can_not_work_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _plan(**changes)


def test_to_image_is_the_crop_of_the_box() -> None:
    plan, image = _plan(**PLAIN, flip_probability=1.0), _picture()
    rng = np.random.default_rng(5)
    centre = module.draw_centre(module.content_map(image), rng)
    boxes = plan.place(centre, (120, 160), rng)
    for crop, box in zip(_make(plan, image, 5), boxes, strict=True):
        assert np.array_equal(crop.to_image, crop_affine(box, (120, 160), flip=True))
