"""Verbs on rasters: shapes and kinds of them, calls that are stopped, files and disks that fail."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from conftest import draw_scene
from large_images import georeferenced
from named_runs import add_clusters, make_run
from selfseg.cli import main
from selfseg.collection.clusters import load_clusters, save_clusters
from selfseg.collection.embedding import embed
from selfseg.collection.large import rasters
from selfseg.collection.opening import as_seen_by, collect, load
from selfseg.collection.segmenting import segment
from selfseg.errors import ConfigError, StorageError
from selfseg.masks.cleaning import Cleaning
from selfseg.masks.mining import mine_masks
from selfseg.models.embedder import Embedder, Looks
from selfseg.ops.channels import Channels
from selfseg.segmenter.applying import apply
from selfseg.studio.carrying.naming import name_clusters
from tiny import ready_to_fork


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(tmp_path_factory.mktemp("runs") / "run")
    name_clusters(made, {0: "sky", 1: "road"})
    return made


def raster(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    image = draw_scene(seed, width, height)[0]
    tifffile.imwrite(path, image, photometric="rgb", tile=(32, 32), compression="zlib")
    return image


@pytest.mark.parametrize(("height", "width"), [(2000, 20), (20, 2000), (129, 65), (65, 131)])
def test_strips_and_odd_sizes(height: int, width: int, run: Path, tmp_path: Path) -> None:
    raster(tmp_path / "a.tif", height, width)
    for looks in (Looks(), Looks(scales=(0.5, 1.5), flip=True)):
        segment(run, [tmp_path / "a.tif"], tmp_path / "out", looks=looks, window=64, progress=False, device="cpu")
        assert tifffile.imread(tmp_path / "out" / "index" / "a.tif", key=0).shape == (height, width)


def test_a_window_larger_than_the_image_is_the_image(run: Path, tmp_path: Path) -> None:
    raster(tmp_path / "a.tif", 100, 90)
    for window, suffix in ((64, "tif"), (4096, "png")):
        segment(run, [tmp_path / "a.tif"], tmp_path / "out", window=window, progress=False, device="cpu")
        assert [path.name for path in (tmp_path / "out" / "index").glob("a.*")] == [f"a.{suffix}"]


def test_floats_of_one_channel_with_no_data(tmp_path: Path) -> None:
    channels = Channels(("height",), (0,), 1, (0.0,), (300.0,), (0.5,), (0.2,))
    folder = tmp_path / "run"
    config = replace(load(make_run(folder), "cpu").config, channels=channels)
    torch.manual_seed(0)
    Embedder(config).save(folder / "embedder")
    add_clusters(folder, 5)
    values = draw_scene(0, 150, 210)[0][..., 0].astype(np.float32)
    values[50:90, 30:70] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32))
    segment(folder, [tmp_path / "a.tif"], tmp_path / "out", window=64, progress=False, device="cpu")
    found = tifffile.imread(tmp_path / "out" / "index" / "a.tif", key=0)
    np.testing.assert_array_equal(found == 255, np.isnan(values))
    with tifffile.TiffFile(tmp_path / "out" / "index" / "a.tif") as file:
        assert file.pages[0].tags[42113].value == "255"  # type: ignore[union-attr]


def test_clusters_that_look_at_places_are_refused_before_any_work(run: Path, tmp_path: Path) -> None:
    own = make_run(tmp_path / "run")
    add_clusters(own, 6, position=1.0)
    raster(tmp_path / "a.tif", 150, 200)
    with pytest.raises(ConfigError, match="windows of a large image"):
        segment(own, [tmp_path / "a.tif"], tmp_path / "out", k=6, window=64, progress=False, device="cpu")
    assert not list((tmp_path / "out" / "index").glob("*.parts"))


@pytest.mark.parametrize("verb", [segment, apply, embed])
def test_damage_in_the_middle_is_listed_and_others_go_on(verb: Any, run: Path, tmp_path: Path) -> None:
    for name in "ab":
        raster(tmp_path / f"{name}.tif", 300, 150)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        middle = len(page.dataoffsets) // 2
        where, length = page.dataoffsets[middle], page.databytecounts[middle]
    with (tmp_path / "a.tif").open("r+b") as broken:
        broken.seek(where)
        broken.write(b"\xff" * length)
    out = tmp_path / "out"
    images = [tmp_path / "a.tif", tmp_path / "b.tif"]
    verb(run, images, out, window=64, max_bad=0.6, progress=False, device="cpu")
    lines = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a"]
    assert [path.stem for path in out.rglob("b.*") if path.suffix in (".tif", ".npy")] == ["b"]
    assert not [path for path in out.rglob("a.*") if path.is_file()]
    assert bool(list(out.rglob("band000000.npz"))) == (verb is not embed)  # it was found on the way


@pytest.mark.parametrize("large_as", ["tiff", "zarr"])
def test_a_full_disk_is_said_and_the_same_call_goes_on(
    large_as: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raster(tmp_path / "a.tif", 300, 150)
    out, written = tmp_path / "out", 0
    write = Path.write_bytes

    def full(self: Path, data: Any) -> int:
        nonlocal written
        written += 1
        if written > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    def again() -> None:
        segment(run, [tmp_path / "a.tif"], out, window=64, large_as=large_as, progress=False, device="cpu")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageError, match="no space left"):
            again()
    assert sorted(path.name for path in out.rglob("band*")) == ["band000000.npz", "band000001.npz"]
    again()
    assert not list(out.rglob("*.parts"))


def interrupted(run: Path, image: Path, out: Path) -> None:
    """`segment` a raster, and stop after two bands of its map."""
    with pytest.MonkeyPatch.context() as patch:
        add, kept = rasters.BandStore.add, 0

        def stop(self: rasters.BandStore, band: rasters.Band) -> None:
            nonlocal kept
            kept += 1
            if kept > 2:
                raise KeyboardInterrupt
            add(self, band)

        patch.setattr(rasters.BandStore, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            segment(run, [image], out, window=64, progress=False, device="cpu")


def check_begun_anew(run: Path, image: Path, out: Path, plain: Path) -> None:
    """The map is what it would be had nothing been there."""
    for folder in (out, plain):
        segment(run, [image], folder, window=64, progress=False, device="cpu")
    assert (out / "index" / "a.tif").read_bytes() == (plain / "index" / "a.tif").read_bytes()
    assert not list(out.rglob("*.parts"))


def test_a_map_of_another_version_of_the_image_is_begun_anew(run: Path, tmp_path: Path) -> None:
    image, out = tmp_path / "a.tif", tmp_path / "out"
    raster(image, 300, 150)
    interrupted(run, image, out)
    raster(image, 300, 150, seed=5)
    check_begun_anew(run, image, out, tmp_path / "plain")


def test_a_map_of_as_many_other_clusters_is_begun_anew(run: Path, tmp_path: Path) -> None:
    image, out = tmp_path / "a.tif", tmp_path / "out"
    raster(image, 300, 150)
    interrupted(run, image, out)
    clusters = load_clusters(run)
    save_clusters(run, replace(clusters, centroids=clusters.centroids.flip(0)))
    check_begun_anew(run, image, out, tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "kind"), [("segment", "index"), ("apply", "masks")])
def test_a_call_that_was_killed_goes_on_to_the_same_bytes(verb: str, kind: str, run: Path, tmp_path: Path) -> None:
    raster(tmp_path / "a.tif", 1000, 250)
    call = {"segment": segment, "apply": apply}[verb]
    call(run, [tmp_path / "a.tif"], tmp_path / "plain", window=64, progress=False, device="cpu")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "plain").rglob("a.*")}
    assert set(expected) == {"a.tif", "a.jpg"}
    out = tmp_path / "out"
    words = [verb, str(run), str(tmp_path / "a.tif"), "--out", str(out), "--window", "64", "--device", "cpu"]
    child = ready_to_fork().Process(target=main, args=(words,))
    child.start()
    parts = out / kind / "a.tif.parts"
    while child.is_alive() and len(list(parts.glob("band*.npz"))) < 3:
        time.sleep(0.005)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(list(parts.glob("band*.npz"))) >= 3
    assert not (out / kind / "a.tif").exists()
    call(run, [tmp_path / "a.tif"], out, window=64, progress=False, device="cpu")
    assert {path.name: path.read_bytes() for path in out.rglob("a.*")} == expected
    assert not list(out.rglob("*.parts"))


def test_a_cell_of_an_embedding_lies_where_index_json_says(run: Path, tmp_path: Path) -> None:
    """The cells' middles, by `to_image`, in a raster whose sides are no whole number of cells."""
    raster(tmp_path / "a.tif", 211, 333)
    index = json.loads(embed(run, [tmp_path / "a.tif"], tmp_path / "out", window=64, progress=False).read_text())
    (entry,) = index["images"]
    (height, width), (rows, columns) = entry["image_size"], entry["embedding_size"]
    assert np.load(tmp_path / "out" / "a.npy").shape == (8, rows, columns)
    cell = 64 // round(64 / index["stride"])
    to_image = np.array(entry["to_image"])
    for row, column in ((0, 0), (3, 7), (rows - 2, columns - 2)):
        x, y = to_image @ ((2 * column + 1) / columns - 1, (2 * row + 1) / rows - 1, 1)
        assert (x + 1) / 2 * width == pytest.approx((column + 0.5) * cell)
        assert (y + 1) / 2 * height == pytest.approx((row + 0.5) * cell)


