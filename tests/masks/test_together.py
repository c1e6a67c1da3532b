"""Maps of several images at once are those of one image after the other."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from masks.balls import draw_balls
from selfseg.collection.batching.room import Batching
from selfseg.data.labelled.mask_files import MaskFolder
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.errors import DataError
from selfseg.masks import together
from selfseg.masks.mining import mine_masks
from selfseg.masks.networks import vit
from selfseg.masks.networks.features import FeatureForeground, FeaturesConfig, Foreground
from selfseg.masks.networks.network import SaliencyNet
from selfseg.masks.sources import NetworkForeground, Training
from selfseg.threads import one_thread_each
from selfseg.workers.gathering import SkipList

BATCH = Batching(3, on_cpu=True)


@pytest.fixture(name="photos")
def _photos(tmp_path: Path) -> ImageCollection:
    """Images of two sizes and one that is broken."""
    draw_balls(tmp_path / "photos", range(5))
    draw_balls(tmp_path / "more", range(20, 22), size=(90, 70))
    for path in (tmp_path / "more").iterdir():
        path.rename(tmp_path / "photos" / path.name)
    (tmp_path / "photos" / "03b.png").write_bytes(b"no image")
    return list_images(tmp_path / "photos")


def by_features() -> FeatureForeground:
    """As if it had learned something."""
    find = FeatureForeground(FeaturesConfig(size=96))
    channels = [int(count) for count in find.embedder.backbone.feature_info.channels()[-3:]]  # type: ignore[operator, union-attr]
    random = np.random.default_rng(0)
    ones = tuple(np.ones(count, np.float32) for count in channels)
    find.found = Foreground(ones, ones, random.normal(size=sum(channels[1:]) + 1).astype(np.float32))
    return find


def by_network() -> NetworkForeground:
    torch.manual_seed(0)
    return NetworkForeground(SaliencyNet("test_resnet", 8).eval(), 48, torch.device("cpu"))


def by_transformer(folder: Path, kind: vit.Foreground) -> vit.TransformerForeground:
    torch.manual_seed(0)
    save_file(vit._make("vit_tiny_patch16_224").state_dict(), folder / "vit.safetensors")
    return vit.TransformerForeground("vit_tiny_patch16_224", folder / "vit.safetensors", kind)


@pytest.mark.parametrize("method", [pytest.param("features", marks=pytest.mark.slow), "network"])
def test_batches_give_the_maps_of_single_images(method: str, photos: ImageCollection) -> None:
    compare(by_features() if method == "features" else by_network(), photos)


@pytest.mark.slow
def test_batches_give_the_maps_of_single_images_by_a_transformer(photos: ImageCollection, tmp_path: Path) -> None:
    compare(by_transformer(tmp_path, "attention"), photos)


def compare(find: Any, photos: ImageCollection) -> None:
    seen: list[int] = []
    see = find.see
    find.see = lambda pixels: (seen.append(len(pixels)), see(pixels))[1]
    skips = SkipList()
    with one_thread_each(), closing(together.map_together(find, photos, skips, False, BATCH)) as stream:
        found = {one.number: one.saliency(photos.rgb) for one in stream}
    assert [one.name for one in skips.taken()] == ["03b"]
    assert list(found) == [i for i, name in enumerate(photos.names) if name != "03b"]
    assert max(seen) > 1
    for number, values in found.items():
        expected = find(photos.read(number))
        assert values.shape == expected.shape
        np.testing.assert_allclose(values, expected, atol=2e-3)


def test_where_nothing_stands_out_the_map_is_zero(tmp_path: Path) -> None:
    import cv2

    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((40, 60, 3), 90, np.uint8))
    stream = together.map_together(by_features(), list_images(tmp_path), SkipList(), False, BATCH)
    with one_thread_each(), closing(stream):
        assert [float(one.saliency(True).max()) for one in stream] == [0.0, 0.0]


@pytest.mark.slow
def test_masks_of_a_folder_in_batches(photos: ImageCollection, tmp_path: Path) -> None:
    training = Training(features=FeaturesConfig(size=96), device="cpu")
    for name, batch in (("single", Batching()), ("batches", BATCH)):
        mine_masks(photos.root, tmp_path / name, progress=False, max_bad=0.5, training=training, batch=batch)
    notes = [json.loads((tmp_path / name / "masks.json").read_text()) for name in ("single", "batches")]
    assert notes[0]["skipped"] == notes[1]["skipped"] == 1
    assert notes[0]["kept"] == notes[1]["kept"] > 0
    for i, name in enumerate(photos.names):
        if name == "03b":
            continue
        size = photos.read(i).shape[:2]
        one, other = (MaskFolder(tmp_path / folder).get(name, *size) for folder in ("single", "batches"))
        assert (one != other).mean() < 0.01


def test_an_image_that_went_meanwhile_is_skipped(photos: ImageCollection, tmp_path: Path) -> None:
    from selfseg.masks.cleaning import Cleaning
    from selfseg.masks.mining import _Miner, _Mining
    from selfseg.workers.plan import Shard

    find = by_network()
    see = find.see

    def remove(pixels: Any) -> Any:
        photos.paths[0].unlink(missing_ok=True)
        return see(pixels)

    find.see = remove  # type: ignore[method-assign]
    job = _Mining("network", Cleaning(), Training(), tmp_path / "out", "x", None, False, BATCH)
    made = list(_Miner(job, find)(Shard(photos, tuple(range(len(photos))), alone=True)))
    names = {one.name: one.reason for one in made if not isinstance(one, dict)}
    assert names.pop(photos.names[0]) == "missing"
    assert list(names) == ["03b"]
    assert len(made) == len(photos)


def test_an_error_of_the_network_ends_all_of_it(photos: ImageCollection) -> None:
    find = by_network()

    def fail(pixels: Any) -> Any:
        raise DataError("no")

    find.see = fail  # type: ignore[method-assign]
    stream = together.map_together(find, photos, SkipList(), False, BATCH)
    with one_thread_each(), closing(stream), pytest.raises(DataError, match="no"):
        next(stream)


@pytest.mark.gpu
def test_maps_of_a_gpu_are_those_of_a_cpu(photos: ImageCollection) -> None:
    expected = by_features()
    find = FeatureForeground(FeaturesConfig(size=96), "cuda")
    find.found = expected.found
    stream = together.map_together(find, photos, SkipList(), False, Batching())
    with one_thread_each(), closing(stream):
        for one in stream:
            apart = np.abs(one.saliency(True) - expected(photos.read(one.number)))
            assert (apart > 0.1).mean() < 0.02
