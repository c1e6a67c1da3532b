"""The two crops of DetCon: which regions they carry, where these lie, and settings that can't work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selfseg.data.regions import Grid, Superpixels
from selfseg.data.views.overlapping_crops import OverlappingCrops
from selfseg.data.views.region_crops import RegionCrops, draw_ids
from selfseg.errors import ConfigError

GRID = Grid(10)
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
IDS = GRID.compute(IMAGE)  # 9 x 12 regions


def test_crops_and_colours_are_those_of_overlapping_crops_where_all_regions_are_kept() -> None:
    ours = RegionCrops(size=32, regions=GRID, masks=200).make(IMAGE, IDS, np.random.default_rng(1))
    theirs = OverlappingCrops(size=32).make(IMAGE, IDS, np.random.default_rng(1))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine.image, other.image)
        np.testing.assert_array_equal(mine.to_image, other.to_image)


@pytest.mark.parametrize("stride", [1, 4])
def test_ids_lie_where_the_view_shows_them(stride: int) -> None:
    plan = RegionCrops(size=32, regions=GRID, masks=200, region_stride=stride)
    for seed in range(5):
        for crop in plan.make(IMAGE, IDS, np.random.default_rng(seed)):
            cells = 32 // stride
            assert crop.regions.shape == (cells, cells)
            at = (np.arange(cells) + 0.5) / cells * 2 - 1
            x = crop.to_image[0, 0] * at + crop.to_image[0, 2]
            y = crop.to_image[1, 1] * at + crop.to_image[1, 2]
            columns, rows = (((p + 1) / 2 * n).astype(int).clip(0, n - 1) for p, n in ((x, 120), (y, 90)))
            assert (crop.regions == IDS[np.ix_(rows, columns)]).mean() > 0.95  # but for points between two pixels


def test_each_view_keeps_up_to_so_many_of_its_regions_drawn_by_itself() -> None:
    plan = RegionCrops(size=32, scale=(0.5, 1.0), regions=GRID, masks=5)
    chosen = [
        [set(np.unique(crop.regions).tolist()) - {-1} for crop in plan.make(IMAGE, IDS, np.random.default_rng(seed))]
        for seed in range(20)
    ]
    assert all(len(ids) == 5 for pair in chosen for ids in pair)
    assert any(first != second for first, second in chosen)
    again = plan.make(IMAGE, IDS, np.random.default_rng(3))
    assert [set(np.unique(crop.regions).tolist()) - {-1} for crop in again] == chosen[3]


def test_every_region_is_as_likely_as_any_other() -> None:
    ids = np.array([[0, 0, 0, 0, 3, 5, 5, -1]], np.int32)
    rng = np.random.default_rng(0)
    counts = np.zeros(6)
    for _ in range(600):
        kept = draw_ids(ids, 2, rng)
        assert set(np.unique(kept)) <= {-1, 0, 3, 5}
        counts[[n for n in np.unique(kept) if n >= 0]] += 1
    np.testing.assert_allclose(counts[[0, 3, 5]], 400, atol=50)
    assert draw_ids(ids, 3, rng) is ids
    assert draw_ids(np.full((2, 2), -1, np.int32), 3, rng).max() == -1


def test_regions_of_another_image_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"regions are \(80, 120\) but the image is \(90, 120\)"):
        RegionCrops(size=32, regions=GRID).make(IMAGE, IDS[:80], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": 0}, "masks must be at least 1, not 0"),
        ({"region_stride": 5}, r"region_stride \(5\) must divide size \(224\)"),
        ({"min_overlap": 0.5}, "min_overlap must be above 0 and at most 0.08"),
        ({"regions": Superpixels(20), "scale": (0.0, 1.0)}, "scale must be"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegionCrops(**changes)
