"""What a TIFF's directories claim, looked at before a library follows them; and its names, no-data value and place.

A TIFF is a chain of directories (IFDs) of tags. Everything that could make a reader take memory or run in circles is
judged here from the file's own bytes: a chain that never ends, tables that are longer than the file, names in OME-XML
that ask for a billion planes.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from selfseg.data.reading.formats.base import Place, safe_names
from selfseg.data.reading.sniffing import Damage

MOST_DIRECTORIES = 100_000
"""A TIFF of more directories is refused: each of them has to be read before the first pixel is."""

_LOOKED_INTO = 32
_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TABLES = {273: "strips", 279: "strips", 324: "tiles", 325: "tiles"}
_SUBIFDS, _DESCRIPTION = 330, 270


def check_directories(stream: IO[bytes]) -> int:
    """Follow the chain of directories and refuse what must not be followed further.

    Args:
        stream: an open file.

    Returns:
        How many directories the chain has.

    Raises:
        Damage: "truncated", "too-large" or "unreadable".
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = len(head) >= 4 and struct.unpack(order + "H", head[2:4])[0] == 43
    if len(head) < (16 if big else 8):
        raise Damage("truncated", f"{size} bytes")
    (offset,) = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise Damage("unreadable", f"directory {len(seen)} leads back to an earlier one")
        if len(seen) >= MOST_DIRECTORIES:
            raise Damage("too-large", f"more than {MOST_DIRECTORIES} pages")
        try:
            offset = _directory(stream, order, big, size, offset, len(seen) < _LOOKED_INTO, seen)
        except struct.error as error:
            raise Damage("truncated", f"directory {len(seen)} lies beyond the {size} bytes of the file") from error
    if not seen:
        raise Damage("unreadable", "a TIFF without a picture")
    return len(seen)


def _directory(stream: IO[bytes], order: str, big: bool, size: int, offset: int, look: bool, seen: set[int]) -> int:
    """Judge one directory; the offset of the next."""
    seen.add(offset)
    stream.seek(offset)
    (tags,) = struct.unpack(order + ("Q" if big else "H"), stream.read(8 if big else 2))
    if tags > 4096:
        raise Damage("unreadable", f"a directory of {tags} tags")
    width = 20 if big else 12
    if look:
        table = stream.read(tags * width)
        for i in range(tags):
            _tag(stream, order, big, size, table[i * width : (i + 1) * width])
    stream.seek(offset + (8 if big else 2) + tags * width)
    rest = stream.read(8 if big else 4)
    if not rest and len(seen) > 0:  # some writers end the file here
        return 0
    (following,) = struct.unpack(order + ("Q" if big else "I"), rest)
    return int(following)


def _tag(stream: IO[bytes], order: str, big: bool, size: int, entry: bytes) -> None:
    code, kind, count = struct.unpack(order + ("HHQ" if big else "HHI"), entry[: 12 if big else 8])
    length = count * _TYPES.get(kind, 1)
    if length <= (8 if big else 4):
        return
    (place,) = struct.unpack(order + ("Q" if big else "I"), entry[12:] if big else entry[8:])
    if place + length > size:
        if code in _TABLES:
            raise Damage("truncated", f"{count} {_TABLES[code]}: their table lies beyond the file's {size} bytes")
        if length > 1 << 26:
            raise Damage("unreadable", f"tag {code} claims {length} bytes of the file's {size}")
    elif code == _SUBIFDS and count > 1000:
        raise Damage("unreadable", f"{count} pictures inside of one page")
    elif code == _DESCRIPTION and kind == 2:
        stream.seek(place)
        check_description(stream.read(min(length, 1 << 26)))


def check_description(text: bytes) -> None:
    """Refuse an OME-XML that defines entities or asks for more planes than a file can have.

    Raises:
        Damage: "unreadable" or "too-large".
    """
    if b"<OME" not in text[:4096] and b":OME" not in text[:4096]:
        return
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise Damage("unreadable", "OME-XML with definitions of its own")
    planes = 1
    for found in re.findall(rb"<(?:\w+:)?Pixels\b[^>]*", text)[:1000]:
        sizes = [int(number) for number in re.findall(rb'\bSize[CZT]="(\d{1,18})"', found)]
        for number in sizes:
            planes *= max(1, number)
        if planes > MOST_DIRECTORIES:
            raise Damage("too-large", f"OME-XML of {planes} planes; at most {MOST_DIRECTORIES} are read")
        planes = 1


def channel_names(tif: Any, series: int, channels: int) -> tuple[str, ...]:
    """The names that OME, GDAL, ImageJ or tifffile's own metadata have for the channels; "" where there are none."""
    for find in (_ome_names, _gdal_names, _imagej_names, _shaped_names):
        try:
            names = find(tif, series)
        except Exception:  # metadata are written by hand, too
            continue
        if names and channels % len(names) == 0:
            each = channels // len(names)
            spread = names if each == 1 else [f"{name} {i}" if name else "" for name in names for i in range(each)]
            return safe_names(spread)
    return ("",) * channels


