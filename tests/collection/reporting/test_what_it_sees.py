from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfseg.collection.reporting.what_it_sees import read_plan, region_figures, view_figures
from selfseg.data.regions import Grid, ObjectMasks
from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.data.views.object_crops import ObjectCrops
from selfseg.data.views.overlapping_crops import OverlappingCrops
from selfseg.data.views.plans import plans
from selfseg.training.plain import to_plain


@pytest.mark.parametrize("kind", plans().values(), ids=plans())
def test_every_plan_is_read_from_its_recipe(kind: type[Any]) -> None:
    plan = kind(size=64, blur_sigma=(0.5, 1.5))
    assert read_plan({"method": {"views": to_plain(plan)}}) == plan


def test_its_regions_too() -> None:
    plan = ContentCentredViews(regions=Grid(7))
    assert read_plan({"method": {"views": to_plain(plan)}}) == plan


def test_masks_that_are_there_are_shown_and_others_left_out(tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), np.uint8))
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 20:70] = 255
    Image.fromarray(mask).save(tmp_path / "b.png")
    plan = read_plan({"method": {"views": to_plain(ObjectCrops(ObjectMasks(tmp_path), size=32))}})
    assert plan == ObjectCrops(ObjectMasks(tmp_path), size=32)
    assert [figure.label for figure in region_figures(plan, ["a", "b"], images)] == ["regions of b"]
    assert [figure.label for figure in view_figures(plan, ["a", "b"], images)] == ["views of b"]


@pytest.mark.parametrize(
    "views",
    [
        None,
        {},
        {"kind": "Nonsense"},
        {"kind": "OverlappingCrops", "size": 0},
        {"kind": "OverlappingCrops", "scale": 3},
        {"kind": "ContentCentredViews", "regions": {"kind": "Nonsense"}},
    ],
)
def test_of_a_plan_that_is_not_known_here_nothing_is_shown(views: Any) -> None:
    assert read_plan({"method": {"views": views}}) is None


def test_a_plan_without_regions_has_figures_of_views_alone() -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), np.uint8))
    plan = OverlappingCrops(size=32)
    assert region_figures(plan, ["a", "b"], images) == []
    figures = view_figures(plan, ["a", "b"], images)
    assert [figure.label for figure in figures] == ["views of a", "views of b"]
    assert (figures[0].width, figures[0].height) == (2 * 224 + 6, 2 * 224 + 6)
