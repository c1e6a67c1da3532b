import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.data.labelled.labels import read_label_file
from selfseg.drawing.palette_png import encode_index_png, write_index_png
from selfseg.drawing.pictures import palette
from selfseg.errors import ConfigError


@pytest.mark.parametrize("count", [1, 2, 4, 16, 200, 256])
def test_values_survive_and_viewers_show_colours(count: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, count, (40, 50)).astype(np.uint8)
    values[0, :2] = 255
    colours = palette(count)
    write_index_png(tmp_path / "a.png", values, colours)
    assert np.array_equal(read_label_file(tmp_path / "a.png"), values)
    data = (tmp_path / "a.png").read_bytes()
    assert data[24:26] == b"\x08\x03"  # 8 bits a pixel with a palette, however few colours: all readers know that
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), values)
        shown = np.asarray(image.convert("RGB"))
    expected = np.zeros((256, 3), np.uint8)
    expected[:count] = colours
    assert np.array_equal(shown, expected[values])


def test_16_bits_have_no_colours(tmp_path: Path) -> None:
    values = np.array([[0, 300, 65_535]], np.uint16)
    write_index_png(tmp_path / "a.png", values, palette(400))
    assert np.array_equal(read_label_file(tmp_path / "a.png"), values)


@pytest.mark.parametrize("values", [np.zeros((3, 3), np.int64), np.zeros((3, 3, 3), np.uint8)])
def test_other_arrays_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="uint8 or uint16"):
        encode_index_png(values, palette(2))
