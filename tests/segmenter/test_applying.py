import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from selfseg.data.labelled.classes_file import parse_classes
from selfseg.data.labelled.labels import read_label_file
from selfseg.data.labelled.legend import Legend
from selfseg.errors import RunError, TooManyBadImages
from selfseg.models.embedder import Embedder
from selfseg.segmenter import applying
from selfseg.segmenter.applying import apply
from selfseg.segmenter.segmenter import Segmenter, load_segmenter
from selfseg.studio.carrying.naming import name_clusters

NAMES = {0: "road", 1: "sky", 2: "tree", 3: "road"}
COLOURS = {"road": (128, 64, 128), "sky": (1, 2, 3), "tree": (4, 5, 6)}


@pytest.fixture
def named_run(run: Path) -> Path:
    name_clusters(run, NAMES, colours=COLOURS)
    return run


def test_masks_are_palette_pngs_and_their_values_the_classes(named_run: Path, photos: Path, tmp_path: Path) -> None:
    segmenter = load_segmenter(named_run, "cpu")
    assert apply(named_run, photos, tmp_path / "out", device="cpu", progress=False) == tmp_path / "out"
    counts = np.zeros(256)
    for path in sorted(photos.iterdir()):
        expected = segmenter(path)
        file = tmp_path / "out" / "masks" / f"{path.stem}.png"
        with Image.open(file) as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), expected)
            shown = np.asarray(image.convert("RGB"))
        table = np.zeros((256, 3), np.uint8)
        table[:3] = list(COLOURS.values())
        assert np.array_equal(shown, table[expected])
        assert np.array_equal(read_label_file(file), expected)  # as labels are read
        assert cv2.imread(str(tmp_path / "out" / "overlay" / f"{path.stem}.jpg")).shape[:2] == expected.shape
        counts += np.bincount(expected.ravel(), minlength=256)
    legend = json.loads((tmp_path / "out" / "legend.json").read_text())
    assert Legend.from_json(legend["classes"]) == segmenter.legend
    shares = [one["share"] for one in legend["classes"]]
    np.testing.assert_allclose(shares, counts[:3] / counts.sum())
    assert legend["void"] == {"value": 255, "colour": "#000000", "share": counts[255] / counts.sum()}
    assert counts[255] > 0
    assert (legend["images"], legend["segmenter"]) == (6, segmenter.digest())
    assert (tmp_path / "out" / "classes.txt").read_text() == (
        "0 road  #804080\n1 sky  #010203\n2 tree  #040506\n255 void  #000000\n"
    )


def test_what_is_void_shows_the_photograph(named_run: Path, photos: Path, tmp_path: Path) -> None:
    segmenter = load_segmenter(named_run, "cpu")
    segmenter.table[:] = -1
    segmenter.table[0] = 0
    segmenter.bias[0] = -1000
    apply(segmenter, photos, tmp_path / "out", progress=False)
    before = cv2.imread(str(photos / "photo0.jpg")).astype(int)
    after = cv2.imread(str(tmp_path / "out" / "overlay" / "photo0.jpg")).astype(int)
    assert np.abs(before - after).mean() < 4  # JPEG's


