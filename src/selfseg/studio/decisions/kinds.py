"""What a decision may say: the kinds of entries, and the form of each of their fields.

    name        {cluster, name}                 name "" takes the name away
    leave_out   {cluster, on}                   on = false takes it back (true if it isn't said)
    split       {cluster, parts, centroids}     2 to 64 parts, a vector for each; they become CLUSTER.0, CLUSTER.1, ...
    unsplit     {cluster}
    colour      {name, colour}                  "#rrggbb"
    rename      {old, new}                      an existing new name = the two classes become one
    click       {image, level, point, name}     image {hash, name}, point [x, y] in [0, 1]; name null erases
    audit       {image, point, predicted, verdict, n}   verdict: the right class, "" for none, or "unsure"

A cluster is a path "K/ID", as "27/3", or a part of one, "27/3.1", or of that, "27/3.1.0"; numbers from 0.

Entries that are no decisions and that undo passes over:

    undo, redo  {of}                            the entry that is taken back, or given back
    k           {k}                             the number of clusters that is worked with
    clusters    {k, fingerprint}                which clustering K/ID means from here on; another one's names rest
    audit_start {count, seed, weigh}            audit answers from here on belong to these places
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from selfseg.data.labelled.legend import UNSURE as UNSURE
from selfseg.data.labelled.legend import clean_name, format_colour, parse_colour
from selfseg.errors import ConfigError

_CLUSTER = re.compile(r"([1-9][0-9]{0,8})/(0|[1-9][0-9]{0,8})((?:\.(?:0|[1-9][0-9]?))*)")


def cluster_path(path: Any) -> str:
    """A cluster's path "K/ID" or "K/ID.PART", if it is one.

    Raises:
        ConfigError: if it is not.

    Example:
        >>> cluster_path("27/3.1")
        '27/3.1'
    """
    match = _CLUSTER.fullmatch(path) if isinstance(path, str) else None
    if match is None:
        raise ConfigError(f"a cluster is written as K/ID, such as 27/3, and a part of it such as 27/3.1; not {path!r}")
    if int(match[2]) >= int(match[1]):
        raise ConfigError(f"of {match[1]} clusters the last is {match[1]}/{int(match[1]) - 1}; there is no {path}")
    return path  # type: ignore[no-any-return]


def clusters_of(path: str) -> int:
    """The K of a path.

    Example:
        >>> clusters_of("27/3.1")
        27
    """
    return int(path.partition("/")[0])


def parent_of(path: str) -> str:
    """What a path is a part of; "" for a whole cluster.

    Example:
        >>> parent_of("27/3.1.0"), parent_of("27/3")
        ('27/3.1', '')
    """
    return path.rpartition(".")[0]


def checked(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's fields in the form in which they are kept; further ones are kept as they are.

    Raises:
        ConfigError: if the kind isn't known, or a field is missing or has a value that can't be.
    """
    kept = dict(fields)
    check(kind, kept)
    return kept


def check(kind: str, fields: dict[str, Any]) -> None:
    """`checked` in place."""
    forms = KINDS.get(kind)
    if forms is None:
        raise ConfigError(f"there is no kind of decision {kind!r}; there are {', '.join(KINDS)}")
    for name, form in forms.items():
        if name in fields:
            fields[name] = form(fields[name])
        elif name in _OPTIONAL:
            fields[name] = _OPTIONAL[name]
        else:
            raise ConfigError(f"a decision of the kind {kind!r} needs {name!r}")
    if kind == "split" and len(fields["centroids"]) != fields["parts"]:
        raise ConfigError(f"{fields['parts']} parts need as many centroids, not {len(fields['centroids'])}")


def serialisable(fields: Mapping[str, Any]) -> None:
    """Raises ConfigError if JSON can't hold what is in the fields."""
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"a decision can only hold what JSON can represent: {error}") from error


def _name_or_none(name: Any) -> str:
    return "" if name is None or (isinstance(name, str) and not name.strip()) else clean_name(name)


def _click_name(name: Any) -> str | None:
    return None if name is None else clean_name(name)


def _verdict(verdict: Any) -> str:
    return UNSURE if verdict == UNSURE else _name_or_none(verdict)


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def form(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f"expected a whole number from {least} to {most}, not {value!r}")
        return value

    return form


def _number(value: Any) -> int | float:
    try:
        fits = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and value >= 0
    except OverflowError:  # a whole number that no float can hold
        fits = False
    if not fits:
        raise ConfigError(f"expected a number of at least 0, not {value!r:.60}")
    return value  # type: ignore[no-any-return]


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"expected true or false, not {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise ConfigError(f"expected a text of at most 4096 characters, not {value!r:.60}")
    return value


def _colour(value: Any) -> str:
    return format_colour(parse_colour(value))


def _point(value: Any) -> list[float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(f"a point is [x, y], not {value!r:.60}")
    x, y = _number(value[0]), _number(value[1])
    if x > 1 or y > 1:
        raise ConfigError(f"a point's x and y are from 0 to 1, not {value!r}")
    return [x, y]


def _image(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not value.get("hash"):
        raise ConfigError(f"an image is given by its hash and its name, not by {value!r:.60}")
    return {"hash": _text(value["hash"]), "name": _text(value.get("name"))}


def _vectors(value: Any) -> list[list[float]]:
    """Six digits are below what float32 can tell apart in unit vectors, and keep the line short."""
    rows = value.tolist() if hasattr(value, "tolist") else value
    try:
        vectors = [[round(float(number), 6) for number in row] for row in rows]
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"centroids are a list of vectors, not {value!r:.60}") from error
    if not vectors or not vectors[0] or len({len(vector) for vector in vectors}) != 1:
        raise ConfigError("centroids are vectors of one length")
    if not all(math.isfinite(number) for vector in vectors for number in vector):
        raise ConfigError("centroids hold a value that is not a number")
    return vectors


def _weigh(value: Any) -> str:
    if value not in ("images", "pixels"):
        raise ConfigError(f"either 'images' or 'pixels' count the same when places are drawn, not {value!r}")
    return str(value)


_OPTIONAL = {"on": True, "n": -1, "weigh": "images"}
DECISIONS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "name": {"cluster": cluster_path, "name": _name_or_none},
    "leave_out": {"cluster": cluster_path, "on": _flag},
    "split": {"cluster": cluster_path, "parts": _whole(2, 64), "centroids": _vectors},
    "unsplit": {"cluster": cluster_path},
    "colour": {"name": clean_name, "colour": _colour},
    "rename": {"old": clean_name, "new": clean_name},
    "click": {"image": _image, "level": _number, "point": _point, "name": _click_name},
    "audit": {
        "image": _image,
        "point": _point,
        "predicted": _name_or_none,
        "verdict": _verdict,
        "n": _whole(-1, 10**6),
    },
}
MOVES: dict[str, dict[str, Callable[[Any], Any]]] = {
    "undo": {"of": _whole(1, 2**53)},
    "redo": {"of": _whole(1, 2**53)},
}
NOTES: dict[str, dict[str, Callable[[Any], Any]]] = {
    "k": {"k": _whole(1, 10**9)},
    "clusters": {"k": _whole(1, 10**9), "fingerprint": _text},
    "audit_start": {"count": _whole(1, 10**6), "seed": _whole(0, 2**63), "weigh": _weigh},
}
KINDS = {**DECISIONS, **MOVES, **NOTES}
CHANGE_NO_MASK = ("audit", "audit_start", "clusters")
