import json
from pathlib import Path

import numpy as np
import pytest

from exchange import odd_masks
from exchange.reading_back import of_coco, same
from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError
from selfseg.exchange.base import NamedMask, write

pytest.importorskip("pycocotools")


@pytest.mark.parametrize("per", ["class", "component"])
@pytest.mark.parametrize("shapes", ["rle", "polygons"])
def test_every_mask_comes_back(tmp_path: Path, shapes: str, per: str) -> None:
    masks, legend = list(odd_masks.named()), odd_masks.legend()
    out = write("coco", masks, legend, tmp_path / "out", shapes=shapes, per=per)
    same(of_coco(out / "annotations.json", masks, legend), masks)


@pytest.mark.parametrize("shapes", ["rle", "polygons"])
def test_300_classes_come_back(tmp_path: Path, shapes: str) -> None:
    legend, masks = odd_masks.many_classes()
    out = write("coco", masks, legend, tmp_path / "out", shapes=shapes)
    same(of_coco(out / "annotations.json", masks, legend), masks)


def test_categories_are_the_classes(tmp_path: Path) -> None:
    legend = odd_masks.legend()
    out = write("coco", odd_masks.named(), legend, tmp_path / "out")
    found = json.loads((out / "annotations.json").read_text())
    assert [(one["id"], one["name"], tuple(one["color"])) for one in found["categories"]] == [
        (i, one.name, one.colour) for i, one in enumerate(legend.classes, start=1)
    ]
    ids = [one["id"] for one in found["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_an_object_is_a_class_or_a_region(tmp_path: Path) -> None:
    mask = NamedMask("x.png", np.array([[0, 1, 0]], np.uint8))
    counts = {}
    for per in ("class", "component"):
        out = write("coco", [mask], Legend.of(["a", "b"]), tmp_path / per, per=per)
        counts[per] = [one["category_id"] for one in json.loads((out / "annotations.json").read_text())["annotations"]]
    assert counts == {"class": [1, 2], "component": [1, 1, 2]}


def test_polygons_are_of_whole_numbers_but_for_the_way_to_a_hole(tmp_path: Path) -> None:
    mask = np.zeros((5, 5), np.uint8)
    mask[2, 2] = 255
    out = write("coco", [NamedMask("x.png", mask)], Legend.of(["a"]), tmp_path / "out", shapes="polygons")
    (one,) = json.loads((out / "annotations.json").read_text())["annotations"]
    assert one["segmentation"] == [[0, 0, 5, 0, 5, 5, 0, 5, 0, 2.5, 2, 2.5, 2, 3, 3, 3, 3, 2, 2, 2, 2, 2.5, 0, 2.5]]


def test_an_unknown_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="COCO files have no shapes called 'boxes'; give rle or polygons"):
        write("coco", odd_masks.named(), odd_masks.legend(), tmp_path / "out", shapes="boxes")
