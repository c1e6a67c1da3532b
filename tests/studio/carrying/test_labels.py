"""Labels that a person already has, in the studio."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import draw_scene
from selfseg.cli import main
from selfseg.data.labelled.legend import Legend
from selfseg.errors import DataError
from selfseg.exchange import NamedMask, write
from selfseg.studio.beliefs import NONE
from selfseg.studio.carrying.labels import MOST, _middles, _segments
from selfseg.studio.studio import Studio

NAMES = ["sky", "ground"]


@pytest.fixture
def studio(run: Path, scenes: Path) -> Iterator[Studio]:
    with Studio(run, scenes, device="cpu", progress=False, max_bad=0.5) as studio:
        yield studio


def halves(scenes: Path, number: int = 1) -> np.ndarray:
    """(H, W): the upper half is class 0, the lower one 1, between them void."""
    height, width = np.asarray(Image.open(scenes / f"scene {number}.png")).shape[:2]
    mask = np.full((height, width), 255, np.uint8)
    mask[: height // 2 - 2] = 0
    mask[height // 2 + 2 :] = 1
    return mask


def labels_of(scenes: Path, out: Path, names: list[str], masks: dict[str, np.ndarray]) -> Path:
    """A COCO file."""
    masked = [NamedMask(name, mask, scenes / name) for name, mask in masks.items()]
    return write("coco", masked, Legend.of(names), out)


def test_a_tree_is_cut_into_the_largest_segments_of_one_class() -> None:
    tree = np.array([[0, 1, 0.1], [2, 3, 0.2], [5, 4, 0.3], [6, 7, 1]], np.float32)  # ((0 1) 4) (2 3), n = 5
    counts = np.array([[10, 0, 0], [9, 0, 1], [0, 8, 2], [2, 2, 0], [1, 0, 9]])  # the last column is void
    found = {tuple(sorted(rows.tolist())): (level, label) for rows, level, label in _segments(tree, counts)}
    # 0 and 1 are one; 4 is hardly labelled, which is little beside them; 2 is of one class, 3 of none in particular.
    assert found == {(0, 1, 4): (2.0, 0), (2,): (5.0, 1)}


def test_the_place_of_a_region_lies_in_it() -> None:
    ring = np.zeros((9, 9), np.uint16)
    ring[2:7, 2:7] = 1
    ring[4, 4] = 2
    places = _middles(ring, 4)  # the last has no pixel
    assert np.isnan(places[3]).all()
    for region, (x, y) in enumerate(places[:3]):
        assert ring[int(y * 9), int(x * 9)] == region


def test_labels_become_clicks_that_can_be_taken_back_at_once(studio: Studio, scenes: Path, tmp_path: Path) -> None:
    mask = halves(scenes)
    labels = labels_of(scenes, tmp_path / "coco", ["ground", "sky"], {"scene 1.png": mask})
    report = studio.take_labels(labels)
    assert (report.images, report.kept, report.elsewhere, report.problems) == (1, 0, (), ())
    assert 2 <= report.clicks <= 2 * MOST
    assert 0.5 < report.covered <= 1
    assert f"{report.clicks} clicks" in report.sentence
    state = studio.state()
    assert [one.name for one in state.classes] == ["ground", "sky"]
    image = studio.store.names.index("scene 1")
    superpixels, _ = studio.regions(image)
    believed = studio.prediction(image).classes[superpixels]
    shown = np.asarray(Image.fromarray(mask).resize(superpixels.shape[::-1], Image.Resampling.NEAREST))
    assert (believed == shown)[shown < 255].mean() > 0.9
    studio.undo()
    assert studio.state().classes == []
    assert (studio.prediction(image).classes == NONE).all()


def test_labels_are_not_taken_twice_and_own_clicks_stay(studio: Studio, scenes: Path, tmp_path: Path) -> None:
    labels = labels_of(scenes, tmp_path / "coco", ["ground", "sky"], {"scene 1.png": halves(scenes)})
    image = studio.store.names.index("scene 1")
    first = studio.take_labels(labels)
    again = studio.take_labels(labels)
    assert (again.clicks, again.before) == (0, first.clicks)
    assert "already had what the labels say" in again.sentence
    studio.undo()
    studio.click(image, [(0.5, 0.1)], 2, "cloud")
    third = studio.take_labels(labels)
    assert third.kept >= 1
    assert third.clicks < first.clicks
    superpixels, _ = studio.regions(image)
    cloud = [one.name for one in studio.state().classes].index("cloud")
    region = superpixels[int(0.1 * superpixels.shape[0]), superpixels.shape[1] // 2]
    assert studio.prediction(image).classes[region] == cloud


def test_what_cannot_be_used_is_told(studio: Studio, scenes: Path, tmp_path: Path) -> None:
    thin = np.full_like(halves(scenes), 255)
    thin[::9, ::9] = 0  # dots
    other = np.zeros((8, 8), np.uint8)
    Image.fromarray(other).convert("RGB").save(tmp_path / "elsewhere.png")
    folder = tmp_path / "labels"
    folder.mkdir()
    masks = [
        NamedMask("scene 1.png", thin, scenes / "scene 1.png"),
        NamedMask("elsewhere.png", other, tmp_path / "elsewhere.png"),
    ]
    report = studio.take_labels(write("coco", masks, Legend.of(["dot"]), folder / "coco"))
    assert report.clicks == 0
    assert report.elsewhere == ("elsewhere.png",)
    assert "1 labelled image is not in this collection: elsewhere.png." in report.sentence
    assert "say nothing about any whole superpixel" in report.sentence
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError):
        studio.take_labels(tmp_path / "broken.json")
    assert studio.state().undoes == ""


@pytest.mark.slow
def test_the_command_says_what_became_of_them(
    run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(studio: Studio, *_: object, **__: object) -> None:
        assert [one.name for one in studio.state().classes] == ["sky", "ground"]

    monkeypatch.setattr("selfseg.studio.server.serving.serve", serve)
    _, truth = draw_scene(1)
    mask = np.where(truth < 2, truth, 255).astype(np.uint8)
    labels = labels_of(scenes, tmp_path / "coco", NAMES, {"scene 1.png": mask})
    words = ["studio", str(run), str(scenes), "--labels", str(labels), "--device", "cpu", "--max-bad", "0.5"]
    assert main(words) == 0
    assert "The labels of 1 image became" in capsys.readouterr().out
