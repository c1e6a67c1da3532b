"""The files of large maps: tiled TIFFs with overviews, and OME-Zarr.

Letters in shapes: H W pixels of the map, R rows of it, K values.

Both are written from bands of rows, which are gone through once for each level of the pyramid: memory holds a few rows
of tiles, whatever the map's size. A level has every second pixel of the one below it: values of a map have no mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.drawing.palette_png import VOID_COLOUR
from selfseg.storage.files import write_atomically, write_folder_atomically

TILE = 256
CHUNK = 1024
"""Side of a chunk of OME-Zarr in px: each is a file."""

_NODATA = 42113  # GDAL's tag
_WAITING = 1 << 24  # bytes of tiles that are compressed side by side; tifffile would hold 512 MiB of them

Bands = Callable[[], Iterator[NDArray[Any]]]
"""Gives a map from the top, (R, W) uint8 or uint16 each; called once for each level."""


def write_tiled(
    target: Path,
    size: tuple[int, int],
    bands: Bands,
    colours: NDArray[np.uint8] | None = None,
    geo: Sequence[Any] = (),
    void: int | None = None,
) -> None:
    """Write a map as a tiled, compressed TIFF with overviews, atomically; BigTIFF where it has to be.

    Args:
        target: the file.
        size: (H, W).
        bands: of the map.
        colours: (K, 3) uint8 of the values from 0, of a map of 8 bits; others are black.
        geo: tags that say where it lies (`selfseg.collection.large.places.geo_tags`).
        void: the value of pixels that are nothing, for GDAL's no-data tag; None = there is none.
    """
    import tifffile

    dtype = next(bands()).dtype
    look: dict[str, Any] = {"photometric": "minisblack"}
    if colours is not None and dtype == np.uint8:
        table = np.tile(np.array(VOID_COLOUR, np.uint16), (256, 1))
        table[: min(len(colours), 256)] = colours[:256]
        look = {"photometric": "palette", "colormap": (table.T * 257).astype(np.uint16)}
    big = size[0] * size[1] * dtype.itemsize > 3 << 30
    nodata = [] if void is None else [(_NODATA, 2, len(str(void)) + 1, str(void), True)]

    def write(temporary: Path) -> None:
        with tifffile.TiffWriter(temporary, bigtiff=big) as file:
            for step, shape in _levels(size, 2 * TILE):
                file.write(
                    tiles(bands(), step, shape, dtype),
                    shape=shape,
                    dtype=dtype,
                    tile=(TILE, TILE),
                    compression="zlib",
                    predictor=False,
                    metadata=None,
                    software="selfseg",
                    buffersize=_WAITING,
                    subfiletype=0 if step == 1 else 1,
                    extratags=[*geo, *nodata] if step == 1 else nodata,
                    **look,
                )

    write_atomically(target, write)


def write_zarr(
    target: Path,
    size: tuple[int, int],
    bands: Bands,
    colours: NDArray[np.uint8] | None = None,
    names: Mapping[int, str] | None = None,
    void: int | None = None,
) -> None:
    """Write a map as a label image of OME-Zarr 0.4 (axes y, x; Zarr version 2), atomically.

    The group TARGET has the levels "0", "1", ..., each half as large as the one before, and in `image-label` the
    colours and names of the values. See ngff.openmicroscopy.org/0.4, "multiscales" and "labels".

    Args:
        target: the folder.
        size: (H, W).
        bands: of the map.
        colours: (K, 3) uint8 of the values from 0.
        names: of the values.
        void: the value of pixels that are nothing: transparent. None = there is none.
    """
    import zarr

    dtype = next(bands()).dtype
    levels = list(_levels(size, CHUNK))
    opaque = [] if colours is None else colours.tolist()
    shown = [{"label-value": value, "rgba": [*colour, 255]} for value, colour in enumerate(opaque) if value != void]
    if void is not None:
        shown.append({"label-value": void, "rgba": [*VOID_COLOUR, 0]})
    called = [{"label-value": value, "name": name} for value, name in (names or {}).items()]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [{"type": "scale", "scale": [float(step), float(step)]}],
        }
        for number, (step, _) in enumerate(levels)
    ]
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    attributes = {
        "multiscales": [
            {"version": "0.4", "name": target.stem, "axes": axes, "datasets": datasets, "type": "nearest"},
        ],
        "image-label": {"version": "0.4", "colors": shown, **({"properties": called} if called else {})},
    }

    def write(temporary: Path) -> None:
        group = zarr.open_group(temporary, mode="w", zarr_format=2, attributes=json.loads(json.dumps(attributes)))
        for number, (step, shape) in enumerate(levels):
            array = group.create_array(
                str(number),
                shape=shape,
                dtype=dtype,
                chunks=(min(CHUNK, shape[0]), min(CHUNK, shape[1])),
                chunk_key_encoding={"name": "v2", "separator": "/"},
                fill_value=0,
                config={"write_empty_chunks": True},  # a chunk that isn't there would be one that nobody measured
            )
            top = 0
            for rows in _thinned(bands(), step, shape, dtype, CHUNK):
                array[top : top + len(rows)] = rows
                top += len(rows)

    write_folder_atomically(target, write)


def _levels(size: tuple[int, int], largest: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """The steps of a pyramid and its shapes (H, W), down to a longest side of `largest` px.

    Example:
        >>> list(_levels((100, 30), 40))
        [(1, (100, 30)), (2, (50, 15)), (4, (25, 8))]
    """
    step = 1
    while True:
        shape = -(-size[0] // step), -(-size[1] // step)
        yield step, shape
        if max(shape) <= largest:
            return
        step *= 2


def _thinned(
    bands: Iterator[NDArray[Any]], step: int, shape: tuple[int, int], dtype: np.dtype[Any], rows: int
) -> Iterator[NDArray[Any]]:
    """Every `step`th pixel of a map, so many rows at a time; at the end there may be fewer."""
    height, width = shape
    row, done, waiting = 0, 0, np.zeros((0, width), dtype)
    for band in bands:
        first = -row % step
        row += len(band)
        waiting = np.concatenate([waiting, band[first::step, ::step]])
        while len(waiting) >= rows or (done + len(waiting) == height and len(waiting)):
            now, waiting = waiting[:rows], waiting[rows:]
            done += len(now)
            yield now


def tiles(
    bands: Iterator[NDArray[Any]], step: int, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """Every `step`th pixel of a map in tiles of 256 px, row by row; what is beyond its edges is 0.

    Args:
        bands: (R, W), from the top.
        step: 1 = all pixels.
        shape: (H, W) of the result.
        dtype: of the values.

    Example:
        >>> bands = iter([np.ones((5, 300), np.uint8), np.ones((3, 300), np.uint8)])
        >>> [int(tile.sum()) for tile in tiles(bands, 2, (4, 150), np.dtype(np.uint8))]
        [600]
    """
    width = shape[1]
    for now in _thinned(bands, step, shape, dtype, TILE):
        padded = np.zeros((TILE, -(-width // TILE) * TILE), dtype)
        padded[: len(now), :width] = now
        for x in range(0, padded.shape[1], TILE):
            yield np.ascontiguousarray(padded[:, x : x + TILE])
