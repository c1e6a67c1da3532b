"""The stored values of label and mask files, in every format that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from selfseg.data.labelled.values import NoValues, holds_colours, read_values, same_proportions

VALUES = np.arange(24, dtype=np.uint8).reshape(4, 6) % 5


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif", ".pgm", ".webp", ".npy"])
def test_indices_are_kept_by_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, VALUES[None])
    else:
        Image.fromarray(VALUES).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    stored = read_values(path)
    gray = stored.gray()
    assert gray is not None
    np.testing.assert_array_equal(gray, VALUES)
    assert (stored.size, stored.lossy, stored.pages) == ((4, 6), False, 1)
    assert not holds_colours(path)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_that_are_equal_are_one(tmp_path: Path, channels: int, dtype: type) -> None:
    pixels = np.repeat(VALUES[..., None].astype(dtype), channels, 2)
    np.save(tmp_path / "a.npy", pixels)
    gray = read_values(tmp_path / "a.npy").gray()
    assert gray is not None
    np.testing.assert_array_equal(gray, VALUES)
    pixels[1, 1, 2] += 1
    np.save(tmp_path / "a.npy", pixels)
    assert read_values(tmp_path / "a.npy").gray() is None
    assert holds_colours(tmp_path / "a.npy")


def test_sixteen_bits_and_colours_of_them(tmp_path: Path) -> None:
    import cv2

    deep = VALUES.astype(np.uint16) * 300
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    np.testing.assert_array_equal(read_values(tmp_path / "a.png").pixels, deep)
    cv2.imwrite(str(tmp_path / "b.png"), np.stack([deep, deep + 1, deep + 2], 2))  # blue, green, red
    np.testing.assert_array_equal(read_values(tmp_path / "b.png").pixels, np.stack([deep + 2, deep + 1, deep], 2))


@pytest.mark.parametrize(
    "options", [{"bigtiff": True}, {"compression": "lzma"}, {"tile": (16, 16)}, {"byteorder": ">"}], ids=str
)
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.float32, np.uint64])
def test_tiffs_hold_what_was_stored(tmp_path: Path, dtype: type, options: dict[str, Any]) -> None:
    values = np.tile(VALUES, (5, 4)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)  # of bool as "0 is white"
    stored = read_values(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored.pixels, values)
    tifffile.imwrite(tmp_path / "b.tif", np.tile(VALUES, (5, 4)), photometric="miniswhite")
    np.testing.assert_array_equal(read_values(tmp_path / "b.tif").pixels, np.tile(VALUES, (5, 4)))


def test_what_changes_values_is_marked(tmp_path: Path) -> None:
    Image.fromarray(VALUES).save(tmp_path / "a.jpg")
    Image.fromarray(VALUES).convert("RGB").save(tmp_path / "a.webp")
    Image.fromarray(VALUES).save(tmp_path / "a.tif", compression="jpeg")
    assert [read_values(tmp_path / name).lossy for name in ("a.jpg", "a.webp", "a.tif")] == [True, True, True]


def test_what_cannot_be_read_or_would_run_code(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "deep.npy", np.zeros((2, 3, 5)))
    whole = (tmp_path / "deep.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    (tmp_path / "no.png").write_bytes(b"no")
    for name, words in {
        "objects.npy": "never unpickled",
        "deep.npy": r"shape \(2, 3, 5\), not \(H, W\)",
        "cut.npy": "in a file of",
        "no.png": "cannot identify",
        "gone.png": "No such file",
    }.items():
        with pytest.raises(NoValues, match=words):
            read_values(tmp_path / name)
        assert not holds_colours(tmp_path / name)


def test_proportions() -> None:
    assert same_proportions((360, 480), (90, 120))
    assert same_proportions((90, 120), (180, 241))
    assert not same_proportions((90, 120), (120, 90))
