import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfseg.errors import DataError, LabelError
from selfseg.exchange import read

RING = [[0, 0], [6, 0], [6, 3], [0, 3], [0, 0]]
HOLE = [[1, 1], [3, 1], [3, 2], [1, 2], [1, 1]]


def feature(rings: Any, properties: Any = None, kind: str = "Polygon") -> dict[str, Any]:
    named = {"classification": {"name": "road", "color": [1, 2, 3]}} if properties is None else properties
    return {"type": "Feature", "id": 5, "geometry": {"type": kind, "coordinates": rings}, "properties": named}


def written(tmp_path: Path, *features: Any, bare: bool = False, **beside: Any) -> Path:
    image = {"name": "a.jpg", "height": 3, "width": 6}
    value = {"type": "FeatureCollection", "image": image, "features": list(features), **beside}
    (tmp_path / "a.geojson").write_text(json.dumps(list(features) if bare else value))
    return tmp_path


def test_holes_several_polygons_and_the_smaller_one_on_top(tmp_path: Path) -> None:
    small = feature([[[[4, 0], [5, 0], [5, 1], [4, 1]]], [HOLE]], {"label": "sky"}, "MultiPolygon")
    legend, masks = read("auto", written(tmp_path, small, feature([RING, HOLE])))
    assert legend.names == ("road", "sky")
    assert legend.classes[0].colour == (1, 2, 3)
    (one,) = masks
    assert one.name == "a.jpg"
    np.testing.assert_array_equal(one.mask, [[0, 0, 0, 0, 1, 0], [0, 1, 1, 0, 0, 0], [0] * 6])


@pytest.mark.parametrize(
    "properties", [{"class": "x"}, {"label": "x"}, {"name": "x"}, {"category": "x"}, {"classification": "x"}]
)
def test_lists_of_features_and_where_their_class_stands(properties: Any, tmp_path: Path) -> None:
    written(tmp_path, feature([[[*point, 9.5] for point in RING]], properties), bare=True)  # with a height, too
    Image.new("RGB", (6, 3)).save(tmp_path / "a.png")
    legend, masks = read("geojson", tmp_path, images=tmp_path)
    assert legend.names == ("x",)
    (one,) = masks
    assert (one.name, one.mask.tolist()) == ("a.png", [[0] * 6] * 3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (feature([[[0, 0], [1, 1]]]), "2 points"),
        (feature([[0, 0], [1, 1]], kind="LineString"), "a LineString has no outline"),
        (feature(None), "a polygon without a ring"),
        (feature([]), "a polygon without a ring"),
        (feature([], kind="MultiPolygon"), "no coordinates"),
        (feature([[[0, "a"], [1, 1], [2, 2]]]), r"a ring is a list of \[x, y\]"),
        (feature([[0, 0, 1, 1, 2, 2]]), r"a ring is a list of \[x, y\]"),
        (feature([[[0, float("nan")], [1, 1], [2, 2]]]), "not a finite number"),
        (feature([[[500000, 5500000], [500001, 5500000], [500001, 5500001]]]), "lies far outside"),
        (feature([RING], {}), "it has no class"),
        (feature([RING], []), "it has no class"),
        ({**feature([RING]), "geometry": None}, "a None has no outline"),
    ],
)
def test_features_that_can_not_be_used(bad: Any, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, bad, feature([RING]))
    with pytest.raises(LabelError, match=rf"a\.geojson: feature 5 of image 'a\.jpg': .*{message}"):
        list(read("geojson", path)[1])
    left_out: list[str] = []
    (one,) = read("geojson", path, left_out=left_out)[1]
    assert (one.mask == 0).all()
    assert len(left_out) == 1


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"crs": {"type": "name"}}, r"coordinates on a map \(crs\)"),
        ({"image": {"name": "../a.jpg", "height": 3, "width": 6}}, "leads out"),
        ({"image": {"name": "a.jpg", "height": 0, "width": 6}}, "numbers of pixels"),
        ({"image": None}, "the size of image 'a' isn't known"),
        ({"type": "Topology"}, "no FeatureCollection"),
    ],
)
def test_files_that_can_not_be_used(beside: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(read("geojson", written(tmp_path, feature([RING]), **beside))[1])


def test_a_legend_beside(tmp_path: Path) -> None:
    path = written(tmp_path, feature([RING], {"class": "sky"}))
    entries = [{"value": 0, "name": "road", "colour": "#000001"}, {"value": 1, "name": "sky", "colour": "#000002"}]
    (tmp_path / "legend.json").write_text(json.dumps({"classes": entries}))
    legend, masks = read("geojson", path)
    assert (legend.names, next(masks).mask[0, 0]) == (("road", "sky"), 1)
    (tmp_path / "legend.json").write_text(json.dumps({"classes": entries[:1]}))
    with pytest.raises(LabelError, match=r"the class 'sky' is not in legend\.json"):
        list(read("geojson", path)[1])
    (tmp_path / "legend.json").write_text("{}")
    with pytest.raises(LabelError, match=r"legend\.json"):
        read("geojson", path)
    with pytest.raises(DataError, match="holds no GeoJSON"):
        read("geojson", tmp_path / "legend.json")
