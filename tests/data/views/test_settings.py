"""Settings that can't work are refused by every view plan in the same words."""

from __future__ import annotations

from typing import Any

import pytest

from selfseg.data.views.plans import plans
from selfseg.data.views.settings import check_stride
from selfseg.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "^size must be at least 1, not 0$"),
        ({"short_side": 0}, "^short_side must be at least 1 pixel or None, not 0$"),
        ({"longest": -3}, "^longest must be at least 1 pixel or None, not -3$"),
        ({"gray_probability": float("nan")}, r"^gray_probability is a fraction in \[0, 1\], not nan$"),
        ({"flip_probability": 1.5}, r"^flip_probability is a fraction in \[0, 1\], not 1.5$"),
        ({"blur_sigma": (2.0, 1.0)}, r"^blur_sigma must be \(low, high\) with 0 < low <= high, not \(2.0, 1.0\)$"),
        ({"blur_sigma": (1.0, float("inf"))}, r"not \(1.0, inf\)$"),
        ({"jitter": (0.1, 0.1, -0.1, 0.1)}, r"^jitter must be at least 0.*not \(0.1, 0.1, -0.1, 0.1\)$"),
        ({"jitter": (0.1, 0.1, 0.1, 0.6)}, "hue at most 0.5 of a turn"),
    ],
)
@pytest.mark.parametrize("plan", plans().values(), ids=plans())
def test_every_plan_names_the_setting_and_its_value(plan: type[Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(**changes)


@pytest.mark.parametrize("plan", ["OverlappingCrops", "ObjectCrops", "RandomCrops", "NestedCrops"])
def test_plans_of_crops_check_their_scale(plan: str) -> None:
    with pytest.raises(ConfigError, match=r"^scale must be \(low, high\) with 0 < low <= high <= 1, not \(0.5, 1.5\)$"):
        plans()[plan](scale=(0.5, 1.5))
    with pytest.raises(ConfigError, match=r"^ratio must be"):
        plans()[plan](ratio=(0.0, 1.0))


@pytest.mark.parametrize(("size", "stride", "way_out"), [(64, 5, 60), (3, 8, 8), (7, 0, 7)])
def test_a_stride_that_does_not_fit_names_a_size_that_does(size: int, stride: int, way_out: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"region_stride \({stride}\) must divide size \({size}\); use size {way_out}$"
    ):
        check_stride(size, stride)
    check_stride(64, 4)
