"""JSON and YAML of a run, read so that nothing in them does more than end in a ValueError.

A run may come from a stranger, or be cut off, or be edited by hand. Files of these kinds are read here and nowhere
else: what is too large, nests too deeply, holds numbers of hundreds of digits, is no UTF-8, or is no file at all (a
pipe would be waited for without end) is refused before it takes memory.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from selfseg.storage.regular import NotRegular, open_regular

MOST_JSON = 1 << 28
"""Bytes of a JSON file unless its reader says otherwise; Python's objects take about ten times as many."""

MOST_YAML = 1 << 22
"""Bytes of a YAML file: recipes have some thousand."""

_LONG_NUMBER = re.compile(r"\d{21}")
_BRACKETS, _MOST_BRACKETS = re.compile(r"[\[\]{}]"), 200
_DEEPEST, _MOST_VALUES = 64, 1 << 20  # of YAML, where one line can stand for billions of values


def parse_json(text: str | bytes, most_digits: int = 20) -> Any:
    """The value of a JSON text.

    Args:
        text: UTF-8 if bytes.
        most_digits: of an integer; by default those of the largest unsigned number of 64 bits.

    Raises:
        ValueError: if it is none, is not UTF-8, nests too deeply, or holds an integer of more digits.

    Example:
        >>> parse_json('{"a": [1, 2]}')
        {'a': [1, 2]}
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")  # UnicodeDecodeError is a ValueError
    try:
        return json.loads(text, parse_int=partial(_integer, most_digits) if _LONG_NUMBER.search(text) else None)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def _integer(most: int, digits: str) -> int:
    if len(digits) > most:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def parse_yaml(text: str | bytes) -> Any:
    """The value of a YAML text of plain values.

    Raises:
        ValueError: if it is none, is not UTF-8, nests too deeply, or stands for more than a million values.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    depth = 0
    for bracket in _BRACKETS.finditer(text):  # before PyYAML, which looks at each bracket again for each one before it
        depth = max(0, depth + (1 if bracket[0] in "[{" else -1))
        if depth > _MOST_BRACKETS:
            raise ValueError("it nests too deeply")
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (TypeError, KeyError, AttributeError, OverflowError) as error:  # of odd dates, merges and keys
        raise ValueError(f"it is no plain YAML: {error}") from error
    _check_spread(value)
    return value


def _check_spread(value: Any) -> None:
    """Raise ValueError for a value that is small only as long as nobody goes through it: aliases of aliases."""
    left, todo = _MOST_VALUES, [(value, 0)]
    while todo:
        one, depth = todo.pop()
        left -= 1
        if left < 0 or depth > _DEEPEST:
            raise ValueError("it nests too deeply, or stands for too many values")
        if isinstance(one, dict):
            todo += [(each, depth + 1) for pair in one.items() for each in pair]
        elif isinstance(one, list | tuple | set):
            todo += [(each, depth + 1) for each in one]
        elif isinstance(one, int) and one.bit_length() > 64:
            raise ValueError(f"a number of {one.bit_length()} bits")


def read_bytes(path: Path, most: int) -> bytes:
    """What is in a file.

    Args:
        path: of a file, or a link to one.
        most: bytes.

    Raises:
        OSError: if it can't be read.
        ValueError: if it is no regular file, or larger than `most`.
    """
    try:
        file = open_regular(path)
    except (NotRegular, IsADirectoryError) as error:
        raise ValueError(f"{path} is no file") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"{path} has {size:,} bytes, and such a file has at most {most:,}")
        return file.read(size)  # not `most`: Python takes memory for as much as it is asked for


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """Read a JSON file; errors as of `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, most))


def read_yaml(path: Path) -> Any:
    """Read a YAML file; errors as of `read_bytes` and `parse_yaml`."""
    return parse_yaml(read_bytes(path, MOST_YAML))


def read_recipe_values(run: Path) -> dict[str, Any]:
    """A run's recipe.yaml as plain values; empty if there is none that can be read."""
    try:
        values = read_yaml(run / "recipe.yaml")
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def objects_of_lines(text: str) -> Iterator[dict[str, Any]]:
    r"""The JSON objects of a text that has one on each line; other lines, such as one that was cut off, are left out.

    Example:
        >>> list(objects_of_lines('{"a": 1}\n[1]\n{"a": '))
        [{'a': 1}]
    """
    for line in text.split("\n"):
        try:
            value = parse_json(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value
