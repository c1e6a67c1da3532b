"""Temporary files of killed processes go with the next writing; those of living ones, and of others, stay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfseg.storage import leftovers
from selfseg.storage.files import write_text
from selfseg.storage.leftovers import remove_abandoned, temporary_prefix

KILLED = """
import os, signal, sys
from pathlib import Path
from selfseg.storage.files import write_atomically
def write(temporary):
    temporary.write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), write)
"""


def test_what_a_killed_process_left_goes_with_the_next_writing_there(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.txt")], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-")
    write_text(tmp_path / "b.txt", "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_only_what_nobody_writes_any_more_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / f"{temporary_prefix()}a"
    of_a_dead_one = tmp_path / temporary_prefix().replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    of_another_machine, older, away = tmp_path / ".tmp-00000000-1-a", tmp_path / ".tmp-abc", tmp_path / ".tmp-x-old"
    for path in (mine, of_another_machine, older, away):
        path.write_text("half")
    of_a_dead_one.mkdir()
    (of_a_dead_one / "weights.safetensors").write_text("half")
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, of_another_machine.name, older.name, away.name}
    for path in (of_another_machine, older, away):
        os.utime(path, (0, 0))
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, away.name}  # "-old" may be the only copy
    monkeypatch.setattr(leftovers, "_machine", lambda: "ffffffff")
    assert temporary_prefix().startswith(".tmp-ffffffff-")
