import errno
import os
import zipfile
from pathlib import Path

import pytest

from selfseg.data.reading.listing import list_images
from selfseg.errors import ConfigError, EmptyCollection, StorageError
from selfseg.exchange.writing.places import Place, commit, open_place
from selfseg.storage import files

BOTH = pytest.mark.parametrize("name", ["out", "out.zip"])


def fill(path: Path, *names: str) -> None:
    place = open_place(path)
    for name in names:
        place.write(name, name.encode())
    finish(place)


def finish(place: Place) -> None:
    place.prepare()
    commit([place])


def listing(path: Path) -> set[str]:
    if path.suffix == ".zip":
        return set(zipfile.ZipFile(path).namelist())
    files = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    return {name for name in files if name != ".selfseg-output"}


@BOTH
def test_nothing_is_there_before_the_end_and_all_after_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "source").write_bytes(b"copied")
    place = open_place(tmp_path / "deep" / name)
    stream = place.open("streamed.json")
    place.write("a/b.png", b"written")
    place.copy("a/c.jpg", tmp_path / "source")
    stream.write("ü")
    assert not (tmp_path / "deep" / name).exists()
    finish(place)
    assert listing(tmp_path / "deep" / name) == {"streamed.json", "a/b.png", "a/c.jpg"}
    assert os.listdir(tmp_path / "deep") == [name]
    if name == "out.zip":
        archive = zipfile.ZipFile(tmp_path / "deep" / name)
        assert archive.testzip() is None
        assert archive.read("streamed.json").decode() == "ü"
        assert archive.read("a/c.jpg") == b"copied"
    else:
        assert (tmp_path / "deep" / name / "streamed.json").read_text("utf-8") == "ü"
        assert (tmp_path / "deep" / name / "a" / "c.jpg").read_bytes() == b"copied"


@BOTH
def test_what_was_there_stays_until_the_end(tmp_path: Path, name: str) -> None:
    fill(tmp_path / name, "old.txt")
    place = open_place(tmp_path / name)
    place.write("new.txt", b"")
    assert listing(tmp_path / name) == {"old.txt"}
    place.discard()
    assert listing(tmp_path / name) == {"old.txt"}
    assert os.listdir(tmp_path) == [name]
    fill(tmp_path / name, "new.txt")
    assert listing(tmp_path / name) == {"new.txt"}
    assert os.listdir(tmp_path) == [name]


def test_a_persons_files_are_never_lost(tmp_path: Path) -> None:
    fill(tmp_path / "out", "labels/a.txt")
    (tmp_path / "out" / "images").mkdir()
    (tmp_path / "out" / "images" / "a.jpg").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds images/a\.jpg"):
        open_place(tmp_path / "out")


def test_files_that_appear_while_it_is_written_are_not_lost(tmp_path: Path) -> None:
    place = open_place(tmp_path / "out")
    place.write("a.txt", b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds mine\.txt"):
        finish(place)
    place.discard()
    assert listing(tmp_path / "out") == {"mine.txt"}


def test_other_things_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    (tmp_path / "out.zip").write_text("no zip")
    with pytest.raises(ConfigError, match="is a file"):
        open_place(tmp_path / "out")
    with pytest.raises(ConfigError, match="is no zip"):
        open_place(tmp_path / "out.zip")
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(ConfigError, match="is no zip"):
        open_place(tmp_path / "folder.zip")


def test_a_persons_zip_is_never_replaced(tmp_path: Path) -> None:
    holiday = tmp_path / "holiday.zip"
    with zipfile.ZipFile(holiday, "w") as archive:
        archive.writestr("precious.jpg", b"x")
    with pytest.raises(ConfigError, match=r"holiday\.zip exists already and was not written by selfseg"):
        open_place(holiday)
    place = open_place(tmp_path / "late.zip")
    place.write("a.txt", b"")
    holiday.rename(tmp_path / "late.zip")
    with pytest.raises(ConfigError, match="was not written by selfseg"):
        finish(place)
    place.discard()
    assert listing(tmp_path / "late.zip") == {"precious.jpg"}
    assert os.listdir(tmp_path) == ["late.zip"]


@pytest.mark.parametrize("text", ["hello\n", '{"a": 1}\n', "\udcff\n[[", "[" * 100_000])
def test_a_list_that_somebody_wrote_into_is_no_crash(text: str, tmp_path: Path) -> None:
    fill(tmp_path / "out", "a.txt")
    (tmp_path / "out" / ".selfseg-output").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"holds a\.txt, which was not written by selfseg"):
        open_place(tmp_path / "out")


def test_linked_folders(tmp_path: Path) -> None:
    fill(tmp_path / "out", "a.txt")
    (tmp_path / "photos").mkdir()
    (tmp_path / "out" / "images").symlink_to(tmp_path / "photos")
    with pytest.raises(ConfigError, match="holds images, which was not written by selfseg"):
        open_place(tmp_path / "out")
    (tmp_path / "out" / "images").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    fill(tmp_path / "link", "b.txt")
    assert (tmp_path / "link").is_symlink()
    assert listing(tmp_path / "out") == {"b.txt"}


@BOTH
def test_if_the_new_cannot_get_its_name_the_old_keeps_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / name, "old.txt")
    place = open_place(tmp_path / name)
    place.write("new.txt", b"")
    rename = os.rename

    def fails(source: Path, target: Path) -> None:
        if source == place.temporary:
            raise OSError(errno.EIO, "I/O error")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_exchange", lambda one, other: False)
        patch.setattr(os, "rename", fails)
        patch.setattr(os, "replace", fails)
        with pytest.raises(StorageError, match="I/O error"):
            finish(place)
    place.discard()
    assert listing(tmp_path / name) == {"old.txt"}
    assert os.listdir(tmp_path) == [name]


def test_no_file_is_written_twice(tmp_path: Path) -> None:
    place = open_place(tmp_path / "out")
    place.write("a.txt", b"")
    with pytest.raises(StorageError, match="exists"):
        place.write("a.txt", b"")
    place.discard()


def test_the_same_content_gives_the_same_zip(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        fill(tmp_path / name, "x.png", "y.txt")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_search_for_images_passes_over_it(tmp_path: Path) -> None:
    fill(tmp_path / "out", "a.png")
    with pytest.raises(EmptyCollection):
        list_images(tmp_path)


@BOTH
def test_a_full_disk_is_told(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = open_place(tmp_path / name)
    place.write("a.txt", b"")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(StorageError, match="no space left"):
            finish(place)
    place.discard()
    assert os.listdir(tmp_path) == []
