"""PNG, PNM, JPEG 2000, AVIF and the 8-bit kinds, as they are stored; NPY."""

from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from selfseg.data.reading.formats.base import Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.images import check_image, read_image
from selfseg.data.reading.sniffing import Damage
from selfseg.errors import BadImage


@pytest.fixture
def deep() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4096, (40, 60, 3)).astype(np.uint16)


def look(path: Path, expected: np.ndarray) -> Any:
    file = open_pixels(path, 10_000)
    assert file.layout.dtype == expected.dtype
    assert (file.layout.height, file.layout.width, len(file.layout.channels)) == expected.shape
    np.testing.assert_array_equal(file.read(), expected)
    window = Window(5, 7, 11, 13)
    np.testing.assert_array_equal(file.read(0, window, [0]), expected[5:16, 7:20, :1])
    return file


def test_png_of_16_bits(tmp_path: Path, deep: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), deep[:, :, ::-1])
    assert look(tmp_path / "a.png", deep).layout.colour
    cv2.imwrite(str(tmp_path / "b.png"), deep[:, :, 0])
    look(tmp_path / "b.png", deep[:, :, :1])
    alpha = np.full((40, 60, 1), 65535, np.uint16)
    alpha[:3] = 0
    cv2.imwrite(str(tmp_path / "c.png"), np.concatenate([deep[:, :, ::-1], alpha], axis=2))
    file = look(tmp_path / "c.png", deep)
    np.testing.assert_array_equal(file.valid(), alpha[:, :, 0] > 0)


def test_pnm_of_16_bits_is_not_stretched(tmp_path: Path, deep: np.ndarray) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n# by hand\n60 40\n4095\n" + deep.astype(">u2").tobytes())
    look(tmp_path / "a.ppm", deep)
    (tmp_path / "b.pgm").write_bytes(b"P5 60 40 4095\n" + deep[:, :, 0].astype(">u2").tobytes())
    look(tmp_path / "b.pgm", deep[:, :, :1])
    (tmp_path / "c.pgm").write_text("P2 60 40 4095\n" + " ".join(map(str, deep[:, :, 0].ravel())))
    look(tmp_path / "c.pgm", deep[:, :, :1])
    (tmp_path / "b.pgm").write_bytes((tmp_path / "b.pgm").read_bytes()[:-9])
    with pytest.raises(Damage, match="truncated"):
        open_pixels(tmp_path / "b.pgm", None).read()


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
def test_jpeg_2000(tmp_path: Path, deep: np.ndarray, suffix: str) -> None:
    values = {"deep": deep, "gray": deep[:, :, 0], "bytes": (deep >> 4).astype(np.uint8), "five": None}
    values["five"] = np.concatenate([deep, deep[:, :, :2] + 1], axis=2)
    for name, array in values.items():
        assert array is not None
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(imagecodecs.jpeg2k_encode(array, level=0, reversible=True, codecformat=suffix[1:], mct=False))
        look(path, array if array.ndim == 3 else array[:, :, None])
    (tmp_path / f"cut{suffix}").write_bytes((tmp_path / f"deep{suffix}").read_bytes()[:-300])
    with pytest.raises(Damage, match="truncated"):
        open_pixels(tmp_path / f"cut{suffix}", None).read()


def test_avif(tmp_path: Path) -> None:
    values = np.full((40, 60, 3), 90, np.uint8)
    Image.fromarray(values).save(tmp_path / "a.avif", quality=100)
    assert abs(open_pixels(tmp_path / "a.avif", None).read().astype(int) - 90).max() < 3
    (tmp_path / "b.avif").write_bytes(
        imagecodecs.avif_encode(values.astype(np.uint16) * 8, level=100, bitspersample=10)
    )
    file = open_pixels(tmp_path / "b.avif", None)
    assert file.layout.dtype == np.uint16
    assert abs(file.read().astype(int) - 720).max() < 8


@pytest.mark.parametrize("suffix", [".avif", ".jp2"])
def test_photographs_of_new_kinds(tmp_path: Path, suffix: str) -> None:
    values = np.full((40, 60, 3), (200, 90, 30), np.uint8)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    check_image(tmp_path / f"a{suffix}")
    assert abs(read_image(tmp_path / f"a{suffix}").astype(int) - values).max() < 6
    (tmp_path / f"b{suffix}").write_bytes((tmp_path / f"a{suffix}").read_bytes()[:-40])
    with pytest.raises(BadImage, match=r"truncated|unreadable"):
        read_image(tmp_path / f"b{suffix}")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)).convert(mode)
    suffix = ".jpg" if mode == "CMYK" else ".png"
    image.save(tmp_path / f"a{suffix}")
    layout = open_pixels(tmp_path / f"a{suffix}", None).layout
    values = open_pixels(tmp_path / f"a{suffix}", None).read()
    assert values.shape == (40, 60, {"1": 1, "L": 1, "LA": 1}.get(mode, 3))
    assert values.dtype == layout.dtype == np.uint8
    assert layout.masked == (mode in ("LA", "RGBA"))


@pytest.mark.parametrize(
    ("shape", "pages", "channels"),
    [((40, 60), 1, 1), ((40, 60, 5), 1, 5), ((5, 40, 60), 5, 1), ((2, 40, 60, 3), 2, 3), ((40, 40, 200), 1, 200)],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path: Path, shape: tuple[int, ...], pages: int, channels: int, order: Any) -> None:
    values = np.asarray(np.random.default_rng(0).random(shape).astype(">f4"), order=order)
    np.save(tmp_path / "a.npy", values)
    file = open_pixels(tmp_path / "a.npy", None)
    assert (len(file.layout.pages), len(file.layout.channels)) == (pages, channels)
    found = np.stack([file.read(page) for page in range(pages)])
    np.testing.assert_array_equal(found.reshape(shape), values)
    assert file.read(pages - 1, Window(1, 2, 30, 20)).flags.writeable


def test_npy_that_must_not_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[None] * 10] * 10), allow_pickle=True)
    with pytest.raises(Damage, match="never opened"):
        open_pixels(tmp_path / "a.npy", None)
    np.save(tmp_path / "b.npy", np.ones((10, 10), np.complex64))
    with pytest.raises(Damage, match="unreadable"):
        open_pixels(tmp_path / "b.npy", None)
