from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from selfseg import mine_masks
from selfseg.cli import main
from selfseg.collection.batching.room import AUTO
from selfseg.data.labelled.mask_files import MaskFolder, survey
from selfseg.data.reading import ahead
from selfseg.data.reading.listing import list_images
from selfseg.errors import ConfigError, DataError, EmptyCollection, TooManyBadImages
from selfseg.masks import mining
from selfseg.masks.cleaning import Cleaning
from selfseg.masks.mining import Method
from selfseg.masks.networks.learning import NetworkConfig
from selfseg.masks.priors.by_name import saliency
from selfseg.masks.sources import SOURCES, Training
from selfseg.workers.plan import HERE


def note(out: Path) -> dict[str, Any]:
    return json.loads((out / "masks.json").read_text())


def box(path: Path, ground: int = 90, colour: tuple[int, int, int] = (220, 50, 40), mode: str | None = None) -> None:
    """A photograph of a coloured box on a plain ground."""
    image = np.full((90, 120, 3), ground, np.uint8)
    image[20:60, 40:90] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image)
    (picture.convert(mode) if mode else picture).save(path)


@pytest.mark.parametrize("method", [method for method in get_args(Method) if method not in SOURCES])
def test_every_method_writes_masks_that_can_be_read(method: Method, tmp_path: Path) -> None:
    for i in range(3):
        box(tmp_path / "photos" / "sub" / f"{i}.png", ground=80 + 10 * i)
    page = mine_masks(tmp_path / "photos", tmp_path / "masks", method, progress=False)
    assert page == tmp_path / "masks" / "masks.html"
    assert "<h2>Masks</h2>" in page.read_text()
    result = survey(MaskFolder(tmp_path / "masks"), list_images(tmp_path / "photos"))
    assert (len(result.usable), result.objects) == (3, 3)
    ids = result.folder.get("sub/1", 90, 120)
    truth = np.zeros((90, 120), bool)
    truth[20:60, 40:90] = True
    assert ((ids == 0) & truth).sum() / ((ids == 0) | truth).sum() > 0.85
    assert note(tmp_path / "masks")["how"]["method"] == method


