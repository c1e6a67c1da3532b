import json
from pathlib import Path

import numpy as np
import pytest

from exchange import odd_masks
from exchange.reading_back import of_datumaro, same
from selfseg.data.labelled.legend import Legend
from selfseg.exchange.base import NamedMask, write
from selfseg.exchange.writing.names import FileNames

pytest.importorskip("pycocotools")


@pytest.mark.parametrize("per", ["class", "component"])
def test_every_mask_comes_back(tmp_path: Path, per: str) -> None:
    masks, legend, names = list(odd_masks.named()), odd_masks.legend(), FileNames("")
    out = write("datumaro", masks, legend, tmp_path / "out", per=per)
    same(of_datumaro(out, legend), masks, names.place)


def test_300_classes_come_back(tmp_path: Path) -> None:
    legend, masks = odd_masks.many_classes()
    out = write("datumaro", masks, legend, tmp_path / "out")
    same(of_datumaro(out, legend), masks, lambda name: name[:-4])


def test_labels_and_colours_are_the_legends(tmp_path: Path) -> None:
    legend = Legend.of(["a: b", "c"])
    masks = [NamedMask("d/x.png", np.array([[0, 1]], np.uint8))]
    out = write("datumaro", masks, legend, tmp_path / "out")
    found = json.loads((out / "annotations" / "default.json").read_text())
    assert [one["name"] for one in found["categories"]["label"]["labels"]] == ["a: b", "c"]
    colours = [(one["label_id"], one["r"], one["g"], one["b"]) for one in found["categories"]["mask"]["colormap"]]
    assert colours == [(i, *one.colour) for i, one in enumerate(legend.classes)]
    assert [(one["id"], one["image"]) for one in found["items"]] == [("d/x", {"path": "d/x.png", "size": [1, 2]})]
