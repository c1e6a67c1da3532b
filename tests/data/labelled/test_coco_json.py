"""COCO JSON of any origin: each oddity has its right value, or is refused with image, annotation and reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfseg.data.labelled.coco_json import CocoFile, image_size, inner_path, read_coco
from selfseg.errors import DataError, LabelError

SIZE = (20, 30)
SQUARE = [[10, 5, 15, 5, 15, 12, 10, 12]]
IMAGE = {"id": 1, "file_name": "a.jpg", "height": 20, "width": 30}


def content(annotation: Any = None, **lists: Any) -> dict[str, Any]:
    """A file with a good object, after that `annotation`."""
    good = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": SQUARE, "bbox": [10, 5, 5, 7], "area": 35}
    return {
        "images": [IMAGE, {"id": 2, "file_name": "b/c.jpg", "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "nowhere"}],
        "annotations": [{**good, "iscrowd": 0}, *([] if annotation is None else [annotation])],
        **lists,
    }


def opened(tmp_path: Path, value: Any, **options: Any) -> CocoFile:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(value))
    return read_coco(path, **options)


def annotation(**fields: Any) -> dict[str, Any]:
    return {"id": 17, "image_id": 2, "category_id": 3, "segmentation": SQUARE, **fields}


def test_a_plain_file(tmp_path: Path) -> None:
    found = opened(tmp_path, content())
    assert [(image.id, image.name, image.size) for image in found.images] == [
        (1, "a.jpg", SIZE),
        (2, "b/c.jpg", SIZE),
    ]
    assert [category.name for category in found.categories] == ["cat", "nowhere"]  # also without an object
    (item,) = found.objects
    assert (item.box, item.area, item.crowd, item.id) == ((10, 5, 15, 12), 35, False, "1")
    expected = np.zeros(SIZE, bool)
    expected[5:12, 10:15] = True
    np.testing.assert_array_equal(item.mask(SIZE), expected)
    assert item.segmentation(SIZE) == SQUARE
    assert [len(objects) for objects in found.by_image()] == [1, 0]


def test_what_is_missing_comes_from_the_mask(tmp_path: Path) -> None:
    for box in ({}, {"bbox": None}, {"bbox": []}, {"bbox": [10, 5, 0, 7]}, {"bbox": [10, 5, 0, 0]}):
        item = opened(tmp_path, content(annotation(**box))).objects[1]
        assert (item.box, item.area, item.crowd) == ((10, 5, 15, 12), 35, False)


@pytest.mark.parametrize("stored", ["list", "text"])
def test_run_lengths(tmp_path: Path, stored: str) -> None:
    coder = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random(SIZE) < 0.3
    packed = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    flat = mask.T.reshape(-1)
    lengths = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    counts = packed if stored == "text" else ([0, *lengths] if flat[0] else lengths)
    value = annotation(segmentation={"size": [20, 30], "counts": counts}, iscrowd=1)
    item = opened(tmp_path, content(value)).objects[1]
    np.testing.assert_array_equal(item.mask(SIZE), mask)
    assert item.crowd
    assert item.area == mask.sum()
    assert coder.area(coder.frPyObjects(item.segmentation(SIZE), *SIZE)) == mask.sum()


def test_ids_as_text(tmp_path: Path) -> None:
    numbers = content(
        annotation(id="x-1", image_id="2", category_id=" 3 "),
        images=[{**IMAGE, "id": "10"}, {**IMAGE, "id": 2.0, "file_name": "b.jpg"}],
        annotations=[annotation(id="x-1", image_id="2", category_id=" 3 "), annotation(image_id=10)],
    )
    found = opened(tmp_path, numbers)
    assert [image.id for image in found.images] == [2, 10]
    assert [(item.image, item.category, item.id) for item in found.objects] == [(0, 0, "x-1"), (1, 0, "17")]
    words = content(
        images=[{**IMAGE, "id": "zebra"}, {**IMAGE, "id": "7", "file_name": "b.jpg"}],
        categories=[{"id": "b", "name": "two"}, {"id": "a", "name": "one"}],
        annotations=[annotation(image_id=7, category_id="a"), annotation(id=None, image_id="zebra", category_id="b")],
    )
    found = opened(tmp_path, words)
    assert [(image.id, image.name) for image in found.images] == [(1, "a.jpg"), (2, "b.jpg")]
    assert [(category.id, category.name) for category in found.categories] == [(1, "two"), (2, "one")]
    assert [(item.image, item.category, item.id) for item in found.objects] == [(1, 1, "17"), (0, 0, "#1")]


def test_ids_that_begin_anew_with_each_image(tmp_path: Path) -> None:
    assert [item.id for item in opened(tmp_path, content(annotation(id=1))).objects] == ["1", "1"]


def test_an_outline_over_the_border_is_cut_off(tmp_path: Path) -> None:
    item = opened(tmp_path, content(annotation(segmentation=[[25, 15, 40, 15, 40, 30, 25, 30]]))).objects[1]
    assert (item.box, item.area) == ((25, 15, 30, 20), 25)


def test_an_outline_too_thin_for_a_pixel_is_kept(tmp_path: Path) -> None:
    # So is annotation 2206849 of COCO's own train2017.
    thin = [[296.65, 388.33, 296.65, 388.33, 297.68, 388.33, 297.68, 388.33]]
    images = [{**IMAGE, "height": 480, "width": 640}, {**IMAGE, "id": 2, "file_name": "b", "height": 480, "width": 640}]
    found = opened(
        tmp_path, content(annotation(segmentation=thin, bbox=[296.65, 388.33, 1.03, 0], area=0), images=images)
    )
    assert not found.objects[1].mask((480, 640)).any()
    assert found.objects[1].box == (296.65, 388.33, 297.68, 388.33)


def test_sizes_from_the_images(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg")
    value = content(images=[{"id": 1, "file_name": "a.jpg"}])
    assert opened(tmp_path, value, folder=tmp_path).images[0].size == SIZE
    with pytest.raises(LabelError, match="height and width are numbers of pixels, not None and None"):
        opened(tmp_path, value)
    value["images"][0]["file_name"] = "gone.jpg"
    with pytest.raises(LabelError, match=r"images\[0\] \(id 1\): 'gone.jpg' has no height and width.*No such file"):
        opened(tmp_path, value, folder=tmp_path)


OF_IMAGE = r"annotation 17 of image 'b/c\.jpg': "


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segmentation": [[10, 10, 10, 15]]}, OF_IMAGE + r"the polygon \[10, 10, 10, 15\] has 2 points"),
        ({"segmentation": [*SQUARE, [10, 10, 10, 15]]}, OF_IMAGE + "the polygon .* has 2 points"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, OF_IMAGE + "a polygon has an x and a y"),
        ({"segmentation": [[1, 2, 3, float("nan"), 5, 6]]}, OF_IMAGE + "the polygon .* not a finite number"),
        ({"segmentation": [10, 5, 15, 5, 15, 12]}, OF_IMAGE + "a polygon is a list of numbers"),
        ({"segmentation": [[40, 5, 45, 5, 45, 12]]}, OF_IMAGE + "it lies outside of the image of 30x20 pixels"),
        ({"segmentation": [[40, 5, 900, 5, 45, 12]]}, OF_IMAGE + r"the point \(900, 5\) lies far outside"),
        ({"segmentation": []}, OF_IMAGE + r"it has no outline \(segmentation is \[\]\)"),
        ({"segmentation": [[]]}, OF_IMAGE + r"the polygon \[\] has 0 points"),
        ({"segmentation": None}, OF_IMAGE + r"it has no outline \(segmentation is missing\)"),
        ({"segmentation": "mask.png"}, OF_IMAGE + r"it has no outline \(segmentation is mask.png\)"),
        (
            {"segmentation": {"size": [30, 20], "counts": [300, 300]}, "iscrowd": 1},
            OF_IMAGE + r"the run lengths are of the size \[30, 20\], but the image has \[20, 30\]",
        ),
        ({"segmentation": {"counts": [300, 300]}}, OF_IMAGE + "the run lengths are of the size None"),
        ({"segmentation": {"size": [20, 30], "counts": [300, 3]}}, OF_IMAGE + "the runs are of 303 pixels"),
        ({"segmentation": {"size": [20, 30], "counts": [600]}}, OF_IMAGE + "the run lengths cover no pixel"),
        ({"segmentation": {"size": [20, 30], "counts": "\x7f"}}, OF_IMAGE + "the compressed run lengths"),
        ({"segmentation": {"size": [20, 30]}}, OF_IMAGE + "run lengths are a list"),
        ({"bbox": [1, 2, 3]}, OF_IMAGE + r"bbox is x, y, width and height in pixels, not \[1, 2, 3\]"),
        ({"bbox": [1, 2, 3, float("nan")]}, OF_IMAGE + "bbox is x, y, width and height"),
        ({"bbox": "1 2 3 4"}, OF_IMAGE + "bbox is x, y, width and height"),
        ({"bbox": [10, 5, -5, 7]}, OF_IMAGE + "the width and height of bbox can't be negative"),
        ({"bbox": [35, 5, 5, 7]}, OF_IMAGE + r"bbox \[35, 5, 5, 7\] lies outside of the image of 30x20"),
        ({"area": -1}, OF_IMAGE + "area is a number of pixels, not -1"),
        ({"area": float("inf")}, OF_IMAGE + "area is a number of pixels, not inf"),
        ({"area": 10**400}, OF_IMAGE + "area is a number of pixels"),
        ({"iscrowd": "yes"}, OF_IMAGE + "iscrowd is 0 or 1, not yes"),
        ({"image_id": 5}, "annotation 17: there is no image with the id 5"),
        ({"image_id": None}, r"annotations\[1\]: image_id is missing"),
        ({"image_id": [1]}, r"annotations\[1\]: image_id is \[1\]"),
        ({"category_id": 4}, "annotation 17 of the image with the id 2: there is no category 4"),
        ({"category_id": True}, "annotation 17 of the image with the id 2: category_id is True"),
        (
            {"id": "1", "image_id": 1},
            r"annotation 1 of the image with the id 1: annotations\[0\] is of that id and image",
        ),
    ],
)
def test_an_annotation_that_can_not_be_used(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    value = content(annotation(**fields))
    with pytest.raises(LabelError, match=rf"labels\.json: 1 annotations can't be used: {message}"):
        opened(tmp_path, value)
    found = opened(tmp_path, value, leave_out=True)
    assert len(found.objects) == len(found.left_out) == 1


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    value = content()
    value["annotations"] += [annotation(id=100 + place, segmentation=[]) for place in range(7)] + ["text"]
    with pytest.raises(
        LabelError, match=r"8 annotations can't be used: annotation 100 .*annotation 104 .*and 3 more\. M"
    ):
        opened(tmp_path, value)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"images": [IMAGE, {**IMAGE, "file_name": "b.jpg"}]}, r"images\[1\]: the id 1 is that of images\[0\] too"),
        ({"images": [IMAGE, {**IMAGE, "id": 2}]}, r"images\[1\] \(id 2\): the file 'a.jpg' is that of the image 1 too"),
        ({"images": [{**IMAGE, "file_name": "../a.jpg"}]}, r"images\[0\] \(id 1\): the name '../a.jpg' leads out"),
        ({"images": [{**IMAGE, "file_name": "/etc/passwd"}]}, "leads out of the folder"),
        ({"images": [{**IMAGE, "file_name": None}]}, "'None' is no file's name"),
        ({"images": [{**IMAGE, "height": 0}]}, "numbers of pixels, not 0 and 30"),
        ({"images": [{**IMAGE, "height": 1e9, "width": 1e9}]}, "are more than the"),
        ({"images": [{**IMAGE, "id": None}]}, r"images\[0\]: id is missing"),
        ({"images": ["a.jpg"]}, r"images\[0\]: an object is expected, not a\.jpg"),
        ({"categories": [{"id": 3, "name": "a"}] * 2}, r"categories\[1\]: the id 3 is that of categories\[0\] too"),
        ({"categories": [{"id": 3}]}, r"categories\[0\] \(id 3\): a category needs a name"),
    ],
)
def test_entries_that_can_not_be_used(tmp_path: Path, lists: dict[str, Any], message: str) -> None:
    for leave_out in (False, True):  # only annotations can be left out
        with pytest.raises(LabelError, match=message):
            opened(tmp_path, content(**lists), leave_out=leave_out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "as JSON"),
        ("[" * 100_000, "as JSON: RecursionError"),
        ("[1]", "it is no object"),
        ("{}", "it has no list images, categories, annotations"),
        ('{"images": [], "categories": [1], "annotations": []}', "it lists no image"),
        ('{"images": [1], "categories": [], "annotations": []}', "it lists no category"),
    ],
)
def test_files_that_are_no_coco(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_coco(path)
    with pytest.raises(DataError, match="No such file"):
        read_coco(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["", "  ", "..", "a/../../b", "/a", "\\a", "C:\\a.jpg", "..\\a", "a\0b", None, 3])
def test_names_that_lead_elsewhere(name: Any) -> None:
    with pytest.raises(LabelError):
        inner_path(name)


def test_names_and_sizes() -> None:
    assert inner_path("./street/a b.jpg") == "street/a b.jpg"
    assert image_size(20.0, 30) == (20, 30)
    for height in (True, "20", -1, 1.5, float("nan")):
        with pytest.raises(LabelError):
            image_size(height, 30)


@pytest.mark.parametrize(("place", "field"), [("images", "height"), ("annotations", "id"), ("annotations", "bbox")])
def test_a_whole_number_that_no_float_holds_is_no_crash(place: str, field: str, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2]]}],
    }
    content[place][0][field] = [0, 0, 10**400, 1] if field == "bbox" else 10**400
    (tmp_path / "c.json").write_text(json.dumps(content))
    if field == "id":
        assert len(read_coco(tmp_path / "c.json").objects) == 1
    else:
        with pytest.raises(LabelError):
            read_coco(tmp_path / "c.json")