def test_the_map_is_the_priors(photos: Path, tmp_path: Path) -> None:
    mine_masks(photos, tmp_path / "masks", "ranking", Cleaning(min_area=0), progress=False)
    soft = np.asarray(Image.open(tmp_path / "masks" / "soft" / "photo2.png"))
    np.testing.assert_array_equal(soft, np.rint(255 * saliency(list_images(photos).read(2), "ranking")))


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_odd_images_are_used_or_skipped_with_the_reason(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name, mode in (("gray", "L"), ("palette", "P"), ("clear", "RGBA"), ("plain", None)):
        box(photos / f"{name}.png", mode=mode)
    sixteen = np.full((90, 120), 9000, np.uint16)
    sixteen[20:60, 40:90] = 50000
    Image.fromarray(sixteen).save(photos / "sixteen.png")
    Image.fromarray(np.full((90, 120, 3), 90, np.uint8)).save(photos / "uniform.png")
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(photos / "speck.png")
    (photos / "cut.png").write_bytes((photos / "plain.png").read_bytes()[:150])
    (photos / "words.jpg").write_text("not a picture")
    with pytest.raises(TooManyBadImages, match="3 of 9 images can't be used"):  # all at once, not the first alone
        mine_masks(photos, tmp_path / "masks", "mean", progress=False)
    assert not (tmp_path / "masks" / "soft").exists()
    mine_masks(photos, tmp_path / "masks", "mean", progress=False, max_bad=0.5)
    values = note(tmp_path / "masks")
    assert values["kept"] == 5
    assert [(entry["name"], entry["reason"]) for entry in values["rejected_images"]] == [("uniform", "empty")]
    assert {entry["name"] for entry in values["skipped_images"]} == {"cut", "words", "speck"}
    assert len((tmp_path / "masks" / "skipped.jsonl").read_text().splitlines()) == 3


def test_an_image_that_is_removed_meanwhile_is_skipped_with_the_reason(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine_masks(photos, tmp_path / "masks", "mean", progress=False)
    for path in photos.iterdir():
        os.utime(path, (1, 1))  # all are to be made anew
    made = 0

    def find(image: np.ndarray, *how: Any) -> Any:
        nonlocal made
        if made == 2:
            (photos / "photo2.jpg").unlink(missing_ok=True)  # two threads may come here
        made += 1
        return find_objects(image, *how)

    find_objects = mining.find_objects
    monkeypatch.setattr(mining, "find_objects", find)
    mine_masks(photos, tmp_path / "masks", "mean", progress=False, max_bad=0.5)
    values = note(tmp_path / "masks")
    assert values["skipped_images"] == [{"name": "photo2", "reason": "missing"}]
    assert values["kept"] + values["rejected"] == 5
    assert not list((tmp_path / "masks").rglob("photo2.png"))  # not even the one of the earlier call


def test_an_interrupted_call_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Any] = []

    def find(image: np.ndarray, *how: Any) -> Any:
        looked_at.append(image)
        if len(looked_at) == 3:
            raise KeyboardInterrupt
        return find_objects(image, *how)

    find_objects = mining.find_objects
    monkeypatch.setattr(mining, "find_objects", find)
    with pytest.raises(KeyboardInterrupt):
        mine_masks(photos, tmp_path / "masks", "mean", progress=False)
    assert not (tmp_path / "masks" / "masks.html").exists()
    done = len((tmp_path / "masks" / "progress.jsonl").read_text().splitlines())
    assert 1 <= done <= 3  # several are looked at at once
    looked_at = [None] * 3
    mine_masks(photos, tmp_path / "masks", "mean", progress=False)
    assert len(looked_at) == 3 + 6 - done
    mine_masks(photos, tmp_path / "masks", "mean", progress=False)
    assert len(looked_at) == 3 + 6 - done
    mine_masks(photos, tmp_path / "masks", "mean", cleaning=Cleaning(threshold=0.4), progress=False)
    assert len(looked_at) == 3 + 6 - done + 6
    assert note(tmp_path / "masks")["count"] == 6


@pytest.mark.parametrize("method", ["mean", "hierarchy", pytest.param("features", marks=pytest.mark.slow)])
def test_the_number_of_threads_changes_nothing(
    method: Method, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for threads in (1, 4):
        monkeypatch.setattr(ahead, "usable_cores", lambda threads=threads: threads)
        out = tmp_path / str(threads)
        mine_masks(photos, out, method, progress=False)
        written.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")})
    assert len(written[0]) > 6
    assert written[0] == written[1]


def test_nothing_usable_is_an_error_that_shows_the_page(tmp_path: Path) -> None:
    for i in range(3):
        box(tmp_path / "photos" / f"{i}.png", colour=(90, 90, 90))
    with pytest.raises(EmptyCollection, match=r"none of the 3 images has a usable mask; .*masks\.html"):
        mine_masks(tmp_path / "photos", tmp_path / "masks", "mean", progress=False)
    page = (tmp_path / "masks" / "masks.html").read_text()
    assert "3 empty (nothing stands out enough, or only specks)" in page
    (tmp_path / "none").mkdir()
    with pytest.raises(EmptyCollection, match="holds no image"):
        mine_masks(tmp_path / "none", tmp_path / "more", progress=False)


def test_maps_are_measured_beside_labels(labelled: Path, tmp_path: Path) -> None:
    images = labelled / "val" / "images"
    mine_masks(images, tmp_path / "masks", "contrast", labels=labelled, split="val", progress=False)
    quality = note(tmp_path / "masks")["quality"]
    assert quality["images"] == 4
    assert 0 < quality["iou"] < 1
    assert f"{quality['f_max']:.3f}" in (tmp_path / "masks" / "masks.html").read_text()
    with pytest.raises(DataError, match="none of the 6 labelled images"):
        mine_masks(images, tmp_path / "masks", "mean", labels=labelled, split="train", progress=False)


def test_what_can_not_work_is_refused_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no saliency prior 'deep'"):
        mine_masks(photos, tmp_path / "masks", "deep")  # type: ignore[arg-type]
    with pytest.raises(DataError):
        mine_masks(photos, tmp_path / "masks", labels=tmp_path / "absent")
    assert not (tmp_path / "masks").exists()


def test_the_words_of_the_command_reach_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("selfseg.cli.masks.mine_masks", lambda *a, **n: seen.append((a, n)) or Path("page"))
    words = "masks photos --out masks --method markov --threshold otsu --min-piece 0.02 --min-area 0.03 --max-area 0.8"
    data = "--labels data --split val --max-bad 0.5"
    networks = "--train-images simple --train-masks drawn --device cpu --network.steps 7"
    assert main([*words.split(), *data.split(), *networks.split()]) == 0
    cleaning = Cleaning("otsu", 0.02, 0.03, 0.8)
    training = Training(NetworkConfig(steps=7), Path("simple"), Path("drawn"), "cpu")
    named = {
        "labels": Path("data"),
        "split": "val",
        "max_bad": 0.5,
        "training": training,
        "window": None,
        "channels": (),
        "pages": "auto",
        "where": HERE,
        "batch": AUTO,
    }
    assert seen == [((Path("photos"), Path("masks"), "markov", cleaning), named)]
    assert "written: page" in " ".join(capsys.readouterr().out.split())
    assert main("masks photos --out masks --threshold 0.3".split()) == 0
    assert seen[1][0][2:] == ("features", Cleaning(0.3))
    assert main("masks photos --out masks --threshold 7".split()) == 2
    assert "a threshold must be above 0 and at most 1, e.g. 0.5, not 7.0" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_the_command_does_it(tmp_path: Path) -> None:
    box(tmp_path / "photos" / "a.png")
    words = ["masks", str(tmp_path / "photos"), "--out", str(tmp_path / "masks"), "--method", "hierarchy"]
    done = subprocess.run([sys.executable, "-m", "selfseg", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "masks.html" in done.stdout
    assert MaskFolder(tmp_path / "masks").get("a", 90, 120).max() == 0
