from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import BadImage, ConfigError, RunError, TooManyBadImages
from selfseg.workers.gathering import gather
from selfseg.workers.hiring import hire
from selfseg.workers.plan import HERE, Lost, Where, cut
from selfseg.workers.processes import Child, ProcessWorkers
from simple_jobs import OurOwn, Squares, Unpicklable, numbers

pytestmark = pytest.mark.slow

TWO = Where(2)


def squares_of(count: int, where: Where, job: Any) -> list[Any]:
    images = numbers(count)
    with hire(where, "square", progress=False) as workers:
        return list(workers.map(job, cut(images, range(count), where)))


def begun(memory: Path) -> dict[str, int]:
    """How often each image was begun."""
    return {file.name: len(file.read_text().split()) for file in memory.iterdir()}


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def wait_until(condition: Any, seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_processes_give_what_this_one_gives(tmp_path: Path) -> None:
    here = squares_of(20, HERE, Squares(tmp_path))
    there = squares_of(20, TWO, Squares(tmp_path, waits=0.02))
    assert sorted(one[:2] for one in there) == [one[:2] for one in here] == [(i, i * i) for i in range(20)]
    assert {one[2] for one in here} == {os.getpid()}
    assert len({one[2] for one in there} - {os.getpid()}) == 2


def test_shards_are_small_and_large_images_alone() -> None:
    shards = cut(numbers(1000), range(0, 1000, 2), Where(3), alone=[4, 6])
    assert sorted(index for shard in shards for index in shard.indices) == list(range(0, 1000, 2))
    assert [shard.indices for shard in shards[:2]] == [(4,), (6,)]
    assert max(map(len, shards)) == 32
    assert shards[2].images.names[:3] == ("image0", "image2", "image8")
    assert len(cut(numbers(5), range(5), HERE)) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_anything_to_do(count: int, tmp_path: Path) -> None:
    assert len(squares_of(count, TWO, Squares(tmp_path))) == count


def test_a_worker_that_is_killed_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    found = squares_of(12, TWO, Squares(tmp_path, kills_once="image4"))
    assert sorted(one[:2] for one in found) == [(i, i * i) for i in range(12)]
    assert begun(tmp_path)["image4"] == 2


def test_an_image_that_always_kills_is_set_aside_alone(tmp_path: Path) -> None:
    memory, out = tmp_path / "memory", tmp_path / "skipped.jsonl"
    memory.mkdir()
    images = numbers(40)
    log = SkipLog(out, len(images), limit=0.1)
    with hire(TWO, "square", progress=False) as workers:
        shards = cut(images, range(40), TWO)
        assert len(shards[0]) > 1
        job = Squares(memory, kills="image7", skips="image9")
        found = list(gather(workers, job, shards, images.names, log))
    assert sorted(index for index, _, _ in found) == [i for i in range(40) if i not in (7, 9)]
    listed = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((one["name"], one["reason"]) for one in listed) == [("image7", "crashed"), ("image9", "truncated")]
    assert "SIGKILL" in next(one["detail"] for one in listed if one["name"] == "image7")
    assert begun(memory)["image7"] == 4  # twice with its shard, twice alone


def test_too_many_that_kill_are_an_error(tmp_path: Path) -> None:
    images = numbers(2)
    with hire(TWO, "square", progress=False) as workers:
        job, shards = Squares(tmp_path, kills="image1"), cut(images, range(2), TWO)
        made = gather(workers, job, shards, images.names, SkipLog(None, 2))
        with pytest.raises(TooManyBadImages, match="1 crashed"):
            list(made)


@pytest.mark.parametrize(
    ("raises", "kind", "match"),
    [("ours", ConfigError, "this option can't work"), ("other", RunError, "ZeroDivisionError: one by none")],
)
def test_an_error_in_a_worker_is_the_same_error_here(raises: str, kind: type, match: str, tmp_path: Path) -> None:
    with hire(TWO, "square", progress=False) as workers:
        assert isinstance(workers, ProcessWorkers)
        with pytest.raises(kind, match=match) as caught:
            list(workers.map(Squares(tmp_path, raises=raises, at="image3"), cut(numbers(8), range(8), TWO)))
    assert type(caught.value) is kind
    assert kind is RunError or str(caught.value) == match
    pids = {int(pid) for file in tmp_path.iterdir() for pid in file.read_text().split()}
    assert pids
    assert not [pid for pid in pids if alive(pid)]


def test_errors_keep_what_they_carry(tmp_path: Path) -> None:
    with pytest.raises(BadImage) as caught:
        squares_of(2, TWO, Squares(tmp_path, raises="bad", at="image1"))
    error = caught.value
    assert (error.path, error.reason, error.detail) == ("some/path", "empty", "no bytes")
    with pytest.raises(ConfigError, match="it went too far") as derived:
        squares_of(2, TWO, Squares(tmp_path, raises="derived", at="image1"))
    assert not isinstance(derived.value, OurOwn)  # this process may not have its class


def test_a_job_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to open"):
        squares_of(4, TWO, Squares(tmp_path, opens=False))


def test_what_cannot_be_sent_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be handed to other processes"):
        squares_of(4, TWO, _Local())
    with pytest.raises(RunError, match="a worker failed"):
        squares_of(4, TWO, Unpicklable())


class _Local:
    """Of a module that workers can't import."""

    def open(self) -> Any:
        return None

    def __reduce__(self) -> Any:
        raise TypeError("not me")


def test_several_jobs_by_the_same_workers(tmp_path: Path) -> None:
    """Also after one that was left in the middle: its answers must not be taken for those of the next."""
    images, shards = numbers(16), cut(numbers(16), range(16), TWO)
    with hire(TWO, "square", progress=False) as workers:
        first = [one for one in workers.map(Squares(tmp_path), shards) if not isinstance(one, Lost)]
        with closing(workers.map(Squares(tmp_path, waits=0.05), shards)) as left:
            next(left)
        last = list(workers.map(Squares(tmp_path, skips="image0"), shards))
    assert len(first) == len(last) == len(images)
    assert sum(len(one) == 3 and isinstance(one[0], int) for one in last) == 15


def test_a_worker_that_dies_while_it_waits_is_replaced(tmp_path: Path) -> None:
    shards = cut(numbers(16), range(16), TWO)
    with hire(TWO, "square", progress=False) as workers:
        for _ in range(2):
            found = list(workers.map(Squares(tmp_path, waits=0.02), shards))
            assert sorted(one[0] for one in found) == list(range(16))
            for pid in {one[2] for one in found}:
                os.kill(pid, signal.SIGKILL)


def test_workers_that_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match=r"[34] workers in a row ended before they had begun \(exit status 1\)"):
        squares_of(8, TWO, Squares(tmp_path))


