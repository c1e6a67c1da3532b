"""Frozen dataclasses to plain values (YAML, JSON) and strictly back."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from selfseg.errors import ConfigError

# A dataclass that stands where several kinds may stand carries its class name under this key.
KIND = "kind"


def to_plain(value: Any) -> Any:
    """Dataclasses become mappings with their class name under "kind", tuples lists, paths text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            KIND: type(value).__name__,
            **{field.name: to_plain(getattr(value, field.name)) for field in fields(value)},
        }
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def from_plain(annotation: Any, value: Any, kinds: Mapping[str, type[Any]], where: str = "recipe") -> Any:
    """The inverse of `to_plain`, strict: unknown, missing or wrongly typed entries raise.

    Args:
        annotation: the type that is expected.
        value: plain value.
        kinds: the dataclasses that may appear, by class name.
        where: the path to `value`, for the message.

    Raises:
        ConfigError: with the path, the value and what was expected.
    """
    if isinstance(value, Mapping) and KIND in value:
        cls = kinds.get(str(value[KIND]))
        if cls is None:
            raise ConfigError(f"{where}: there is no kind {value[KIND]!r}; the kinds are {', '.join(sorted(kinds))}")
        hints = typing.get_type_hints(cls)
        names = {field.name for field in fields(cls)}
        # What an entry that came later would have been, where that isn't its default.
        value = {**getattr(cls, "WHEN_MISSING", {}), **value}
        unknown = set(value) - names - {KIND}
        if unknown:
            raise ConfigError(
                f"{where}: unknown entry {', '.join(sorted(unknown))}; {cls.__name__} has {sorted(names)}"
            )
        required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        missing = required - set(value)
        if missing:
            raise ConfigError(f"{where}: missing entry {', '.join(sorted(missing))}")
        return cls(
            **{
                name: from_plain(hints[name], item, kinds, f"{where}.{name}")
                for name, item in value.items()
                if name != KIND
            }
        )
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return from_plain(arguments[0], value, kinds, where)
    if isinstance(annotation, typing.TypeVar) or annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return from_plain(option, value, kinds, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where}: {value!r} does not fit {annotation}")
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: {value!r} is not a list")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(arguments) != len(value):
            raise ConfigError(f"{where}: {value!r} has {len(value)} entries instead of {len(arguments)}")
        return tuple(from_plain(a, v, kinds, where) for a, v in zip(arguments, value, strict=True))
    if annotation is Path and isinstance(value, str):
        return Path(value)
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if annotation is type(None) and value is None:
        return None
    if isinstance(annotation, type) and type(value) is annotation:
        return value
    raise ConfigError(f"{where}: {value!r} should be {getattr(annotation, '__name__', annotation)}")
