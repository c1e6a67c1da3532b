"""The verbs take images that the program holds, and make of them what they make of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import selfseg
from conftest import draw_scene
from named_runs import make_run
from selfseg.errors import ConfigError

SCENES = {f"scene{seed}": draw_scene(seed)[0] for seed in range(3)}
QUIET: dict[str, Any] = {"device": "cpu", "progress": False}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, image in SCENES.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


def bytes_in(folder: Path, pattern: str) -> dict[str, bytes]:
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob(pattern)}
    assert found
    return found


@pytest.mark.slow
def test_masks_and_vectors_are_those_of_files(run: Path, files: Path, tmp_path: Path) -> None:
    for verb, pattern in ((selfseg.segment, "*.png"), (selfseg.embed, "*.npy")):
        out = tmp_path / verb.__name__
        verb(run, files, out / "files", **QUIET)
        verb(run, SCENES, out / "arrays", **QUIET)
        assert bytes_in(out / "files", pattern) == bytes_in(out / "arrays", pattern)
    selfseg.name_clusters(run, {0: "a", 3: "b"})
    segmenter = selfseg.load_segmenter(run, "cpu")
    selfseg.apply(segmenter, list(SCENES.values()), tmp_path / "masks", **QUIET)
    made = sorted((tmp_path / "masks/masks").glob("*.png"))
    assert [file.name for file in made] == ["000000.png", "000001.png", "000002.png"]
    for file, image in zip(made, SCENES.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), segmenter(image))


def test_a_second_call_goes_on_and_sees_what_changed(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "segments"
    selfseg.segment(run, SCENES, out, **QUIET)
    times = {file.name: file.stat().st_mtime_ns for file in (out / "index").glob("*.png")}
    other = SCENES | {"scene1": draw_scene(9)[0]}
    selfseg.segment(run, other, out, **QUIET)
    changed = [f.name for f in (out / "index").glob("*.png") if f.stat().st_mtime_ns != times[f.name]]
    assert changed == ["scene1.png"]


@pytest.mark.slow
def test_clusters_and_pages_take_arrays(run: Path, files: Path, tmp_path: Path) -> None:
    first = json.loads(selfseg.cluster(run, files, [3], points=300, **QUIET)[0].read_text())
    second = json.loads(selfseg.cluster(run, SCENES, [3], points=300, **QUIET)[0].read_text())
    assert first["clusters"] == second["clusters"]
    assert selfseg.load_clusters(run, 3).typical[0]
    selfseg.concepts(run, SCENES, k=3, **QUIET)
    page = selfseg.report(run, SCENES, **QUIET)
    assert "scene2" in page.read_text()
    selfseg.report(run, files, **QUIET)  # clusters of images that are gone are no reason to fail


@pytest.mark.slow
def test_masks_of_objects_take_arrays(files: Path, tmp_path: Path) -> None:
    for out, images in (("files", files), ("arrays", SCENES)):
        selfseg.mine_masks(images, tmp_path / "of" / out, method="rbd", progress=False)
    assert bytes_in(tmp_path / "of/files", "*.png") == bytes_in(tmp_path / "of/arrays", "*.png")
    with pytest.raises(ConfigError, match="channels are chosen of files"):
        selfseg.mine_masks(SCENES, tmp_path / "else", channels=["0"], progress=False)


def test_where_arrays_make_no_sense_it_is_said(run: Path) -> None:
    image = SCENES["scene0"]
    for call in (lambda: selfseg.evaluate(run, [image]), lambda: selfseg.check_data([image])):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="labelled data lies in a folder"):
            call()
    with pytest.raises(ConfigError, match="PixelClusterer takes arrays"):
        selfseg.recipes()["pyramid"]([image], run)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_studio_of_arrays_keeps_its_names(run: Path, tmp_path: Path) -> None:
    with selfseg.Studio(run, SCENES, device="cpu", progress=False) as studio:
        studio.name("5/0", "road")
        assert [one.name for one in studio.state().clusters].count("road") == 1
        with pytest.raises(ConfigError, match="in memory"):
            studio.take_labels(tmp_path)
    with selfseg.Studio(run, SCENES, device="cpu", progress=False) as again:
        assert [one.name for one in again.state().clusters].count("road") == 1
