"""What a run trains on, as pictures: superpixels and views, as training stored them or made here by its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.collection.false_colours import PHOTOGRAPHS, Painter
from selfseg.data.regions import NoRegions, RegionCache
from selfseg.data.views.base import ViewPlan, make_views, prepare_image
from selfseg.data.views.plans import plans, region_sources
from selfseg.drawing.figures import Figure, figure
from selfseg.drawing.pictures import Picture, draw_views, fit_within, outlines
from selfseg.errors import BadImage, ConfigError
from selfseg.types import Batch, View


def read_plan(recipe: Mapping[str, Any]) -> ViewPlan | None:
    """The view plan of a recipe.yaml; None if it has none that is known here."""
    try:
        plan: ViewPlan = _build((recipe.get("method") or {}).get("views") or {}, plans())
    except (KeyError, TypeError, AttributeError, ConfigError):  # a recipe of another version: the page goes without
        return None
    return plan


def _build(values: Mapping[str, Any], kinds: Mapping[str, type[Any]]) -> Any:
    """The dataclass that a mapping of a recipe.yaml stands for; entries that it has no field for are passed over."""
    cls = kinds[str(values["kind"])]
    known = {field.name for field in fields(cls)}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    given = {k: _build(v, region_sources()) if isinstance(v, Mapping) else v for k, v in given.items()}
    return cls(**{k: Path(v) if k == "folder" else v for k, v in given.items()})


def region_figures(
    plan: ViewPlan, names: Sequence[str], images: Sequence[Picture], painter: Painter = PHOTOGRAPHS
) -> list[Figure]:
    """Images as training prepares them, with the outlines of their regions; none if the plan has no regions."""
    if isinstance(plan.regions, NoRegions):
        return []
    figures = []
    for name, image in zip(names, images, strict=True):
        prepared = prepare_image(plan, image, painter.rgb)
        regions = _regions(plan, prepared, name, painter.rgb)
        if regions is not None:
            figures.append(figure(fit_within(outlines(painter(prepared), regions), 900), f"regions of {name}"))
    return figures


def view_figures(
    plan: ViewPlan, names: Sequence[str], images: Sequence[Picture], painter: Painter = PHOTOGRAPHS
) -> list[Figure]:
    """Views of each image as a training step may get them, with what they share."""
    figures = []
    for i, (name, image) in enumerate(zip(names, images, strict=True)):
        prepared = prepare_image(plan, image, painter.rgb)
        regions = _regions(plan, prepared, name, painter.rgb)
        if regions is None:
            continue
        crops = make_views(plan, prepared, regions, np.random.default_rng(i), painter.rgb)
        views = tuple(
            View(_tensor(crop.image).permute(2, 0, 1)[None], _tensor(crop.to_image)[None], _tensor(crop.regions)[None])
            for crop in crops
        )
        batch = Batch(views, torch.zeros(1, dtype=torch.int64))
        figures.append(figure(draw_views(batch, paint=painter.paint), f"views of {name}"))
    return figures


def _regions(plan: ViewPlan, prepared: Picture, name: str, rgb: bool) -> NDArray[np.int32] | None:
    """The regions of a prepared image; None if they lie in a file that can't be used."""
    try:
        return RegionCache(None, plan.regions, rgb).get(prepared, name)
    except BadImage:
        return None


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
