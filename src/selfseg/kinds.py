"""Whether values that were read from a file are of the kinds that a dataclass says."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints


def check_kinds(instance: Any, finite: bool = True) -> None:
    """Check the fields of a dataclass by their annotations, those of dataclasses in it too.

    Args:
        instance: of the dataclass.
        finite: whether numbers must be finite.

    Raises:
        TypeError: for a field of another kind; the message names it and shows its value.

    Example:
        >>> from selfseg.types import View
        >>> check_kinds(View(None, None, None))
        Traceback (most recent call last):
        ...
        TypeError: image is None, and should be Tensor
    """
    check_values(type(instance), {field.name: getattr(instance, field.name) for field in fields(instance)}, finite)


def check_values(kind: type, values: Mapping[str, Any], finite: bool = True) -> None:
    """As `check_kinds`, for what the fields of a dataclass shall be; before it is made, which may compare them."""
    hints = get_type_hints(kind, include_extras=True)
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name], finite):
            raise TypeError(f"{name} is {value!r:.60}, and should be {_named(hints[name])}")


def _fits(value: Any, kind: Any, finite: bool) -> bool:
    origin, within = get_origin(kind), get_args(kind)
    if kind is Any or origin is ClassVar:
        return True
    if origin is Annotated:
        return _fits(value, within[0], finite)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each, finite) for each in within)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in within)
    if kind is None or kind is type(None):
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and (not finite or math.isfinite(value))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(within) == 2 and within[1] is Ellipsis:
            return _all_fit(value, within[0], finite)
        return len(value) == len(within) and all(_fits(v, k, finite) for v, k in zip(value, within, strict=True))
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and all(
            _fits(key, within[0], finite) and _fits(item, within[1], finite) for key, item in value.items()
        )
    if origin in (Sequence, list):
        return isinstance(value, list | tuple) and _all_fit(value, within[0], finite)
    if isinstance(kind, type):
        if not isinstance(value, kind):
            return False
        if is_dataclass(kind):
            check_kinds(value, finite)
        return True
    return True


def _all_fit(values: Sequence[Any], kind: Any, finite: bool) -> bool:
    if kind is int and values and set(map(type, values)) == {int}:  # confusions have millions of them
        return bool(max(max(values), -min(values)).bit_length() <= 64)
    return all(_fits(each, kind, finite) for each in values)


def _named(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _named(get_args(kind)[0])
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")
