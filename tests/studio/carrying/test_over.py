"""Decisions carried to another run: to moved images, to another k, to another embedder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch

from selfseg.collection.clustering import cluster
from selfseg.collection.clusters import load_clusters
from selfseg.collection.opening import load
from selfseg.data.reading.listing import list_images
from selfseg.errors import RunError
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.studio.carrying import carry_over, remember
from selfseg.studio.decisions import DecisionLog
from selfseg.studio.regions import RegionStore


class Index(NamedTuple):
    names: tuple[str, ...]
    hashes: tuple[str, ...]


def index_of(folder: Path) -> Index:
    images = list_images(folder)
    return Index(images.names, tuple(hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in images.paths))


def make_run(folder: Path, images: Path, seed: int, k: tuple[int, ...]) -> Path:
    torch.manual_seed(seed)
    config = EmbedderConfig(backbone="test_resnet", output_stride=16, decoder="fpn", dim=8, resolution=64)
    Embedder(config).save(folder / "embedder")
    (folder / "log.jsonl").write_text("")
    cluster(folder, images, k=k, seed=seed, points=600, progress=False, device="cpu")
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight of them, each half dark and half bright, at a border of its own."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i in range(8):
        image = np.full((64, 96, 3), 40, np.uint8)
        image[:, 30 + 5 * i :] = 210
        image += random.integers(0, 20, image.shape, dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"photo{i}.png"), image)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return make_run(folder / "a", photographs, 0, (2, 6)), make_run(folder / "b", photographs, 1, (2, 5))


@pytest.fixture
def copied(runs: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Both runs, without any decisions."""
    return tuple(shutil.copytree(run, tmp_path / run.name) for run in runs)  # type: ignore[return-value]


