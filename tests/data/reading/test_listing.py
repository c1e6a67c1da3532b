"""What a folder's images are, by their names."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from selfseg.data.reading.images import check_image
from selfseg.data.reading.listing import READ, list_images
from selfseg.errors import BadImage


def test_every_suffix_that_is_read_is_listed(tmp_path: Path) -> None:
    for suffix in READ:
        if suffix != ".zarr":
            (tmp_path / f"x{suffix[1:]}{suffix.upper()}").write_bytes(b"")
    (tmp_path / "x.xyz").write_bytes(b"")
    assert len(list_images(tmp_path)) == len(READ) - 1


def test_a_zarr_is_one_image_and_not_searched(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "sub" / "a.zarr", data=np.ones((40, 60), np.uint8), chunks=(40, 60))
    (tmp_path / "sub" / "a.zarr" / "thumb.png").write_bytes(b"")
    images = list_images(tmp_path)
    assert [path.name for path in images.paths] == ["a.zarr"]
    assert images.names == ("sub/a",)
    assert images.version(0) is not None


def test_arrays_beside_photographs_belong_to_them(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.npy", "b.npy"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in list_images(tmp_path).paths] == ["a.jpg", "b.npy"]


def test_measured_files_among_photographs_say_what_to_do(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((40, 60)))
    with pytest.raises(BadImage, match=r"wrong-type .*measured images"):
        check_image(tmp_path / "a.npy")
