"""What installed packages offer by name: methods, recipes, view plans, region sources, weights, formats of export.

Each is an entry point of one of the groups below, ours as anyone's (Python packaging guide, "Entry points"). A package
that offers a recipe has in its pyproject.toml:

    [project.entry-points."selfseg.recipes"]
    my_recipe = "my_package.recipes:my_recipe"
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from selfseg.errors import ConfigError

Group = Literal[
    "selfseg.methods", "selfseg.recipes", "selfseg.views", "selfseg.regions", "selfseg.weights", "selfseg.exporters"
]
"""selfseg.methods: `Method` classes; selfseg.recipes: functions of (images, out) that return a `Recipe`; selfseg.views
and selfseg.regions: frozen dataclasses, entered under their class's name; selfseg.weights: functions that give the
`Weights` (`selfseg.models.start`) of the backbone whose name they have in timm; selfseg.exporters: an `Exporter`
(`selfseg.exporting.export`)."""


@lru_cache
def registered(group: Group) -> dict[str, EntryPoint]:
    """The entry points of a group by name, sorted; nothing is imported.

    Raises:
        ConfigError: if two packages use one name, or nothing is registered because selfseg isn't installed.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"two packages register {point.name!r} in {group}: {_source(other)} and {_source(point)}; "
                "uninstall one of them"
            )
    if not found:
        raise ConfigError(
            f"nothing is registered in {group}: selfseg runs from files that are not installed; run make setup, or "
            "pip install -e . in its folder"
        )
    return found


def load(group: Group, name: str) -> Any:
    """What is registered under a name.

    Raises:
        ConfigError: if there is no such name, or its package can't be imported.
    """
    points = registered(group)
    if name not in points:
        raise ConfigError(f"no {name!r} in {group}; there are {', '.join(points)}")
    try:
        return points[name].load()
    except Exception as error:  # whatever a foreign package raises while it is imported
        raise ConfigError(
            f"{name!r} of {group} can't be loaded from {_source(points[name])}: {type(error).__name__}: {error}; mend "
            "or uninstall that package"
        ) from error


def load_all(group: Group) -> dict[str, Any]:
    """Everything of a group by name; what can't be loaded is left out with a warning, so that the rest still works."""
    found = {}
    for name in registered(group):
        try:
            found[name] = load(group, name)
        except ConfigError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def _source(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "an unknown package"
    return f"{package} ({point.value})"
