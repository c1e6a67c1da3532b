from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selfseg.errors import ConfigError
from selfseg.masks.cleaning import Cleaning, clean, clean_objects


def squares(*sides: int, value: float = 0.9) -> np.ndarray:
    """A 100x100 map with squares of these sides."""
    saliency = np.full((100, 100), 0.1, np.float32)
    left = 0
    for side in sides:
        saliency[:side, left : left + side] = value
        left += side + 2
    return saliency


def test_pieces_below_one_percent_are_dropped() -> None:
    result = clean(squares(20, 9, 10))
    assert result.reason == ""
    assert result.share == pytest.approx((400 + 100) / 10_000)
    assert (result.mask.dtype, result.ids.dtype) == (bool, np.int32)
    assert not result.mask[:9, 22:31].any()
    assert clean(squares(20, 9, 10), Cleaning(min_piece=0)).share == pytest.approx(0.0581)


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    saliency = np.zeros((20, 20), np.float32)
    saliency[0, 0] = saliency[1, 1] = saliency[2, 2] = saliency[3, 3] = 1
    assert clean(saliency).share == 0.01


@pytest.mark.parametrize(
    ("saliency", "cleaning", "reason"),
    [
        (np.zeros((50, 50), np.float32), Cleaning(), "empty"),
        (np.zeros((50, 50), np.float32), Cleaning("otsu"), "empty"),
        (np.zeros((50, 50), np.float32), Cleaning("adaptive"), "empty"),
        (squares(9, 9, 9), Cleaning(), "empty"),
        (squares(9), Cleaning(min_piece=0), "small"),
        (squares(100), Cleaning(), "full"),
        (squares(98), Cleaning(), "full"),
        (squares(98), Cleaning(max_area=1), ""),
        (np.ones((1, 1), np.float32), Cleaning(), "full"),
    ],
)
def test_what_is_no_mask_is_rejected_with_the_reason(saliency: np.ndarray, cleaning: Cleaning, reason: str) -> None:
    assert clean(saliency, cleaning).reason == reason


def test_the_thresholds() -> None:
    saliency = squares(30, value=0.4)
    assert clean(saliency).reason == "empty"
    assert clean(saliency, Cleaning(threshold=0.4)).share == 0.09
    for threshold in ("otsu", "adaptive"):
        result = clean(saliency, Cleaning(threshold=threshold))
        assert result.share == 0.09
        assert 0.1 < result.threshold <= 0.4
    assert clean(saliency, Cleaning("adaptive")).threshold == pytest.approx(2 * (0.1 * 0.91 + 0.4 * 0.09), rel=1e-5)
    bright = np.full((50, 50), 0.6, np.float32)
    bright[:20] = 0.8
    assert clean(bright, Cleaning("adaptive")).share == 0.4  # twice the mean is above all: its largest value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 0}, "threshold must be above 0 and at most 1, e.g. 0.5, not 0"),
        ({"threshold": 1.5}, "threshold must be above 0 and at most 1, e.g. 0.5, not 1.5"),
        ({"threshold": "mean"}, "'mean'"),
        ({"min_piece": -0.1}, "min_piece must be a share of the image from 0 to below 1, e.g. 0.01, not -0.1"),
        ({"min_area": 0.9, "max_area": 0.5}, "min_area 0.9 and max_area 0.5"),
        ({"max_area": 2}, "max_area 2"),
    ],
)
def test_settings_that_can_not_work_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Cleaning(**options)


def test_objects_that_are_too_small_are_dropped_and_the_rest_counted_anew() -> None:
    ids = np.zeros((100, 100), np.int32)
    ids[:9, :9], ids[20:60, :40], ids[20:60, 40:60] = 1, 2, 5
    result = clean_objects(ids)
    assert (result.reason, result.objects, result.share) == ("", 2, 0.24)
    assert result.ids.dtype == np.int32
    np.testing.assert_array_equal(result.ids, np.where(ids == 2, 1, np.where(ids == 5, 2, 0)))
    np.testing.assert_array_equal(result.mask, ids > 1)
    assert clean_objects(ids, Cleaning(min_piece=0)).objects == 3
    assert clean_objects(ids * 0).reason == "empty"
    assert clean_objects(ids * 0 + 1).reason == "full"
    assert clean_objects(ids + 1).reason == ""  # several objects may fill the image
    assert clean_objects(ids, Cleaning(min_area=0.3)).reason == "small"


def test_a_map_gives_one_object() -> None:
    result = clean(squares(20, 10))
    assert (result.objects, result.ids.max(), result.mask.sum()) == (1, 1, 500)
