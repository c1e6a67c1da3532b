"""What the writers write, the readers read: the same pixels, and the same classes where the format can hold them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import exchange.odd_masks as odd
from selfseg.data.labelled.legend import Legend
from selfseg.errors import LabelError
from selfseg.exchange import FORMATS, NamedMask, read, write
from selfseg.exchange.reading.recognise import recognise

WAYS: list[tuple[str, dict[str, Any]]] = [
    ("palette", {}),
    ("coco", {}),
    ("coco", {"per": "component"}),
    ("coco", {"shapes": "polygons"}),
    ("cvat", {}),
    ("datumaro", {}),
    ("label-studio", {}),
    ("label-studio", {"predictions": True}),
    ("geojson", {}),
    ("geojson", {"per": "component"}),
    ("yolo", {}),
]


def photographs(masks: list[NamedMask], folder: Path) -> Path:
    """Images of the masks' names and sizes."""
    for one in masks:
        path = folder / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", one.size[::-1]).save(path, format="PNG" if path.suffix != ".jpg" else "JPEG")
    return folder


def plain() -> list[NamedMask]:
    """All odd masks, under plain names with folders and spaces."""
    masks = odd.odd_masks(255)
    return [NamedMask(f"some day/{name}.jpg", mask[:20, :20]) for name, mask in masks.items()]


@pytest.mark.parametrize(
    ("format", "options", "zipped"),
    [(*way, False) for way in WAYS] + [(name, {}, True) for name in FORMATS],
    ids=lambda value: str(value),
)
def test_masks_come_back_pixel_for_pixel(format: str, options: dict[str, Any], zipped: bool, tmp_path: Path) -> None:
    masks, legend = plain(), odd.legend()
    folder = photographs(masks, tmp_path / "photos")
    out = write(format, masks, legend, tmp_path / ("out.zip" if zipped else "out"), **options)
    assert recognise(out) == format
    found, read_back = read("auto" if zipped else format, out, images=folder)
    by_name = {one.name: one for one in read_back}
    assert len(found.classes) == len(legend.classes)
    assert by_name.keys() == {one.name for one in masks}
    for one in masks:
        np.testing.assert_array_equal(by_name[one.name].mask, one.mask, err_msg=one.name)
        assert by_name[one.name].image == folder / one.name
    if format in ("palette", "coco", "datumaro", "geojson"):
        assert found == legend
    else:  # names on one line each, without spaces at the ends, all different
        assert found.names[:2] == ("road", "sky_ blue" if format == "cvat" else "sky: blue")


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"yolo"}))
def test_labels_without_their_photographs_have_sizes_and_no_image(format: str, tmp_path: Path) -> None:
    values = {"a/b.png": np.array([[0, 1, 255]], np.uint8), "void.png": np.full((2, 3), 255, np.uint8)}
    masks = [NamedMask(name, mask) for name, mask in values.items()]
    legend = Legend.of(["x", "y"], {"x": (1, 2, 3), "y": (4, 5, 6)})
    found, read_back = read("auto", write(format, masks, legend, tmp_path / "out"))
    by_name = {one.name: one for one in read_back}
    assert found == legend
    assert by_name.keys() - {"void.png"} == {"a/b.png"}
    for name, one in by_name.items():
        assert one.image is None
        np.testing.assert_array_equal(one.mask, values[name])


@pytest.mark.parametrize("format", ["palette", "cvat", "coco", "datumaro", "geojson"])
def test_more_classes_than_a_byte_holds(format: str, tmp_path: Path) -> None:
    legend, masks = odd.many_classes()
    folder = photographs(masks, tmp_path / "photos")
    kept = masks[1:] if format == "cvat" else masks
    found, read_back = read(format, write(format, kept, legend, tmp_path / "out"), images=folder)
    assert len(found.classes) == 300
    by_name = {one.name: one for one in read_back}
    for one in kept:
        assert by_name[one.name].mask.dtype == np.uint16
        np.testing.assert_array_equal(by_name[one.name].mask, one.mask)


def test_odd_names_find_their_photographs(tmp_path: Path) -> None:
    """Of all names that a file can have, and that don't lead out of the folder."""
    names = [name for name in odd.NAMES if not name.startswith(("../", "/", ".hidden")) and name != "no suffix"]
    values = {name: np.full((9, 9 + i), i % 3, np.uint8) for i, name in enumerate(names)}
    masks = [NamedMask(name, mask) for name, mask in values.items()]
    folder = photographs(masks, tmp_path / "photos")
    for format in FORMATS:
        _, read_back = read(format, write(format, masks, odd.legend(), tmp_path / format), images=folder)
        found = {one.name: one for one in read_back}
        missing = {name for name in names if name not in found or found[name].image is None}
        assert not missing, format
        for name in names:
            np.testing.assert_array_equal(found[name].mask, values[name])


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_names_that_lead_out_of_the_folder_never_come_back(format: str, tmp_path: Path) -> None:
    masks = [NamedMask(name, np.zeros((9, 9), np.uint8)) for name in ("../outside.jpg", "/etc/absolute.jpg")]
    out = write(format, masks, odd.legend(), tmp_path / "out")
    left_out: list[str] = []
    try:
        _, read_back = read(format, out, left_out=left_out)
        names = [one.name for one in read_back]
    except LabelError:
        return
    assert not any(".." in name or name.startswith("/") for name in names)


@pytest.mark.parametrize("format", FORMATS)
def test_a_name_with_dots_is_never_taken_for_a_shorter_one(format: str, tmp_path: Path) -> None:
    one = NamedMask("img.b.jpg", np.ones((8, 8), np.uint8), tmp_path / "photos" / "img.b.jpg")
    folder = photographs([one, NamedMask("img.jpg", one.mask)], tmp_path / "photos")
    written = write(format, [one], Legend.of(["road", "sky"]), tmp_path / "out")
    assert [found.name for found in read(format, written, images=folder)[1]] == ["img.b.jpg"]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("with_images", [True, False])
@pytest.mark.parametrize(
    ("format", "file"),
    [("coco", "annotations.json"), ("label-studio", "tasks.json"), ("datumaro", "annotations/default.json")],
)
def test_renamed_json_is_read_with_a_folder_and_with_its_file(
    format: str, file: str, with_images: bool, whole: bool, tmp_path: Path
) -> None:
    one = NamedMask("a/#x.jpg", np.zeros((8, 8), np.uint8), tmp_path / "photos" / "a" / "#x.jpg")
    folder = photographs([one], tmp_path / "photos")
    written = write(format, [one], Legend.of(["road"]), tmp_path / "out", images=with_images)
    (found,) = read("auto", written if whole else written / file, images=folder)[1]
    assert (found.name, found.image) == (one.name, one.image)


@pytest.mark.parametrize(("format", "file"), [("label-studio", "tasks.json"), ("geojson", "a.geojson")])
def test_a_single_file_has_the_classes_that_are_told_beside_it(format: str, file: str, tmp_path: Path) -> None:
    legend = Legend.of(["zebra", "ant", "unused"], {"zebra": (1, 2, 3)})
    written = write(format, [NamedMask("a.jpg", np.array([[0, 1]], np.uint8))], legend, tmp_path / "out")
    assert read("auto", written / file)[0] == legend
