"""Tensors in files: written whole, and believed only after a look at them.

Clusters and their like are a file of tensors and a JSON file for people. Two files can't be replaced at once, so the
first holds all of it: what the JSON says lies in its header too, with a digest of the tensors. The JSON is a copy; one
that a kill left behind, of earlier tensors, is known by the digest in it and passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfseg.storage.files import make_folder, permitted, storage_errors, write_json
from selfseg.storage.leftovers import sweep, temporary_prefix
from selfseg.storage.reading import parse_json, read_json

_KEY = "selfseg"  # the one entry of a header: with several, their order would change from call to call
_MOST_HEADER = 1 << 26


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically.

    Args:
        path: where it shall be; its folder is made.
        tensors: of any device.
        header: texts for its header.

    Raises:
        StorageError: if the disk is full or the folder can't be written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with storage_errors(path):
        make_folder(path.parent)
        sweep(path.parent)
        # A folder: the library writes to a temporary name of its own beside, which nobody could tell for ours.
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=temporary_prefix()))
        try:
            save_file(plain, temporary / path.name, dict(header) if header else None)
            (temporary / path.name).chmod(permitted(0o666))
            os.replace(temporary / path.name, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def read_tensors(path: Path, finite: bool = True) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: of the file.
        finite: whether a NaN or an infinite value is an error.

    Returns:
        By name, on the CPU.

    Raises:
        OSError: if it can't be read.
        ValueError: if it is no safetensors file, or holds values that are no finite numbers.
    """
    _check_kind(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no whole safetensors file: {error}") from error
    if finite:
        check_finite(tensors, path.name)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ValueError if a tensor of floats holds NaN or an infinite value; the message names it."""
    for name, value in tensors.items():
        if value.is_floating_point() and not all_finite(value):
            raise ValueError(f"{where} holds values in {name!r} that are no finite numbers (NaN or infinite)")


def all_finite(value: Tensor) -> bool:
    """Whether all values are finite numbers."""
    if value.numel() == 0:
        return True
    if value.element_size() == 1:  # 8 bits: torch has no arithmetic on them
        value = value.float()
    return bool(value.isfinite().all())


def check_matrix(value: Tensor, what: str, rows: int | None = None, columns: int | None = None) -> Tensor:
    """A matrix of floats as float32.

    Args:
        value: that should be (rows, columns), at least one of each.
        what: the tensor's name, for the message.
        rows: None = any.
        columns: None = any.

    Raises:
        ValueError: if it is of another shape or kind.
    """
    wanted = f"({'any' if rows is None else rows}, {'any' if columns is None else columns})"
    shape = tuple(value.shape)
    fits = len(shape) == 2 and min(shape) > 0 and (rows in (None, shape[0])) and (columns in (None, shape[1]))
    if not fits or not value.is_floating_point():
        raise ValueError(f"{what} is {str(value.dtype).removeprefix('torch.')} {shape}, not float {wanted}")
    return value.float()


def write_described(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write tensors and what is said of them, so that a kill leaves the former pair or the new one.

    Args:
        path: of the .safetensors file; the JSON copy lies beside it.
        tensors: of any device.
        about: plain values.

    Returns:
        The path of the JSON copy.

    Raises:
        StorageError: if they can't be written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    told = {**about, "tensors": _digest(plain)}
    write_tensors(path, plain, {_KEY: json.dumps(told, ensure_ascii=False)})
    write_json(path.with_suffix(".json"), told)
    return path.with_suffix(".json")


def is_described(path: Path) -> bool:
    """Whether `read_described` would find both parts of what `write_described`, or an older version, wrote."""
    if not path.is_file():
        return False
    return path.with_suffix(".json").is_file() or _header(path) is not None


def read_described(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, and what is said of them; of older versions, whose files have no header, that of the JSON file.

    Raises:
        OSError: if a file can't be read.
        ValueError: if one is damaged or was changed, or a value is no finite number.
    """
    tensors, text, beside = read_tensors(path), _header(path), path.with_suffix(".json")
    copy = read_json(beside) if text is None or beside.exists() else None
    if text is None:
        if not isinstance(copy, dict):
            raise ValueError(f"{beside.name} is no JSON object")
        return tensors, copy
    about = parse_json(text)
    if not isinstance(about, dict) or about.get("tensors") != _digest(tensors):
        raise ValueError(f"the tensors in {path.name} are not those that its header tells of")
    if copy is not None and not isinstance(copy, dict):
        raise ValueError(f"{beside.name} is no JSON object")
    if copy is not None and copy.get("tensors") == about["tensors"] and copy != about:
        raise ValueError(f"{beside.name} was changed: it isn't what the header of {path.name} says")
    del about["tensors"]
    return tensors, about


def read_header(path: Path) -> dict[str, Any]:
    """The plain values in the header of a file that this package wrote.

    Raises:
        ValueError: if there are none.
    """
    text = _header(path)
    about = None if text is None else parse_json(text)
    if not isinstance(about, dict):
        raise ValueError(f"{path.name} has no description in its header")
    return about


def _header(path: Path) -> str | None:
    """What `write_described` put into the header of a file; None if there is none."""
    try:
        _check_kind(path)
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (OSError, ValueError, SafetensorError):
        return None
    return text if isinstance(text, str) and len(text) <= _MOST_HEADER else None


def _check_kind(path: Path) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for without end
        raise ValueError(f"{path} is no file")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()
