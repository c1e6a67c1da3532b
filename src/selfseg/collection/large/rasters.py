"""Maps of large images: made band by band, kept as they come, put together as one tiled TIFF or OME-Zarr.

Letters in shapes: H W pixels of the image, h w cells of its mosaic, K scores, R rows of pixels.

A band that was made is a file in TARGET.parts/, so that a call that was stopped goes on with the next one, and gives
the same file as one that wasn't. When all are there, they become TARGET: a TIFF of 256 px tiles with a colour table,
overviews for viewers, and where the image lies on the earth, if it says so; or OME-Zarr
(`selfseg.collection.large.files`). Then the parts are removed. Memory holds a strip of the image, whatever its size.
"""

from __future__ import annotations

import io
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.markup import escape
from torch import Tensor

from selfseg.collection.assigning import assign_rows
from selfseg.collection.large.files import write_tiled, write_zarr
from selfseg.collection.large.mosaic import Mosaic, Rows, Scores, blended_rows
from selfseg.collection.large.places import geo_tags
from selfseg.data.reading.images import ImageCollection
from selfseg.drawing.palette_png import write_index_png
from selfseg.errors import ConfigError
from selfseg.models.embedder import Embedder
from selfseg.ops.levels import mark_void
from selfseg.storage.files import read_json, storage_errors, write_atomically, write_json
from selfseg.telling import plain
from selfseg.telling.bars import Bars

Form = Literal["tiff", "zarr"]
"""What the map of a large image is written as."""

SUFFIXES = (".png", ".tif", ".zarr")
"""Of maps."""

PREVIEW = 2048
"""The longest side of the picture that is made of a large image, in px."""


class Band(NamedTuple):
    """Rows of pixels of a map.

    Attributes:
        piece: number of the piece of the mosaic that finished them.
        first: of the rows, in px.
        values: (R, W) uint8 or uint16.
        image: (R, W, C) uint8 of the same pixels.
    """

    piece: int
    first: int
    values: NDArray[Any]
    image: NDArray[np.uint8]


