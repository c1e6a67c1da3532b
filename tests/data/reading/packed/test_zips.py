"""Images in zips, patterns and single files are those of the folder; zips that can't be trusted are refused."""

import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from selfseg.data.labelled.catalog import find_images
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.packed.zips import unpack
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.errors import BadImage, DataError, EmptyCollection
from selfseg.ops.channels import Channels


def packed(photos: Path, path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(photos.iterdir(), reverse=True):
            archive.write(file, f"summer/{file.name}")
        archive.writestr("notes.xyz", "nothing")
        archive.writestr("__MACOSX/._photo0.jpg", "nothing")
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_its_folder(photos: Path, tmp_path: Path, method: int) -> None:
    images, folder = find_images(packed(photos, tmp_path / "a.zip", method)), find_images(photos)
    assert images.names == tuple(f"summer/{name}" for name in folder.names)
    for copy in (images, pickle.loads(pickle.dumps(images))):
        for i in range(len(folder)):
            np.testing.assert_array_equal(copy.read(i), folder.read(i))
            assert copy.size(i) == folder.size(i)
            assert copy.version(i) is not None
    assert len(scan(images, SkipLog(None, len(images)))) == len(folder)
    some = images.subset([2, 0])
    np.testing.assert_array_equal(some.read(0), folder.read(2))
    back = images.restore({"summer/photo1": "summer/photo1.jpg", "gone": "gone.jpg"})
    np.testing.assert_array_equal(back.read(0), folder.read(1))
    assert back.version(1) is None
    with pytest.raises(BadImage, match="missing"):
        back.read(1)


def test_what_is_damaged_is_said(photos: Path, tmp_path: Path) -> None:
    path = packed(photos, tmp_path / "a.zip")
    images = list_images(path)
    data = bytearray(path.read_bytes())
    data[images.places[0, 0] + 600] ^= 255  # type: ignore[attr-defined]
    path.write_bytes(data)
    with pytest.raises(BadImage, match="unreadable"):
        images.read(0)
    path.unlink()
    with pytest.raises(BadImage, match="the zip is gone"):
        images.check(1)
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match="can't read the zip"):
        list_images(path)


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "b/../../a.jpg", "c:/a.jpg", "..\\a.jpg"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DataError, match="leads out of it"):
        list_images(tmp_path / "a.zip")


def test_links_bombs_and_nothing_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="holds a link"):
        list_images(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1 << 20))
        archive.writestr("empty.png", b"")
    images = list_images(tmp_path / "b.zip")
    with pytest.raises(BadImage, match="too-large"):
        images.read(0, max_pixels=1000)
    with pytest.raises(BadImage, match="empty"):
        images.read(1)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("a.xyz", b"")
    with pytest.raises(EmptyCollection, match=r"1 with \.xyz"):
        list_images(tmp_path / "c.zip")


def test_single_files_and_patterns(photos: Path, tmp_path: Path) -> None:
    assert list_images(photos / "photo3.jpg").names == ("photo3",)
    (photos / "winter").mkdir()
    (photos / "photo5.jpg").rename(photos / "winter" / "a.jpg")
    (photos / "notes.xyz").touch()
    assert find_images(photos / "photo[12].jpg").names == ("photo1", "photo2")
    assert find_images(f"{photos}/**/*.jpg").names == ("photo0", "photo1", "photo2", "photo3", "photo4", "winter/a")
    with pytest.raises(EmptyCollection, match=r"no image is named like .*only files 1 with \.xyz"):
        list_images(photos / "*.xyz")


def test_files_that_are_not_taken_are_counted(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.xyz", "b.xyz", "c.mp4"):
        (photos / name).touch()
    with caplog.at_level("INFO", "selfseg.told"):
        list_images(photos)
        list_images(f"{photos}/*")
    assert [record.message for record in caplog.records] == [
        f"{where}: 2 files .xyz, 1 file .mp4 were left out, since selfseg does not read such files"
        for where in (photos, f"{photos}/*")
    ]


def test_images_in_a_zip_are_photographs(photos: Path, tmp_path: Path) -> None:
    images = list_images(packed(photos, tmp_path / "a.zip"))
    assert images.blocks == (len(images),)
    assert images.subset([0, 1]).blocks == (2,)
    assert images.measured(None) is images
    with pytest.raises(DataError, match="can't be read from it; unpack the zip"):
        images.measured(Channels(("a",), (0,), 1, (0.0,), (1.0,), (0.5,), (0.1,)))


def test_unpacking_keeps_names_times_and_bytes(photos: Path, tmp_path: Path) -> None:
    path = packed(photos, tmp_path / "a.zip")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        unpack(path, tmp_path / name)
    for file in photos.iterdir():
        one, two = (tmp_path / name / "summer" / file.name for name in ("one", "two"))
        assert one.read_bytes() == file.read_bytes()
        assert one.stat().st_mtime_ns == two.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    (tmp_path / "three").mkdir()
    with pytest.raises(DataError, match="can't unpack"):
        unpack(path, tmp_path / "three")
