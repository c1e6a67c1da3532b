"""What a folder's images are, by their names."""

import logging
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from selfseg.data.labelled.catalog import find_images
from selfseg.data.reading.images import check_image
from selfseg.data.reading.listing import READ, list_images
from selfseg.errors import BadImage, DataError
from selfseg.storage.files import mark_output


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


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfa b.jpg\r\n\r\n# no image\r\nsub/c.jpg\r\n",
        "a b.jpg\r\nsub/c.jpg\r\n".encode("utf-16"),
        b'"a b.jpg"\nsub\\c.jpg\n',
        b"a b.jpg\t3\troad\n  # said\n'sub\\c.jpg'\n",
        b"a b.jpg\rsub/c.jpg",
    ],
)
def test_lists_are_read_whatever_wrote_them(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.jpg").touch()
    (tmp_path / "sub" / "c.jpg").touch()
    (tmp_path / "list.txt").write_bytes(data)
    assert list_images(tmp_path / "list.txt").names == ("a b", "sub/c")


def test_a_file_that_is_really_called_so_is_taken(tmp_path: Path) -> None:
    names = ['"a".jpg', "b\\c.jpg", "d\te.jpg", "f #g.jpg", "h\u2028i.jpg", os.fsdecode(b"caf\xe9.jpg"), "~nobody.jpg"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_bytes(os.fsencode("\n".join(names)))
    assert [path.name for path in list_images(tmp_path / "list.txt").paths] == names


def test_what_is_no_text_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a.jpg\0\n")
    with pytest.raises(DataError, match="zero bytes"):
        list_images(tmp_path / "list.txt")


def test_results_among_the_images_are_no_images(tmp_path: Path) -> None:
    """In a folder, by a pattern, and in a zip of the folder."""
    for name in ("a.png", "day/b.png", "day/masks/index/a.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"x")
    mark_output(tmp_path / "photos" / "day" / "masks")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in (tmp_path / "photos").rglob("*"):
            archive.write(file, file.relative_to(tmp_path / "photos"))
    for source in ("photos", "photos/**/*.png", "a.zip"):
        assert list_images(tmp_path / source).names == ("a", "day/b"), source
    assert list_images(tmp_path / "photos/day/masks/**/*.png").names == ("index/a",)
    with pytest.raises(DataError, match="empty text"):
        list_images("")


def test_what_is_made_of_an_image_does_not_take_the_place_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png/b.jpg", "c.png/d.npy/e.jpg", "c.png/d.tif", "f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path).names == ("a.jpg", "a.png/b", "c.png/d.npy/e", "c.png/d.tif", "f")


def test_labels_among_the_images_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("images/a.jpg", "images/b.jpg", "labels/a.png", "labels/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert len(find_images(tmp_path)) == 4
    assert "2 of the 4 images, such as labels/a, lie in a folder of labels by its name" in caplog.text
    caplog.clear()
    find_images(tmp_path / "images")
    find_images(tmp_path / "labels")
    assert not caplog.text
