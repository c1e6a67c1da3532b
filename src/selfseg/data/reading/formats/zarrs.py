"""Zarr and OME-Zarr, by `zarr`: a folder of chunks, of which a window reads no more than it touches.

Of OME-Zarr (0.4 and 0.5) the highest resolution is read, its axes say what is a channel and what a page, and channels
are named as in `omero`. Of plain Zarr the array's dimension names do (`_ARRAY_DIMENSIONS` in version 2); where there
are none, `axes.guess_letters`. A chunk that isn't there was never measured: its pixels have the fill value and are not
`valid`, and it costs nothing.

A chunk is only opened if its codecs are on a list: Python's pickle, which numcodecs would run, is not.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.formats.axes import CHANNEL_AXES, Axes, guess_letters
from selfseg.data.reading.formats.base import (
    MOST_CLAIMED,
    Layout,
    Window,
    check_block,
    check_claim,
    check_dtype,
    check_header,
    inside,
    safe_names,
)
from selfseg.data.reading.formats.rasters import place_by_gdal
from selfseg.data.reading.sniffing import MAX_PIXELS, Damage, words_of

_CODECS = set(
    "blosc zlib gzip zstd lz4 lzma bz2 delta fixedscaleoffset shuffle packbits astype crc32 crc32c adler32 fletcher32 "
    "bytes transpose sharding_indexed endian pcodec zfpy".split()
)
_METADATA = 1 << 24
_WORDS = {"time": "T", "lat": "Y", "latitude": "Y", "lon": "X", "longitude": "X", "band": "C", "channel": "C"}
_MANY = 4096


class ZarrImage:
    """An open Zarr array.

    Args:
        path: the folder.
        max_pixels: the largest H * W; None = any.

    Raises:
        Damage: if it can't be read.
    """

    def __init__(self, path: Path, max_pixels: int | None) -> None:
        self._lock = threading.Lock()
        kind, folder, attributes, image = _find_array(path)
        metadata = _check_metadata(folder)
        import zarr
        from zarr.storage import LocalStore

        try:
            self._array: Any = zarr.open_array(LocalStore(folder, read_only=True), mode="r")
        except MemoryError:
            raise
        except Exception as error:
            raise Damage("unreadable", words_of(error)) from error
        self._folder = folder
        shape = tuple(int(side) for side in self._array.shape)
        letters = _letters(image, attributes, metadata, len(shape)) or guess_letters(shape)
        self._axes = axes = Axes(letters, shape)
        dtype = check_dtype(self._array.dtype)
        check_header(axes.height, axes.width, axes.channels, max_pixels, itemsize=dtype.itemsize)
        self._chunk = tuple(int(side) for side in (self._array.shards or self._array.chunks))
        check_block(prod(self._chunk) * dtype.itemsize, "chunk")
        claimed = prod(shape) * dtype.itemsize
        if claimed > MAX_PIXELS:
            stored = _stored(folder, -(-claimed // MOST_CLAIMED))
            check_claim(claimed, stored, f"{'x'.join(map(str, shape))} values")
        self._existing: set[tuple[int, ...]] | None = None
        self._fill = self._array.fill_value
        fill = None if self._fill is None or not np.isfinite(self._fill) else float(self._fill)
        names = _names(attributes, axes.channels, letters)
        self.layout = Layout(
            kind=kind,
            height=axes.height,
            width=axes.width,
            channels=names,
            dtype=dtype,
            pages=axes.pages,
            unnamed="I" in letters and axes.channels == 1 and len(axes.pages) > 1,
            nodata=fill or None,  # 0 is the fill value of everybody who gave it no thought
            masked=True,
            colour=axes.channels == 3 and (letters[-1] == "S" or _is_colour(attributes)),
            place=place_by_gdal(f'ZARR:"{path}"', "Zarr") if kind == "Zarr" and folder != path else None,
            details={"dimensions": letters, "chunks": "x".join(map(str, self._chunk))},
        )

    def read(self, page: int = 0, window: Window | None = None, channels: Sequence[int] | None = None) -> NDArray[Any]:
        """(h, w, C) values; see `PixelFile.read`."""
        window = inside(self.layout, page, window, channels)
        chosen = list(range(len(self.layout.channels)) if channels is None else channels)
        out = np.empty((window.height, window.width, len(chosen)), self.layout.dtype)
        out[...] = 0 if self._fill is None else self._fill
        with self._lock:
            for group in self._groups(page, chosen):
                for box in self._boxes(group[0][1], window):
                    self._fill_in(out, box, group, window)
        return out

    def valid(self, page: int = 0, window: Window | None = None) -> NDArray[np.bool_] | None:
        """(h, w) bool: where chunks of one channel at least are there; None if none is missing."""
        window = inside(self.layout, page, window, None)
        found = np.zeros((window.height, window.width), np.bool_)
        with self._lock:
            for group in self._groups(page, range(len(self.layout.channels))):
                for _, (top, bottom, left, right) in self._boxes(group[0][1], window):
                    found[top - window.y : bottom - window.y, left - window.x : right - window.x] = True
                if found.all():
                    return None
        return found

    def _groups(self, page: int, channels: Sequence[int]) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
        """Channels that lie in the same chunks, each with its place in the output and its index in the array."""
        groups: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        for i, channel in enumerate(channels):
            index = self._axes.index(page, channel)
            groups.setdefault(tuple(at // side for at, side in zip(index, self._chunk, strict=True)), []).append(
                (i, index)
            )
        yield from groups.values()

    def _boxes(
        self, index: tuple[int, ...], window: Window
    ) -> Iterator[tuple[tuple[int, ...], tuple[int, int, int, int]]]:
        """The chunks under a window that are there, and (top, bottom, left, right) of what they share with it."""
        y, x = self._axes.letters.index("Y"), self._axes.letters.index("X")
        tall, wide = self._chunk[y], self._chunk[x]
        rows = range(window.y // tall, (window.y + window.height - 1) // tall + 1)
        columns = range(window.x // wide, (window.x + window.width - 1) // wide + 1)
        fixed = [at // side for at, side in zip(index, self._chunk, strict=True)]

        def coordinates(row: int, column: int) -> tuple[int, ...]:
            place = list(fixed)
            place[y], place[x] = row, column
            return tuple(place)

        if len(rows) * len(columns) > _MANY:
            touched: Iterator[tuple[int, ...]] = (
                place
                for place in sorted(self._all_existing())
                if place[y] in rows and place[x] in columns and place == coordinates(place[y], place[x])
            )
        else:
            every = (coordinates(row, column) for row, column in product(rows, columns))
            touched = (place for place in every if self._file(place).is_file())
        for place in touched:
            top, left = place[y] * tall, place[x] * wide
            yield (
                place,
                (
                    max(window.y, top),
                    min(window.y + window.height, top + tall, self._axes.height),
                    max(window.x, left),
                    min(window.x + window.width, left + wide, self._axes.width),
                ),
            )

    def _fill_in(
        self,
        out: NDArray[Any],
        box: tuple[tuple[int, ...], tuple[int, int, int, int]],
        group: list[tuple[int, tuple[int, ...]]],
        window: Window,
    ) -> None:
        place, (top, bottom, left, right) = box
        _check_chunk(self._file(place), prod(self._chunk) * self.layout.dtype.itemsize)
        letters = self._axes.letters
        spans: list[slice] = []
        for i, letter in enumerate(letters):
            values = [index[i] for _, index in group]
            span = (
                (top, bottom) if letter == "Y" else (left, right) if letter == "X" else (min(values), max(values) + 1)
            )
            spans.append(slice(*span))
        try:
            block = np.asarray(self._array[tuple(spans)])
        except MemoryError:
            raise
        except Exception as error:
            raise Damage("unreadable", words_of(error)) from error
        for i, index in group:
            at: list[int | slice] = [value - span.start for value, span in zip(index, spans, strict=True)]
            at[letters.index("Y")] = at[letters.index("X")] = slice(None)
            plane = block[tuple(at)]
            plane = plane if letters.index("Y") < letters.index("X") else plane.T
            out[top - window.y : bottom - window.y, left - window.x : right - window.x, i] = plane

    def _file(self, place: tuple[int, ...]) -> Path:
        return self._folder / str(self._array.metadata.encode_chunk_key(place))

    def _all_existing(self) -> set[tuple[int, ...]]:
        """Every chunk that is there: of a page of many chunks it is cheaper to list them than to ask for each."""
        if self._existing is None:
            self._existing = set()
            for folder, _, files in os.walk(self._folder):
                inner = os.path.relpath(folder, self._folder)
                for file in files:
                    name = (file if inner == "." else f"{inner}/{file}").replace("/", ".").removeprefix("c.")
                    numbers = name.split(".")
                    if len(numbers) == len(self._chunk) and all(number.isdigit() for number in numbers):
                        self._existing.add(tuple(map(int, numbers)))
        return self._existing

    def close(self) -> None:
        """Let go of the array; its files are open only while they are read."""


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _stored(folder: Path, enough: int) -> int:
    """Bytes of an array's chunks, counted until they are enough."""
    found = 0
    for inner, _, files in os.walk(folder):
        for name in files:
            if not name.startswith(".z") and name != "zarr.json":
                found += os.stat(os.path.join(inner, name)).st_size
            if found >= enough:
                return found
    return found


