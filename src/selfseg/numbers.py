"""Numbers that nothing can work with: not a number, infinite, or too long for 64 bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from selfseg.errors import ConfigError

LARGEST = 2**63 - 1
"""The largest integer that tensors, files and random generators take."""


def require_usable(value: Any, name: str, word: Callable[[str], str] = str) -> None:
    """Refuse settings with a number that nothing can work with, however deep it lies.

    Args:
        value: a number, or settings: dataclasses, tuples, lists and dictionaries of them; all else is passed over.
        name: of the value, "" for that of settings whose fields have names of their own.
        word: how a name is written in the message.

    Raises:
        ConfigError: with the name and the number.

    Example:
        >>> require_usable((0.5, float("nan")), "scale")
        Traceback (most recent call last):
        ...
        selfseg.errors.ConfigError: scale must be a finite number, not nan
        >>> require_usable(10**30, "seed")
        Traceback (most recent call last):
        ...
        selfseg.errors.ConfigError: seed must have at most 19 digits (up to 9223372036854775807), not 31
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{word(name)} must be a finite number, not {value}")
    elif isinstance(value, int):
        if abs(value) > LARGEST:
            digits = len(str(abs(value))) if value.bit_length() < 10_000 else "thousands"
            raise ConfigError(f"{word(name)} must have at most 19 digits (up to {LARGEST}), not {digits}")
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            require_usable(getattr(value, field.name, None), f"{name}.{field.name}" if name else field.name, word)
    elif isinstance(value, tuple | list):
        for item in value:
            require_usable(item, name, word)
    elif isinstance(value, dict):
        for key, item in value.items():
            require_usable(item, f"{name}.{key}" if name else str(key), word)
