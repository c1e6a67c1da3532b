"""What stands out in measured images: any number of channels, and nothing where void is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import tifffile

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.measured import Part
from selfseg.errors import ConfigError
from selfseg.masks.cleaning import Cleaning
from selfseg.masks.edges import sharpen, to_image
from selfseg.masks.mining import find_objects, mine_masks
from selfseg.masks.networks.features import FeatureForeground, FeaturesConfig
from selfseg.masks.priors.by_name import Prior, all_priors
from selfseg.masks.priors.contrast import quantise
from selfseg.masks.priors.scene import look_at
from selfseg.masks.proposals import proposals
from selfseg.masks.sources import Training, open_source
from selfseg.ops.channels import Channels


def thing(channels: int, height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A disc that only the last channel tells from the ground, void in a corner; and where the disc is."""
    rng = np.random.default_rng(channels)
    image = np.full((height, width, channels), 90, np.int16)
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2 + 8, height // 2), height // 5, 1, -1)
    image[mask > 0, channels - 1] = 220
    image += rng.integers(-3, 4, image.shape, np.int16)
    image[: height // 3, : width // 4] = 0
    return np.clip(image, 0, 255).astype(np.uint8), mask > 0


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_an_object_of_one_channel_is_found_by_every_prior(channels: int) -> None:
    image, truth = thing(channels)
    for name, values in all_priors(image, rgb=False).items():
        assert values.shape == truth.shape
        assert overlap(values > 0.5, truth) > (0.6 if name == "mbd" else 0.8), name
        assert values[~image.any(2)].max() == 0


def test_every_prior_is_among_them() -> None:
    assert set(all_priors(thing(2, 40, 50)[0], rgb=False)) == set(get_args(Prior))


@pytest.mark.parametrize("channels", [1, 5])
def test_proposals_are_objects_and_void_is_none(channels: int) -> None:
    image, truth = thing(channels, 150, 520)  # looked at with fewer pixels
    ids = proposals(image, rgb=False)
    assert overlap(ids == 1, truth) > 0.8
    assert (ids[:40, :100] == 0).all()


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_edges_go_where_the_channels_are(channels: int) -> None:
    image, truth = thing(channels)
    coarse = np.where(np.roll(truth, (3, -3), (0, 1)), 0.8, 0.2).astype(np.float32)
    sharp = sharpen(coarse, image, rgb=False)
    assert overlap(sharp > 0.5, truth) > overlap(coarse > 0.5, truth) + 0.1
    assert to_image(coarse, image, rgb=False)[~image.any(2)].max() == 0


def test_the_palette_of_channels_is_near_the_image() -> None:
    scene = look_at(thing(5)[0], rgb=False)
    which, palette = quantise(scene)
    assert palette.shape[1] == 5
    assert float(np.sqrt(np.square(palette[which] - scene.lab).sum(2)).mean()) < 100 / 12


def test_all_void_shows_nothing() -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    assert max(float(values.max()) for values in all_priors(image, rgb=False).values()) == 0
    assert proposals(image, rgb=False).max() == 0


def test_a_method_is_told_that_channels_are_no_colours() -> None:
    image, truth = thing(5)
    values, cleaned = find_objects(image, "rbd", Cleaning(), rgb=False)
    assert overlap(values > 0.5, truth) > 0.8
    assert overlap(cleaned.mask, truth) > 0.8
    assert overlap(find_objects(image, "hierarchy", Cleaning(), rgb=False)[1].mask, truth) > 0.8


def channels_of(count: int) -> Channels:
    names, each = tuple(f"band {c}" for c in range(count)), (1.0,) * count
    return Channels(names, tuple(range(count)), count, each, (255.0,) * count, (0.4,) * count, (0.2,) * count)


class Drawn(ImageCollection):
    """A collection whose images are drawn."""

    def read(self, index: int, max_pixels: int = 0) -> np.ndarray:
        return thing(5)[0]

    def part(self, index: int) -> Part | None:
        return None


@pytest.mark.slow
def test_features_see_all_channels() -> None:
    images = Drawn(Path("."), (Path("a.npy"), Path("b.npy")), channels=channels_of(5))
    find = FeatureForeground(FeaturesConfig(images=2, rounds=2), channels=images.channels)
    log: Any = None
    find.fit(images, log)
    image, truth = thing(5)
    values = find(image)
    assert overlap(values > 0.5, truth) > 0.6
    assert values[~image.any(2)].max() == 0


def test_networks_of_colours_say_that_they_are(tmp_path: Path) -> None:
    images = replace(Drawn(Path("."), (Path("a.npy"),)), channels=channels_of(5))
    with pytest.raises(ConfigError, match="--method features"):
        open_source("network", Training(), images, tmp_path, False, 0.1)


@pytest.mark.slow
def test_files_of_measured_values_are_surveyed_and_their_masks_mined(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for seed in range(2):
        image, _ = thing(5, 60, 80)
        values = np.where(image > 0, image.astype(np.uint16) * 7 + seed, 0).transpose(2, 0, 1)
        tifffile.imwrite(tmp_path / "images" / f"{seed}.ome.tif", values, metadata={"axes": "CYX"})
    page = mine_masks(tmp_path / "images", tmp_path / "masks", method="mean", channels=("3", "4"), progress=False)
    note = json.loads((tmp_path / "masks" / "masks.json").read_text("utf-8"))
    assert note["kept"] == 2
    assert "false colours (orange: channel 3, blue: channel 4)" in page.read_text("utf-8")
