import cv2
import numpy as np
import pytest

from selfseg.errors import ConfigError
from selfseg.ops import levels


def image_of(channels: int, void: bool = True, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(1, 256, (30, 40, channels), np.uint8)
    if void:
        image[:8, :12] = 0
    return image


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("interpolation", [cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_any_number_of_channels_is_resized_as_each_of_them_alone(channels: int, interpolation: int) -> None:
    image = image_of(channels)
    found = levels.resize(image, (13, 11), interpolation)
    assert found.shape == (11, 13, channels)
    for c in range(channels):
        alone = cv2.resize(np.ascontiguousarray(image[..., c]), (13, 11), interpolation=interpolation)
        np.testing.assert_allclose(found[..., c], alone, atol=1)  # OpenCV rounds three channels in another way


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_flip_keeps_the_axis_of_channels(channels: int) -> None:
    image = image_of(channels)
    np.testing.assert_array_equal(levels.flip(image), image[:, ::-1])


@pytest.mark.parametrize("channels", [1, 5])
def test_measured_pixels_mix_with_measured_ones_only(channels: int) -> None:
    image = np.full((16, 16, channels), 100, np.uint8)
    image[:, :7] = 0
    small = levels.among_measured(image, lambda each: levels.resize(each, (8, 8), cv2.INTER_AREA))
    assert small[:, :3].max() == 0  # void
    np.testing.assert_array_equal(small[:, 3:], 100)  # half void or not at all: no level in between
    blurred = levels.among_measured(
        image, lambda each: levels.with_channels(cv2.GaussianBlur(each, (5, 5), 2), each), stay=True
    )
    np.testing.assert_array_equal(blurred, image)


def test_a_measured_pixel_never_becomes_void() -> None:
    dark = np.ones((10, 10, 2), np.uint8)
    dark[4, 4] = 255
    sharp = levels.among_measured(dark, lambda each: levels.resize(each, (23, 23), cv2.INTER_CUBIC))
    assert sharp.min() == 1


def test_void_is_where_all_channels_are_0() -> None:
    image = image_of(3)
    image[20, 20] = (0, 0, 1)
    where = levels.measured(image)
    assert where is not None
    np.testing.assert_array_equal(~where, (image == 0).all(2))
    assert levels.measured(image_of(3, void=False)) is None


def test_void_is_filled_by_the_nearest_measured_pixel() -> None:
    image = image_of(4)
    filled = levels.fill_void(image)
    there = np.argwhere((image > 0).any(2))
    for y, x in [(0, 0), (3, 5), (7, 11)]:
        distance = np.square(there - (y, x)).sum(1)
        assert any((filled[y, x] == image[tuple(place)]).all() for place in there[distance <= distance.min() + 3])
    np.testing.assert_array_equal(filled[image.any(2)], image[image.any(2)])
    assert levels.fill_void(filled) is filled
    assert levels.fill_void(np.zeros((4, 4, 2), np.uint8)).min() == 1


def test_another_array_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="rgb=False"):
        levels.check_image(image_of(5))
    with pytest.raises(ConfigError, match="uint16"):
        levels.check_image(image_of(5).astype(np.uint16), rgb=False)
    levels.check_image(image_of(1), rgb=False)