def _ome_names(tif: Any, series: int) -> list[str]:
    if not tif.is_ome:
        return []
    root = ElementTree.fromstring(tif.ome_metadata)
    images = [element for element in root if element.tag.rpartition("}")[2] == "Image"]
    pixels = next(e for e in images[series] if e.tag.rpartition("}")[2] == "Pixels")
    return [e.get("Name", "") for e in pixels if e.tag.rpartition("}")[2] == "Channel"]


def _gdal_names(tif: Any, series: int) -> list[str]:
    tag = tif.pages[0].tags.get(42112)
    if tag is None or series:
        return []
    named: dict[int, str] = {}
    for item in ElementTree.fromstring(tag.value.strip("\0 \n")):
        if item.get("role") == "description" and item.get("sample") is not None:
            named[int(item.get("sample", "0"))] = item.text or ""
    count = tif.pages[0].samplesperpixel
    return [named.get(i, "") for i in range(count)] if named and max(named) < count else []


def _imagej_names(tif: Any, series: int) -> list[str]:
    if not tif.is_imagej or series:
        return []
    found = tif.imagej_metadata
    labels, channels = found.get("Labels", []), int(found.get("channels", 1))
    return [str(label) for label in labels] if len(labels) == channels > 1 else []  # more labels are those of planes


def _shaped_names(tif: Any, series: int) -> list[str]:
    names = tif.shaped_metadata[series].get("Channel", {}).get("Name", []) if tif.shaped_metadata else []
    return [str(name) for name in names]


def nodata_of(page: Any) -> float | None:
    """The value of GDAL's no-data tag."""
    tag = page.tags.get(42113)
    if tag is None:
        return None
    try:
        return float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def place_of(page: Any, path: Path) -> Place | None:
    """Where a GeoTIFF lies, by its tags; other TIFFs, by files beside them that say it. None if nothing does.

    The transformation is that of the GeoTIFF standard (OGC 19-008r4, annex B.6): of a matrix, or of one tie point and
    a scale. With pixel-is-point the tie point is a pixel's centre, and the frame of `Place` begins half a pixel before.
    """
    geo = page.geotiff_tags if page.is_geotiff else _without_keys(page)
    if not geo:
        return _by_files_beside(path)
    scale, ties, matrix = (geo.get(key) for key in ("ModelPixelScale", "ModelTiepoint", "ModelTransformation"))
    if matrix is not None:
        rows: Sequence[Any] = matrix if len(matrix) == 4 else [matrix[i : i + 4] for i in range(0, 16, 4)]
        a, b, c, d, e, f = (float(rows[i][j]) for i in (0, 1) for j in (0, 1, 3))
    elif scale is not None and ties is not None:
        tie: Sequence[float] = ties[0] if len(ties) and hasattr(ties[0], "__len__") else ties
        a, b, d, e = float(scale[0]), 0.0, 0.0, -float(scale[1])
        c, f = float(tie[3]) - tie[0] * a, float(tie[4]) - tie[1] * e
    else:
        return None
    if int(geo.get("GTRasterTypeGeoKey", 1)) == 2:
        c, f = c - (a + b) / 2, f - (d + e) / 2
    crs = _crs(geo, path)
    if not crs and (a, b, c, d, abs(e), f) == (1, 0, 0, 0, 1, 0):
        return None  # counted in pixels
    return Place(crs, (a, b, c, d, e, f))


def _without_keys(page: Any) -> dict[str, Any]:
    """The tags of a TIFF that lies on a plane without a name."""
    names = {33550: "ModelPixelScale", 33922: "ModelTiepoint", 34264: "ModelTransformation"}
    return {name: page.tags[code].value for code, name in names.items() if code in page.tags}


def _by_files_beside(path: Path) -> Place | None:
    """By a world file or GDAL's own XML."""
    beside = [path.with_suffix(suffix) for suffix in (".tfw", ".tifw", ".TFW", ".wld")]
    if not any(file.is_file() for file in (*beside, path.with_name(path.name + ".aux.xml"))):
        return None
    from selfseg.data.reading.formats.rasters import place_by_gdal

    return place_by_gdal(path, "GTiff")


def _crs(geo: dict[str, Any], path: Path) -> str:
    code = int(geo.get("ProjectedCSTypeGeoKey", geo.get("GeographicTypeGeoKey", 0)))
    try:
        if 0 < code < 32767:
            return _wkt_of(code)
        from rasterio import open as open_raster  # a system of the file's own: GDAL knows how to put it together

        with open_raster(path) as raster:
            return str(raster.crs.to_wkt()) if raster.crs else ""
    except ImportError:
        return f"EPSG:{code}" if 0 < code < 32767 else ""
    except Exception:
        return ""


@lru_cache(maxsize=64)
def _wkt_of(code: int) -> str:
    from rasterio.crs import CRS

    return str(CRS.from_epsg(code).to_wkt())