def test_children_of_a_killed_parent_end(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from simple_jobs import *\n"
        "from selfseg.workers.plan import *; from selfseg.workers.hiring import hire\n"
        f"job, where = Squares(Path({str(tmp_path)!r}), waits=0.2), Where(2)\n"
        "with hire(where, 'square', progress=False) as workers:\n"
        "    list(workers.map(job, cut(numbers(400), range(400), where)))\n"
    )
    tests = str(Path(__file__).resolve().parents[1])
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": tests})

    def children() -> set[int]:
        return {int(pid) for file in tmp_path.iterdir() for pid in file.read_text().split()}

    try:
        assert wait_until(lambda: len(children()) == 2, seconds=120)  # three starts of Python, on a busy machine
        pids = children()
        assert all(alive(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not any(alive(pid) for pid in pids), seconds=8)


def test_a_child_that_will_not_go_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfseg.workers.processes.GRACE", 0.1)
    pool = ProcessWorkers(1, "square", progress=False)
    child = Child(1, pool._news)
    pool.listen()
    os.kill(child.process.pid, signal.SIGSTOP)
    pool.end([child])
    assert child.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("processes", "ray"), [(0, None), (-1, "local")])
def test_numbers_of_processes_that_cannot_be(processes: int, ray: str | None) -> None:
    with pytest.raises(ConfigError, match="must be 1 or more"):
        Where(processes, ray)
