"""Maps of large images: made band by band, kept as they come, put together as one tiled TIFF.

Letters in shapes: H W pixels of the image, h w cells of its mosaic, K scores, R rows of pixels.

A band that was made is a file in TARGET.parts/, so that a call that was stopped goes on with the next one, and gives
the same file as one that wasn't. When all are there, they become TARGET: a TIFF of 256 px tiles with a colour table,
overviews for viewers, and where the image lies on the earth, if it says so. BigTIFF where it has to be. Then the parts
are removed. Memory holds a strip of the image, whatever its size.
"""

from __future__ import annotations

import io
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from selfseg.collection.assigning import assign_rows
from selfseg.collection.large.mosaic import Mosaic, Rows, Scores, blended_rows
from selfseg.data.reading.images import ImageCollection
from selfseg.drawing.palette_png import VOID_COLOUR, write_index_png
from selfseg.errors import ConfigError
from selfseg.models.embedder import Embedder
from selfseg.ops.levels import measured
from selfseg.storage.files import read_json, storage_errors, write_atomically, write_json

TILE = 256
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
    before: Rows | None = None
    for number, piece in enumerate(pieces, max(0, skip)):
        last = piece.first + len(piece.scores) == rows
        start = 0 if piece.first == 0 else piece.first * cell - cell // 2
        end = height if last else (piece.first + len(piece.scores)) * cell - cell // 2
        scores, image, top = piece.scores, piece.image, piece.first
        if before is not None:
            scores = torch.cat([before.scores[-1:], scores])
            image = np.concatenate([before.image[len(before.image) - cell // 2 :], image])
            top -= 1
        before = piece
        if number == skip:
            continue
        place = ((torch.arange(start, end) + 0.5) / cell - 0.5).clamp(0, rows - 1)
        above = place.floor()
        found = assign_rows(scores, ((above - top).long(), place - above), columns * cell)[:, :width]
        ids = values[found]
        pixels = image[: end - start]
        if void is not None:
            where = measured(pixels)
            if where is not None:
                ids[~where] = void
        yield Band(number, start, ids, pixels)


@dataclass(frozen=True)
class Drawn:
    """What is kept of a band beside its values.

    Attributes:
        values: (r, w) of every `step`th pixel.
        image: (r, w, C) uint8, shrunk by as much.
    """

    values: NDArray[Any]
    image: NDArray[np.uint8]


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
            if not plan.is_file() or read_json(plan) != known:
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

    def finish(self, colours: NDArray[np.uint8] | None, geo: Sequence[Any] = ()) -> None:
        """Put the bands together, and remove them."""
        write_tiled(self.target, self.size, self.bands, colours, geo)
        shutil.rmtree(self.folder, ignore_errors=True)


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
    console = Console(stderr=True)
    with Progress(console=console, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task(f"{what} {collection.names[index]}", total=total, completed=store.finished)
        pieces = blended_rows(embedder, collection, index, mosaic, scores, mosaic.rows[max(0, skip)], look)
        measured_images = collection.channels is not None
        for band in label_bands(pieces, mosaic, values, void if measured_images else None, skip):
            store.add(band)
            bar.update(task, completed=store.finished)


def write_map(
    folder: Path, collection: ImageCollection, index: int, values: NDArray[Any], colours: NDArray[np.uint8]
) -> Path:
    """Write the map of an image that was looked at whole: FOLDER/NAME.png, or .tif where the image knows its place.

    Args:
        folder: where maps lie.
        collection: the images.
        index: of the image.
        values: (H, W) uint8 or uint16.
        colours: (K, 3) uint8 of the values from 0.

    Returns:
        The file.
    """
    name = collection.names[index]
    if not has_map_file(collection, index):
        write_index_png(folder / f"{name}.png", values, colours)
        return folder / f"{name}.png"
    target = folder / f"{name}.tif"
    size = values.shape[0], values.shape[1]
    write_tiled(target, size, lambda: iter([values]), colours, geo_tags(collection.paths[index]))
    return target


def has_map_file(collection: ImageCollection, index: int) -> bool:
    """Whether an image's map is a TIFF and no PNG: of large images, and of those that know where they lie."""
    if collection.is_large(index):
        return True
    layout = collection.layout(index)
    return layout is not None and layout.place is not None


def _shrunk(image: NDArray[np.uint8], step: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image by the mean of step x step pixels; of C channels, one after the other, whatever OpenCV takes."""
    if step == 1:
        return np.ascontiguousarray(image)
    parts = [
        cv2.resize(np.ascontiguousarray(image[..., c]), size, interpolation=cv2.INTER_AREA)
        for c in range(image.shape[2])
    ]
    return np.stack(parts, axis=2)


def write_tiled(
    target: Path,
    size: tuple[int, int],
    bands: Callable[[], Iterator[NDArray[Any]]],
    colours: NDArray[np.uint8] | None = None,
    geo: Sequence[Any] = (),
) -> None:
    """Write a map as a tiled, compressed TIFF with overviews, atomically.

    Args:
        target: the file.
        size: (H, W).
        bands: gives the map from the top, (R, W) uint8 or uint16 each; called once for each level.
        colours: (K, 3) uint8 of the values from 0, of a map of 8 bits; others are black.
        geo: tags that say where it lies (`geo_tags`).
    """
    import tifffile

    first = next(bands())
    dtype = first.dtype
    look: dict[str, Any] = {"photometric": "minisblack"}
    if colours is not None and dtype == np.uint8:
        table = np.tile(np.array(VOID_COLOUR, np.uint16), (256, 1))
        table[: min(len(colours), 256)] = colours[:256]
        look = {"photometric": "palette", "colormap": (table.T * 257).astype(np.uint16)}
    big = size[0] * size[1] * dtype.itemsize > 3 << 30

    def write(temporary: Path) -> None:
        with tifffile.TiffWriter(temporary, bigtiff=big) as file:
            step = 1
            while True:
                shape = -(-size[0] // step), -(-size[1] // step)
                file.write(
                    tiles(bands(), step, shape, dtype),
                    shape=shape,
                    dtype=dtype,
                    tile=(TILE, TILE),
                    compression="zlib",
                    predictor=False,
                    metadata=None,
                    software="selfseg",
                    subfiletype=0 if step == 1 else 1,
                    extratags=list(geo) if step == 1 else (),
                    **look,
                )
                if max(shape) <= 2 * TILE:
                    return
                step *= 2

    write_atomically(target, write)


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
    height, width = shape
    row, waiting = 0, np.zeros((0, width), dtype)
    done = 0
    for band in bands:
        first = -row % step
        row += len(band)
        waiting = np.concatenate([waiting, band[first::step, ::step]])
        while len(waiting) >= TILE or (done + len(waiting) == height and len(waiting)):
            now = waiting[:TILE]
            waiting, done = waiting[TILE:], done + len(now)
            padded = np.zeros((TILE, -(-width // TILE) * TILE), dtype)
            padded[: len(now), :width] = now
            for x in range(0, padded.shape[1], TILE):
                yield np.ascontiguousarray(padded[:, x : x + TILE])


_GEO = (33550, 33922, 34264, 34735, 34736, 34737)
_TYPES = {33550: 12, 33922: 12, 34264: 12, 34735: 3, 34736: 12, 34737: 2}


def geo_tags(path: Path) -> list[Any]:
    """The tags of a GeoTIFF that say where it lies, as tifffile writes them; none if the file has none.

    They are taken over as they are: the map has the image's pixels, so it lies where the image does.

    Args:
        path: a TIFF; or any other raster, which `rasterio` reads.
    """
    import tifffile

    if path.suffix.lower() in (".tif", ".tiff", ".btf", ".tf8"):
        with tifffile.TiffFile(path) as file:
            return _tags_of(file)
    try:
        import rasterio
        from rasterio.io import MemoryFile
    except ImportError:
        return []
    with rasterio.open(path) as raster:
        if raster.crs is None:
            return []
        profile = {"driver": "GTiff", "height": 8, "width": 8, "count": 1, "dtype": "uint8"}
        with MemoryFile() as memory:
            with memory.open(**profile, crs=raster.crs, transform=raster.transform) as small:
                small.write(np.zeros((1, 8, 8), np.uint8))
            with tifffile.TiffFile(io.BytesIO(memory.read())) as file:
                return _tags_of(file)


def _tags_of(file: Any) -> list[Any]:
    found = []
    for code in _GEO:
        tag = file.pages[0].tags.get(code)
        if tag is not None:
            value = tag.value
            count = len(value) if not isinstance(value, str) else len(value) + 1
            found.append((code, _TYPES[code], count, value, True))
    return found


def write_areas(maps: Path, out: Path, name: str, names: Mapping[int, Mapping[str, Any]]) -> None:
    """`write_geojson` of the map of an image, MAPS/NAME.tif or .png, to OUT/NAME.geojson."""
    raster = next(path for path in (maps / f"{name}.tif", maps / f"{name}.png") if path.is_file())
    write_geojson(raster, out / f"{name}.geojson", names)


def write_geojson(raster: Path, target: Path, names: Mapping[int, Mapping[str, Any]]) -> None:
    """The areas of a map as polygons in map coordinates (of a map that lies nowhere, in px), as GeoJSON.

    Args:
        raster: the map, a TIFF.
        target: the file. It names the coordinate reference system in `crs`, as GDAL does.
        names: the properties of each value's areas; values without any are left out.

    Raises:
        ConfigError: without `rasterio`.
    """
    try:
        import rasterio
        from rasterio.features import shapes
    except ImportError as error:
        raise ConfigError('GeoJSON needs rasterio: python -m pip install "selfseg[geo]"') from error
    with rasterio.open(raster) as map_:

        def write(temporary: Path) -> None:
            with temporary.open("w", encoding="utf-8") as file:
                head: dict[str, Any] = {"type": "FeatureCollection", "name": target.stem}
                if map_.crs is not None:
                    code = map_.crs.to_authority()
                    name = f"urn:ogc:def:crs:{code[0]}::{code[1]}" if code else map_.crs.to_wkt()
                    head["crs"] = {"type": "name", "properties": {"name": name}}
                file.write(json.dumps(head)[:-1] + ', "features": [\n')
                separator = ""
                for shape, value in shapes(rasterio.band(map_, 1), transform=map_.transform):
                    properties = names.get(int(value))
                    if properties is None:
                        continue
                    feature = {"type": "Feature", "properties": properties, "geometry": shape}
                    file.write(separator + json.dumps(feature))
                    separator = ",\n"
                file.write("\n]}\n")

        write_atomically(target, write)
