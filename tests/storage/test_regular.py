"""Only files are opened."""

import io
import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from selfseg.data.reading.images import check_image, read_image
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.data.reading.windows import as_measured
from selfseg.errors import BadImage
from selfseg.storage import regular
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


def test_a_read_that_hangs_is_said_with_its_file(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(regular, "SLOW", 0.1)
    monkeypatch.setattr(regular, "_watch", regular._Watch())  # whose thread looks often
    caplog.set_level("INFO", logger="selfseg.told")
    end, other_end = os.pipe()  # stands for a folder that doesn't answer
    with io.BufferedReader(regular._Watched(end, "far/slow.jpg")) as stream:

        def answer() -> None:
            deadline = time.monotonic() + 20
            while not caplog.messages and time.monotonic() < deadline:
                time.sleep(0.01)
            os.write(other_end, b"here")
            os.close(other_end)

        threading.Thread(target=answer).start()
        assert stream.read() == b"here"
    assert len(caplog.messages) == 1
    assert "still waiting for far/slow.jpg" in caplog.messages[0]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 of a fork beside threads
def test_a_process_that_is_forked_watches_its_own_reads(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    open_regular(tmp_path / "a").close()  # this process has a thread that watches
    child = os.fork()
    if child == 0:
        alive = False
        try:
            with open_regular(tmp_path / "a") as stream:
                alive = stream.read() == b"bytes" and any(t.name == "slow files" for t in threading.enumerate())
        finally:
            os._exit(0 if alive else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
