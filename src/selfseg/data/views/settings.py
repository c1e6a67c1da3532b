"""Checks of settings that several view plans have; what can't work is told by the setting's name and its value."""

from __future__ import annotations

import math
from typing import Any

from selfseg.errors import ConfigError


def check_settings(
    plan: Any,
    *,
    counts: tuple[str, ...] = (),
    lengths: tuple[str, ...] = (),
    fractions: tuple[str, ...] = (),
    shares: tuple[str, ...] = (),
    ranges: tuple[str, ...] = (),
) -> None:
    """Refuse a plan with values that can't work.

    Args:
        plan: what has the settings, under the names given below.
        counts: settings that must be at least 1.
        lengths: those in pixels that must be at least 1, or None.
        fractions: those within [0, 1].
        shares: pairs (low, high) with 0 < low <= high <= 1.
        ranges: pairs (low, high) with 0 < low <= high, both finite.

    Raises:
        ConfigError: with the setting's name and value.
    """
    for name in counts:
        if getattr(plan, name) < 1:
            raise ConfigError(f"{name} must be at least 1, not {getattr(plan, name)}")
    for name in lengths:
        value = getattr(plan, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1 pixel or None, not {value}")
    for name in fractions:
        if not 0 <= getattr(plan, name) <= 1:
            raise ConfigError(f"{name} is a fraction in [0, 1], not {getattr(plan, name)}")
    for name in shares:
        low, high = getattr(plan, name)
        if not 0 < low <= high <= 1:
            raise ConfigError(f"{name} must be (low, high) with 0 < low <= high <= 1, not ({low}, {high})")
    for name in ranges:
        low, high = getattr(plan, name)
        if not 0 < low <= high < math.inf:
            raise ConfigError(f"{name} must be (low, high) with 0 < low <= high, not ({low}, {high})")


def check_jitter(strength: tuple[float, float, float, float]) -> None:
    """Refuse strengths of brightness, contrast, saturation and hue that `augment.jitter` can't use.

    Raises:
        ConfigError: with the strengths.
    """
    if not (all(value >= 0 for value in strength) and strength[3] <= 0.5):
        raise ConfigError(f"jitter must be at least 0, and its hue at most 0.5 of a turn, not {strength}")


def check_two_appearances(plan: Any) -> None:
    """Refuse blur and solarisation of two views that can't work; of plans with BYOL's appearance.

    Raises:
        ConfigError: with the setting's name and value.
    """
    for name in ("blur_probability", "solarise_probability"):
        if not all(0 <= value <= 1 for value in getattr(plan, name)):
            raise ConfigError(f"{name} is two fractions in [0, 1], one for each view, not {getattr(plan, name)}")
    if not 0 <= plan.solarise_threshold <= 256:
        raise ConfigError(f"solarise_threshold is a level in [0, 256], not {plan.solarise_threshold}")


def check_stride(size: int, region_stride: int) -> None:
    """Refuse a grid of region ids that doesn't fit a view of `size` pixels.

    Raises:
        ConfigError: with both, and the next size that would do.
    """
    if region_stride < 1 or size % region_stride:
        step = max(1, region_stride)
        raise ConfigError(
            f"region_stride ({region_stride}) must divide size ({size}); use size {max(1, size // step) * step}"
        )
