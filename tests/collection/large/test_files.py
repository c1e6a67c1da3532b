"""OME-Zarr as the map of a large image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from conftest import draw_scene
from large_images import georeferenced
from named_runs import make_run
from selfseg.collection.large.files import write_zarr
from selfseg.collection.segmenting import segment
from selfseg.data.reading.formats.opening import open_pixels

VALUES = np.random.default_rng(0).integers(0, 5, (1500, 2100)).astype(np.uint8)


def bands() -> Iterator[np.ndarray]:
    for first in range(0, 1500, 333):
        yield VALUES[first : first + 333]


def test_levels_colours_and_names_as_the_specification_says(tmp_path: Path) -> None:
    target = tmp_path / "map.zarr"
    write_zarr(target, (1500, 2100), bands, np.arange(15, dtype=np.uint8).reshape(5, 3), {0: "sky", 4: "road"}, 255)
    group = zarr.open_group(target, mode="r")
    (scale,) = group.attrs["multiscales"]
    assert [axis["name"] for axis in scale["axes"]] == ["y", "x"]
    assert [one["path"] for one in scale["datasets"]] == ["0", "1", "2"]
    for number, one in enumerate(scale["datasets"]):
        step = 2**number
        np.testing.assert_array_equal(group[one["path"]][:], VALUES[::step, ::step])
        assert one["coordinateTransformations"] == [{"type": "scale", "scale": [step, step]}]
    label = group.attrs["image-label"]
    assert {"label-value": 1, "rgba": [3, 4, 5, 255]} in label["colors"]
    assert {"label-value": 255, "rgba": [0, 0, 0, 0]} in label["colors"]
    assert label["properties"] == [{"label-value": 0, "name": "sky"}, {"label-value": 4, "name": "road"}]
    assert [path.name for path in tmp_path.iterdir()] == ["map.zarr"]


def test_it_is_read_by_selfseg_and_by_ome_zarr(tmp_path: Path) -> None:
    target = tmp_path / "map.zarr"
    write_zarr(target, (1500, 2100), bands, np.zeros((5, 3), np.uint8), {0: "sky"}, 255)
    file = open_pixels(target, None)
    assert file.layout.kind == "OME-Zarr"
    np.testing.assert_array_equal(file.read()[..., 0], VALUES)
    assert file.valid() is None
    pytest.importorskip("ome_zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    (node,) = Reader(parse_url(str(target)))()
    assert {type(spec).__name__ for spec in node.specs} >= {"Label", "Multiscales"}
    assert [level.shape for level in node.data] == [(1500, 2100), (750, 1050), (375, 525)]
    np.testing.assert_array_equal(np.asarray(node.data[0]), VALUES)


@pytest.mark.slow
def test_segments_of_a_raster_as_ome_zarr_are_those_of_the_tiff(tmp_path: Path) -> None:
    """And the forms take each other's place."""
    import rasterio

    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    image = georeferenced(tmp_path / "a.tif", size=(400, 300))
    segment(run, [image], out, window=128, progress=False, device="cpu")
    with rasterio.open(out / "index" / "a.tif") as map_:
        expected = map_.read(1)
    segment(run, [image], out, window=128, large_as="zarr", progress=False, device="cpu")
    names = sorted(path.name for path in (out / "index").iterdir())
    assert names == [".selfseg-output", "a.zarr"]
    np.testing.assert_array_equal(zarr.open_group(out / "index" / "a.zarr", mode="r")["0"][:], expected)


def test_an_ome_zarr_is_segmented_as_the_same_tiff_is(tmp_path: Path) -> None:
    run, image = make_run(tmp_path / "run"), draw_scene(0, 200, 150)[0]
    (tmp_path / "t").mkdir()
    tifffile.imwrite(tmp_path / "t" / "a.tif", image, photometric="rgb")
    axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"]
    scales = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    colours = [{"color": colour} for colour in ("FF0000", "00FF00", "0000FF")]
    attributes = {"multiscales": scales, "omero": {"channels": colours}}
    group = zarr.open_group(tmp_path / "z" / "a.ome.zarr", mode="w", zarr_format=2, attributes=attributes)
    array = group.create_array("0", shape=(3, 150, 200), dtype="uint8", chunks=(1, 64, 64))
    array[:] = image.transpose(2, 0, 1)
    maps = []
    for folder in "tz":
        out = tmp_path / f"out_{folder}"
        segment(run, tmp_path / folder, out, window=64, progress=False, device="cpu")
        maps.append(tifffile.imread(out / "index" / "a.tif", key=0))
    np.testing.assert_array_equal(*maps)