def _load(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _METADATA:
            raise Damage("too-large", f"{file.name} of {file.stat().st_size} bytes")
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise Damage("unreadable", f"{file.name}: {words_of(error)}") from error
    if not isinstance(found, dict):
        raise Damage("unreadable", f"{file.name} is no JSON object")
    return found


def _attributes(folder: Path) -> dict[str, Any]:
    """The attributes of a group or an array; of OME-Zarr 0.5 those below "ome"."""
    found = _load(folder / "zarr.json").get("attributes") or _load(folder / ".zattrs")
    inner = found.get("ome") if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else found if isinstance(found, dict) else {}


def _is_array(folder: Path) -> bool:
    return (folder / ".zarray").is_file() or _load(folder / "zarr.json").get("node_type") == "array"


def _dimensions(folder: Path) -> int:
    shape = (_load(folder / ".zarray") or _load(folder / "zarr.json")).get("shape")
    return len(shape) if isinstance(shape, list) else 0


def _find_array(path: Path, depth: int = 0) -> tuple[str, Path, dict[str, Any], dict[str, Any]]:
    """(kind, folder of the array, attributes of its group, OME's description of the image)."""
    attributes = _attributes(path)
    if _is_array(path):
        return "Zarr", path, attributes, {}
    if not is_zarr(path):
        raise Damage("wrong-type", f"{path.name} holds no Zarr array or group")
    scales = attributes.get("multiscales")
    if isinstance(scales, list) and scales:
        image = scales[0] if isinstance(scales[0], dict) else {}
        levels = image.get("datasets")
        first = levels[0].get("path") if isinstance(levels, list) and levels and isinstance(levels[0], dict) else None
        if not isinstance(first, str) or Path(first).is_absolute() or ".." in Path(first).parts:
            raise Damage("unreadable", f"OME-Zarr whose first resolution is at {first!r}")
        if not _is_array(path / first):
            raise Damage("unreadable", f"OME-Zarr without its first resolution {first!r}")
        return "OME-Zarr", path / first, attributes, image
    if "plate" in attributes or "well" in attributes:
        raise Damage("unreadable", "a plate of OME-Zarr images; give the folders of its fields, e.g. A/1/0")
    inner = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
    arrays = [name for name in inner[:1000] if _is_array(path / name)]
    if len(arrays) > 1:  # beside an image GDAL and xarray write its coordinates
        arrays = [name for name in arrays if _dimensions(path / name) > 1] or arrays
    if len(arrays) == 1:
        return "Zarr", path / arrays[0], attributes | _attributes(path / arrays[0]), {}
    groups = [name for name in inner[:1000] if name.isdigit() and is_zarr(path / name)]
    if not arrays and len(groups) == 1 and depth == 0:  # as bioformats2raw writes them
        return _find_array(path / groups[0], 1)
    have = ", ".join((arrays or inner)[:5])
    raise Damage("unreadable", f"a Zarr group of {len(arrays)} arrays{f' ({have})' if have else ''}; give one of them")


def _check_metadata(folder: Path) -> dict[str, Any]:
    """The array's own metadata, once its codecs are known to be harmless."""
    found = _load(folder / ".zarray") or _load(folder / "zarr.json")
    used: list[str] = []
    pending: list[Any] = [found.get("codecs"), found.get("compressor"), found.get("filters")]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            used += [str(value[key]) for key in ("id", "name") if key in value]
            pending += [value.get("codecs"), value.get("index_codecs"), value.get("configuration")]
    for name in used:
        if name.removeprefix("numcodecs.") not in _CODECS:
            raise Damage("unreadable", f"chunks of the codec {name!r}, which is not opened")
    return found


def _letters(image: dict[str, Any], attributes: dict[str, Any], metadata: dict[str, Any], count: int) -> str | None:
    axes: Any = image.get("axes")
    if axes is None and image:
        axes = list("tczyx") if count == 5 else None  # OME-Zarr 0.1 and 0.2
    if axes is None:
        axes = metadata.get("dimension_names") or attributes.get("_ARRAY_DIMENSIONS")
    if not isinstance(axes, list) or len(axes) != count:
        return None
    names = [str(axis.get("name") if isinstance(axis, dict) else axis).lower() for axis in axes]
    letters = "".join(_WORDS.get(name, name[:1].upper() if name[:1].isalpha() else "I") for name in names)
    return letters if letters.count("Y") == letters.count("X") == 1 else None


def _names(attributes: dict[str, Any], channels: int, letters: str) -> tuple[str, ...]:
    omero = attributes.get("omero")
    found = omero.get("channels") if isinstance(omero, dict) else None
    if isinstance(found, list) and len(found) == channels and any(letter in CHANNEL_AXES for letter in letters):
        return safe_names([str(one.get("label") or "") if isinstance(one, dict) else "" for one in found])
    return ("",) * channels


def _is_colour(attributes: dict[str, Any]) -> bool:
    omero = attributes.get("omero")
    found = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(found, list):
        return False
    colours = [str(one.get("color")).upper() for one in found if isinstance(one, dict)]
    return colours == ["FF0000", "00FF00", "0000FF"]


def _check_chunk(file: Path, size: int) -> None:
    """Refuse a chunk that can't be what the array says: longer than its values, or claiming more of its own."""
    length = file.stat().st_size
    if length > size + size // 8 + 65_536:
        raise Damage("too-large", f"a chunk of {length} bytes for {size} bytes of values")
    with open(file, "rb") as stream:
        head = stream.read(18)
    claimed = 0
    if head[:4] == b"\x28\xb5\x2f\xfd" and len(head) == 18:  # zstd (RFC 8878, 3.1.1.1)
        flag, single = head[4] >> 6, head[4] >> 5 & 1
        start = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
        width = (1 if single else 0, 2, 4, 8)[flag]
        claimed = int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)
    elif head[:1] == b"\x02" and len(head) >= 16 and int.from_bytes(head[12:16], "little") == length:  # blosc
        claimed = int.from_bytes(head[4:8], "little")
    if claimed > 2 * size + 65_536:
        raise Damage("too-large", f"a chunk that claims {claimed} bytes; the array has {size}")
