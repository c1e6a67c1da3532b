"""Rasters that only GDAL reads, by `rasterio` (the extra `geo`): ERDAS Imagine, and JPEG 2000 larger than memory.

GeoTIFFs are read by `tifffile` whether rasterio is there or not, so that an image's values never depend on what is
installed; rasterio adds the name of their coordinate system.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.formats.base import (
    Layout,
    Place,
    Window,
    check_block,
    check_dtype,
    check_header,
    inside,
    safe_names,
)
from selfseg.data.reading.sniffing import Damage, words_of

_KINDS = {"HFA": "ERDAS Imagine", "JP2OpenJPEG": "JPEG 2000", "GTiff": "GeoTIFF"}


class RasterImage:
    """An open raster: bands are channels, with their descriptions as names.

    Args:
        path: the file.
        driver: GDAL's name of the format; no other driver sees the file.
        max_pixels: the largest H * W; None = any.

    Raises:
        Damage: if it can't be read, or rasterio isn't installed.
    """

    def __init__(self, path: Path, driver: str, max_pixels: int | None) -> None:
        try:
            import rasterio
        except ImportError as error:
            raise Damage("unreadable", "only rasterio reads it; install it with: pip install 'selfseg[geo]'") from error
        self._lock = threading.Lock()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of rasters without a place
                self._raster: Any = rasterio.open(path, driver=driver)
        except Exception as error:
            raise Damage("unreadable", words_of(error)) from error
        try:
            self.layout = self._look(max_pixels)
        except BaseException:
            self._raster.close()
            raise

    def _look(self, max_pixels: int | None) -> Layout:
        raster = self._raster
        if raster.count < 1:
            raise Damage("unreadable", "a raster without bands")
        dtypes = {check_dtype(name) for name in raster.dtypes}
        dtype = np.result_type(*dtypes)
        roles = [interpretation.name for interpretation in raster.colorinterp]
        self._bands = [i + 1 for i, role in enumerate(roles) if role != "alpha"] or list(raster.indexes)
        check_header(raster.height, raster.width, len(self._bands), max_pixels, itemsize=dtype.itemsize)
        for tall, wide in raster.block_shapes:
            check_block(tall * wide * dtype.itemsize, "block")
        flags = {flag.name for band in raster.mask_flag_enums for flag in band}
        self._masked = bool(flags & {"alpha", "per_dataset"})
        nodata = raster.nodatavals[self._bands[0] - 1]
        return Layout(
            kind=_KINDS.get(raster.driver, raster.driver),
            height=raster.height,
            width=raster.width,
            channels=safe_names([raster.descriptions[band - 1] or "" for band in self._bands]),
            dtype=dtype,
            nodata=None if nodata is None else float(nodata),
            masked=self._masked,
            colour=[roles[band - 1] for band in self._bands] == ["red", "green", "blue"],
            place=_place(raster),
        )

    def read(self, page: int = 0, window: Window | None = None, channels: Sequence[int] | None = None) -> NDArray[Any]:
        """(h, w, C) values; see `PixelFile.read`."""
        window = inside(self.layout, page, window, channels)
        bands = self._bands if channels is None else [self._bands[channel] for channel in channels]
        with self._lock:
            try:
                values = self._raster.read(bands, window=_window(window), out_dtype=self.layout.dtype)
            except Exception as error:
                raise Damage("unreadable", words_of(error)) from error
        return np.ascontiguousarray(values.transpose(1, 2, 0))

    def valid(self, page: int = 0, window: Window | None = None) -> NDArray[np.bool_] | None:
        """(h, w) bool, by GDAL's mask; None if there is neither a mask band nor alpha."""
        window = inside(self.layout, page, window, None)
        if not self._masked:
            return None
        with self._lock:
            try:
                mask = self._raster.read_masks(self._bands[0], window=_window(window))
            except Exception as error:
                raise Damage("unreadable", words_of(error)) from error
        return np.asarray(mask != 0, np.bool_)

    def close(self) -> None:
        """Let go of the file."""
        self._raster.close()


def place_by_gdal(name: Path | str, driver: str) -> Place | None:
    """Where a raster lies, as GDAL understands it: also by files beside it (a.tfw, a.wld, a.tif.aux.xml).

    Args:
        name: the file, or GDAL's name of a part of it.
        driver: GDAL's name of the format; no other driver sees the file.

    Returns:
        The place; None if it lies nowhere, can't be opened, or rasterio isn't installed.
    """
    try:
        import rasterio
    except ImportError:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rasters without a place
            with rasterio.open(name, driver=driver) as raster:
                return _place(raster)
    except Exception:
        return None


def _place(raster: Any) -> Place | None:
    matrix = raster.transform
    if not raster.crs and matrix.is_identity:
        return None
    crs = str(raster.crs.to_wkt()) if raster.crs else ""
    return Place(crs, (matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f))


def _window(window: Window) -> Any:
    from rasterio.windows import Window as Part

    return Part(window.x, window.y, window.width, window.height)
