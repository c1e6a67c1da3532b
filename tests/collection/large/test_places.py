"""Where maps lie: what GDAL, through rasterio and by its own tools, makes of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from large_images import PLAIN, georeferenced
from named_runs import make_run
from selfseg.collection.large import places
from selfseg.collection.large.places import write_geojson
from selfseg.collection.large.rasters import Look, write_map
from selfseg.collection.segmenting import segment
from selfseg.data.reading.formats.base import Window
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.measured import Part
from selfseg.errors import ConfigError

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),  # affine's, of rasterio
]

TURNED = Affine(0.5, 0.1, 500000.25, 0.1, -0.5, 5400000.75)
OWN = "+proj=lcc +lat_1=48 +lat_2=50 +lat_0=49 +lon_0=11 +datum=WGS84 +units=m"
LOOK = Look(np.arange(21, dtype=np.uint8).reshape(7, 3) * 10, {}, 255)
VALUES = ((np.arange(60)[:, None] // 9 + np.arange(90)[None] // 13) % 7).astype(np.uint8)


CASES = {
    "utm.tif": {},
    "turned.tif": {"transform": TURNED},
    "degrees.tif": {"transform": Affine(1e-4, 0, 13.4, 0, -1e-4, 52.5), "crs": "EPSG:4326"},
    "own.tif": {"crs": OWN},
    "unnamed.tif": {"crs": None},
    "beside.tif": {"crs": None, "TFW": "YES", "PROFILE": "BASELINE"},
    "imagine.img": {"driver": "HFA"},
    "jpeg2000.jp2": {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"},
    "by_gdal.zarr": {"driver": "Zarr"},
}


@pytest.mark.parametrize("name", CASES)
def test_a_map_lies_where_its_image_does(name: str, tmp_path: Path) -> None:
    path = georeferenced(tmp_path / name, **CASES[name])  # type: ignore[arg-type]
    target = write_map(tmp_path / "out", ImageCollection(tmp_path, (path,)), 0, VALUES, LOOK)
    assert target.suffix == ".tif"
    with rasterio.open(path) as image, rasterio.open(target) as map_:
        assert map_.crs == image.crs
        assert map_.transform.almost_equals(image.transform, 1e-9)
        assert map_.nodata == 255
        assert map_.colorinterp[0].name == "palette"
        assert map_.colormap(1)[2][:3] == (60, 70, 80)
        np.testing.assert_array_equal(map_.read(1), VALUES)


def test_pixels_that_are_points_stay_points(tmp_path: Path) -> None:
    path = georeferenced(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(AREA_OR_POINT="Point")
    target = write_map(tmp_path / "out", ImageCollection(tmp_path, (path,)), 0, VALUES, LOOK)
    with rasterio.open(path) as image, rasterio.open(target) as map_:
        assert map_.tags()["AREA_OR_POINT"] == "Point"
        assert map_.transform == image.transform


@pytest.mark.parametrize("transform", [PLAIN, TURNED])
def test_a_part_lies_at_its_own_corner(transform: Affine, tmp_path: Path) -> None:
    path = georeferenced(tmp_path / "a.tif", transform=transform)
    images = ImageCollection(tmp_path, (path,), parts=(Part("0", Window(20, 30, 40, 50)),))
    target = write_map(tmp_path / "out", images, 0, VALUES[20:60, 30:80], LOOK)
    with rasterio.open(target) as map_:
        assert map_.xy(0, 0) == pytest.approx(rasterio.open(path).xy(20, 30), abs=1e-9)
        assert map_.transform.almost_equals(transform @ Affine.translation(30, 20), 1e-9)


def test_an_image_that_lies_nowhere_has_a_plain_png(tmp_path: Path) -> None:
    path = georeferenced(tmp_path / "a.tif", crs=None, transform=Affine.identity())
    assert write_map(tmp_path / "out", ImageCollection(tmp_path, (path,)), 0, VALUES, LOOK).suffix == ".png"


def inside(x: float, y: float, rings: list[list[tuple[float, float]]]) -> bool:
    """Whether a point is in a polygon with holes: it crosses an odd number of edges on its way to the right."""
    crossed = 0
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                crossed += 1
    return crossed % 2 == 1


def check_polygons(file: Path, map_: Path, values: np.ndarray) -> list[dict[str, Any]]:
    """Every pixel's middle is in exactly one polygon, which has its value; `pixels` are right."""
    features: list[dict[str, Any]] = json.loads(file.read_text())["features"]
    with rasterio.open(map_) as raster:
        rng = np.random.default_rng(0)
        for _ in range(100):
            row, column = int(rng.integers(values.shape[0])), int(rng.integers(values.shape[1]))
            x, y = raster.xy(row, column)
            found = [one["properties"]["value"] for one in features if inside(x, y, one["geometry"]["coordinates"])]
            assert found == ([] if values[row, column] == 255 else [values[row, column]])
    counts = np.bincount(values.ravel(), minlength=256)
    for value in range(7):
        pixels = [one["properties"]["pixels"] for one in features if one["properties"]["value"] == value]
        assert sum(pixels) == counts[value]
    return features


