import json
from pathlib import Path

import numpy as np
import pytest

from exchange import odd_masks
from exchange.reading_back import of_geojson
from selfseg.data.labelled.legend import Legend
from selfseg.exchange.base import NamedMask, write
from selfseg.exchange.writing.names import FileNames


@pytest.mark.parametrize("per", ["class", "component"])
def test_every_mask_comes_back(tmp_path: Path, per: str) -> None:
    masks, legend, names = list(odd_masks.named()), odd_masks.legend(), FileNames(".geojson")
    out = write("geojson", masks, legend, tmp_path / "out", per=per)
    for one in masks:
        assert np.array_equal(of_geojson(out / f"{names.place(one.name)}.geojson", legend), one.mask), one.name


def test_300_classes_come_back(tmp_path: Path) -> None:
    legend, masks = odd_masks.many_classes()
    out = write("geojson", masks, legend, tmp_path / "out")
    for one in masks:
        assert np.array_equal(of_geojson((out / one.name).with_suffix(".geojson"), legend), one.mask)


def test_a_feature_by_hand(tmp_path: Path) -> None:
    mask = np.full((4, 6), 255, np.uint8)
    mask[:3, :3], mask[1, 1], mask[3, 5] = 0, 255, 0
    legend = Legend.of(["a b"], {"a b": (1, 2, 3)})
    out = write("geojson", [NamedMask("d/x.png", mask)], legend, tmp_path / "out")
    value = json.loads((out / "d" / "x.geojson").read_text())
    assert value["type"] == "FeatureCollection"
    assert value["image"] == {"name": "d/x.png", "height": 4, "width": 6}
    (feature,) = value["features"]
    assert feature["geometry"] == {
        "type": "MultiPolygon",
        "coordinates": [
            [[[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]], [[2, 1], [1, 1], [1, 2], [2, 2], [2, 1]]],
            [[[5, 3], [6, 3], [6, 4], [5, 4], [5, 3]]],
        ],
    }
    assert feature["properties"]["classification"] == {"name": "a b", "color": [1, 2, 3]}
