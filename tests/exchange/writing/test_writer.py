import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.data.labelled.legend import Legend
from selfseg.errors import BadImage, ConfigError, LabelError, StorageError
from selfseg.exchange.base import NamedMask, write
from selfseg.exchange.writing.coco import CocoWriter
from selfseg.exchange.writing.places import open_place
from selfseg.exchange.writing.writer import Entry, JsonList, Writer

LEGEND = Legend.of(["a", "b"])
MASK = np.array([[0, 0, 255, 0], [255, 1, 255, 0]], np.uint8)


def test_things_are_classes_or_regions() -> None:
    entry = Entry(NamedMask("x", MASK), 0, LEGEND)
    assert [(one.value, one.area, one.box) for one in entry.things("class")] == [
        (0, 4, (0, 0, 4, 2)),
        (1, 1, (1, 1, 1, 1)),
    ]
    assert [(one.value, one.area, one.box) for one in entry.things("component")] == [
        (0, 2, (0, 0, 2, 1)),
        (0, 2, (3, 0, 1, 2)),
        (1, 1, (1, 1, 1, 1)),
    ]


@pytest.mark.parametrize("per", ["class", "component"])
def test_a_things_label_and_outlines_are_its_own(per: str) -> None:
    entry = Entry(NamedMask("x", MASK), 0, LEGEND)
    labels, ignored = entry.labels(per)  # type: ignore[arg-type]
    assert ((labels == ignored) == (MASK == 255)).all()
    for thing in entry.things(per):  # type: ignore[arg-type]
        assert (MASK[labels == thing.label] == thing.value).all()
        assert (labels == thing.label).sum() == thing.area
        outlines = entry.outlines(thing, per)  # type: ignore[arg-type]
        x, y = np.concatenate([polygon.outer for polygon in outlines]).T
        assert (x.min(), y.min(), np.ptp(x), np.ptp(y)) == thing.box


def test_a_mask_of_any_whole_numbers_is_kept_small() -> None:
    assert Entry(NamedMask("x", MASK.astype(np.int64)), 0, LEGEND).mask.dtype == np.uint8
    many = Legend.of([f"{i}" for i in range(256)])
    assert Entry(NamedMask("x", np.full((1, 1), 65_535)), 0, many).mask.tolist() == [[65_535]]


def test_per_is_class_or_component(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'pixel' is neither"):
        write("coco", [NamedMask("x", MASK)], LEGEND, tmp_path / "out", per="pixel")


def test_options_are_those_of_all_and_ones_own() -> None:
    assert Writer.options() == ("images", "per")
    assert CocoWriter.options() == ("images", "per", "shapes")


def photograph(path: Path, turned: int | None = None) -> Path:
    exif = Image.Exif()
    if turned is not None:
        exif[0x0112] = turned
    size = (4, 2) if turned in (None, 1, 3) else (2, 4)
    Image.new("RGB", size, (200, 10, 10)).save(path, exif=exif, quality=90)
    return path


def test_photographs_are_copied_as_they_are(tmp_path: Path) -> None:
    source = photograph(tmp_path / "x.jpg")
    write("yolo", [NamedMask("d/x.jpg", MASK, source)], LEGEND, tmp_path / "out", images=True)
    assert (tmp_path / "out" / "images" / "d" / "x.jpg").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("turned", [3, 6])
def test_photographs_that_exif_turns_are_turned(tmp_path: Path, turned: int) -> None:
    source = photograph(tmp_path / "x.jpg", turned)
    write("yolo", [NamedMask("x.jpg", MASK, source)], LEGEND, tmp_path / "out", images=True)
    with Image.open(tmp_path / "out" / "images" / "x.jpg") as image:
        assert image.size == (4, 2)
        assert image.getexif().get(0x0112, 1) == 1


def test_a_photograph_has_the_masks_size(tmp_path: Path) -> None:
    one = NamedMask("x.jpg", MASK.T, photograph(tmp_path / "x.jpg"))
    with pytest.raises(LabelError, match="the mask is 2x4, the photograph 4x2"):
        write("yolo", [one], LEGEND, tmp_path / "out", images=True)


def test_a_photograph_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its photograph is not known"):
        write("coco", [NamedMask("x.jpg", MASK)], LEGEND, tmp_path / "out", images=True)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    for name in ("gone.jpg", "broken.jpg"):
        with pytest.raises(BadImage, match=name):
            write("coco", [NamedMask("x.jpg", MASK, tmp_path / name)], LEGEND, tmp_path / "out", images=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_a_long_list_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place(tmp_path / "out")
    full = open("/dev/full", "w", encoding="utf-8")
    monkeypatch.setattr(place, "open", lambda name: full)
    values = JsonList(place, "list.json", "[")
    with pytest.raises(StorageError, match="no space left"):
        values.add("x" * 100_000)
    place.discard()
    with contextlib.suppress(OSError):
        full.close()
