"""Every verb leaves the same files whoever does its work."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from conftest import draw_scene
from named_runs import make_run
from selfseg import apply, embed, evaluate, mine_masks, segment
from selfseg.cli import main
from selfseg.collection.clustering import cluster
from selfseg.errors import ConfigError, TooManyBadImages
from selfseg.evaluation import Beside, Clusters, Extractor, Linear, Objects, Retrieval
from selfseg.masks.networks.features import FeaturesConfig
from selfseg.masks.sources import Training
from selfseg.studio.carrying.naming import name_clusters
from selfseg.workers.plan import HERE, Here, Where
from selfseg.workers.processes import ProcessWorkers

pytestmark = pytest.mark.slow

TWO, THREE = Where(2), Where(3)
OWN_ORDER = {"progress.jsonl", "skipped.jsonl"}
"""Lines come in the order in which images are finished, and the latter says when."""


def digests(folder: Path) -> dict[str, str]:
    """Of all files, also of temporary ones that should not be there; a page knows its folder and when it was made."""
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    return {
        name: hashlib.blake2b(
            re.sub(rb"Made on [-0-9 :]+", b"", file.read_bytes().replace(str(folder).encode(), b""))
        ).hexdigest()
        for name, file in files.items()
        if file.name not in OWN_ORDER
    }


class _Kept:
    """A context manager that leaves the workers at work."""

    def __init__(self, workers: object) -> None:
        self.workers = workers

    def __enter__(self) -> object:
        return self.workers

    def __exit__(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def same_workers() -> Iterator[list[Where]]:
    """Two processes for all verbs, as it takes them seconds to import torch; shards are cut as `where` says."""
    verbs = ("collection.embedding", "collection.segmenting", "collection.clustering", "segmenter.applying")
    with pytest.MonkeyPatch.context() as patch, ProcessWorkers(2, "test", progress=False) as workers:
        asked: list[Where] = []

        def hire(where: Where, *_: object, **__: object) -> object:
            asked.append(where)
            return Here() if where.here else _Kept(workers)

        for verb in (*verbs, "masks.mining", "evaluation.evaluator"):
            patch.setattr(f"selfseg.{verb}.hire", hire)
        yield asked


@pytest.mark.usefixtures("same_workers")
def test_all_verbs_leave_the_same_files(photos: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    name_clusters(run, {0: "sky", 1: "ground", 3: "ground"})
    (photos / "bad.jpg").write_bytes((photos / "photo0.jpg").read_bytes()[:500])
    seen: dict[str, dict[str, str]] = {}
    for word, where in (("one", HERE), ("two", TWO)):
        out = tmp_path / word
        segment(run, photos, out / "segment", k=5, progress=False, max_bad=0.5, where=where)
        embed(run, photos, out / "embed", progress=False, max_bad=0.5, where=where)
        apply(run, photos, out / "apply", progress=False, max_bad=0.5, where=where)
        shutil.copytree(run, out / "run")
        cluster(out / "run", photos, k=3, points=500, progress=False, max_bad=0.5, where=where)
        quick = Training(features=FeaturesConfig(images=3))
        mine_masks(photos, out / "masks", training=quick, progress=False, max_bad=0.5, where=where)
        seen |= {f"{word} {verb}": digests(out / verb) for verb in ("segment", "embed", "apply", "run", "masks")}
    for verb in ("segment", "embed", "apply", "run", "masks"):
        one, two = seen[f"one {verb}"], seen[f"two {verb}"]
        assert one == two, verb
        assert len(one) >= 6, verb


@pytest.mark.usefixtures("same_workers")
def test_an_evaluation_is_equal_to_the_bit(labelled: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    masks = tmp_path / "masks"
    for split in ("train", "val"):
        (masks / split).mkdir(parents=True)
        for file in (labelled / split / "labels").iterdir():
            shutil.copy(file, masks / split)  # 0 is the background, all classes else are objects
    objects = Objects(masks=masks, k=(4,))
    protocols = [Clusters(k=(4, 8), points=300), Linear(pixels=900, steps=30, batch=64), objects, Retrieval()]
    told: dict[str, list[tuple[str, int, int]]] = {}
    for word, where in (("one", HERE), ("two", TWO), ("three", THREE)):
        told[word] = []
        evaluate(
            run,
            labelled,
            [*protocols[:3], Retrieval(objects=objects)],
            beside=Beside(backbone=True),
            seeds=2,
            progress=lambda *said, word=word: told[word].append(said),
            out=tmp_path / word,
            where=where,
        )
    assert digests(tmp_path / "one") == digests(tmp_path / "two") == digests(tmp_path / "three")
    assert len(digests(tmp_path / "one")) > 10
    last = {word: {said[0]: said[1:] for said in calls} for word, calls in told.items()}
    assert last["one"] == last["two"]


@pytest.mark.usefixtures("same_workers")
def test_how_many_may_be_unreadable_is_judged_of_the_whole(labelled: Path) -> None:
    for number in (6, 8):
        (labelled / "val" / "images" / f"scene{number}.jpg").write_bytes(b"nothing")
    run = make_run(labelled / "run")
    with pytest.raises(TooManyBadImages, match="of 4 images can't be used"):
        evaluate(run, labelled, [Clusters(k=(4,), points=300)], beside=Beside(baselines=False), seeds=1, where=TWO)


def test_what_other_processes_cannot_be_given(labelled: Path) -> None:
    extractor = Extractor("own", lambda image: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="give the run's folder"):
        evaluate(extractor, labelled, where=TWO)


@pytest.mark.usefixtures("same_workers")
def test_masks_of_windows_of_measured_channels(tmp_path: Path) -> None:
    (tmp_path / "rasters").mkdir()
    for seed in range(2):
        scene, _ = draw_scene(seed, 200, 150)
        bands = np.concatenate([scene, scene[..., :1]], axis=2).astype(np.uint16) * 16
        tifffile.imwrite(tmp_path / "rasters" / f"r{seed}.tif", bands, photometric="minisblack", planarconfig="contig")
    for word, where in (("one", HERE), ("two", TWO)):
        mine_masks(
            tmp_path / "rasters",
            tmp_path / word / "masks",
            "mean",
            window=100,
            channels=("0", "3"),
            progress=False,
            where=where,
        )
    assert digests(tmp_path / "one" / "masks") == digests(tmp_path / "two" / "masks")
    assert len(list((tmp_path / "one" / "masks" / "soft").rglob("*.png"))) == 8


def test_the_command_line(
    photos: Path, labelled: Path, tmp_path: Path, same_workers: list[Where], capsys: pytest.CaptureFixture[str]
) -> None:
    same_workers.clear()
    words = ["masks", str(photos), "--out", str(tmp_path / "masks"), "--method", "mean", "--processes", "2"]
    assert main(words) == 0
    assert len(list((tmp_path / "masks" / "soft").iterdir())) == 6
    run = make_run(tmp_path / "run")
    words = ["evaluate", str(run), str(labelled), "--protocols", "clusters", "--clusters.points", "300", "-k", "4"]
    assert main([*words, "--no-baselines", "--ray", "here:1"]) == 0
    assert "clusters" in capsys.readouterr().out
    assert same_workers == [Where(2), Where(0, "here:1")]
