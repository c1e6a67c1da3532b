"""Where maps lie on the earth: the tags of GeoTIFF, and areas as GeoJSON in map coordinates.

Letters in shapes: H W pixels of the map, R rows of it.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.formats.base import Place, Window
from selfseg.data.reading.images import ImageCollection
from selfseg.errors import ConfigError, MissingExtra
from selfseg.storage.files import write_atomically

_TYPES = {33550: 12, 33922: 12, 34264: 12, 34735: 3, 34736: 12, 34737: 2}
"""The tags of GeoTIFF (OGC 19-008r4, 7.1), and the type that each has."""

CORNERS = 4_000_000
"""Corners of areas that are held in memory at once."""

_BYTES = 1 << 26  # of a map's values


def geo_tags(collection: ImageCollection, index: int) -> list[Any]:
    """The tags that say where image `index` lies, as tifffile writes them; none if nothing says it.

    Those of a GeoTIFF are taken over as they are: the map has the image's pixels, so it lies where the image does. Of
    other rasters they are made of `Layout.place`. Of a part of an image the place is moved to the part's corner.
    """
    import tifffile

    path, part = collection.file(index), collection.part(index)
    window = Window(0, 0, 0, 0) if part is None or part.window is None else part.window
    if path.suffix.lower() in (".tif", ".tiff", ".btf", ".tf8"):
        with tifffile.TiffFile(path) as file:
            if tags := _tags_of(file):
                return _moved(tags, window)
    layout = collection.layout(index)
    return [] if layout is None or layout.place is None else _moved(_tags_of_place(layout.place), window)


def _tags_of(file: Any) -> list[Any]:
    found = []
    for code, kind in _TYPES.items():
        tag = file.pages[0].tags.get(code)
        if tag is not None:
            value = tag.value
            count = len(value) if not isinstance(value, str) else len(value) + 1
            found.append((code, kind, count, value, True))
    return found


def _tags_of_place(place: Place) -> list[Any]:
    """As GDAL writes them; none without rasterio."""
    try:
        from rasterio.crs import CRS
        from rasterio.io import MemoryFile
        from rasterio.transform import Affine
    except ImportError:
        return []
    import tifffile

    profile = {"driver": "GTiff", "height": 8, "width": 8, "count": 1, "dtype": "uint8"}
    crs = CRS.from_user_input(place.crs) if place.crs else None
    with MemoryFile() as memory:
        with memory.open(**profile, crs=crs, transform=Affine(*place.transform)) as small:
            small.write(np.zeros((1, 8, 8), np.uint8))
        with tifffile.TiffFile(io.BytesIO(memory.read())) as file:
            return _tags_of(file)


def _moved(tags: list[Any], window: Window) -> list[Any]:
    """Tags of an image as those of a part of it: tie points are (column, row, 0, x, y, z), the matrix is 4 x 4."""
    moved = []
    for code, kind, count, value, once in tags:
        now = value
        if code == 33922:
            now = tuple(float(number) - (window.x, window.y, 0, 0, 0, 0)[i % 6] for i, number in enumerate(value))
        elif code == 34264:
            matrix = np.array(value, np.float64).reshape(4, 4)
            matrix[:3, 3] += matrix[:3, 0] * window.x + matrix[:3, 1] * window.y
            now = tuple(matrix.ravel().tolist())
        moved.append((code, kind, count, now, once))
    return moved


def check_geojson_of(geojson: bool, min_area: int, large_as: str) -> None:
    """Judge the options of a verb that writes maps, before hours of work.

    Raises:
        ConfigError: if they don't fit each other; MissingExtra without rasterio.
    """
    if not geojson and min_area:
        raise ConfigError(f"--min-area {min_area} only works together with --geojson; add it, or leave --min-area out")
    if min_area < 0:
        raise ConfigError(f"--min-area {min_area} can't be negative")
    if geojson and large_as != "tiff":
        raise ConfigError("--geojson needs maps that are TIFF files; leave out --geojson or --large-as zarr")
    if geojson:
        check_rasterio()


def check_rasterio() -> None:
    """Raises MissingExtra without rasterio."""
    try:
        import rasterio  # noqa: F401
    except ImportError as error:
        raise MissingExtra("GeoJSON", "rasterio", "geo") from error


def write_areas(
    raster: Path,
    out: Path,
    name: str,
    values: Sequence[Mapping[str, Any]],
    void: int | None = None,
    min_area: int = 0,
) -> None:
    """`write_geojson` of the map of an image to OUT/NAME.geojson.

    Args:
        raster: the map.
        out: the folder of the GeoJSON.
        name: of the image.
        values: entries of a legend: "value", "name" and "colour" become properties.
        void: see `write_geojson`.
        min_area: see there.
    """
    names = {one["value"]: {key: one[key] for key in ("value", "name", "colour") if key in one} for one in values}
    write_geojson(raster, out / f"{name}.geojson", names, void, min_area)


def write_geojson(
    raster: Path,
    target: Path,
    names: Mapping[int, Mapping[str, Any]],
    void: int | None = None,
    min_area: int = 0,
) -> None:
    """The areas of a map as polygons in map coordinates (of a map that lies nowhere, in px), as GeoJSON.

    An area is pixels of one value that touch at their sides. Its outline follows the edges of the pixels. A map of more
    than 64 MiB or `CORNERS` corners is gone through in strips, as GDAL holds all outlines that it finds at once: an
    area that reaches from one strip into the next becomes two, which meet in a straight line.

    Args:
        raster: the map, which rasterio reads.
        target: the file. It names the coordinate reference system in `crs`, as GDAL does.
        names: the properties of each value's areas; values without any are left out. `pixels` is added: how many
            pixels an area has.
        void: the value that is no area, and takes no part in what follows.
        min_area: px. Smaller areas become part of the largest one beside them; what is small and lies in void alone is
            left out.

    Raises:
        MissingExtra: without `rasterio`.
    """
    check_rasterio()
    import rasterio
    from rasterio.features import shapes, sieve
    from rasterio.transform import Affine

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of maps that lie nowhere
        opened = rasterio.open(raster)
    with opened as map_:
        a, b, c, d, e, f = tuple(map_.transform)[:6]
        pixel = abs(a * e - b * d)  # in map units

        def features() -> Iterator[dict[str, Any]]:
            for first, last in _strips(map_):
                values = map_.read(1, window=((first, last), (0, map_.width)))
                if min_area > 1:
                    inside = np.ones(values.shape, np.bool_) if void is None else values != void
                    values = sieve(values, min_area, mask=inside)
                corner = Affine(a, b, c + first * b, d, e, f + first * e)
                for shape, value in shapes(values, transform=corner):
                    properties = names.get(int(value))
                    if properties is None or int(value) == void:
                        continue
                    pixels = round(_area(shape["coordinates"]) / pixel)
                    if pixels >= min_area:
                        yield {"type": "Feature", "properties": {**properties, "pixels": pixels}, "geometry": shape}

        def write(temporary: Path) -> None:
            with temporary.open("w", encoding="utf-8") as file:
                head: dict[str, Any] = {"type": "FeatureCollection", "name": target.stem}
                if map_.crs is not None:
                    code = map_.crs.to_authority()
                    name = f"urn:ogc:def:crs:{code[0]}::{code[1]}" if code else map_.crs.to_wkt()
                    head["crs"] = {"type": "name", "properties": {"name": name}}
                file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [\n')
                separator = ""
                for feature in features():
                    file.write(separator + json.dumps(feature, ensure_ascii=False))
                    separator = ",\n"
                file.write("\n]}\n")

        write_atomically(target, write)


def _area(rings: Sequence[Sequence[tuple[float, float]]]) -> float:
    """Of a polygon with holes, by Gauss's formula around each ring's first corner."""
    found = 0.0
    for number, ring in enumerate(rings):
        x, y = (np.array(ring, np.float64) - ring[0]).T
        area = abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2
        found += area if number == 0 else -area
    return found


def _strips(map_: Any) -> Iterator[tuple[int, int]]:
    """Rows of an open map whose areas are found at once: (first, last + 1)."""
    height, width = map_.height, map_.width
    most = max(1, _BYTES // (width * np.dtype(map_.dtypes[0]).itemsize))
    step = min(512, most)
    first = corners = 0
    for y in range(0, height, step):
        end = min(y + step, height)
        here = _corners(map_.read(1, window=((y, end), (0, width))))
        if y > first and (corners + here > CORNERS or end - first > most):
            yield first, y
            first, corners = y, 0
        corners += here
    yield first, height


def _corners(values: NDArray[Any]) -> int:
    """How many corners areas have inside of a part of a map (R, W), about: 2 for each point where an edge turns."""
    beside, below = values[:, 1:] != values[:, :-1], values[1:] != values[:-1]
    turns = (beside[1:] != beside[:-1]) | (below[:, 1:] != below[:, :-1])
    return 2 * int(turns.sum())
