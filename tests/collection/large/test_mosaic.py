"""Large images: windows whose scores are blended, and the tiled maps that are made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from conftest import draw_scene
from selfseg.collection.clusters import Clusters
from selfseg.collection.large.files import tiles
from selfseg.collection.large.mosaic import Mosaic, blended_rows
from selfseg.collection.large.rasters import Band, BandStore, Look, label_bands, map_large
from selfseg.collection.opening import collect
from selfseg.collection.segmenting import cluster_rows
from selfseg.data.reading.images import ImageCollection
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops.channels import Channels


def embedder_of(**changes: object) -> Embedder:
    torch.manual_seed(0)
    config = EmbedderConfig(backbone="test_resnet", output_stride=16, dim=8, resolution=64, window=64)
    return Embedder(replace(config, **changes)).eval()  # type: ignore[arg-type]


def raster(path: Path, height: int = 210, width: int = 330) -> np.ndarray:
    image = draw_scene(3, width, height)[0]
    tifffile.imwrite(path, image, photometric="rgb", tile=(64, 64))
    return image


def large(path: Path, embedder: Embedder) -> ImageCollection:
    images = collect([path], embedder, cut=False)
    assert images.is_large(0)
    return images


def test_the_grid_covers_the_image_and_windows_cover_the_grid() -> None:
    for size in ((1000, 450), (64, 64), (40, 999), (333, 335)):
        for phase in (1, 3, 4):
            mosaic = Mosaic(size, 20, 8.0, 16, phase)
            (height, width), covered = mosaic.grid, np.zeros(mosaic.grid, int)
            for top in mosaic.rows:
                for left in mosaic.columns:
                    covered[top : mosaic.end(top, height), left : mosaic.end(left, width)] += 1
            assert covered.min() >= 1
            assert len(set(mosaic.rows)) == len(mosaic.rows)
            assert all(start % phase == 0 for start in mosaic.rows + mosaic.columns)
            assert all(mosaic.end(top, height) - top < 16 + phase for top in mosaic.rows)
        assert mosaic.grid[0] * 20 >= size[0] > (mosaic.grid[0] - 1) * 20


def test_windows_of_a_smoothed_embedder_share_steps_and_superpixels() -> None:
    embedder = embedder_of(backbone="test_resnet", output_stride=32, smooth=5.0, resolution=512, window=1024)
    mosaic = Mosaic.of(embedder, (5000, 3333))
    assert (mosaic.seen, mosaic.side, mosaic.cell, mosaic.phase, mosaic.spacing) == (4, 128, 8, 8, 16)
    assert all(start * mosaic.seen % 32 == 0 for start in mosaic.rows + mosaic.columns)
    assert embedder.superpixels is None


def test_one_window_gives_what_the_embedder_gives(tmp_path: Path) -> None:
    embedder = embedder_of()
    image = raster(tmp_path / "a.tif", 64, 64)
    images = collect([tmp_path / "a.tif"], embedder, cut=False)
    mosaic = Mosaic.of(embedder, (64, 64))
    pieces = list(blended_rows(embedder, images, 0, mosaic, lambda found: found.permute(1, 2, 0)))
    torch.testing.assert_close(torch.cat([piece.scores for piece in pieces]).permute(2, 0, 1), embedder.embed(image))


def test_scores_are_the_weighted_mean_of_all_windows(tmp_path: Path) -> None:
    """Against a mosaic that is put together at once, window by window, in double precision."""
    embedder = embedder_of()
    image = raster(tmp_path / "a.tif")
    images, mosaic = large(tmp_path / "a.tif", embedder), Mosaic.of(embedder, image.shape[:2])
    height, width = mosaic.grid
    cell = mosaic.cell
    padded = np.pad(image, ((0, height * cell - len(image)), (0, width * cell - image.shape[1]), (0, 0)), mode="edge")
    total, weights = np.zeros((height, width, 8)), np.zeros((height, width, 1))
    for top in mosaic.rows:
        for left in mosaic.columns:
            bottom, right = mosaic.end(top, height), mosaic.end(left, width)
            window = padded[top * cell : bottom * cell, left * cell : right * cell]
            vectors = embedder.embed_prepared([np.ascontiguousarray(window)])[0].permute(1, 2, 0).numpy()
            tall, wide = (np.arange(count) + 0.5 for count in (bottom - top, right - left))
            ramps = (np.minimum(each, len(each) - each) / len(each) for each in (tall, wide))
            here = (next(ramps)[:, None] * next(ramps)[None])[..., None] ** 3
            total[top:bottom, left:right] += vectors * here
            weights[top:bottom, left:right] += here
    pieces = list(blended_rows(embedder, images, 0, mosaic, lambda found: found.permute(1, 2, 0)))
    assert len(pieces) > 3
    np.testing.assert_allclose(torch.cat([piece.scores for piece in pieces]).numpy(), total / weights, atol=1e-5)
    np.testing.assert_array_equal(np.concatenate([piece.image for piece in pieces]), image)


def test_labels_of_bands_are_those_of_the_whole_grid(tmp_path: Path) -> None:
    embedder = embedder_of()
    image = raster(tmp_path / "a.tif")
    images, mosaic = large(tmp_path / "a.tif", embedder), Mosaic.of(embedder, image.shape[:2])
    pieces = list(blended_rows(embedder, images, 0, mosaic, lambda found: found.permute(1, 2, 0)))
    scores = torch.cat([piece.scores for piece in pieces])
    size = mosaic.grid[0] * mosaic.cell, mosaic.grid[1] * mosaic.cell
    wide = torch.nn.functional.interpolate(scores.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)
    expected = wide[0].max(0).indices.numpy()[: len(image), : image.shape[1]]
    bands = list(label_bands(iter(pieces), mosaic, np.arange(8, dtype=np.uint8), None))
    assert [band.first for band in bands[1:]] == list(np.cumsum([len(band.values) for band in bands])[:-1])
    found = np.concatenate([band.values for band in bands])
    assert (found == expected).mean() > 0.9999  # a tie may fall either way
    np.testing.assert_array_equal(np.concatenate([band.image for band in bands]), image)


def test_a_map_that_was_stopped_goes_on_to_the_same_file(tmp_path: Path) -> None:
    embedder = embedder_of()
    image = raster(tmp_path / "a.tif", 210, 130)
    images, mosaic = large(tmp_path / "a.tif", embedder), Mosaic.of(embedder, image.shape[:2])
    values, colours = np.arange(8, dtype=np.uint8), np.arange(24, dtype=np.uint8).reshape(8, 3)

    def make(target: Path) -> BandStore:
        store = BandStore(target, {"run": "a"}, mosaic)
        map_large(embedder, images, 0, store, lambda found: found.permute(1, 2, 0), values, 255, "map", False)
        return store

    whole = make(tmp_path / "whole.tif")
    count = whole.finished
    assert count == len(mosaic.rows)
    whole.finish(Look(colours, {}), images, 0)
    for stopped in range(count + 1):
        target = tmp_path / f"stopped{stopped}.tif"
        store = make(target)
        for piece in range(stopped, count):
            (store.folder / f"band{piece:06d}.npz").unlink()
        again = make(target)
        drawn = again.picture()
        assert drawn.values.shape == drawn.image.shape[:2]
        again.finish(Look(colours, {}), images, 0)
        assert target.read_bytes() == (tmp_path / "whole.tif").read_bytes()
        assert not store.folder.exists()
    found = tifffile.imread(tmp_path / "whole.tif", key=0)
    assert found.shape == image.shape[:2]


def test_bands_of_something_else_are_not_taken(tmp_path: Path) -> None:
    mosaic = Mosaic((100, 80), 10, 8.0, 4)
    band = Band(0, 0, np.zeros((30, 80), np.uint8), np.zeros((30, 80, 3), np.uint8))
    first = BandStore(tmp_path / "a.tif", {"embedder": "one"}, mosaic)
    first.add(band)
    assert BandStore(tmp_path / "a.tif", {"embedder": "one"}, mosaic).finished == 1
    assert BandStore(tmp_path / "a.tif", {"embedder": "one"}, replace(mosaic, side=6)).finished == 0
    first = BandStore(tmp_path / "a.tif", {"embedder": "one"}, mosaic)
    first.add(band)
    assert BandStore(tmp_path / "a.tif", {"embedder": "two"}, mosaic).finished == 0


@pytest.mark.parametrize("step", [1, 2, 4])
def test_tiles_of_bands_of_any_height(step: int) -> None:
    values = np.random.default_rng(0).integers(0, 255, (1000, 700), np.uint8)
    bands = (values[a:b] for a, b in ((0, 3), (3, 513), (513, 514), (514, 1000)))
    expected = values[::step, ::step]
    made = list(tiles(bands, step, expected.shape, np.dtype(np.uint8)))
    across = -(-expected.shape[1] // 256)
    rows = [np.concatenate(made[i : i + across], axis=1) for i in range(0, len(made), across)]
    np.testing.assert_array_equal(np.concatenate(rows)[: expected.shape[0], : expected.shape[1]], expected)


def test_void_of_measured_images_is_void_in_the_map(tmp_path: Path) -> None:
    channels = Channels(("a",), (0,), 1, (0.0,), (1000.0,), (0.5,), (0.2,), nodata=0)
    embedder = embedder_of(channels=channels)
    values = (draw_scene(3, 330, 210)[0][..., :1].astype(np.uint16) + 1) * 3
    values[:70, 100:300] = 0
    tifffile.imwrite(tmp_path / "a.tif", values[..., 0], tile=(64, 64))
    images = large(tmp_path / "a.tif", embedder)
    store = BandStore(tmp_path / "map.tif", {}, Mosaic.of(embedder, images.size(0)))
    ids = np.arange(8, dtype=np.uint8)
    map_large(embedder, images, 0, store, lambda found: found.permute(1, 2, 0), ids, 255, "map", False)
    store.finish(Look(np.zeros((8, 3), np.uint8), {}, 255), images, 0)
    found = tifffile.imread(tmp_path / "map.tif", key=0)
    np.testing.assert_array_equal(found == 255, values[..., 0] == 0)


def test_a_part_that_lies_elsewhere_has_nearly_the_same_map(tmp_path: Path) -> None:
    """No seam: windows that begin elsewhere say the same of almost all pixels."""
    embedder = embedder_of()
    image = raster(tmp_path / "a.tif", 448, 448)
    tifffile.imwrite(tmp_path / "b.tif", image[80:400, 48:368], photometric="rgb", tile=(64, 64))
    found = {}
    for name in "ab":
        images = large(tmp_path / f"{name}.tif", embedder)
        mosaic = Mosaic.of(embedder, images.size(0))
        pieces = blended_rows(embedder, images, 0, mosaic, lambda found: found.permute(1, 2, 0))
        bands = label_bands(pieces, mosaic, np.arange(8, dtype=np.uint8), None)
        found[name] = np.concatenate([band.values for band in bands])
    inside = slice(64, -64), slice(64, -64)
    assert (found["a"][80:400, 48:368][inside] == found["b"][inside]).mean() > 0.9


def test_maps_have_room_for_void_beside_any_number_of_clusters() -> None:
    for k, void in ((255, 255), (256, 65535)):
        clusters = Clusters(torch.eye(k), (1 / k,) * k, ((),) * k, {})
        assert np.iinfo(cluster_rows(clusters)[1].dtype).max >= void
