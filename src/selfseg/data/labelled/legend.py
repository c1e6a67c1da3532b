"""The classes of named masks: what each value in a mask means, and the colour that shows it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from selfseg.errors import ConfigError

Colour = tuple[int, int, int]

UNSURE = "unsure"
"""The verdict of a person who can't tell, in an audit; therefore no class's name."""

MOST_CHARACTERS = 200

# Controls, line separators, halves of pairs, and marks that turn the direction of what follows: a name with them could
# break a line of a file, or look like another. Joiners stay, as Persian and Hindi need them.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u202a-\u202e\u2066-\u2069]")

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

# Each the one of a grid that is farthest from all before it, and from black, gray and white, in the OKLab space, as
# eyes see it that have all three cones, or lack one (Machado et al., "A physiologically-based model for
# simulation of color vision deficiency", 2009). tests/data/labelled/test_legend.py measures how far they are.
_FURTHER = tuple(
    (int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16))
    for code in (
        "78002d 3c00a5 00f0b4 694b69 b400ff 964b00 a5b487 c3d2ff 5a1e69 0000e1 b469ff c30096 4b694b "
        "a5ff96 e1c378 d23cd2 87d2d2 960000 f0783c 871e87 b4d21e 004b4b 78a55a ff87ff a5784b 783cc3 "
        "d296c3 d2003c 5a00c3 874b87 ff2d87 b487ff 961ee1"
    ).split()
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
        if len(set(names)) == len(names):
            return
        twice = sorted({name for name in names if names.count(name) > 1})
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
        free = free_colours(given.values())
        return Legend(tuple(NamedClass(name, given[name] if name in given else next(free)) for name in names))

    def to_json(self) -> list[dict[str, Any]]:
        """A list of {"value", "name", "colour"} with colours as "#rrggbb"."""
        return [
            {"value": value, "name": one.name, "colour": format_colour(one.colour)}
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
            if not all(isinstance(entry["name"], str) for entry in ordered):
                raise ValueError("a name is no text")
            return Legend(tuple(NamedClass(e["name"], parse_colour(e["colour"])) for e in ordered))
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


def format_colour(colour: Colour) -> str:
    """A colour as `parse_colour` reads it.

    Example:
        >>> format_colour((0, 114, 178))
        '#0072b2'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)


def clean_name(name: Any) -> str:
    """A class's name as it is kept: NFC, without blanks around it. Equal names are one class.

    Raises:
        ConfigError: if it is empty, too long, "unsure" (an audit's answer), or has characters that can't be seen.

    Example:
        >>> clean_name("  road ")
        'road'
    """
    if not isinstance(name, str):
        raise ConfigError(f"a name is a text, not {name!r}")
    clean = name.strip() if name.isascii() else unicodedata.normalize("NFC", name).strip()
    if found := _FORBIDDEN.search(clean):
        raise ConfigError(f"the name {name!r} holds the control character U+{ord(found[0]):04X}; leave it out")
    if not clean or (not clean.isascii() and all(unicodedata.category(c)[0] in "CZ" for c in clean)):
        raise ConfigError("a class needs a name that can be seen")
    if len(clean) > MOST_CHARACTERS:
        raise ConfigError(f"the name has {len(clean)} characters; {MOST_CHARACTERS} are the most: {clean[:40]!r}...")
    if clean == UNSURE:
        raise ConfigError(
            f"{UNSURE!r} is an answer of the audit; give the class another name, or leave the cluster out"
        )
    return clean


def free_colours(taken: Collection[Colour] = ()) -> Iterator[Colour]:
    """Colours for classes one after the other, none twice and none that is taken; never black, which shows void.

    The first seven are Okabe's and Ito's, which people with colour blindness can tell apart; 33 more are chosen to be
    as far from them and from each other as can be. Then come all of these darker and lighter in turn, and at last all
    others, neighbours far from each other.

    Args:
        taken: what is not to come.

    Example:
        >>> next(free_colours()), next(free_colours([(0, 114, 178)]))
        ((0, 114, 178), (230, 159, 0))
    """
    used = {*taken, (0, 0, 0)}
    for colour in _all_colours():
        if colour not in used:
            used.add(colour)
            yield colour


def _all_colours() -> Iterator[Colour]:
    first = _SAFE + _FURTHER
    yield from first
    for step in range(1, 5):  # after so many they are nearly white and black
        share = 1 - 0.75**step
        for towards in (0, 255):
            for red, green, blue in first:
                yield _towards(red, towards, share), _towards(green, towards, share), _towards(blue, towards, share)
    for i in count(1):  # steps of an odd number go through all that there are: the golden section of 2^24
        word = i * 0x9E3779 % (1 << 24)
        yield word >> 16, word >> 8 & 255, word & 255
        if not word:
            return


def _towards(part: int, end: int, share: float) -> int:
    return round(part + (end - part) * share)


def safe_colours(count: int) -> tuple[Colour, ...]:
    """The first so many of `free_colours`.

    Example:
        >>> safe_colours(1)
        ((0, 114, 178),)
    """
    return tuple(islice(free_colours(), count))
