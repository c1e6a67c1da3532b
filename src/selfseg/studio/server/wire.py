"""How values travel: views as JSON, arrays as little-endian bytes, and what a request may say."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.legend import Colour, parse_colour
from selfseg.drawing.pictures import hex_colour
from selfseg.errors import ConfigError
from selfseg.studio.server.contract import NO_CLASS, Box, Channels, Prediction

MOST_CHARACTERS = 1000  # of a text in a request
MOST_PLACES = 4000  # of a stroke


def to_json(value: Any) -> Any:
    """A view, and what is in it, as JSON has it: names in camelCase, colours as "#rrggbb", predictions in base64.

    Example:
        >>> from selfseg.studio.server.contract import Crop
        >>> to_json([Crop(3, (0.0, 0.5, 0.25, 1.0))])
        [{'image': 3, 'box': [0.0, 0.5, 0.25, 1.0]}]
    """
    if isinstance(value, Prediction):
        return base64.b64encode(prediction_bytes(value)).decode("ascii")
    if is_dataclass(value):
        return {_camel(field.name): _field(field.name, getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON knows no NaN
    return value


def _field(name: str, value: Any) -> Any:
    return hex_colour(value) if name == "colour" else to_json(value)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def prediction_bytes(prediction: Prediction) -> bytes:
    """uint32 n, n uint16 classes, n float32 certainties, little endian."""
    head = np.array([len(prediction.classes)], "<u4")
    classes = np.ascontiguousarray(prediction.classes, "<u2")
    certainty = np.ascontiguousarray(prediction.certainty, "<f4")
    return head.tobytes() + classes.tobytes() + certainty.tobytes()


def regions_bytes(superpixels: NDArray[np.uint16], merges: NDArray[np.float32]) -> bytes:
    """uint32 h, w, n, then h * w uint16 numbers, then the merges as float32 triples, little endian."""
    height, width = superpixels.shape
    head = np.array([height, width, int(superpixels[superpixels != NO_CLASS].max(initial=0)) + 1], "<u4")
    return (
        head.tobytes()
        + np.ascontiguousarray(superpixels, "<u2").tobytes()
        + np.ascontiguousarray(merges, "<f4").tobytes()
    )


class Fields:
    """The fields of a request, each as what it must be.

    Every method raises ConfigError if the field is something else.
    """

    def __init__(self, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise ConfigError("the request is not a JSON object")
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def _get(self, name: str) -> Any:
        if name not in self._values:
            raise ConfigError(f"the request needs {name!r}")
        return self._values[name]

    def text(self, name: str) -> str:
        """A text."""
        value = self._get(name)
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
            raise ConfigError(f"{name!r} is a text of at most {MOST_CHARACTERS} characters, not {value!r:.60}")
        return value

    def text_or_none(self, name: str) -> str | None:
        """A text, or null."""
        return None if self._get(name) is None else self.text(name)

    def whole(self, name: str, most: int = 2**53) -> int:
        """A whole number from 0; digits in the query of an address, too."""
        value = self._get(name)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 17:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise ConfigError(f"{name!r} is a whole number from 0 to {most}, not {value!r:.60}")
        return value

    def whole_or(self, name: str, default: int, most: int = 2**53) -> int:
        """A whole number from 0, if it is said."""
        return self.whole(name, most) if name in self._values else default

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise ConfigError(f"{name!r} is true or false, not {value!r:.60}")
        return value

    def number(self, name: str) -> float:
        """A number from 0."""
        return _number(name, self._get(name))

    def colour(self, name: str) -> Colour:
        """A colour, "#rrggbb"."""
        return parse_colour(self.text(name))

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self._get(name)
        if not isinstance(value, list) or len(value) > 100 or not all(isinstance(one, str) for one in value):
            raise ConfigError(f"{name!r} is a list of texts, not {value!r:.60}")
        return value

    def places(self) -> list[tuple[float, float]]:
        """The fields "x" and "y", or "places", a list of [x, y]; all in [0, 1]."""
        values = self._values.get("places", [[self._values.get("x"), self._values.get("y")]])
        if not isinstance(values, list) or not 0 < len(values) <= MOST_PLACES:
            raise ConfigError(f"'places' is a list of 1 to {MOST_PLACES} pairs, not {values!r:.60}")
        found = []
        for value in values:
            if not isinstance(value, list) or len(value) != 2:
                raise ConfigError(f"a place is [x, y], not {value!r:.60}")
            x, y = _number("x", value[0]), _number("y", value[1])
            if x > 1 or y > 1:
                raise ConfigError(f"x and y of a place are from 0 to 1, not {value!r:.60}")
            found.append((x, y))
        return found

    def channels(self, name: str) -> Channels:
        """Numbers of channels, "2,0,1", or "pca"; None if nothing is said."""
        if name not in self._values:
            return None
        text = self.text(name)
        if text == "pca":
            return text
        parts = text.split(",")
        if len(parts) > 3 or not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in parts):
            raise ConfigError(f"{name!r} is one to three numbers of channels, or pca, not {text!r:.60}")
        return tuple(int(part) for part in parts)

    def box(self, name: str) -> Box:
        """A text "x0,y0,x1,y1" in [0, 1], not empty."""
        parts = self.text(name).split(",")
        try:
            x0, y0, x1, y1 = (float(part) for part in parts)
        except ValueError:
            x0 = y0 = x1 = y1 = math.nan
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ConfigError(f"{name!r} is x0,y0,x1,y1 with 0 <= x0 < x1 <= 1, and so for y; not {','.join(parts)!r}")
        return (x0, y0, x1, y1)


def _number(name: str, value: Any) -> float:
    try:
        fits = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and value >= 0
    except OverflowError:  # a whole number that no float can hold
        fits = False
    if not fits:
        raise ConfigError(f"{name!r} is a number of at least 0, not {value!r:.60}")
    return float(value)


def plain(values: Sequence[Any]) -> list[Any]:
    """Views of a list as JSON has them."""
    return [to_json(value) for value in values]
