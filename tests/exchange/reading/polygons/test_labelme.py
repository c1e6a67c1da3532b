"""LabelMe's JSON: shapes become masks, and what has no area or no class is refused."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfseg.errors import ConfigError, DataError, LabelError
from selfseg.exchange import read, write
from selfseg.exchange.reading.recognise import recognise


def shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def written(folder: Path, shapes: list[Any], **more: Any) -> Path:
    value = {"version": "5.0.1", "flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None}
    (folder / "a.json").write_text(json.dumps(value | {"imageHeight": 4, "imageWidth": 6} | more))
    Image.new("RGB", (6, 4)).save(folder / "a.png")
    return folder


LEFT = [[0, 0], [3, 0], [3, 4], [0, 4]]


def test_later_shapes_are_on_top_and_names_are_in_their_order(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        [
            shape("sky", LEFT),
            shape("road", [[1, 1], [2, 2]], "rectangle"),
            shape("__ignore__", [[0, 0], [1, 1]], "rectangle"),
        ],
    )
    assert recognise(path) == "labelme"
    legend, masks = read("auto", path, images=path)
    assert legend.names == ("road", "sky")
    (one,) = masks
    assert one.image == path / "a.png"
    expected = np.full((4, 6), 255)
    expected[:, :3] = 1
    expected[1, 1], expected[0, 0] = 0, 255
    np.testing.assert_array_equal(one.mask, expected)


def test_labels_txt_gives_the_order_and_the_background(tmp_path: Path) -> None:
    path = written(tmp_path, [shape("sky", LEFT)], imagePath="..\\photos\\a.png")
    (path / "labels.txt").write_text("__ignore__\n_background_\nsky\nroad\n")
    legend, masks = read("labelme", path)  # without the photograph: the size is in the file
    assert legend.names == ("_background_", "sky", "road")
    (one,) = masks
    assert (one.name, one.image) == ("a.png", None)
    np.testing.assert_array_equal(one.mask, np.repeat([[1] * 3 + [0] * 3], 4, axis=0))


def test_circles_and_masks(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8)).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    shapes = [shape("a", [[4, 1], [5, 2]], "mask", mask=text), shape("b", [[1.5, 1.5], [1.5, 3]], "circle")]
    (one,) = read("labelme", written(tmp_path, shapes), images=tmp_path)[1]
    np.testing.assert_array_equal(one.mask[:, 4:], [[255, 255], [255, 0], [0, 0], [255, 255]])
    assert (one.mask[1] == [1, 1, 1, 255, 255, 0]).all()
    assert (one.mask[3] == 255).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (shape("a", [[0, 0], [1, 1]]), "it needs three"),
        (shape("a", [[0, 0], [1, 1]], "line"), "type line has no area"),
        (shape("a", [[0, 0]], "rectangle"), "two points, not 1"),
        (shape("a", "x"), "points are a list"),
        (shape("a", [[0, 0], [1, 1]], "mask", mask="!"), "mask can't be read"),
        (shape("a", [[float("nan"), 0], [1, 1], [2, 2]]), "not a finite number"),
        ({"points": []}, "an object with a label"),
    ],
)
def test_shapes_that_can_not_be_used(wrong: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nsky\n")
    path = written(tmp_path, [shape("sky", LEFT), wrong])
    with pytest.raises(LabelError, match=words):
        list(read("labelme", path)[1])
    left_out: list[str] = []
    (one,) = read("labelme", path, left_out=left_out)[1]
    assert (one.mask[:, :3] == 1).all()
    assert len(left_out) == 1
    assert "shape 1" in left_out[0]


def test_what_else_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [shape("road", LEFT)], imageHeight=5)
    with pytest.raises(LabelError, match=r"6x5 pixels, but .* has 6x4"):
        list(read("labelme", path, images=path)[1])
    (path / "labels.txt").write_text("sky\n")
    with pytest.raises(LabelError, match="'road' is not in the list"):
        list(read("labelme", path)[1])
    with pytest.raises(ConfigError, match="only read"):
        write("labelme", [], read("labelme", path)[0], tmp_path / "out")
    (path / "a.json").write_text("{}")
    with pytest.raises(DataError, match="no JSON file of LabelMe"):
        read("labelme", path)
