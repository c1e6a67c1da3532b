"""Arrays, tensors and PIL images are a collection."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_scene
from selfseg.collection.opening import collect
from selfseg.errors import BadImage, ConfigError, EmptyCollection
from selfseg.models.inputs.in_memory import ImagesInMemory, hold, is_held
from selfseg.ops.channels import Channels

SCENES = [draw_scene(seed)[0] for seed in range(3)]


def kinds(tmp_path: Path) -> list[Any]:
    """The same image in each form that is taken."""
    image = SCENES[0]
    Image.fromarray(image).save(tmp_path / "scene.png")
    first = torch.from_numpy(image).permute(2, 0, 1)
    return [image, image[::-1][::-1], first, first / 255, Image.fromarray(image), tmp_path / "scene.png"]


def test_every_kind_is_the_same_image(tmp_path: Path) -> None:
    collection = hold(kinds(tmp_path))
    assert collection.names[:2] == ("000000", "000001")
    for index in range(len(collection)):
        np.testing.assert_array_equal(collection.read(index), SCENES[0])
        assert collection.size(index) == SCENES[0].shape[:2]
        assert collection.version(index) == collection.version(0)
        collection.check(index)
    assert len(hold(SCENES[0])) == len(hold(torch.zeros(3, 9, 9))) == len(hold(Image.new("RGB", (9, 9)))) == 1
    np.testing.assert_array_equal(hold(np.stack(SCENES)).read(2), SCENES[2])
    batch = torch.from_numpy(np.stack(SCENES)).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(hold(batch).read(1), SCENES[1])
    np.testing.assert_array_equal(collect(image for image in SCENES).read(1), SCENES[1])


def test_names_part_and_travel_with_their_images() -> None:
    collection = hold({"street/a": SCENES[0], "b.c": SCENES[1], "d": SCENES[2]})
    some = pickle.loads(pickle.dumps(collection.subset([2, 0])))
    assert isinstance(some, ImagesInMemory)
    assert some.names == ("d", "street/a")
    np.testing.assert_array_equal(some.read(1), SCENES[0])
    assert some.version(1) != some.version(0)
    assert collection.vanished() is None
    assert not collection.is_large(0)


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "", "a//b", "a\\b", ".", 3])
def test_a_name_stays_in_its_folder(name: Any) -> None:
    with pytest.raises(ConfigError, match="named as files"):
        hold({name: SCENES[0]})


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([3], "'000000' is no image: int"),
        ({"a": [1, 2]}, "'a' is no image: list"),
        ([np.zeros((2, 2, 2, 2, 2))], "ndarray of shape"),
    ],
)
def test_what_is_no_image_is_named(images: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        hold(images)


def test_what_is_wrong_with_an_image_is_said() -> None:
    with pytest.raises(ConfigError, match=r"000001: an image must be \(H, W, 3\) uint8, not \(9, 9\) uint8"):
        hold([SCENES[0], np.zeros((9, 9), np.uint8)]).check(1)
    with pytest.raises(BadImage, match="too-small"):
        hold([np.zeros((4, 9, 3), np.uint8)]).check(0)
    written = io.BytesIO()
    Image.fromarray(SCENES[0]).save(written, "png")
    cut = hold([Image.open(io.BytesIO(written.getvalue()[:2000]))])
    with pytest.raises(BadImage, match="unreadable"):
        cut.check(0)
    assert cut.version(0) is None
    with pytest.raises(EmptyCollection):
        collect({})


def test_paths_are_no_images_in_memory(photos: Path) -> None:
    assert not is_held(sorted(photos.iterdir()))
    assert not is_held(str(photos))
    assert is_held([*sorted(photos.iterdir()), SCENES[0]])
    assert type(collect(sorted(photos.iterdir()))) is not ImagesInMemory


def test_measured_images_are_read_as_the_run_read_its_own() -> None:
    channels = Channels(("a", "b"), (1, 0), 2, (0.0, 0.0), (254.0, 254.0), (0.5, 0.5), (0.2, 0.2))
    values = np.zeros((9, 10, 2), np.uint16)
    values[..., 1] = 254
    levels = hold([values, np.full((9, 10, 2), 7, np.uint8)]).measured(channels)
    assert levels.read(0)[0, 0].tolist() == [255, 1]
    assert levels.read(1)[0, 0].tolist() == [7, 7]
