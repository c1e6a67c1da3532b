"""The file that decisions are kept in: kills at any byte, several writers, full disks, damage."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from selfseg.errors import StorageError
from selfseg.storage import journal as module
from selfseg.storage.journal import Journal


def append(journal: Journal, *values: dict[str, Any]) -> list[int]:
    with journal.hold() as held:
        return [line.number for line in held.write(values).lines]


def values(journal: Journal) -> list[Any]:
    return [line.value for line in journal.read().lines]


def test_objects_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "log.jsonl")
    assert journal.read() == ([], False)
    assert append(journal, {"a": 1}, {"b": "straße\u2028\n"}) == [1, 2]
    assert append(journal, {"name": "caf\udce9"}) == [3]  # a file name that is no UTF-8
    fresh = Journal(journal.path)
    assert values(fresh) == [{"a": 1}, {"b": "straße\u2028\n"}, {"name": "caf\udce9"}]
    assert fresh.read().lines == []
    assert "straße" in journal.path.read_text("utf-8"), "people can read it"


@pytest.mark.slow
def test_a_file_cut_at_any_byte_keeps_its_whole_lines_and_takes_new_ones(tmp_path: Path) -> None:
    entries = [{"seq": 1, "name": "föhre"}, {"seq": 2, "nested": {"a": [1, {}]}}, {"seq": 3, "text": '}\\"'}]
    append(Journal(tmp_path / "whole"), *entries)
    whole = (tmp_path / "whole").read_bytes()
    ends = [index for index in range(len(whole)) if whole[index : index + 1] == b"\n"]
    for cut in range(len(whole) + 1):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(whole[:cut])
        kept = entries[: sum(end <= cut for end in ends)]
        journal = Journal(path)
        assert values(journal) == kept, cut
        append(journal, {"seq": 9})
        assert values(Journal(path)) == [*kept, {"seq": 9}], cut
        aside = tmp_path / f"{cut}.jsonl.torn"
        begin = max((end + 1 for end in ends if end < cut), default=0)
        torn = b"" if cut in ends else whole[begin:cut]
        assert (aside.read_bytes() if aside.exists() else b"") == (torn + b"\n" if torn else b""), cut


def test_a_reader_that_follows_byte_by_byte_sees_what_a_fresh_one_sees(tmp_path: Path) -> None:
    source, path = Journal(tmp_path / "source"), tmp_path / "growing"
    append(source, {"a": 1}, {"b": "é}{"}, {"c": [1, 2]})
    whole = source.path.read_bytes().replace(b"\n", b"\n\n", 1) + b"damaged\n" + b'{"d": 4}'
    follower, seen = Journal(path), []
    for cut in range(1, len(whole) + 1):
        path.write_bytes(whole[:cut])
        news = follower.read()
        assert not news.anew
        seen += news.lines
        assert seen == Journal(path).read().lines, cut
    assert [line.number for line in seen] == [1, 3, 4, 5, 6]


def test_damage_in_the_middle_is_told_by_line_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    bad = [b"\xff\xfe", b"{nonsense", b"[1]", b"\0\0\0", b"[" * 100_000, b'{"a": 1}{"b": 2}']
    path.write_bytes(b'\xef\xbb\xbf{"n": 0}\r\n' + b"\n".join(bad) + b'\n\n{"n": 1}\n')
    lines = Journal(path).read().lines
    assert [line.value for line in lines if not line.damage] == [{"n": 0}, {"n": 1}]
    assert [line.number for line in lines if line.damage] == [2, 3, 4, 5, 6, 7]
    assert lines[1].damage == "not UTF-8"
    assert lines[3].damage == "not a JSON object"
    assert lines[-1].number == 9


def test_a_file_that_was_replaced_rewritten_or_cut_is_read_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    append(journal, {"n": 1}, {"n": 2})
    before = journal.path.read_bytes()
    other = tmp_path / "other"
    other.write_bytes(before + b'{"n": 3}\n')
    os.replace(other, journal.path)  # another file
    assert journal.read().anew
    journal.path.write_bytes(before.replace(b"2", b"7") + b'{"n": 8}\n')  # the same, other content
    news = journal.read()
    assert news.anew
    assert [line.value for line in news.lines] == [{"n": 1}, {"n": 7}, {"n": 8}]
    journal.path.write_bytes(before[:9])
    with journal.hold() as held:
        assert held.news.anew
        assert [line.value for line in held.news.lines] == [{"n": 1}]


def test_a_whole_line_without_newline_that_goes_on_as_something_else_is_read_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    journal.path.write_bytes(b'{"n": 1}')
    assert values(journal) == [{"n": 1}]
    journal.path.write_bytes(b'{"n": 1}{"n": 2}\n')
    news = journal.read()
    assert news.anew
    assert [line.damage for line in news.lines] == ["not JSON"]


def test_a_file_that_has_gone_is_an_error_and_not_an_empty_log(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    append(journal, {"n": 1})
    journal.path.unlink()
    for _ in range(2):
        with pytest.raises(StorageError, match="is gone"):
            journal.read()
        with pytest.raises(StorageError, match="is gone"), journal.hold():
            pass
    assert not journal.path.exists()


@pytest.mark.parametrize("when", ["write", "sync"])
def test_a_full_disk_keeps_nothing_of_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    journal = Journal(tmp_path / "log")
    append(journal, {"n": 1})
    real = os.write

    def half(file: int, data: Any) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[: len(data) // 2])

    def no_sync(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write" if when == "write" else "fsync", half if when == "write" else no_sync)
        with pytest.raises(StorageError, match="no space left" if when == "write" else "can't write"):
            append(journal, {"text": "x" * 100})
    assert journal.path.read_bytes() == b'{"n": 1}\n'
    assert append(journal, {"n": 2}) == [2]
    assert values(Journal(journal.path)) == [{"n": 1}, {"n": 2}]


def test_a_write_is_synced_and_so_are_the_folders_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def sync(file: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        real(file)

    monkeypatch.setattr(module.os, "fsync", sync)
    journal = Journal(tmp_path / "run" / "studio" / "log")
    append(journal, {})
    folder = tmp_path / "run" / "studio"
    assert synced == [str(folder), str(tmp_path / "run"), str(journal.path)]
    append(journal, {})
    assert synced[3:] == [str(journal.path)]


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    first, second = Journal(tmp_path / "log"), Journal(tmp_path / "log", patience=0.02)
    with first.hold() as held:
        held.write([{"n": 1}])
        with pytest.raises(StorageError, match="another process has kept"):
            second.read()
        with pytest.raises(StorageError, match="another process has kept"), second.hold():
            pass
    assert values(second) == [{"n": 1}]


def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    assert append(Journal(tmp_path / "log"), {"n": 1}) == [1]


def test_threads_and_several_openings_lose_nothing(tmp_path: Path) -> None:
    shared = Journal(tmp_path / "log")

    def work(who: int) -> None:
        journal = shared if who < 2 else Journal(shared.path)
        for i in range(25):
            append(journal, {"who": who, "i": i})

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = values(Journal(shared.path))
    assert len(found) == 100
    for who in range(4):
        assert [value["i"] for value in found if value["who"] == who] == list(range(25))


WRITER = """
import sys
from pathlib import Path
from selfseg.storage.journal import Journal
journal = Journal(Path(sys.argv[1]))
i = 0
while True:
    with journal.hold() as held:
        held.write([{"who": sys.argv[2], "i": i, "text": "x" * (i * 37 % 500)}])
    print(i, flush=True)
    i += 1
"""


@pytest.mark.slow
def test_what_was_said_to_be_saved_outlives_a_kill_of_either_of_two_writers(tmp_path: Path) -> None:
    path = tmp_path / "log"
    draw = random.Random(0)
    said: list[tuple[str, int]] = []
    for turn in range(3):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"{turn}{who}"], stdout=subprocess.PIPE)
            for who in "ab"
        ]
        for writer in writers:
            assert writer.stdout is not None
            last = -1
            for _ in range(draw.randrange(5, 30)):
                last = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            last = max([last, *map(int, writer.stdout.read().split(b"\n")[:-1])])
            writer.wait()
            writer.stdout.close()
            said.append((f"{turn}{'ab'[writers.index(writer)]}", last))
    lines = Journal(path).read().lines
    assert not [line for line in lines if line.damage]
    for who, last in said:
        found = [line.value["i"] for line in lines if line.value and line.value["who"] == who]
        assert found[: last + 1] == list(range(last + 1))
        assert len(found) <= last + 2, "at most the one in flight"
    assert json.loads(path.read_bytes().split(b"\n")[0])
