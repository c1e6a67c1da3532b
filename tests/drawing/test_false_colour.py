import numpy as np
import pytest

from selfseg.drawing.false_colour import VOID, choose, false_colour
from selfseg.errors import ConfigError


def levels(channels: int) -> np.ndarray:
    image = np.random.default_rng(0).integers(1, 256, (20, 30, channels), np.uint8)
    image[:6, :9] = 0
    return image


def test_one_channel_is_gray() -> None:
    image = levels(1)
    picture, legend = false_colour(image, names=["depth"])
    assert legend == "gray: depth"
    there = image[..., 0] > 0
    for c in range(3):
        np.testing.assert_allclose(picture[there][:, c], (image[there][:, 0] - 1.0) * 255 / 254, atol=0.51)


def test_two_channels_are_two_colours_that_add_up_to_white() -> None:
    picture, legend = false_colour(np.array([[[255, 255], [255, 1], [1, 255], [1, 1]]], np.uint8))
    assert legend == "orange: channel 0, blue: channel 1"
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[0, 3].tolist() == [0, 0, 0]
    assert picture[0, 1].tolist() != picture[0, 2].tolist()


def test_chosen_channels_are_red_green_and_blue() -> None:
    image = levels(5)
    picture, legend = false_colour(image, (4, 0, 2), "abcde")
    assert legend == "red: e, green: a, blue: c"
    there = image.any(2)
    np.testing.assert_allclose(picture[there], (image[there][:, [4, 0, 2]] - 1.0) * 255 / 254, atol=0.51)


def test_principal_components_show_what_any_channel_shows() -> None:
    image = np.full((20, 30, 6), 100, np.uint8)
    image += np.random.default_rng(0).integers(0, 3, image.shape, np.uint8)
    image[:, 15:, 4] = 200  # only one channel, and none of the first three, tells the halves apart
    picture, legend = false_colour(image, names=[f"band {i}" for i in range(6)])
    assert legend.startswith("principal components, red: +1.0 band 4")
    halves = picture[:, :15].reshape(-1, 3).mean(0), picture[:, 15:].reshape(-1, 3).mean(0)
    assert np.abs(halves[0] - halves[1]).max() > 150


def test_a_collections_pictures_share_their_colours() -> None:
    sample = np.random.default_rng(1).integers(1, 256, (500, 5), np.uint8)
    colours = choose("abcde", "pca", sample)
    image = levels(5)
    np.testing.assert_array_equal(colours(image)[10:], colours(image[10:]))
    assert choose("abcde", "pca", sample) == colours


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_void_is_striped_gray(channels: int) -> None:
    image = levels(channels)
    picture, _ = false_colour(image)
    void = picture[~image.any(2)]
    assert set(np.unique(void)) == set(VOID)
    assert (void == void[:, :1]).all()


def test_what_cannot_be_shown_is_refused_with_the_channels() -> None:
    image = levels(5)
    with pytest.raises(ConfigError, match=r"no channel 7.*1 \(b\)"):
        false_colour(image, (0, 7), "abcde")
    with pytest.raises(ConfigError, match="one to three"):
        false_colour(image, (0, 1, 2, 3))
    with pytest.raises(ConfigError, match="one to three"):
        false_colour(image, (1, 1))
    with pytest.raises(ConfigError, match="sample"):
        choose("abcde", "pca")
    with pytest.raises(ConfigError, match="5 channels"):
        choose("abcde", (0,))(levels(3))
