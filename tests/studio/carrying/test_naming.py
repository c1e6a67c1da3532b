import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from named_runs import add_clusters, make_run
from selfseg.collection.clusters import load_clusters, save_clusters
from selfseg.segmenter.segmenter import Segmenter
from selfseg.studio.carrying.clusterings import remember
from selfseg.studio.carrying.naming import name_clusters, names_so_far
from selfseg.studio.decisions import DecisionLog


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def _cluster_anew(run: Path) -> None:
    """As `selfseg cluster` with another seed: the same numbers, other clusters."""
    clusters = load_clusters(run, 5)
    save_clusters(run, replace(clusters, centroids=clusters.centroids.flip(0).contiguous()))


def _called(run: Path) -> dict[int, str]:
    found = names_so_far(run)
    return {} if found is None else dict(found.names)


def test_names_stay_with_the_clusters_that_were_named(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    name_clusters(made, {0: "road", 1: "sky"})
    _cluster_anew(made)
    assert _called(made) == {}, "cluster 0 is another one now"
    name_clusters(made, {2: "tree"})
    assert Segmenter.load(made / "segmenter").legend.names == ("tree",)
    assert "made anew since 2 of them got a name" in caplog.text
    assert "--decisions" in caplog.text


def test_merged_clusters_keep_their_names_as_long_as_they_are_merged_alike(made: Path) -> None:
    add_clusters(made, 7, rows=40)
    name_clusters(made, {0: "road", 6: "void"}, k=7)
    name_clusters(made, {1: "sky"})
    assert _called(made) == {0: "road", 6: "void", 1: "sky"}
    clusters = load_clusters(made, 7)
    save_clusters(made, replace(clusters, groups=(torch.arange(40) + 1) % 7))
    assert _called(made) == {}


def test_the_studio_and_the_command_know_each_others_names(made: Path) -> None:
    add_clusters(made, 9)
    log = DecisionLog.open(made / "studio")
    remember(log, load_clusters(made, 5))
    log.append("name", cluster="5/3", name="road")
    log.append("name", cluster="5/4", name="sky")
    log.append("colour", name="sky", colour="#010203")
    log.append("leave_out", cluster="5/0", on=True)
    assert _called(made) == {3: "road", 4: "sky", 0: "void"}, "of these clusters, and not of the largest number"
    name_clusters(made, {1: "tree"})
    legend = Segmenter.load(made / "segmenter").legend
    assert legend.names == ("road", "sky", "tree")
    assert legend.classes[1].colour == (1, 2, 3)
    log.refresh()
    log.append("rename", old="road", new="street")
    assert _called(made) == {3: "street", 4: "sky", 0: "void", 1: "tree"}
    name_clusters(made, {3: "path"})
    log.refresh()
    assert log.state().names["5/3"] == "path"


def test_of_two_calls_at_once_none_is_lost(made: Path) -> None:
    threads = [threading.Thread(target=name_clusters, args=(made, {i: f"class {i}"})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Segmenter.load(made / "segmenter").legend.names) == {f"class {i}" for i in range(4)}
    assert len(_called(made)) == 4


def test_what_a_new_segmenter_does_not_hold_is_told(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    name_clusters(made, {0: "road"})
    segmenter = Segmenter.load(made / "segmenter")
    segmenter.about = {"made_of": "decisions"}
    segmenter.save(made / "segmenter")
    name_clusters(made, {1: "sky"})
    assert "was made by “Hand over” in the studio, and is replaced" in caplog.text
    assert Segmenter.load(made / "segmenter").legend.names == ("road", "sky"), "the studio knows the first"
