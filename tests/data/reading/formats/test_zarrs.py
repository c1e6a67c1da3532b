"""Zarr and OME-Zarr: what is a channel, what a page; chunks that are not there; chunks that must not be opened."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from selfseg.data.reading.formats.base import Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.sniffing import Damage

AXES = [{"name": name} for name in "tczyx"]


def ome_zarr(path: Path, values: np.ndarray, version: int, chunks: tuple[int, ...]) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=version)  # type: ignore[arg-type]
    group.create_array("0", data=values, chunks=chunks)
    group.create_array("1", data=values[..., ::2, ::2], chunks=chunks)
    described: dict[str, Any] = {
        "multiscales": [{"axes": AXES, "datasets": [{"path": "0"}, {"path": "1"}], "version": "0.4"}],
        "omero": {"channels": [{"label": "DAPI", "color": "0000FF"}, {"label": "GFP\n", "color": "00FF00"}]},
    }
    group.attrs.update(described if version == 2 else {"ome": described})


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr(tmp_path: Path, version: int) -> None:
    values = np.random.default_rng(0).integers(1, 4000, (2, 2, 3, 50, 70)).astype(np.uint16)
    ome_zarr(tmp_path / "a.zarr", values, version, (1, 1, 1, 16, 32))
    file = open_pixels(tmp_path / "a.zarr", 10_000)
    layout = file.layout
    assert layout.kind == "OME-Zarr"
    assert (layout.height, layout.width, layout.channels) == (50, 70, ("DAPI", "GFP"))
    assert layout.pages == ("t0-z0", "t0-z1", "t0-z2", "t1-z0", "t1-z1", "t1-z2")
    np.testing.assert_array_equal(file.read(4), values[1, :, 1].transpose(1, 2, 0))
    np.testing.assert_array_equal(file.read(1, Window(10, 20, 30, 41), [1]), values[0, 1, 1, 10:40, 20:61, None])
    assert file.valid(4) is None


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("shape", "chunks"), [((40, 60), (16, 16)), ((40, 60, 4), (16, 16, 2)), ((5, 40, 60), (2, 40, 60))]
)
def test_plain_arrays(tmp_path: Path, version: int, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=chunks, zarr_format=version)  # type: ignore[arg-type]
    file = open_pixels(tmp_path / "a.zarr", None)
    found = np.stack([file.read(page) for page in range(len(file.layout.pages))])
    np.testing.assert_array_equal(found.reshape(shape), values)
    assert file.layout.unnamed == (shape == (5, 40, 60))


def test_dimension_names_and_shards(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 64, 64)).astype(np.float32)
    names = ["band", "y", "x"]
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(1, 16, 16), shards=(5, 32, 32), dimension_names=names)
    file = open_pixels(tmp_path / "a.zarr", None)
    assert len(file.layout.channels) == 5
    np.testing.assert_array_equal(file.read(0, Window(3, 30, 50, 20)), values[:, 3:53, 30:50].transpose(1, 2, 0))


@pytest.mark.parametrize("version", [2, 3])
def test_missing_chunks_were_never_measured(tmp_path: Path, version: int) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(40, 60),
        chunks=(10, 10),
        dtype="int16",
        fill_value=-999,
        zarr_format=version,  # type: ignore[arg-type]
    )
    array[10:20, 10:30] = 5
    file = open_pixels(tmp_path / "a.zarr", None)
    assert file.layout.nodata == -999
    assert file.layout.masked
    expected = np.full((40, 60), -999)
    expected[10:20, 10:30] = 5
    np.testing.assert_array_equal(file.read()[:, :, 0], expected)
    np.testing.assert_array_equal(file.valid(), expected == 5)


@pytest.mark.parametrize("version", [2, 3])
def test_a_million_missing_chunks_cost_nothing(tmp_path: Path, version: int) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(8000, 8000), chunks=(8, 8), dtype="uint8", zarr_format=version
    )  # type: ignore[arg-type]
    array[4000:4008, 4000:4016] = 9
    start = time.perf_counter()
    file = open_pixels(tmp_path / "a.zarr", None)
    values, valid = file.read(), file.valid()
    assert time.perf_counter() - start < 5
    assert valid is not None
    assert values.sum() == 9 * 128
    assert valid.sum() == 128


def test_codecs_that_run_code_are_not_opened(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(40, 60), chunks=(40, 60), dtype="uint8", zarr_format=2)
    array[:] = 1
    metadata = json.loads((tmp_path / "a.zarr/.zarray").read_text())
    metadata["filters"] = [{"id": "pickle", "protocol": 5}]
    (tmp_path / "a.zarr/.zarray").write_text(json.dumps(metadata))
    with pytest.raises(Damage, match="pickle"):
        open_pixels(tmp_path / "a.zarr", None)


def test_folders_that_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(Damage, match="wrong-type"):
        open_pixels(tmp_path / "a.zarr", None)
    (tmp_path / "a.zarr/zarr.json").write_text("[" * 100_000)
    with pytest.raises(Damage, match="unreadable"):
        open_pixels(tmp_path / "a.zarr", None)
    group = zarr.open_group(tmp_path / "b.zarr", mode="w")
    group.attrs["ome"] = {"multiscales": [{"axes": AXES, "datasets": [{"path": "../../etc"}]}]}
    with pytest.raises(Damage, match="first resolution"):
        open_pixels(tmp_path / "b.zarr", None)
    (tmp_path / "plain").mkdir()
    with pytest.raises(IsADirectoryError):
        open_pixels(tmp_path / "plain", None)
