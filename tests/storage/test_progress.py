"""What a verb has finished: lines of several makers, kills between a file and its line, full disks."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from selfseg.errors import StorageError
from selfseg.storage.progress import ProgressFile


def test_what_others_said_counts_no_more_once_a_maker_has_begun(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    with ProgressFile(path, "maker", "a") as first:
        first.begin()
        first.add({"name": "one"})
        first.add({"name": "two"})
    assert len(path.read_text().splitlines()) == 2  # nobody was there before: nothing to say
    with ProgressFile(path, "maker", "b") as second:
        second.begin()
        second.add({"name": "one"})
    again = ProgressFile(path, "maker", "a")
    assert (again.of("one"), again.of("two")) == (None, None)
    assert sorted(again.of_others()) == ["one", "two"]
    assert ProgressFile(path, "maker", "b").of_others() == ["two"]


def test_names_that_lead_elsewhere_are_nobodys_files(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    with ProgressFile(path, "maker", "a") as lines:
        for name in ("../../etc/passwd", "/etc/passwd", "a/../../b", "deep/inner", "..x"):
            lines.add({"name": name})
    assert ProgressFile(path, "maker", "b").of_others() == ["deep/inner", "..x"]


def test_a_full_disk_is_a_storage_error_at_the_end_too(tmp_path: Path) -> None:
    class Full:
        def write(self, text: str) -> None: ...

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        close = flush

    def add_one() -> None:
        with ProgressFile(tmp_path / "progress.jsonl", "maker", "a") as lines:
            stream: Any = Full()
            assert lines._lines is not None
            lines._lines.close()
            lines._lines = stream
            lines.add({"name": "one"})

    with pytest.raises(StorageError, match="no space left while writing"):
        add_one()
