from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.data.reading.listing import list_images
from selfseg.errors import BadImage, ConfigError
from selfseg.studio import photographs
from selfseg.studio.photographs import Photographs, box_around


@pytest.fixture
def collection(tmp_path: Path) -> Photographs:
    for name, colour in (("a", (250, 0, 0)), ("b", (0, 0, 250)), ("c", (0, 250, 0))):
        Image.new("RGB", (60, 40), colour).save(tmp_path / f"{name}.png")
    return Photographs(list_images(tmp_path), [0, 2])


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)))


def test_images_are_those_that_can_be_read(collection: Photographs) -> None:
    assert opened(collection.jpeg(1, 30)).shape == (20, 30, 3)
    assert np.abs(opened(collection.jpeg(1, 30))[5, 5].astype(int) - (0, 250, 0)).max() < 12
    for number in (-1, 2):
        with pytest.raises(ConfigError, match=f"no image {number}"):
            collection.read(number)


@pytest.mark.parametrize("kept", [False, True])
def test_a_file_that_was_replaced_is_never_shown_as_what_it_was(
    collection: Photographs, tmp_path: Path, kept: bool
) -> None:
    if kept:
        collection.read(0)
    Image.new("RGB", (60, 40), (0, 9, 0)).save(tmp_path / "a.png", compress_level=0)
    if kept:  # what was read before is what its segments are of
        assert collection.read(0)[0, 0].tolist() == [250, 0, 0]
    else:
        with pytest.raises(BadImage, match=r"a\.png: changed \(since the studio was opened; start it again"):
            collection.read(0)
    (tmp_path / "c.png").unlink()
    with pytest.raises(BadImage, match=r"c\.png"):
        collection.read(1)


def test_what_is_masked_stands_out(collection: Photographs) -> None:
    mask = np.zeros((4, 6), bool)
    mask[:, 3:] = True
    found = opened(collection.crop(0, (0.25, 0.0, 1.0, 1.0), mask, (0, 114, 178), 90))
    assert found.shape == (80, 90, 3)
    assert found[40, 80, 0] > 230  # as it is
    assert np.ptp(found[40, 8].astype(int)) < 12  # gray


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 1), (-0.1, 0, 1, 1), (0, 0.5, 1, 0.4), (0, 0, 1, 1.01), (float("nan"), 0, 1, 1)]
)
def test_a_box_outside_of_the_image_is_refused(collection: Photographs, box: photographs.Box) -> None:
    with pytest.raises(ConfigError, match="a box is"):
        collection.crop(0, box, None, (0, 0, 0), 50)


def test_few_photographs_are_kept(collection: Photographs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "_KEPT", 60 * 40 * 3)
    first = collection.read(0)
    assert collection.read(0) is first
    collection.read(1)
    assert collection.read(0) is not first


@pytest.mark.parametrize("size", [(480, 640), (40, 1000), (7, 7)])
def test_boxes_are_square_and_inside(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        x0, y0, x1, y1 = box_around(generator.random(2), float(generator.random() ** 4), size)
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        assert (x1 - x0) * size[1] == pytest.approx((y1 - y0) * size[0], abs=0.2)
