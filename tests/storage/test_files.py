import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from selfseg.errors import StorageError
from selfseg.storage import files
from selfseg.storage.files import (
    put_in_place,
    read_json,
    storage_errors,
    write_atomically,
    write_folder_atomically,
    write_json,
    write_text,
)


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "value.json"
    write_json(path, {"name": "Größe", "values": [1, 2.5, None]})
    assert read_json(path) == {"name": "Größe", "values": [1, 2.5, None]}
    assert [file.name for file in path.parent.iterdir()] == ["value.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "value.bin"
    path.write_bytes(b"old")

    def fill_the_disk(temporary: Path) -> None:
        temporary.write_bytes(b"ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"no space left while writing .*value\.bin; make room"):
        write_atomically(path, fill_the_disk)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"can't write .*value\.json: "):
        write_json(tmp_path / "file" / "value.json", 1)


def test_errors_of_safetensors_are_storage_errors_too(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"), storage_errors(tmp_path / "x"):
        save_file({"a": torch.zeros(2)}, tmp_path / "absent" / "x")
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(StorageError, match="no space left"), storage_errors(tmp_path / "x"):
        raise full


def test_a_folder_appears_at_once_in_place_of_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "product"
    for text in ("first", "second"):

        def write(temporary: Path, text: str = text) -> None:
            (temporary / text).mkdir()
            (temporary / text / "a.txt").write_text(text)

        write_folder_atomically(folder, write)
        assert [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))] == [text, f"{text}/a.txt"]
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "second" / "a.txt").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in folder.parent.iterdir()] == ["product"]


def test_a_folder_whose_writing_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)  # as on file systems that can't
    folder = tmp_path / "product"
    write_folder_atomically(folder, lambda temporary: (temporary / "old.txt").write_text("old"))

    def fill_the_disk(temporary: Path) -> None:
        (temporary / "half.txt").write_text("ha")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"no space left while writing .*product"):
        write_folder_atomically(folder, fill_the_disk)
    assert [path.name for path in tmp_path.rglob("*")] == ["product", "old.txt"]

    rename = os.rename

    def refuse_the_new(source: Path, target: Path) -> None:
        if Path(target) == folder and not Path(source).name.endswith("-old"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_the_new)
    with pytest.raises(StorageError, match="can't write"):
        write_folder_atomically(folder, lambda temporary: (temporary / "new.txt").write_text("new"))
    assert [path.name for path in tmp_path.rglob("*")] == ["product", "old.txt"]


def test_several_get_their_names_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    pairs = [(written(".tmp-1", "new 1"), written("one", "old 1")), (written(".tmp-2", "new 2"), tmp_path / "two")]
    rename = os.rename

    def refuse_the_second(source: Path, target: Path) -> None:
        if Path(target).name == "two":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    for exchange in (files._exchange, lambda one, other: False):
        with monkeypatch.context() as patch:
            patch.setattr(files, "_exchange", exchange)
            patch.setattr(os, "rename", refuse_the_second)
            with pytest.raises(StorageError, match=r"can't write .*two"):
                put_in_place(*pairs)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            "one": "old 1",
            ".tmp-1": "new 1",
            ".tmp-2": "new 2",
        }
    put_in_place(*pairs)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one": "new 1", "two": "new 2"}


def test_names_that_are_no_utf_8_are_kept_in_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    write_json(tmp_path / "a.json", {name: "é"})
    assert read_json(tmp_path / "a.json") == {name: "é"}
    write_text(tmp_path / "a.txt", f"{name}\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "caf\\udce9.jpg\n"


@pytest.mark.slow
def test_files_are_for_whom_the_user_lets_them_be(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.umask(0o077)\n"
        "from pathlib import Path; from selfseg.storage.files import write_text, write_folder_atomically\n"
        "write_text(Path('a.txt'), ''); write_folder_atomically(Path('b'), lambda f: (f / 'c').touch())\n"
        "print(*(oct(os.stat(p).st_mode & 0o777) for p in ('a.txt', 'b', 'b/c')), oct(os.umask(0)))"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0o600", "0o700", "0o600", "0o77"]