@pytest.mark.parametrize("transform", [PLAIN, TURNED])
@pytest.mark.parametrize("corners", [places.CORNERS, 20])
def test_areas_are_polygons_in_map_coordinates(
    transform: Affine, corners: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if they are found in strips."""
    values = VALUES.copy()
    values[10:20, 20:50] = 255
    values[30, 40] = 3
    if corners == 20:
        monkeypatch.setattr(places, "_BYTES", 9 * 90)
    path = georeferenced(tmp_path / "a.tif", transform=transform)
    target = write_map(tmp_path, ImageCollection(tmp_path, (path,), ("map",)), 0, values, LOOK)
    names = {value: {"value": value, "name": f"class {value}"} for value in range(7)}
    write_geojson(target, tmp_path / "a.geojson", names, 255)
    features = check_polygons(tmp_path / "a.geojson", target, values)
    ys = {y for one in features for ring in one["geometry"]["coordinates"] for _, y in ring}
    assert len(ys) > 10
    if ogrinfo := shutil.which("ogrinfo"):
        command = [ogrinfo, "-so", "-al", str(tmp_path / "a.geojson")]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert f"Feature Count: {len(features)}" in told
        assert "WGS 84 / UTM zone 33N" in told


def test_small_areas_become_part_of_their_neighbours(tmp_path: Path) -> None:
    values = np.zeros((60, 90), np.uint8)
    values[:, 45:] = 1
    values[10:12, 10:12] = 2
    values[30:50, 60:80] = 255
    values[40, 70] = 3  # in void alone
    path = georeferenced(tmp_path / "a.tif")
    target = write_map(tmp_path, ImageCollection(tmp_path, (path,), ("map",)), 0, values, LOOK)
    names = {value: {"value": value} for value in range(7)}
    write_geojson(target, tmp_path / "a.geojson", names, 255, min_area=10)
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    found = {one["properties"]["value"]: one["properties"]["pixels"] for one in features}
    assert found == {0: 60 * 45, 1: 60 * 45 - 400}


@pytest.mark.slow
def test_a_large_geotiff_by_gdals_own_tools(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    georeferenced(tmp_path / "images.tif", size=(1100, 640), tiled=True, blockxsize=128, blockysize=128)
    segment(run, [tmp_path / "images.tif"], tmp_path / "out", window=256, geojson=True, progress=False, device="cpu")
    target = tmp_path / "out" / "index" / "images.tif"
    with rasterio.open(target) as map_:
        values = map_.read(1)
        assert map_.transform == PLAIN
        assert map_.overviews(1) == [2, 4]
        assert map_.block_shapes == [(256, 256)]
        assert map_.nodata is None  # of photographs no pixel is void
    check_polygons(tmp_path / "out" / "geojson" / "images.geojson", target, values)
    if gdalinfo := shutil.which("gdalinfo"):
        told = json.loads(subprocess.run([gdalinfo, "-json", target], check=True, capture_output=True).stdout)
        assert told["geoTransform"] == list(PLAIN.to_gdal())
        assert [one["size"] for one in told["bands"][0]["overviews"]] == [[550, 320], [275, 160]]
        assert told["bands"][0]["colorInterpretation"] == "Palette"
        row, column = 333, 777
        place = [str(number) for number in PLAIN @ (column + 0.5, row + 0.5)]
        command = [str(shutil.which("gdallocationinfo")), "-valonly", "-geoloc", str(target), *place]
        assert int(subprocess.run(command, check=True, capture_output=True).stdout) == values[row, column]


@pytest.mark.parametrize(
    "options", [{"min_area": 5}, {"geojson": True, "min_area": -1}, {"geojson": True, "large_as": "zarr"}]
)
def test_options_that_do_not_fit_are_errors_before_any_work(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"min-area|geojson"):
        segment(tmp_path / "no-run", tmp_path, tmp_path / "out", **options)
