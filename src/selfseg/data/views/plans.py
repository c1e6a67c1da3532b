"""Every view plan and region source by its class's name, as recipes are written and read back."""

from __future__ import annotations

from typing import Any

from selfseg.plugins import load_all


def plans() -> dict[str, type[Any]]:
    """The view plans: frozen dataclasses with the methods of `selfseg.data.views.base.ViewPlan`."""
    return load_all("selfseg.views")


def region_sources() -> dict[str, type[Any]]:
    """The region sources that a plan may have as a setting, see `selfseg.data.regions`."""
    return load_all("selfseg.regions")
