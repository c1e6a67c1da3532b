"""Only files are opened."""

import os
import socket
import stat
from pathlib import Path

import pytest

from selfseg.data.reading.images import check_image, read_image
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.data.reading.windows import as_measured
from selfseg.errors import BadImage
from selfseg.storage.regular import NotRegular, open_regular


@pytest.fixture(name="odd")
def _odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path /= "odd"
    tmp_path.mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.tif")
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "here").symlink_to(".")
    return tmp_path


def test_pipes_sockets_and_devices_are_no_files(odd: Path) -> None:
    for name, what in (("pipe.jpg", "a pipe"), ("socket.png", "a socket"), ("device.jpg", "a device")):
        with pytest.raises(NotRegular, match=what):
            open_regular(odd / name)
    with pytest.raises(IsADirectoryError):
        open_regular(odd)
    with pytest.raises(FileNotFoundError):
        open_regular("a\0b")
    assert not stat.S_ISREG((odd / "pipe.jpg").stat().st_mode)


def test_a_folder_of_odd_things_is_listed_and_each_says_what_it_is(odd: Path, photos: Path) -> None:
    (odd / "a.jpg").write_bytes(next(photos.glob("*.jpg")).read_bytes())
    images = list_images(odd)
    assert images.names == ("a", "device", "gone", "pipe.jpg", "pipe.tif", "self", "socket")
    log = SkipLog(None, len(images), 1.0)
    images, _ = as_measured(images)
    assert scan(images, log).names == ("a",)
    assert log.skipped == {
        "device": "wrong-type",
        "gone": "missing",
        "pipe.jpg": "wrong-type",
        "pipe.tif": "wrong-type",
        "self": "unreadable",
        "socket": "wrong-type",
    }
    for read in (read_image, check_image):
        with pytest.raises(BadImage, match="a pipe, no file"):
            read(odd / "pipe.jpg")
