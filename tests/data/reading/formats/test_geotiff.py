"""GeoTIFFs: place, no-data, names and masks, as GDAL writes them."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from selfseg.data.reading.formats.base import Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.formats.rasters import RasterImage
from selfseg.data.reading.sniffing import Damage

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore")


def write(path: Path, values: np.ndarray, **how: Any) -> None:
    bands, height, width = values.shape
    profile: dict[str, Any] = {"driver": "GTiff", "count": bands, "height": height, "width": width}
    profile |= {"dtype": values.dtype, "crs": "EPSG:32633"}
    profile |= {"transform": rasterio.Affine(10, 0.5, 500_000, -0.25, -10, 5_000_000)}
    with rasterio.open(path, "w", **(profile | how)) as raster:
        raster.write(values)
        for band in range(bands):
            raster.set_band_description(band + 1, f"B{band + 2}")


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 9000, (5, 100, 90)).astype(np.uint16)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compress": "lzw", "predictor": 2, "tiled": True, "blockxsize": 32, "blockysize": 32},
        {"compress": "deflate", "interleave": "band"},
        {"compress": "zstd", "tiled": True, "blockxsize": 16, "blockysize": 16, "BIGTIFF": "YES"},
        {"transform": rasterio.Affine(10, 0, 5, 0, -10, 7), "nodata": 3},
    ],
)
def test_place_names_and_values(tmp_path: Path, values: np.ndarray, how: dict[str, Any]) -> None:
    write(tmp_path / "a.tif", values, **how)
    file = open_pixels(tmp_path / "a.tif", 10_000)
    layout = file.layout
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert layout.place is not None
        np.testing.assert_allclose(layout.place.transform, tuple(raster.transform)[:6])
        assert rasterio.crs.CRS.from_wkt(layout.place.crs) == raster.crs
        assert layout.nodata == raster.nodata
    assert layout.channels == ("B2", "B3", "B4", "B5", "B6")
    np.testing.assert_array_equal(file.read(), values.transpose(1, 2, 0))
    np.testing.assert_array_equal(
        file.read(0, Window(30, 31, 40, 50), [4, 1]), values[[4, 1], 30:70, 31:81].transpose(1, 2, 0)
    )


def test_pixel_is_point(tmp_path: Path, values: np.ndarray) -> None:
    write(tmp_path / "a.tif", values, transform=rasterio.Affine(10, 0, 5, 0, -10, 7))
    with rasterio.open(tmp_path / "a.tif", "r+") as raster:
        raster.update_tags(AREA_OR_POINT="Point")
    place = open_pixels(tmp_path / "a.tif", None).layout.place
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert place is not None
        np.testing.assert_allclose(place.transform, tuple(raster.transform)[:6])


def test_alpha_internal_masks_and_sparse_tiles(tmp_path: Path, values: np.ndarray) -> None:
    colours = (values[:4] >> 6).astype(np.uint8)
    colours[3] = 255
    colours[3, :20] = 0
    write(tmp_path / "a.tif", colours, photometric="rgb", alpha="yes")
    file = open_pixels(tmp_path / "a.tif", None)
    assert len(file.layout.channels) == 3
    np.testing.assert_array_equal(file.valid(), colours[3] > 0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(tmp_path / "b.tif", colours[:3], photometric="rgb")
        with rasterio.open(tmp_path / "b.tif", "r+") as raster:
            raster.write_mask(colours[3] > 0)
    file = open_pixels(tmp_path / "b.tif", None)
    assert file.layout.masked
    np.testing.assert_array_equal(file.read(), colours[:3].transpose(1, 2, 0))
    np.testing.assert_array_equal(file.valid(0, Window(10, 0, 30, 90)), colours[3, 10:40] > 0)
    sparse = np.zeros_like(values)
    sparse[:, 32:64, :32] = 5
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 32, "SPARSE_OK": True, "compress": "lzw"}
    write(tmp_path / "c.tif", sparse, **tiled)
    file = open_pixels(tmp_path / "c.tif", None)
    np.testing.assert_array_equal(file.read(), sparse.transpose(1, 2, 0))
    np.testing.assert_array_equal(file.valid(), sparse[0] > 0)


def test_imagine_files_by_rasterio(tmp_path: Path, values: np.ndarray) -> None:
    write(tmp_path / "a.img", values, driver="HFA", nodata=7)
    file = open_pixels(tmp_path / "a.img", 10_000)
    assert file.layout.kind == "ERDAS Imagine"
    assert file.layout.channels == ("B2", "B3", "B4", "B5", "B6")
    assert file.layout.nodata == 7
    np.testing.assert_array_equal(file.read(0, Window(1, 2, 50, 60), [3]), values[3, 1:51, 2:62, None])
    file.close()


def test_windows_of_a_jpeg_2000_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = (np.arange(128 * 128).reshape(128, 128) % 4000).astype(np.uint16)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="jp2"))
    monkeypatch.setattr("selfseg.data.reading.formats.whole.MAX_PIXELS", 1000)
    file = open_pixels(tmp_path / "a.jp2", None)
    assert isinstance(file, RasterImage)
    np.testing.assert_array_equal(file.read(0, Window(8, 16, 32, 64))[:, :, 0], values[8:40, 16:80])
    with pytest.raises(Damage, match="too-large"):
        open_pixels(tmp_path / "a.jp2", 1000)


def test_both_readers_agree(tmp_path: Path, values: np.ndarray) -> None:
    write(tmp_path / "a.tif", values, nodata=5)
    ours, theirs = open_pixels(tmp_path / "a.tif", None), RasterImage(tmp_path / "a.tif", "GTiff", None)
    np.testing.assert_array_equal(ours.read(), theirs.read())
    for name in ("height", "width", "channels", "dtype", "nodata", "place"):
        assert getattr(ours.layout, name) == getattr(theirs.layout, name)


def test_without_a_place(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 60), np.uint8))
    assert open_pixels(tmp_path / "a.tif", None).layout.place is None
