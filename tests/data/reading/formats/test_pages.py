"""Pages become images, channels, or one image of their largest or mean values."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from selfseg.data.reading.formats.base import Layout, Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.formats.pages import channels_of, page_name, pick_pages, read_page
from selfseg.errors import ConfigError

DTYPE = np.dtype(np.uint16)


def test_what_a_word_picks() -> None:
    stack = Layout("TIFF", 40, 60, ("",), DTYPE, tuple(f"z{i:02d}" for i in range(12)))
    assert pick_pages(stack, "all") == pick_pages(stack, "auto") == [str(i) for i in range(12)]
    assert pick_pages(stack, "first") == ["0"]
    assert pick_pages(stack, "mean") == ["mean"]
    assert pick_pages(stack, "7") == ["7"]
    assert pick_pages(stack, "99") == ["11"]
    assert page_name(stack, "7") == "z07"
    assert page_name(stack, "max") == "max"
    one = Layout("TIFF", 40, 60, ("",), DTYPE)
    assert pick_pages(one, "max") == pick_pages(one, "3") == [""]
    assert page_name(one, "") == ""
    for word in ("", "-1", "some", "1.5", "²"):
        with pytest.raises(ConfigError, match="--pages"):
            pick_pages(stack, word)


def test_few_unnamed_pages_can_be_channels() -> None:
    few = Layout("TIFF", 40, 60, ("",), DTYPE, tuple(f"page{i}" for i in range(5)), unnamed=True)
    many = Layout("TIFF", 40, 60, ("",), DTYPE, tuple(f"page{i}" for i in range(50)), unnamed=True)
    assert pick_pages(few, "auto") == ["channels"]
    assert len(pick_pages(many, "auto")) == 50
    assert len(pick_pages(few, "all")) == 5
    assert channels_of(few, "channels") == ("",) * 5
    assert channels_of(few, "2") == ("",)


@pytest.fixture
def stack(tmp_path: Path) -> tuple[Path, np.ndarray]:
    values = np.random.default_rng(0).integers(1, 4000, (6, 2, 40, 60)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, metadata={"axes": "ZCYX"})
    return tmp_path / "a.tif", values


def test_values(stack: tuple[Path, np.ndarray]) -> None:
    path, values = stack
    file = open_pixels(path, None)
    window = Window(3, 5, 20, 30)
    part = values[:, :, 3:23, 5:35].transpose(0, 2, 3, 1)
    found, valid = read_page(file, "max", window)
    assert valid is None
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, part.max(0))
    found, _ = read_page(file, "mean", window, [1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, part[..., 1:].mean(0), rtol=1e-6)
    found, _ = read_page(file, "4", window)
    np.testing.assert_array_equal(found, part[4])
    found, _ = read_page(file, "channels", window, [11, 0, 3])
    np.testing.assert_array_equal(found, np.stack([part[5, ..., 1], part[0, ..., 0], part[1, ..., 1]], 2))
    assert channels_of(file.layout, "channels")[:2] == ("z0", "z0")


def test_unmeasured_pixels_count_for_nothing(tmp_path: Path) -> None:
    values = np.full((3, 40, 60), np.nan, np.float32)
    values[0, :20], values[1, :10] = 4, -2
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": "ZYX"}, photometric="minisblack")
    file = open_pixels(tmp_path / "a.tif", None)
    for word, upper in (("max", 4), ("mean", 1)):
        found, valid = read_page(file, word)
        assert valid is not None
        assert valid[:20].all()
        assert not valid[20:].any()
        assert (found[:10] == upper).all()
        assert (found[10:20] == 4).all()


def test_memory_does_not_grow_with_the_pages(tmp_path: Path) -> None:
    values = np.ones((60, 200, 200), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="zlib", metadata={"axes": "ZYX"}, photometric="minisblack")
    file = open_pixels(tmp_path / "a.tif", None)
    read_page(file, "0")
    tracemalloc.start()
    read_page(file, "mean")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 200 * 200 * 2
