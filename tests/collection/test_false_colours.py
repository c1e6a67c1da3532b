from pathlib import Path

import numpy as np
import pytest

from selfseg.collection.false_colours import painter_of
from selfseg.data.reading.images import ImageCollection
from selfseg.errors import BadImage
from selfseg.ops.channels import Channels


class Drawn(ImageCollection):
    """A collection whose images are drawn; the second can't be read."""

    def read(self, index: int, max_pixels: int = 0) -> np.ndarray:
        if index == 1:
            raise BadImage(self.paths[1], "truncated")
        count = 3 if self.channels is None else len(self.channels)
        image = np.random.default_rng(index).integers(1, 256, (20, 24, count), np.uint8)
        image[:5] = 0
        return image


def collection(count: int, colour: bool = False) -> Drawn:
    names, each = tuple(f"band {c}" for c in range(count)), (1.0,) * count
    channels = Channels(
        names, tuple(range(count)), count, each, (255.0,) * count, (0.4,) * count, (0.2,) * count, colour=colour
    )
    return Drawn(Path("."), tuple(Path(f"{i}.npy") for i in range(3)), channels=channels)


def test_photographs_are_their_own_pictures() -> None:
    for images in (Drawn(Path("."), (Path("a.png"),)), collection(3, colour=True)):
        painter = painter_of(images)
        image = images.read(0)
        assert painter(image) is image
        assert painter.rgb
        assert painter.caption("photograph") == "photograph"


@pytest.mark.parametrize(("count", "legend"), [(1, "gray: band 0"), (2, "orange: band 0"), (3, "red: band 0")])
def test_few_channels_are_shown_as_they_are(count: int, legend: str) -> None:
    images = collection(count)
    painter = painter_of(images)
    assert painter.legend.startswith(legend)
    assert painter(images.read(0)).shape == (20, 24, 3)
    assert painter.caption("photograph") == f"false colours ({painter.legend})"


def test_many_channels_are_shown_by_components_of_all_images_that_can_be_read() -> None:
    images = collection(6)
    painter = painter_of(images)
    assert painter.legend.startswith("principal components")
    np.testing.assert_array_equal(painter(images.read(2)), painter_of(images)(images.read(2)))


def test_chosen_channels() -> None:
    assert painter_of(collection(6), (5, 1, 0)).legend == "red: band 5, green: band 1, blue: band 0"
