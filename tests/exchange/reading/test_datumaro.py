import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfseg.errors import DataError, LabelError
from selfseg.exchange import read

SQUARE = [0, 0, 6, 0, 6, 2, 0, 2]


def value(annotations: list[Any], **item: Any) -> dict[str, Any]:
    labels = [{"name": "road", "parent": ""}, {"name": "sky", "parent": ""}]
    colours = [{"label_id": 0, "r": 128, "g": 64, "b": 128}, {"label_id": 7, "r": 1, "g": 2, "b": 3}]
    image = {"path": "a.jpg", "size": [3, 6]}
    return {
        "categories": {"label": {"labels": labels}, "mask": {"colormap": colours}},
        "items": [{"id": "a", "annotations": annotations, "image": image, **item}],
    }


def written(tmp_path: Path, content: Any, name: str = "train.json") -> Path:
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / name).write_text(json.dumps(content))
    return tmp_path


def polygon(**fields: Any) -> dict[str, Any]:
    return {"id": 4, "type": "polygon", "label_id": 0, "points": SQUARE, "z_order": 0, **fields}


def test_masks_polygons_and_layers(tmp_path: Path) -> None:
    rle = {"counts": [15, 3], "size": [3, 6]}
    below = polygon(label_id=1, z_order=-1, points=[0, 0, 6, 0, 6, 3, 0, 3])
    content = value(
        [polygon(), below, {"type": "mask", "label_id": 1, "rle": rle}, {"type": "caption"}, {"type": "label"}]
    )
    legend, masks = read("auto", written(tmp_path, content))
    assert legend.names == ("road", "sky")
    assert legend.classes[0].colour == (128, 64, 128)
    (one,) = masks
    np.testing.assert_array_equal(one.mask, [[0, 0, 0, 0, 0, 1]] * 2 + [[1] * 6])


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (polygon(points=[1, 2, 3, 4]), "annotation 4 of image 'a.jpg': the polygon .* has 2 points"),
        (polygon(points=None), "a polygon is a list of numbers"),
        (polygon(label_id=2), "label_id is one of 2 labels, from 0, not 2"),
        (polygon(label_id=None), "label_id is one of 2 labels"),
        (polygon(z_order="a"), "z_order is a whole number"),
        (
            {"type": "bbox", "bbox": [0, 0, 2, 2], "label_id": 0},
            "annotation 0 of image 'a.jpg': the kind bbox has no outline",
        ),
        ({"type": "mask", "label_id": 0}, "the kind mask has no outline"),
        ({"type": "mask", "label_id": 0, "rle": {"counts": [18], "size": [6, 3]}}, r"of the size \[6, 3\]"),
        ({"type": "mask", "label_id": 0, "rle": {"counts": [8], "size": [3, 6]}}, "8 pixels in all"),
        ({"type": "mask", "label_id": 0, "rle": {"counts": "é", "size": [3, 6]}}, "can't hold"),
        ("text", "the kind None has no outline"),
    ],
)
def test_annotations_that_can_not_be_used(annotation: Any, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, value([annotation, polygon()]))
    with pytest.raises(LabelError, match=rf"train\.json: .*{message}"):
        list(read("datumaro", path)[1])
    left_out: list[str] = []
    (one,) = read("datumaro", path, left_out=left_out)[1]
    assert (one.mask[:2] == 0).all()
    assert len(left_out) == 1


def test_several_files_must_have_the_same_labels(tmp_path: Path) -> None:
    written(tmp_path, value([polygon()]))
    other = value([polygon()], image={"path": "", "size": [3, 6]}, id="sub/b")
    _, masks = read("datumaro", written(tmp_path, other, "val.json"))
    assert [one.name for one in masks] == ["a.jpg", "sub/b"]
    other["categories"]["label"]["labels"].reverse()
    with pytest.raises(LabelError, match="have different lists of labels; read one of them"):
        read("datumaro", written(tmp_path, other, "val.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"items": [], "categories": {}}, "lists no labels"),
        ({"items": [], "categories": {"label": {"labels": [{"name": 3}]}}}, "whose name is no text"),
        ({"items": [], "categories": {"label": {"labels": []}}}, "names no class"),
        ([], "no JSON of Datumaro"),
    ],
)
def test_files_that_are_none(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read("datumaro", written(tmp_path, content))


def test_items_that_are_none(tmp_path: Path) -> None:
    content = value([polygon()])
    content["items"] += ["text", {"id": "b", "image": {"path": "b.jpg", "size": [0, 1e99]}}, {"id": "c"}]
    left_out: list[str] = []
    names = [one.name for one in read("datumaro", written(tmp_path, content), left_out=left_out)[1]]
    assert names == ["a.jpg"]
    assert [sentence.partition("json: ")[2][:12] for sentence in left_out] == [
        "items[1] is ",
        "image 'b.jpg",
        "the size of ",
    ]


def test_an_item_with_somebody_elses_path_is_found_by_its_id(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (6, 3)).save(tmp_path / "photos" / "a.jpg")
    path = written(tmp_path, value([polygon()], image={"path": "/elsewhere/photos/a.jpg", "size": [3, 6]}))
    (one,) = read("datumaro", path, images=tmp_path / "photos")[1]
    assert (one.name, one.image) == ("a.jpg", tmp_path / "photos" / "a.jpg")
    strange = value([polygon()], id="b", image={"path": "/elsewhere/photos/a.jpg", "size": [3, 6]})
    with pytest.raises(LabelError, match="leads out of the folder"):
        list(read("datumaro", written(tmp_path, strange), images=tmp_path / "photos")[1])
