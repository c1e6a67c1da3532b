import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from exchange import odd_masks
from exchange.reading_back import of_label_studio, same
from selfseg.data.labelled.legend import Legend
from selfseg.exchange.base import NamedMask, write
from selfseg.exchange.writing.names import ListedNames

ONE = NamedMask("a b/#1.png", np.array([[0, 1, 255]], np.uint8))


@pytest.mark.parametrize("per", ["class", "component"])
def test_every_mask_comes_back(tmp_path: Path, per: str) -> None:
    legend = odd_masks.legend()
    masks = [one for one in odd_masks.named() if one.mask.size < 1000]  # the others are slow to unpack bit by bit
    out = write("label-studio", masks, legend, tmp_path / "out", per=per)
    listed = ListedNames()
    places = {one.name: listed.place(one.name) for one in masks}
    same(of_label_studio(out, legend), [one for one in masks if (one.mask != 255).any()], places.__getitem__)
    empty = sum((one.mask == 255).all() for one in masks)
    tasks = json.loads((out / "tasks.json").read_text())
    assert sum(task["annotations"] == [{"result": []}] for task in tasks) == empty > 0


def test_the_interface_has_names_and_colours(tmp_path: Path) -> None:
    legend = Legend.of(["<script>\"'&", "عشب", "x"], {"x": (1, 2, 255)})
    out = write("label-studio", [ONE], legend, tmp_path / "out")
    interface = ElementTree.fromstring((out / "labels.xml").read_text("utf-8"))
    labels = [(label.attrib["value"], label.attrib["background"]) for label in interface.iter("Label")]
    assert [name for name, _ in labels] == ["<script>\"'&", "عشب", "x"]
    assert labels[2][1] == "#0102ff"
    (image,), (control,) = interface.iter("Image"), interface.iter("BrushLabels")
    (task,) = json.loads((out / "tasks.json").read_text())
    assert image.attrib["value"] == "$image"
    for one in task["annotations"][0]["result"]:
        assert (one["to_name"], one["from_name"]) == (image.attrib["name"], control.attrib["name"])


def test_addresses_are_escaped(tmp_path: Path) -> None:
    legend = Legend.of(["a", "b"])
    for options, address in (
        ({}, "/data/local-files/?d=a%20b/%231.png"),
        ({"url": "https://images.example/set/"}, "https://images.example/set/a%20b/%231.png"),
    ):
        out = write("label-studio", [ONE], legend, tmp_path / "out", **options)
        (task,) = json.loads((out / "tasks.json").read_text())
        assert task["data"] == {"image": address, "name": "a b/#1.png"}


def test_masks_can_be_predictions(tmp_path: Path) -> None:
    legend = Legend.of(["a", "b"])
    out = write("label-studio", [ONE], legend, tmp_path / "out", predictions=True)
    same(of_label_studio(out, legend, "predictions"), [ONE])
