"""The classes of named masks: what each value in a mask means, and the colour that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfseg.errors import ConfigError

Colour = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design" (2008): told apart with every common kind of colour blindness.
_SAFE: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (86, 180, 233),  # last: laid over a photograph it is too near to the first
)


@dataclass(frozen=True)
class NamedClass:
    """A class that a person named.

    Attributes:
        name: as it was typed; not empty.
        colour: R, G, B in [0, 255].
    """

    name: str
    colour: Colour

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("a class needs a name")
        if len(self.colour) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in self.colour):
            raise ConfigError(f"the colour of {self.name!r} has R, G and B from 0 to 255, not {self.colour}")


@dataclass(frozen=True)
class Legend:
    """The classes of a mask, in the order of their values, 0 to C - 1.

    Attributes:
        classes: C of them, names differ; at most 65,535.
    """

    classes: tuple[NamedClass, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.classes) <= 65_535:
            raise ConfigError(f"a legend has 1 to 65,535 classes, not {len(self.classes)}")
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"two classes are called {twice[0]!r}; names in a legend differ")

    @property
    def names(self) -> tuple[str, ...]:
        """The C names."""
        return tuple(one.name for one in self.classes)

    @property
    def void(self) -> int:
        """The value of pixels that belong to no class: 255 in masks of 8 bit (up to 255 classes), else 65535."""
        return 255 if len(self.classes) <= 255 else 65_535

    @staticmethod
    def of(names: Sequence[str], colours: Mapping[str, Colour] | None = None) -> Legend:
        """Classes by name, with safe colours where none is given.

        Example:
            >>> Legend.of(["road", "sky"], {"sky": (1, 2, 3)}).classes[1].colour
            (1, 2, 3)
        """
        given = dict(colours or {})
        free = (colour for colour in safe_colours(len(names) + len(given)) if colour not in given.values())
        return Legend(tuple(NamedClass(name, given[name] if name in given else next(free)) for name in names))

    def to_json(self) -> list[dict[str, Any]]:
        """A list of {"value", "name", "colour"} with colours as "#rrggbb"."""
        return [
            {"value": value, "name": one.name, "colour": "#{:02x}{:02x}{:02x}".format(*one.colour)}
            for value, one in enumerate(self.classes)
        ]

    @staticmethod
    def from_json(entries: Any) -> Legend:
        """What `to_json` gave.

        Raises:
            ConfigError: if it is something else.
        """
        try:
            ordered = sorted(entries, key=lambda entry: entry["value"])
            if [entry["value"] for entry in ordered] != list(range(len(ordered))):
                raise ValueError("values are not 0, 1, 2, ...")
            return Legend(tuple(NamedClass(str(e["name"]), parse_colour(e["colour"])) for e in ordered))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"this is no legend ({type(error).__name__}: {error})") from error


def parse_colour(text: str) -> Colour:
    """The colour that "#rrggbb" names.

    Raises:
        ConfigError: if it is no such text.

    Example:
        >>> parse_colour("#0072b2")
        (0, 114, 178)
    """
    digits = text.strip().removeprefix("#") if isinstance(text, str) else ""
    if len(digits) != 6 or not all(c in "0123456789abcdefABCDEF" for c in digits):
        raise ConfigError(f"a colour is written as #rrggbb, not {text!r}")
    return (int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16))


def safe_colours(count: int) -> tuple[Colour, ...]:
    """Colours that people with colour blindness can tell apart, as far as that is possible with so many.

    The first seven are Okabe's and Ito's; after them the same, darker and lighter in turn.

    Example:
        >>> safe_colours(1)
        ((0, 114, 178),)
    """
    found: list[Colour] = list(_SAFE)
    step = 1
    while len(found) < count:
        share = 1 - 0.75**step
        for towards in (0, 255):
            found += [tuple(round(c + (towards - c) * share) for c in colour) for colour in _SAFE]  # type: ignore[misc]
        step += 1
    return tuple(found[:count])
