"""What is right and wrong in a file is tested with `selfseg.data.labelled.coco_json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfseg.errors import DataError, LabelError
from selfseg.exchange import read

LARGE, SMALL = [[0, 0, 6, 0, 6, 2, 0, 2]], [[1, 0, 3, 0, 3, 1, 1, 1]]


def value(*segmentations: Any, **fields: Any) -> dict[str, Any]:
    categories = [{"id": 7, "name": "car", "color": "#010203"}, {"id": 3, "name": "road", "color": [9, 300, 9]}]
    annotations = [
        {"id": i, "image_id": 1, "category_id": (7, 3)[i % 2], "segmentation": one, **fields}
        for i, one in enumerate(segmentations)
    ]
    image = {"id": 1, "file_name": "sub/a.jpg", "height": 2, "width": 6}
    return {"images": [image], "categories": categories, "annotations": annotations}


def written(tmp_path: Path, content: Any, name: str = "labels.json") -> Path:
    (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def test_the_smaller_object_is_on_top_and_crowds_are_below(tmp_path: Path) -> None:
    for order in ((SMALL, LARGE), (LARGE, SMALL)):
        legend, masks = read("auto", written(tmp_path, value(*order)))
        assert legend.names == ("road", "car")
        assert legend.classes[1].colour == (1, 2, 3)
        (one,) = masks
        small, large = (1, 0) if order[0] is SMALL else (0, 1)
        np.testing.assert_array_equal(one.mask, [[large, small, small, large, large, large], [large] * 6])
    content = value(SMALL, LARGE)
    content["annotations"][0]["iscrowd"] = 1
    assert (next(read("auto", written(tmp_path, content))[1]).mask == 0).all()


def test_a_polygon_in_pieces_and_compressed_runs(tmp_path: Path) -> None:
    pieces = [*SMALL, [4, 1, 6, 1, 6, 2, 4, 2], [1, 0, 3, 0, 3, 1, 1, 1]]  # one of them twice: not a hole
    runs = {"size": [2, 6], "counts": "52203"[:0] + "92"}  # 9 outside, 2 - but they must sum up to 12
    with pytest.raises(LabelError, match="11 pixels in all, but the mask has 12"):
        read("coco", written(tmp_path, value(pieces, runs)))
    left_out: list[str] = []
    (one,) = read("coco", written(tmp_path, value(pieces, runs)), left_out=left_out)[1]
    np.testing.assert_array_equal(one.mask, [[255, 1, 1, 255, 255, 255], [255, 255, 255, 255, 1, 1]])
    assert len(left_out) == 1
    assert left_out[0].startswith(f"{tmp_path / 'labels.json'}: annotation 1 of image 'sub/a.jpg'")


def test_splits_and_their_photographs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (6, 2)).save(tmp_path / "photos" / "a.jpg")
    written(tmp_path, value(LARGE), "train.json")
    other = value(LARGE)
    other["images"][0]["file_name"] = "b.jpg"
    other["categories"].append({"id": 1, "name": "tree"})
    written(tmp_path, other, "val.json")
    written(tmp_path, {"version": 3}, "info.json")
    legend, masks = read("auto", tmp_path, images=tmp_path / "photos")
    assert legend.names == ("road", "car", "tree")
    found = {one.name: one for one in masks}
    assert found["a.jpg"].image == tmp_path / "photos" / "a.jpg"
    assert found["b.jpg"].image is None
    assert found["b.jpg"].mask[0, 0] == 1


def test_folders_without_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no JSON file with object instances of COCO"):
        read("coco", tmp_path)
    with pytest.raises(DataError, match="no COCO file of object instances"):
        read("coco", written(tmp_path, {}))
    written(tmp_path, {}, "other.json")
    with pytest.raises(
        DataError, match=r"holds 2 JSON files \(labels.json, other.json\), and none of them with object inst"
    ):
        read("coco", tmp_path)
