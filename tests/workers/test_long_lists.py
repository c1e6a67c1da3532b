"""Going through long lists: nothing is lost, nothing done twice, and memory doesn't grow."""

from __future__ import annotations

import gc
import json
import logging
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from long_jobs import Counting, call, changed, name_of, write_list
from selfseg.data.reading.long import lines as long_lines
from selfseg.data.reading.long.lines import BLOCK
from selfseg.errors import EmptyCollection, TooManyBadImages
from selfseg.workers.long_lists import FILE
from selfseg.workers.plan import Where

COUNT = 3000
SHARDS = -(-COUNT // BLOCK)


def worked(folder: Path) -> Counter[str]:
    """How often each image was worked on since the last look."""
    file = folder / "worked.txt"
    names = Counter(file.read_text().splitlines()) if file.exists() else Counter[str]()
    file.unlink(missing_ok=True)
    return names


def noted(folder: Path) -> list[int]:
    """The shards that have lines, in their order."""
    lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    return [line["shard"] for line in lines if "shard" in line]


@pytest.mark.slow
def test_a_call_that_is_killed_goes_on(tmp_path: Path) -> None:
    write_list(tmp_path, COUNT)
    job = Counting(tmp_path, kills=name_of(BLOCK * 10 + 5))
    program = f"from long_jobs import *; call(Path({str(tmp_path)!r}), {job!r})".replace("PosixPath", "Path")
    tests = str(Path(__file__).parents[1])
    killed = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": ":".join([tests, *sys.path])})
    assert killed.returncode == -signal.SIGKILL
    assert noted(tmp_path) == list(range(10))
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"shard": 0, "maker": "me", "of": ')  # as if it had been writing
    work = call(tmp_path, job)
    names = worked(tmp_path)
    assert names.keys() == {name_of(i) for i in range(COUNT)}
    assert {name for name, times in names.items() if times > 1} == {name_of(BLOCK * 10 + i) for i in range(6)}
    assert (work.kept, work.again) == (10, 0)
    assert list(work.made()) == list(range(COUNT))
    lines = (tmp_path / FILE).read_text().splitlines()
    assert len(lines) == 1 + SHARDS + 1  # the list, each shard once, and the torn line
    call(tmp_path, job)
    assert not worked(tmp_path)


def test_a_list_that_has_changed_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_list(tmp_path, COUNT)
    call(tmp_path, Counting(tmp_path))
    assert len(worked(tmp_path)) == COUNT
    lines = path.read_text().splitlines()
    lines[BLOCK * 4 + 7] = "new/one.jpg"
    path.write_text("\n".join([*lines, "new/last.jpg"]))
    with caplog.at_level(logging.INFO):
        work = call(tmp_path, Counting(tmp_path))
    assert "was written for another list of images, or the list has changed" in caplog.text
    assert f"2 of {SHARDS} shards that were finished earlier had to be done again" in caplog.text
    whole, rest = (
        {name_of(i) for i in range(BLOCK * 4, BLOCK * 5)},
        {name_of(i) for i in range(COUNT // BLOCK * BLOCK, COUNT)},
    )
    assert worked(tmp_path).keys() == (whole - {name_of(BLOCK * 4 + 7)}) | rest | {"new/one", "new/last"}
    assert list(work.made()) == list(range(COUNT + 1))
    caplog.clear()
    call(tmp_path, Counting(tmp_path))
    assert not worked(tmp_path)
    assert "changed" not in caplog.text


def test_an_image_that_has_changed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_list(tmp_path, COUNT)
    call(tmp_path, Counting(tmp_path))
    worked(tmp_path)
    monkeypatch.setitem(changed, name_of(777), 1)
    before: list[int] = []  # how many images were looked at when it was told
    call(tmp_path, Counting(tmp_path), before_again=lambda: before.append(len(worked(tmp_path))))
    assert before == [0]
    assert worked(tmp_path).keys() == {name_of(i) for i in range(777 // BLOCK * BLOCK, (777 // BLOCK + 1) * BLOCK)}


def test_what_another_made_is_done_again(tmp_path: Path) -> None:
    write_list(tmp_path, 300)
    call(tmp_path, Counting(tmp_path), maker="other")
    worked(tmp_path)
    assert len(list(call(tmp_path, Counting(tmp_path)).made())) == len(worked(tmp_path)) == 300
    call(tmp_path, Counting(tmp_path), maker="other")  # whose files are there no more
    assert len(worked(tmp_path)) == 300


def test_images_that_cannot_be_used_are_counted_over_calls(tmp_path: Path) -> None:
    write_list(tmp_path, COUNT)
    job = Counting(tmp_path, skips="0/IMG")  # a tenth: folders 0000, 0010, 0020
    with pytest.raises(TooManyBadImages, match=f"of {COUNT} images can't be used.*truncated; e.g. 0000/IMG_0000000"):
        call(tmp_path, job)
    work = call(tmp_path, job, max_bad=0.2)
    bad = [name for name in (name_of(i) for i in range(COUNT)) if job.skips in name]
    assert work.log.reasons == {"truncated": len(bad)}
    assert list(work.skipped()) == bad
    assert len(list(work.made())) == COUNT - len(bad)
    worked(tmp_path)
    with pytest.raises(TooManyBadImages):  # also where all of them are of earlier calls
        call(tmp_path, job)
    assert not worked(tmp_path)
    listed = [json.loads(line)["name"] for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert set(listed) == set(bad)
    with pytest.raises(EmptyCollection, match="none of the 3000 images"):
        call(tmp_path, Counting(tmp_path, skips="IMG"), maker="all", max_bad=1)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_lines, "_PIECE", 1 << 12)
    monkeypatch.setattr(long_lines, "_PART", 1 << 17)
    write_list(tmp_path, 10)
    call(tmp_path, Counting(tmp_path))  # what is imported and cached once
    took, few, many = [], 1_280, 14_080
    for count in (few, many):
        folder = tmp_path / str(count)
        folder.mkdir()
        write_list(folder, count)
        tracemalloc.start()
        for _ in range(2):
            work = call(folder, Counting(folder))
        gc.collect()  # or it depends on what other tests left
        took.append(tracemalloc.get_traced_memory())
        tracemalloc.stop()
        assert work.kept == -(-count // BLOCK)
    held, peak = ((after - before) / (many - few) for before, after in zip(*took, strict=True))
    assert held < 2  # bytes an image: of each 128 the places of two lines, and what is kept of the last ones
    assert peak < 6


@pytest.mark.slow
def test_processes_share_a_long_list(tmp_path: Path) -> None:
    write_list(tmp_path, 600)
    work = call(tmp_path, Counting(tmp_path, kills=name_of(300), always=True), Where(2))
    assert sorted(noted(tmp_path)) == list(range(5))
    assert list(work.skipped()) == [name_of(300)]
    assert work.log.reasons == {"crashed": 1}
    assert list(work.made()) == [i for i in range(600) if i != 300]
