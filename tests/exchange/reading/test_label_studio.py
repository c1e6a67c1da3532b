"""Label Studio's exports; what its own SDK packs is read in benchmarks/formats_back.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfseg.errors import DataError, LabelError
from selfseg.exchange import read
from selfseg.exchange.coding.brush_rle import packed

SIZE = {"original_width": 6, "original_height": 3}


def region(kind: str, value: dict[str, Any], label: str = "road", **fields: Any) -> dict[str, Any]:
    return {"id": "r1", "type": kind, **SIZE, "image_rotation": 0, "value": {kind: [label], **value}, **fields}


def polygon(label: str = "road", **fields: Any) -> dict[str, Any]:
    points = [[0, 0], [50, 0], [50, 100], [0, 100]]
    return region("polygonlabels", {"points": points, "closed": True}, label, **fields)


def brush(counts: list[int], label: str = "sky") -> dict[str, Any]:
    return region("brushlabels", {"format": "rle", "rle": packed(np.array(counts)).tolist()}, label)


def task(*results: list[dict[str, Any]], image: str = "/data/upload/1/a.jpg", **fields: Any) -> dict[str, Any]:
    return {"id": 9, "data": {"image": image}, "annotations": [{"result": result} for result in results], **fields}


def export(tmp_path: Path, *tasks: Any) -> Path:
    path = tmp_path / "project-1-at-2026.json"
    path.write_text(json.dumps(list(tasks)))
    return path


def test_later_regions_are_on_top_and_what_has_no_shape_is_passed_over(tmp_path: Path) -> None:
    extras = [
        {"id": "x", "type": "choices", "value": {"choices": ["good"]}},
        {"from_id": "r1", "to_id": "r2", "type": "relation"},
    ]
    path = export(tmp_path, task([polygon(), *extras, brush([1, 4, 13])]))
    legend, masks = read("auto", path)
    assert legend.names == ("road", "sky")
    (one,) = masks
    assert one.name == "data/upload/1/a.jpg"
    np.testing.assert_array_equal(one.mask, [[0, 1, 1, 1, 1, 255], *[[0, 0, 0, 255, 255, 255]] * 2])


def test_which_annotation_counts(tmp_path: Path) -> None:
    two = task([polygon("road")], [polygon("sky")])
    assert [one.mask[0, 0] for one in read("label-studio", export(tmp_path, two))[1]] == [0]
    assert read("label-studio", export(tmp_path, two))[0].names == ("sky",)
    two["annotations"][0]["ground_truth"] = True
    assert read("label-studio", export(tmp_path, two))[0].names == ("road",)
    two["annotations"][0] |= {"ground_truth": False}
    two["annotations"][1]["was_cancelled"] = True
    assert read("label-studio", export(tmp_path, two))[0].names == ("road",)
    # Predictions count only where nobody annotated anything; a task that nobody saw is no image without objects.
    guess = {**task(), "predictions": [{"result": [polygon("tree")]}]}
    legend, masks = read("label-studio", export(tmp_path, two, guess))
    assert (legend.names, len(list(masks))) == (("road",), 1)
    assert read("label-studio", export(tmp_path, guess))[0].names == ("tree",)


def test_the_labelling_interface_gives_order_and_colours(tmp_path: Path) -> None:
    (tmp_path / "labels.xml").write_text(
        '<View><Image name="image" value="$image"/><Choices name="c"><Label value="no"/></Choices>'
        '<BrushLabels name="l" toName="image"><Label value="sky" background="#010203"/><Label value="road"/>'
        "</BrushLabels></View>"
    )
    export(tmp_path, task([polygon()]))
    legend, masks = read("auto", tmp_path)
    assert legend.names == ("sky", "road")
    assert legend.classes[0].colour == (1, 2, 3)
    assert next(masks).mask[0, 0] == 1
    export(tmp_path, task([polygon("tree")]))
    with pytest.raises(LabelError, match=r"its label 'tree' is not in labels\.xml"):
        list(read("auto", tmp_path)[1])


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/3/1a2b3c4d-a%20b.jpg",
        "/data/local-files/?d=sub/a%20b.jpg",
        "https://host/x/a%20b.jpg?token=1",
        "s3://bucket/sub/a b.jpg",
        "a b.jpg",
    ],
)
def test_addresses_of_images(address: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (6, 3)).save(tmp_path / "photos" / "a b.jpg")
    (one,) = read("label-studio", export(tmp_path, task([polygon()], image=address)), images=tmp_path / "photos")[1]
    assert (one.name, one.image) == ("a b.jpg", tmp_path / "photos" / "a b.jpg")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (region("rectanglelabels", {"x": 1, "y": 1, "width": 5, "height": 5}), "a rectanglelabels has no outline"),
        (region("brush", {"format": "rle", "rle": []}), "a brush has no label"),
        (polygon() | {"image_rotation": 90}, r"the image was turned by 90 degrees"),
        (polygon() | {"original_width": None}, "height and width are numbers of pixels"),
        (polygon() | {"value": {"points": [[1, 2]], "polygonlabels": ["road"]}}, "1 points, which enclose nothing"),
        (polygon() | {"value": {"points": [1, 2], "polygonlabels": ["road"]}}, r"points are a list of \[x, y\]"),
        (polygon() | {"value": {"points": [], "polygonlabels": ["road", "sky"]}}, "needs one label, but has road, sky"),
        (polygon() | {"value": {"points": []}}, "needs one label, but has none"),
        (polygon() | {"value": None}, "needs one label, but has none"),
        (brush([0, 5]), "its rle holds 20 values, but an image of 6x3 pixels has 72"),
        (region("brushlabels", {"format": "png", "rle": "x"}), "a brush is in the format rle, not png"),
        (region("brushlabels", {"format": "rle", "rle": [0, 300]}), "no list of bytes"),
    ],
)
def test_regions_that_can_not_be_used(bad: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = export(tmp_path, task([polygon(), bad]))
    with pytest.raises(LabelError, match=rf"json: region r1 of image '.*a\.jpg': .*{message}"):
        list(read("label-studio", path)[1])
    left_out: list[str] = []
    (one,) = read("label-studio", path, left_out=left_out)[1]
    assert (one.mask[:, :3] == 0).all()
    assert len(left_out) == 1


def test_regions_of_other_sizes_and_images_that_lead_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="its image has 7x3 pixels, but that of others 6x3"):
        list(read("label-studio", export(tmp_path, task([polygon(), polygon(original_width=7)])))[1])
    for image, message in (("/data/local-files/?d=../../etc/a.jpg", "leads out"), ("hello", "no image is named")):
        with pytest.raises(LabelError, match=message):
            list(read("label-studio", export(tmp_path, task([polygon()], image=image)))[1])


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0 JSON files of Label Studio, not one; export as JSON \(not JSON-MIN\)"):
        read("label-studio", export(tmp_path, {"image": "a.jpg", "label": []}))
    with pytest.raises(LabelError, match="names no class"):
        read("label-studio", export(tmp_path, task()))


@pytest.mark.parametrize("kind", [["brushlabels"], {"a": 1}, None, 5])
def test_a_region_of_no_kind_is_passed_over(kind: Any, tmp_path: Path) -> None:
    path = export(tmp_path, task([polygon(), {**polygon("sky"), "type": kind}]))
    legend, masks = read("label-studio", path)
    assert (legend.names, len(list(masks))) == (("road",), 1)
