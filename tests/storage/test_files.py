import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from selfseg.errors import StorageError
from selfseg.storage.files import read_json, storage_errors, write_atomically, write_json


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

    with pytest.raises(StorageError, match=r"no space left while writing .*value\.bin; free some"):
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
