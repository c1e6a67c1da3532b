"""Every view plan and region source by its class's name, as recipes are written and read back.

A new plan is entered in `PLANS`, a new region source in `RegionSource` of `selfseg.data.regions`; recipes, the command
line and the report know it from then on.
"""

from __future__ import annotations

from typing import Any, get_args

from selfseg.data.regions import ObjectMasks, RegionSource
from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.data.views.object_crops import ObjectCrops
from selfseg.data.views.overlapping_crops import OverlappingCrops
from selfseg.data.views.random_crops import NestedCrops, RandomCrops

PLANS: dict[str, type[Any]] = {
    cls.__name__: cls for cls in (ContentCentredViews, OverlappingCrops, ObjectCrops, RandomCrops, NestedCrops)
}
"""The view plans: frozen dataclasses with the methods of `selfseg.data.views.content_centred.ViewPlan`."""

REGIONS: dict[str, type[Any]] = {cls.__name__: cls for cls in (*get_args(RegionSource), ObjectMasks)}
"""The region sources that a plan may have as a setting."""
