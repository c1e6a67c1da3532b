from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfseg import mine_masks
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import ConfigError, RunError
from selfseg.workers.gathering import gather
from selfseg.workers.hiring import hire
from selfseg.workers.on_ray import RayWorkers
from selfseg.workers.plan import HERE, Where, cut
from simple_jobs import Squares, numbers

pytest.importorskip("ray", reason="Ray is not installed: pip install 'selfseg[ray]'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray's own cluster for tests: two nodes of one CPU each, which are processes of this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    tests = str(Path(__file__).resolve().parents[1])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = tests  # of the nodes, whose workers import `simple_jobs`
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


def test_a_verb_on_ray_leaves_the_same_files(
    cluster: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the nodes were started elsewhere
    for word, where in (("here", HERE), ("ray", Where(0, cluster.address))):
        mine_masks("photos", word, "mean", progress=False, where=where)
    names = [file.relative_to(tmp_path / "here") for file in (tmp_path / "here").rglob("*.png")]
    assert len(names) == 12
    for name in names:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_a_worker_that_is_killed_and_an_image_that_kills(cluster: Any, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    images, where = numbers(24), Where(0, cluster.address)
    log = SkipLog(tmp_path / "skipped.jsonl", len(images), 0.1)
    with hire(where, "square", progress=False) as workers:
        job = Squares(memory, kills="image3", kills_once="image20", waits=0.01)
        found = list(gather(workers, job, cut(images, range(24), where), images.names, log))
    assert sorted(one[:2] for one in found) == [(i, i * i) for i in range(24) if i != 3]
    assert log.skipped == {"image3": "crashed"}


def test_errors_are_the_same_here(cluster: Any, tmp_path: Path) -> None:
    images, where = numbers(4), Where(0, cluster.address)
    with hire(where, "square", progress=False) as workers:
        shards = cut(images, range(4), where)
        with pytest.raises(ConfigError, match="this option can't work"):
            list(workers.map(Squares(tmp_path, raises="ours", at="image2"), shards))
        with pytest.raises(ConfigError, match="nothing to open"):
            list(workers.map(Squares(tmp_path, opens=False), shards))
        assert len(list(workers.map(Squares(tmp_path), shards))) == 4  # others took the places of those that were busy


def test_waiting_for_room_is_said(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("selfseg.workers.on_ray._PATIENCE", 0.3)
    images, where = numbers(8), Where(0, cluster.address)
    shards = cut(images, range(8), where)
    with hire(where, "first", progress=False) as first, hire(where, "second", progress=False) as second:
        assert isinstance(first, RayWorkers)
        assert len(list(first.map(Squares(tmp_path), shards))) == 8  # whose workers now keep all CPUs
        members = [place.member for place in first._places]
        leaving = threading.Timer(1.5, lambda: first.end(members))
        leaving.start()
        with caplog.at_level(logging.INFO, "selfseg.told"):
            assert len(list(second.map(Squares(tmp_path), shards))) == 8
        leaving.join()
    assert "no worker could be started on the Ray cluster" in caplog.text


def test_a_node_that_goes_loses_nothing(cluster: Any, tmp_path: Path) -> None:
    """The last test of these, as one node is left."""
    images, where = numbers(40), Where(0, cluster.address)
    shards = cut(images, range(40), where)
    second = cluster.worker_nodes.copy().pop()
    with hire(where, "square", progress=False) as workers:
        made = workers.map(Squares(tmp_path, waits=0.1), shards)
        found = [next(made)]
        until = time.monotonic() + 60
        while len({one[2] for one in found}) < 2:  # both nodes are at work
            assert time.monotonic() < until
            found.append(next(made))
        cluster.remove_node(second, allow_graceful=False)
        found += list(made)
    assert sorted(one[:2] for one in found) == [(i, i * i) for i in range(40)]


def test_no_such_cluster() -> None:
    with pytest.raises(RunError, match=r"there is no Ray cluster at 127\.0\.0\.1:1:.*ray start --head"):
        hire(Where(0, "127.0.0.1:1"), "square", progress=False)
