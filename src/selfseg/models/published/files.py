"""A file of weights: its named tensors, and what else it holds.

A .safetensors file holds tensors alone. A torch file is read by torch with `weights_only=True`; where that refuses it,
because it holds objects beside the tensors (arguments, schedules, configurations), it is read as data by
`selfseg.models.published.inert`, and the objects are left out. Neither imports or calls what a file names.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from selfseg.errors import CheckpointError
from selfseg.models.published.inert import Malformed, Thing, read_inert

Tensors = dict[str, Tensor]

_DEEPEST, _MOST = 50, 1_000_000  # of containers in containers, and of what they hold
_GROUPS = 12  # that are named
_NETWORK = re.compile(r"(layer|conv|bn|norm|blocks|stages|mlp|weight|bias)\d*")  # what a network's parts are called


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        tensors: all of them, on the CPU; those in containers by the keys that lead to them, joined by dots.
        others: keys of the outermost container that hold no tensor.
        left_out: classes and functions of objects that were not opened, as the file names them.
    """

    tensors: Tensors
    others: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """What the file holds, a sentence without its full stop.

        Example:
            >>> empty = torch.zeros(0)
            >>> WeightsFile({"model.a": empty, "model.b": empty, "ema.a": empty}, ("epoch",), ("x.Config",)).about
            'the file holds ema (1 tensor), model (2 tensors), and without tensors epoch; not opened: x.Config'
        """
        said = "the file holds " + tell_groups(self.tensors)
        if self.others:
            said += f", and without tensors {_some(self.others)}"
        return said + (f"; not opened: {_some(self.left_out)}" if self.left_out else "")


def _some(words: tuple[str, ...], most: int = 8) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def tell_groups(names: Iterable[str]) -> str:
    """Tensors by the beginnings of their names, as far as they can be told in a line.

    Example:
        >>> tell_groups(["module.a.weight", "module.a.bias", "module.b.weight"])
        'module.a (2 tensors), module.b (1 tensor)'
    """
    groups: dict[str, list[str]] = {"": list(names)}
    done: set[str] = set()
    while waiting := [prefix for prefix in groups if prefix not in done]:
        prefix = max(waiting, key=lambda each: len(groups[each]))
        parts: dict[str, list[str]] = {}
        start = f"{prefix}." if prefix else ""
        for name in groups[prefix]:
            parts.setdefault(start + name.removeprefix(start).split(".")[0], []).append(name)
        numbered = any(part.rpartition(".")[2].isdigit() for part in parts)
        network = any(_NETWORK.fullmatch(part.rpartition(".")[2]) for part in parts)
        single = all(members == [part] for part, members in parts.items())  # nothing is below them
        if prefix and (numbered or network or single or len(groups) - 1 + len(parts) > _GROUPS):
            done.add(prefix)
        else:
            del groups[prefix]
            groups |= parts
            done |= {part for part, members in parts.items() if members == [part]}
    told = [f"{prefix} ({len(members)} tensor{'s' * (len(members) > 1)})" for prefix, members in sorted(groups.items())]
    return _some(tuple(told), _GROUPS)


def read_weights(path: Path) -> Tensors:
    """The named tensors of a file; see `open_weights`."""
    return open_weights(path).tensors


def open_weights(path: Path) -> WeightsFile:
    """Read a .safetensors or torch file; nothing that is in it is run.

    Raises:
        CheckpointError: if the file is missing or damaged, or holds no named tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}; give an existing file, default, imagenet or random")
    left_out: list[str] = []
    try:
        if path.suffix == ".safetensors":
            return WeightsFile(load_file(path))
        content, left_out = _read_torch(path)
    except Exception as error:  # torch and safetensors raise many kinds; all mean the same to the user
        raise CheckpointError(
            f"can't read weights from {path}: {_first_line(error)}; it is damaged, or was not written by torch.save or "
            "safetensors. Save the state dict alone"
        ) from error
    content = content.items if isinstance(content, Thing) else content
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__} instead of named tensors; save a state dict")
    weights: Tensors = {}
    for name, value in _flat(content, "", path, ()):
        weights[name] = value
        if len(weights) > _MOST:
            raise CheckpointError(f"{path} holds more than {_MOST:,} tensors; is it a file of weights?")
    keys = [str(key) for key in content]
    if not weights:
        raise CheckpointError(f"{path} holds no tensors; its keys: {', '.join(keys[:5])}")
    with_tensors = {name.split(".")[0] for name in weights} | weights.keys()
    others = tuple(key for key in keys if key.split(".")[0] not in with_tensors)
    return WeightsFile(weights, others, tuple(name for name in left_out if name not in _QUIET))


def _read_torch(path: Path) -> tuple[Any, list[str]]:
    """A torch file's content, and what of it was not opened."""
    try:
        with torch.serialization.safe_globals(_PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that torch doesn't write
            return torch.load(path, map_location="cpu", weights_only=True), []
    except Exception as error:  # it refuses objects by the same kinds of errors as damage
        try:
            return read_inert(path)
        except Malformed as malformed:
            raise malformed from error


# Values without code: arguments, and numpy's numbers with their types.
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"},
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
# Not worth a word where they were passed over.
_QUIET = {
    *("argparse.Namespace", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("torch.Size", "torch.device", "_codecs.encode"),
}


def _flat(content: Mapping[Any, Any], prefix: str, path: Path, above: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    if id(content) in above or len(above) > _DEEPEST:
        raise CheckpointError(f"{path} holds itself at {prefix!r}; is it a file of weights?")
    for key, value in content.items():
        inside = value.items if isinstance(value, Thing) else value
        if isinstance(inside, Tensor):
            yield f"{prefix}{key}", inside
        elif isinstance(inside, Mapping):
            yield from _flat(inside, f"{prefix}{key}.", path, (*above, id(content)))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"