def test_a_zarr_as_image_and_that_it_changed(run: Path, tmp_path: Path) -> None:
    """A chunk that is written anew leaves the folder's own time as it was."""
    from selfseg.data.reading.images import ImageCollection

    path = georeferenced(tmp_path / "a.zarr", driver="Zarr")
    images = ImageCollection(tmp_path, (path,))
    before = images.version(0)
    assert before == images.version(0)
    chunk = next(file for file in sorted(path.rglob("0.0.0")))
    times = chunk.stat().st_mtime_ns + 10**9
    os.utime(chunk, ns=(times, times))
    assert images.version(0) != before


def test_masks_of_a_raster_are_those_of_its_windows(tmp_path: Path) -> None:
    """Under the names that a training with the same window looks for."""
    image = raster(tmp_path / "a.tif", 100, 150)
    mine_masks(
        [tmp_path / "a.tif"],
        tmp_path / "out",
        method="contrast",
        cleaning=Cleaning(min_area=0.0001, max_area=1.0),
        window=64,
        progress=False,
    )
    found = sorted(
        path.relative_to(tmp_path / "out" / "index").as_posix() for path in (tmp_path / "out" / "index").rglob("*.png")
    )
    embedder = replace(load(make_run(tmp_path / "run"), "cpu").config, window=64)
    expected = as_seen_by(embedder, collect([tmp_path / "a.tif"]))
    assert set(found) <= {f"{name}.png" for name in expected.names}
    assert found
    assert image.shape == (100, 150, 3)