def test_a_stopped_call_goes_on(named_run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    apply(named_run, photos, out, progress=False)
    masks = sorted((out / "masks").glob("*.png"))
    first = (out / "legend.json").read_text()
    before = [path.stat().st_mtime_ns for path in masks]
    masks[1].unlink()
    (out / "legend.json").unlink()
    (out / "overlay" / "photo2.jpg").unlink()
    with (out / "progress.jsonl").open("a") as journal:
        journal.write('{"name": "photo0", "segm')  # cut off
    apply(named_run, photos, out, progress=False)
    made_anew = [path.name for path, time in zip(masks, before, strict=True) if path.stat().st_mtime_ns != time]
    assert made_anew == ["photo1.png", "photo2.png"]
    assert (out / "legend.json").read_text() == first


@pytest.mark.slow
def test_another_segmenter_or_image_is_done_anew(named_run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    apply(named_run, photos, out, overlays=False, progress=False)
    assert not (out / "overlay").exists()
    name_clusters(named_run, {0: "sky"})
    (photos / "photo5.jpg").write_bytes((photos / "photo4.jpg").read_bytes())
    apply(named_run, photos, out, overlays=False, progress=False)
    segmenter = load_segmenter(named_run, "cpu")
    for path in photos.iterdir():
        assert np.array_equal(read_label_file(out / "masks" / f"{path.stem}.png"), segmenter(path))
    (photos / "photo4.jpg").write_bytes((photos / "photo3.jpg").read_bytes())
    apply(named_run, photos, out, overlays=False, progress=False)
    assert np.array_equal(read_label_file(out / "masks" / "photo4.png"), segmenter(photos / "photo3.jpg"))
    # Back to the first one: what the second wrote over it is not taken for its own.
    first = name_clusters(named_run, {0: "road"})
    apply(first, photos, out, overlays=False, progress=False)
    again = load_segmenter(first, "cpu")
    assert np.array_equal(read_label_file(out / "masks" / "photo0.png"), again(photos / "photo0.jpg"))


def test_bad_images_are_skipped_and_listed(named_run: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(TooManyBadImages):
        apply(named_run, photos, tmp_path / "out", progress=False)
    apply(named_run, photos, tmp_path / "out", max_bad=0.5, progress=False)
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == 6
    assert json.loads((tmp_path / "out" / "skipped.jsonl").read_text())["name"] == "bad"
    with pytest.raises(RunError, match="no run and no segmenter"):
        apply(tmp_path / "none", photos, tmp_path / "out", progress=False)


def test_many_classes_are_gray_of_16_bits(run: Path, photos: Path, tmp_path: Path) -> None:
    weight = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    many = Segmenter(Embedder.load(run / "embedder"), Legend.of([f"c {i}" for i in range(300)]), weight)
    apply(many, photos, tmp_path / "out", progress=False)
    found = read_label_file(tmp_path / "out" / "masks" / "photo0.png").astype(int)
    assert np.array_equal(found, many(photos / "photo0.jpg"))
    assert found.max() > 255
    assert "65535" in (tmp_path / "out" / "classes.txt").read_text()


def test_what_another_segmenter_made_is_never_under_this_ones_names(
    named_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, first = tmp_path / "out", load_segmenter(named_run, "cpu")
    apply(first, photos, out, progress=False)
    second = load_segmenter(name_clusters(named_run, {0: "sky", 1: "road"}), "cpu")
    (photos / "photo5.jpg").rename(photos / "gone.jpg")
    real = applying.map_embedded

    def stops(*given: Any, **more: Any) -> Iterator[Any]:
        for number, found in enumerate(real(*given, **more)):
            if number == 2:
                raise KeyboardInterrupt
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(applying, "map_embedded", stops)
        with pytest.raises(KeyboardInterrupt):
            apply(second, photos, out, progress=False)
    told = json.loads((out / "legend.json").read_text())
    assert (Legend.from_json(told["classes"]), told["segmenter"]) == (second.legend, second.digest())
    listed = parse_classes((out / "classes.txt").read_text(), "classes.txt")
    assert listed.legend() == second.legend
    masks = {path.stem: read_label_file(path) for path in (out / "masks").glob("*.png")}
    assert {"gone", "photo0"} <= set(masks)  # others may have been made ahead
    assert "photo5" not in masks
    for name, mask in masks.items():
        assert np.array_equal(mask, second(photos / f"{name}.jpg")), name
    apply(second, photos, out, progress=False)
    for path in photos.iterdir():
        assert np.array_equal(read_label_file(out / "masks" / f"{path.stem}.png"), second(path))
    assert len(list((out / "masks").glob("*.png"))) == 6


def test_overlays_are_of_the_same_segmenter_and_image(named_run: Path, photos: Path, tmp_path: Path) -> None:
    def overlays(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / "overlay").glob("*.jpg")}

    out = tmp_path / "out"
    apply(named_run, photos, out, progress=False)
    red = load_segmenter(name_clusters(named_run, {}, colours={"road": (255, 0, 0)}), "cpu")
    apply(red, photos, out, overlays=False, progress=False)
    assert overlays(out) == {}
    apply(red, photos, out, progress=False)
    apply(red, photos, tmp_path / "anew", progress=False)
    assert overlays(out) == overlays(tmp_path / "anew") != {}
    apply(red, photos, out, overlays=False, progress=False)
    assert len(overlays(out)) == 6, "they are still right"
    (photos / "photo4.jpg").write_bytes((photos / "photo3.jpg").read_bytes())
    apply(red, photos, out, overlays=False, progress=False)
    assert "photo4.jpg" not in overlays(out)