def pixels(run: Path, photographs: Path, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each pixel of all images, and whether it is bright."""
    embedder, images, clusters = load(run, "cpu"), list_images(photographs), load_clusters(run, k)
    read = [images.read(i) for i in range(len(images))]
    ids = [clusters.assign(embedder.embed(image), image.shape[:2]) for image in read]
    return np.stack(ids), np.stack([image.mean(2) > 128 for image in read])


def half(run: Path, photographs: Path, k: int) -> Callable[[str], str]:
    """Whether a cluster is mostly dark or bright."""
    ids, bright = pixels(run, photographs, k)
    return lambda path: "bright" if bright[ids == int(path.split("/")[1])].mean() > 0.5 else "dark"


def share_right(run: Path, photographs: Path, k: int) -> float:
    """How many pixels have the right name by the run's log."""
    ids, bright = pixels(run, photographs, k)
    names = DecisionLog.open(run / "studio").state().named(k)
    called = np.array([names.get(f"{k}/{number}", "") for number in range(k)])[ids]
    return float((called == np.where(bright, "bright", "dark")).mean())


def named_run(run: Path, photographs: Path, k: int) -> DecisionLog:
    log = DecisionLog.open(run / "studio")
    assert not remember(log, load_clusters(run, k))
    which = half(run, photographs, k)
    for number in range(k):
        log.append("name", cluster=f"{k}/{number}", name=which(f"{k}/{number}"))
    log.append("colour", name="dark", colour="#112233")
    return log


def click(log: DecisionLog, index: Index, image: int, name: str | None) -> int:
    where = {"hash": index.hashes[image], "name": index.names[image]}
    return log.append("click", image=where, level=0.25, point=[0.5, 0.25], name=name, pressure=7)


def test_clicks_find_their_images_by_content(copied: tuple[Path, Path], photographs: Path, tmp_path: Path) -> None:
    run, other = copied
    log, index = DecisionLog.open(run / "studio"), index_of(photographs)
    for image, name in ((0, "road"), (1, "raod"), (2, "road"), (0, None), (3, "road")):
        click(log, index, image, name)
    log.append("rename", old="raod", new="road")
    click(log, index, 4, "gone")
    log.undo()
    moved = tmp_path / "moved"
    (moved / "deep").mkdir(parents=True)
    shutil.copy(photographs / "photo0.png", moved / "deep" / "renamed.png")
    shutil.copy(photographs / "photo0.png", moved / "photo0.png")
    shutil.copy(photographs / "photo1.png", moved / "deep" / "photo1.png")
    shutil.copy(photographs / "photo7.png", moved / "photo2.png")
    before = (run / "studio" / "decisions.jsonl").read_bytes()
    report = carry_over(run / "studio", other, moved, index_of(moved), progress=False)
    assert (report.clicks, report.clusters, report.before) == (3, 0, 0)
    assert report.problems == (
        "1 click left out, in images that are not in this collection: photo3.",
        "1 click left out, in images whose content has changed: photo2.",
    )
    assert report.sentence.startswith("Carried 3 clicks")
    carried = DecisionLog.open(other / "studio")
    state = carried.state()
    assert [(one.image.name, one.name, one.level, one.point) for one in state.clicks] == [
        ("photo0", "road", 0.25, (0.5, 0.25)),
        ("deep/photo1", "road", 0.25, (0.5, 0.25)),
        ("photo0", None, 0.25, (0.5, 0.25)),
    ]
    first = next(entry for entry in carried.entries if entry.kind == "click")
    assert first.fields["pressure"] == 7
    assert first.fields["carried"]["time"] == log.entries[0].time
    assert [one.name for one in state.classes] == ["road"]
    assert (run / "studio" / "decisions.jsonl").read_bytes() == before
    carried.undo()
    assert carried.state().clicks == ()


def test_carrying_again_adds_what_came_since(copied: tuple[Path, Path], photographs: Path, tmp_path: Path) -> None:
    run, other = copied
    log, index = DecisionLog.open(run / "studio"), index_of(photographs)
    click(log, index, 0, "road")
    assert carry_over(run / "studio", other, photographs, index, progress=False).clicks == 1
    click(log, index, 1, "sky")
    report = carry_over(run / "studio", other, photographs, index, progress=False)
    assert (report.clicks, report.before) == (1, 1)
    assert [one.name for one in DecisionLog.open(other / "studio").state().clicks] == ["road", "sky"]
    size = (other / "studio" / "decisions.jsonl").stat().st_size
    assert carry_over(run / "studio", other, photographs, index, progress=False).clicks == 0
    assert (other / "studio" / "decisions.jsonl").stat().st_size == size
    third = tmp_path / "third"
    shutil.copytree(run / "embedder", third / "embedder")
    for source in (other, run):  # by way of the other run, and directly
        carry_over(source / "studio", third, photographs, index, progress=False)
    assert len(DecisionLog.open(third / "studio").state().clicks) == 2
    assert carry_over(third / "studio", run, photographs, index, progress=False).clicks == 0, "they come from there"


def test_the_same_clustering_takes_everything_as_it_is(
    copied: tuple[Path, Path], photographs: Path, tmp_path: Path
) -> None:
    run, _ = copied
    twin = shutil.copytree(run, tmp_path / "twin")
    log = named_run(run, photographs, 6)
    centroids = np.eye(8)[:2]
    log.append("split", cluster="6/1", parts=2, centroids=centroids)
    log.append("split", cluster="6/1.0", parts=2, centroids=centroids)
    log.append("name", cluster="6/1.0.1", name="kerb")
    log.append("leave_out", cluster="6/3")
    report = carry_over(run / "studio", twin, photographs, progress=False)
    assert (report.problems, report.notes) == ((), ())
    assert report.clusters == 8
    old, new = log.state(), DecisionLog.open(twin / "studio").state()
    assert (new.names, new.left_out, new.splits) == (old.names, old.left_out, old.splits)
    assert new.classes == old.classes
    again = carry_over(run / "studio", twin, photographs, progress=False)
    assert (again.clusters, again.clicks) == (0, 0), "what is decided there stays"


@pytest.mark.slow
def test_another_k_and_another_embedder_get_the_names_of_their_pixels(
    copied: tuple[Path, Path], photographs: Path
) -> None:
    run, other = copied
    log = named_run(run, photographs, 6)
    report = carry_over(run / "studio", other, photographs, k=5, device="cpu", progress=False)
    state = DecisionLog.open(other / "studio").state()
    assert report.clusters == len(state.names) >= 4
    assert share_right(other, photographs, 5) > 0.9
    assert state.colours["dark"] == (0x11, 0x22, 0x33)
    assert "compared on at most 100" in report.notes[0]
    report = carry_over(run / "studio", run, photographs, k=2, device="cpu", progress=False)
    assert report.problems == ()
    assert share_right(run, photographs, 2) > 0.9
    state = DecisionLog.open(run / "studio").state()
    assert set(state.named(2)) == {"2/0", "2/1"}
    assert state.named(6) == log.state().named(6)


@pytest.mark.slow
def test_parts_and_what_is_left_out_have_their_say(copied: tuple[Path, Path], photographs: Path) -> None:
    run, _ = copied
    log = DecisionLog.open(run / "studio")
    remember(log, load_clusters(run, 2))
    which = half(run, photographs, 2)
    bright = next(path for path in ("2/0", "2/1") if which(path) == "bright")
    log.append("name", cluster="2/1" if bright == "2/0" else "2/0", name="dark")
    log.append(
        "split",
        cluster=bright,
        parts=2,
        centroids=load_clusters(run, 2).centroids[[int(bright[-1])] * 2] * torch.tensor([[1.0], [-1.0]]),
    )
    log.append("leave_out", cluster=f"{bright}.0")
    log.append("name", cluster=f"{bright}.1", name="never")
    report = carry_over(run / "studio", run, photographs, k=6, device="cpu", progress=False)
    state, finely = DecisionLog.open(run / "studio").state(), half(run, photographs, 6)
    assert {finely(path) for path in state.left_out if path.startswith("6/")} == {"bright"}
    assert set(state.named(6).values()) == {"dark"}
    assert report.clusters == len(state.named(6)) + sum(path.startswith("6/") for path in state.left_out)


@pytest.mark.slow
def test_names_of_an_earlier_clustering_rest_until_they_are_carried(
    copied: tuple[Path, Path], photographs: Path
) -> None:
    run, _ = copied
    log = named_run(run, photographs, 6)
    cluster(run, photographs, k=(6,), seed=9, points=600, progress=False, device="cpu")
    assert remember(log, load_clusters(run, 6))
    assert log.state().names == {}
    report = carry_over(run / "studio", run, photographs, device="cpu", progress=False)
    log.refresh()
    assert report.clusters == len(log.state().names) >= 4
    assert share_right(run, photographs, 6) > 0.9
    log.undo()
    assert log.state().names == {}


@pytest.mark.slow
def test_what_can_not_be_carried_is_told(copied: tuple[Path, Path], photographs: Path, tmp_path: Path) -> None:
    run, other = copied
    log, index = named_run(run, photographs, 6), index_of(photographs)
    click(log, index, 0, "dark")
    where = {"hash": index.hashes[0], "name": index.names[0]}
    log.append("audit", image=where, point=[0, 0], predicted="dark", verdict="dark")
    text = (run / "studio" / "decisions.jsonl").read_bytes()
    (run / "studio" / "decisions.jsonl").write_bytes(text + b'{"torn')
    shutil.copytree(other / "embedder", run / "embedder", dirs_exist_ok=True)  # trained on
    torch.manual_seed(5)
    report = carry_over(run / "studio", shutil.copytree(other, tmp_path / "c"), photographs, index, progress=False)
    assert report.clicks == 1
    assert any(
        text.startswith("6 named or left out clusters of 6 could not be carried: the embedder")
        for text in report.problems
    )
    assert any("In the old log, the last line is cut off after 6 bytes" in text for text in report.problems)
    assert report.notes == (
        "Answers of audits were not carried over (1), because they judge what the other run predicted.",
    )
    bare = tmp_path / "bare"
    shutil.copytree(other / "embedder", bare / "embedder")
    report = carry_over(run / "studio", bare, photographs, progress=False)
    assert "1 click left out: the images have no content hashes here." in report.problems
    assert any("has no clusters yet" in text for text in report.problems)
    with pytest.raises(RunError, match="holds no decisions"):
        carry_over(tmp_path / "nowhere", other, photographs)


def test_a_click_of_its_own_outweighs_a_carried_one(copied: tuple[Path, Path], photographs: Path) -> None:
    run, other = copied
    index = index_of(photographs)
    old, new = DecisionLog.open(run / "studio"), DecisionLog.open(other / "studio")
    click(old, index, 0, "road")
    click(old, index, 1, "road")
    click(new, index, 0, "grass")
    report = carry_over(run / "studio", other, photographs, index, progress=False)
    assert report.problems == ("1 click left out, where this run has clicks of its own, in the images: photo0.",)
    new.refresh()
    assert [(one.image.name, one.name) for one in new.state().clicks] == [("photo0", "grass"), ("photo1", "road")]
    click(old, index, 1, "sky")  # what was carried is no click of its own: a later one of there corrects it
    assert carry_over(run / "studio", other, photographs, index, progress=False).clicks == 1


def test_a_click_of_its_own_outweighs_one_on_the_same_segment(copied: tuple[Path, Path], photographs: Path) -> None:
    run, other = copied
    store = RegionStore.build(other, photographs, device="cpu", progress=False)
    old, new = DecisionLog.open(run / "studio"), DecisionLog.open(other / "studio")

    def at(log: DecisionLog, image: int, level: float, point: list[float], name: str) -> None:
        where = {"hash": store.hashes[image], "name": store.names[image]}
        log.append("click", image=where, level=level, point=point, name=name)

    at(new, 0, 1000, [0.1, 0.5], "grass")
    at(old, 0, 1, [0.9, 0.5], "road")  # the whole image, which that segment lies in
    at(old, 0, 1000, [0.9, 0.5], "sky")
    at(old, 1, 1, [0.9, 0.5], "road")
    report = carry_over(run / "studio", other, photographs, store, progress=False)
    assert report.problems == ("1 click left out, where this run has clicks of its own, in the images: photo0.",)
    new.refresh()
    assert [(one.image.name, one.name) for one in new.state().clicks[1:]] == [("photo0", "sky"), ("photo1", "road")]


def test_copies_that_went_different_ways(copied: tuple[Path, Path], photographs: Path, tmp_path: Path) -> None:
    run, _ = copied
    index = index_of(photographs)
    click(DecisionLog.open(run / "studio"), index, 0, "road")
    twin = shutil.copytree(run, tmp_path / "twin")
    click(DecisionLog.open(run / "studio"), index, 1, "sky")
    click(DecisionLog.open(twin / "studio"), index, 2, "tree")
    report = carry_over(run / "studio", twin, photographs, index, progress=False)
    assert (report.clicks, report.before) == (1, 1)
    clicks = DecisionLog.open(twin / "studio").state().clicks
    assert [(one.image.name, one.name) for one in clicks] == [("photo0", "road"), ("photo2", "tree"), ("photo1", "sky")]


def test_entries_whose_seq_is_there_twice_keep_their_places(copied: tuple[Path, Path], photographs: Path) -> None:
    run, other = copied
    index = index_of(photographs)
    click(DecisionLog.open(run / "one"), index, 0, "road")
    DecisionLog.open(run / "two").append(
        "click", image={"hash": index.hashes[1], "name": index.names[1]}, level=9, point=[0.9, 0.9], name="sky"
    )
    (run / "studio").mkdir(exist_ok=True)
    text = b"".join((run / name / "decisions.jsonl").read_bytes() for name in ("one", "two"))
    (run / "studio" / "decisions.jsonl").write_bytes(text)
    assert carry_over(run / "studio", other, photographs, index, progress=False).clicks == 2
    before, after = (DecisionLog.open(each / "studio").state().clicks for each in (run, other))
    assert [one[1:] for one in before] == [one[1:] for one in after]