def label_bands(
    pieces: Iterator[Rows], mosaic: Mosaic, values: NDArray[Any], void: int | None, skip: int = -1
) -> Iterator[Band]:
    """The best row of scores at every pixel, bilinearly between the cells, as soon as the cells around it are known.

    Args:
        pieces: of `blended_rows`.
        mosaic: of the image.
        values: (K,) uint8 or uint16: what each row of scores stands for.
        void: the value of pixels where nothing was measured; None = there are none, as of photographs.
        skip: the first piece is only there for the rows below it (an earlier call gave its band): its number.

    Yields:
        Bands, of which each begins where the one before ended.
    """
    (height, width), cell, (rows, columns) = mosaic.size, mosaic.cell, mosaic.grid
    before: tuple[Tensor, NDArray[np.uint8]] | None = None  # the last row of cells, the last half cell of pixels
    number = max(0, skip) - 1
    for top, scores, image in pieces:  # no name holds a piece while the next one is made: it may have 100 MB
        number += 1
        end_row = top + len(scores)
        start = 0 if top == 0 else top * cell - cell // 2
        end = height if end_row == rows else end_row * cell - cell // 2
        if before is not None:
            scores, image, top = torch.cat([before[0], scores]), np.concatenate([before[1], image]), top - 1
        before = scores[-1:].clone(), image[len(image) - cell // 2 :].copy()
        if number != skip:
            place = ((torch.arange(start, end) + 0.5) / cell - 0.5).clamp(0, rows - 1)
            above = place.floor()
            ids = assign_rows(scores, ((above - top).long(), place - above), columns * cell, values)[:, :width]
            pixels = image[: end - start]
            band = Band(number, start, ids if void is None else mark_void(ids, pixels, void), pixels)
            del scores, image, ids, pixels
            yield band
            del band
        else:
            del scores, image


@dataclass(frozen=True)
class Drawn:
    """What is kept of a band beside its values.

    Attributes:
        values: (r, w) of every `step`th pixel.
        image: (r, w, C) uint8, shrunk by as much.
    """

    values: NDArray[Any]
    image: NDArray[np.uint8]


def _plan_in(file: Path) -> Any:
    """What a plan.json holds; None where there is none that can be read."""
    try:
        return read_json(file)
    except (FileNotFoundError, ValueError):
        return None


class BandStore:
    """The finished bands of one map, on disk.

    Args:
        target: the map that they become.
        key: plain values that decide what is in it; bands of anything else are removed.
        mosaic: how the image is looked at.
    """

    def __init__(self, target: Path, key: Mapping[str, Any], mosaic: Mosaic) -> None:
        self.target, self.mosaic = target, mosaic
        self.size = size = mosaic.size
        self.step = max(1, -(-max(size) // PREVIEW))
        self.folder = target.with_name(target.name + ".parts")
        known = json.loads(json.dumps({**key, **asdict(mosaic)}))
        plan = self.folder / "plan.json"
        with storage_errors(self.folder):
            if _plan_in(plan) != known:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                write_json(plan, known)
        self.finished = 0
        while self._file(self.finished).is_file():
            self.finished += 1

    def _file(self, piece: int) -> Path:
        return self.folder / f"band{piece:06d}.npz"

    def add(self, band: Band) -> None:
        """Keep a band; the next one there is."""
        step, rows = self.step, len(band.values)
        first = -(-band.first // step) * step - band.first  # the first row of the map that the picture has
        count = len(range(first, rows, step))
        size = -(-self.size[1] // step), count
        shown = np.zeros((0, size[0], band.image.shape[2]), np.uint8)
        if count:
            shown = _shrunk(band.image[first:], step, size)
        data = io.BytesIO()
        packed = np.frombuffer(zlib.compress(np.ascontiguousarray(band.values).tobytes(), 1), np.uint8)
        shape = np.array(band.values.shape)
        drawn = band.values[first::step, ::step]
        np.savez(data, packed=packed, shape=shape, dtype=band.values.dtype.str, values=drawn, image=shown)
        write_atomically(self._file(band.piece), lambda temporary: temporary.write_bytes(data.getvalue()))
        self.finished = band.piece + 1

    def _read(self, piece: int) -> tuple[NDArray[Any], Drawn]:
        with np.load(self._file(piece), allow_pickle=False) as kept:
            raw = zlib.decompress(kept["packed"].tobytes())
            values = np.frombuffer(raw, np.dtype(str(kept["dtype"]))).reshape(kept["shape"])
            return values, Drawn(kept["values"], kept["image"])

    def bands(self) -> Iterator[NDArray[Any]]:
        """The values of the bands (R, W), from the top."""
        for piece in range(self.finished):
            yield self._read(piece)[0]

    def picture(self) -> Drawn:
        """The whole image and its map, so small that they can be looked at."""
        all_of_it = [self._read(piece)[1] for piece in range(self.finished)]
        return Drawn(
            np.concatenate([one.values for one in all_of_it]), np.concatenate([one.image for one in all_of_it])
        )

    def counts(self, most: int) -> NDArray[np.int64]:
        """How many pixels have each value from 0 to `most`."""
        found = np.zeros(most + 1, np.int64)
        for values in self.bands():
            found += np.bincount(values.ravel(), minlength=most + 1)
        return found

    def finish(self, how: Look, collection: ImageCollection, index: int) -> None:
        """Put the bands together, and remove them, and what earlier calls made of this image in another form.

        Args:
            how: the map looks.
            collection: the images.
            index: of the image, which may know where it lies.
        """
        if self.target.suffix == ".zarr":
            write_zarr(self.target, self.size, self.bands, how.colours, how.names, how.void)
        else:
            write_tiled(self.target, self.size, self.bands, how.colours, geo_tags(collection, index), how.void)
        _remove_others(self.target)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Look:
    """What the values of a map are to a viewer.

    Attributes:
        colours: (K, 3) uint8 of the values from 0.
        names: of the values.
        void: the value of pixels that are nothing; None = there are none.
    """

    colours: NDArray[np.uint8]
    names: Mapping[int, str]
    void: int | None = None


def map_large(
    embedder: Embedder,
    collection: ImageCollection,
    index: int,
    store: BandStore,
    scores: Scores,
    values: NDArray[Any],
    void: int,
    what: str,
    progress: bool = True,
    look: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Make the bands of a large image's map that aren't there yet.

    Args:
        embedder: on its device.
        collection: the images.
        index: of the image.
        store: of the map.
        scores: of the cells of a window.
        values: (K,) what each row of scores stands for.
        void: the value where nothing was measured.
        what: for the progress bar.
        progress: whether to show one on stderr.
        look: of a batch (1, C, h, w) in [0, 1], instead of the embedder's own.

    Raises:
        BadImage: if a part of the image can't be read. What was made stays.
    """
    mosaic = store.mosaic
    total = len(mosaic.rows)
    if store.finished >= total:
        return
    skip = store.finished - 1
    with Bars(shown=progress) as bar:
        task = bar.add_task(escape(plain(f"{what} {collection.names[index]}")), total=total, completed=store.finished)
        pieces = blended_rows(embedder, collection, index, mosaic, scores, mosaic.rows[max(0, skip)], look)
        measured_images = collection.channels is not None
        for band in label_bands(pieces, mosaic, values, void if measured_images else None, skip):
            store.add(band)
            del band
            bar.update(task, completed=store.finished)


def write_map(folder: Path, collection: ImageCollection, index: int, values: NDArray[Any], how: Look) -> Path:
    """Write the map of an image that was looked at whole: FOLDER/NAME.png, or .tif where the image knows its place.

    Args:
        folder: where maps lie.
        collection: the images.
        index: of the image.
        values: (H, W) uint8 or uint16.
        how: they look.

    Returns:
        The file.
    """
    target = map_file(folder, collection, index)
    if target.suffix == ".png":
        write_index_png(target, values, how.colours)
    else:
        size = values.shape[0], values.shape[1]
        write_tiled(target, size, lambda: iter([values]), how.colours, geo_tags(collection, index), how.void)
    _remove_others(target)
    return target


def map_file(folder: Path, collection: ImageCollection, index: int, form: Form = "tiff") -> Path:
    """Where the map of an image lies.

    FOLDER/NAME.png; of large images FOLDER/NAME.tif or .zarr, of small ones that know where they lie .tif.

    Args:
        folder: where maps lie.
        collection: the images.
        index: of the image.
        form: of large images' maps.

    Raises:
        ConfigError: if there is no such form.
    """
    if form not in get_args(Form):
        raise ConfigError(f"maps of large images are written as {' or '.join(get_args(Form))}, not as {form!r}")
    name = collection.names[index]
    if collection.is_large(index):
        return folder / (f"{name}.zarr" if form == "zarr" else f"{name}.tif")
    layout = collection.layout(index)
    return folder / (f"{name}.tif" if layout is not None and layout.place is not None else f"{name}.png")


def forms(folder: Path, name: str) -> list[Path]:
    """Every place where the map of an image of that name may be."""
    return [folder / f"{name}{suffix}" for suffix in SUFFIXES]


@dataclass(frozen=True)
class ResultPlaces:
    """Where a verb puts what it makes of an image.

    Attributes:
        out: the verb's folder.
        maps: what its folder of maps is called.
    """

    out: Path
    maps: str

    def __call__(self, name: str) -> list[Path]:
        """Every place where something of an image of that name may be."""
        return [*forms(self.out / self.maps, name), self.overlay(name), self._polygons(name)]

    def overlay(self, name: str) -> Path:
        """The photograph under its map."""
        return self.out / "overlay" / f"{name}.jpg"

    def remove_polygons(self, name: str) -> None:
        """Those of an earlier map, before there is a new one: this call may be one without --geojson."""
        path = self._polygons(name)
        with storage_errors(path):
            path.unlink(missing_ok=True)

    def _polygons(self, name: str) -> Path:
        return self.out / "geojson" / f"{name}.geojson"


def _remove_others(target: Path) -> None:
    """What earlier calls made of the same image in other forms, whole or not."""
    for other in (target.with_suffix(suffix) for suffix in SUFFIXES):
        if other != target:
            remove(other)
            shutil.rmtree(other.with_name(other.name + ".parts"), ignore_errors=True)


def remove(map_: Path) -> None:
    """Remove a map, whatever its form; none there is no error."""
    if map_.is_dir():
        shutil.rmtree(map_, ignore_errors=True)
    else:
        map_.unlink(missing_ok=True)


def _shrunk(image: NDArray[np.uint8], step: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image by the mean of step x step pixels; of C channels, one after the other, whatever OpenCV takes."""
    if step == 1:
        return np.ascontiguousarray(image)
    parts = [
        cv2.resize(np.ascontiguousarray(image[..., c]), size, interpolation=cv2.INTER_AREA)
        for c in range(image.shape[2])
    ]
    return np.stack(parts, axis=2)
