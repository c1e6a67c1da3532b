"""Clusterings are told apart, and a copy of each that was decided about is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from selfseg.collection.clusters import Clusters
from selfseg.errors import RunError
from selfseg.studio.carrying.clusterings import fingerprint, recall, remember
from selfseg.studio.decisions import DecisionLog


def clusters(seed: int = 0, **info: object) -> Clusters:
    centroids = F.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)), dim=1)
    return Clusters(centroids, (0.5, 0.3, 0.2), (("a",), (), ()), {"embedder": "e", **info})


def test_a_fingerprint_is_of_what_gives_pixels_their_numbers() -> None:
    one = clusters()
    assert fingerprint(one) == fingerprint(replace(one, share=(1.0, 0.0, 0.0), typical=((), (), ())))
    others = [
        clusters(1),
        clusters(embedder="f"),
        clusters(position=1.0),
        replace(one, groups=torch.tensor([0, 1, 1]), share=(0.5, 0.5)),
        replace(one, centroids=one.centroids[[1, 0, 2]]),
    ]
    assert len({fingerprint(one), *map(fingerprint, others)}) == 6


@pytest.mark.parametrize("groups", [None, torch.tensor([0, 1, 1])])
def test_a_copy_comes_back(tmp_path: Path, groups: torch.Tensor | None) -> None:
    one = replace(clusters(position=0.5), groups=groups, share=(0.5, 0.3, 0.2) if groups is None else (0.5, 0.5))
    log = DecisionLog.open(tmp_path)
    assert not remember(log, one)
    copy = recall(tmp_path, fingerprint(one))
    assert fingerprint(copy) == fingerprint(one) == log.state().clusterings[one.k]
    assert copy.k == one.k
    length = len(log.entries)
    assert not remember(log, one)
    assert len(log.entries) == length, "said once"


def test_another_clustering_lets_names_rest(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path)
    remember(log, clusters())
    log.append("name", cluster="3/1", name="road")
    assert remember(log, clusters(1))
    assert not remember(log, clusters())
    assert log.state().names == {"3/1": "road"}


def test_what_is_not_there_or_damaged_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="can't be read"):
        recall(tmp_path, "ab")
    (tmp_path / "clusterings").mkdir()
    (tmp_path / "clusterings" / "ab.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match="can't be read"):
        recall(tmp_path, "ab")
