import cv2
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from exchange.reading_back import enclosed
from selfseg.ops.regions.outlines import Polygon, components, polygons, without_holes

pytest.importorskip("pycocotools")


def random_labels(seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 15, 2)
    return random.integers(0, random.integers(2, 6), (height, width)).astype(np.uint8)


@pytest.mark.parametrize("seed", range(60))
def test_components_are_regions_that_touch_at_their_sides(seed: int) -> None:
    labels = random_labels(seed)
    ids, owner = components(labels, ignored=0)
    assert ((ids == 0) == (labels == 0)).all()
    assert (owner[ids] == labels).all()
    for axis in (0, 1):  # neighbours are of one region if and only if they are of one label
        a, b = np.moveaxis(labels, axis, 0), np.moveaxis(ids, axis, 0)
        assert ((a[1:] == a[:-1]) == (b[1:] == b[:-1])).all()
    for region in range(1, len(owner)):
        assert cv2.connectedComponents((ids == region).astype(np.uint8), connectivity=4)[0] == 2


@pytest.mark.parametrize("seed", range(60))
def test_outlines_are_valid_and_hold_every_pixel(seed: int) -> None:
    ids, owner = components(random_labels(seed), ignored=0)
    found = polygons(ids)
    assert len(found) == len(owner) - 1
    y, x = np.indices(ids.shape) + 0.5
    for region, polygon in enumerate(found, start=1):
        area = shapely.Polygon(polygon.outer, polygon.holes)
        assert area.is_valid, shapely.is_valid_reason(area)
        assert area.area == (ids == region).sum()
        assert (shapely.contains_xy(area, x, y) == (ids == region)).all()
        assert shapely.LinearRing(polygon.outer).is_ccw  # by the formula, y up
        assert not any(shapely.LinearRing(hole).is_ccw for hole in polygon.holes)


@pytest.mark.parametrize("inset", [0, 1 / 64, 0.4])
@pytest.mark.parametrize("seed", range(30))
def test_a_ring_without_holes_encloses_the_same_pixels(seed: int, inset: float) -> None:
    ids, _ = components(random_labels(seed), ignored=0)
    for region, polygon in enumerate(polygons(ids), start=1):
        ring = without_holes(polygon, inset)
        if inset == 0:
            assert (enclosed(ring, ids.shape) == (ids == region)).all()
        pixels = ring - 0.5
        inside = [
            cv2.pointPolygonTest(pixels.astype(np.float32)[:, None], (float(x), float(y)), False)
            for y, x in np.ndindex(ids.shape)
        ]
        # On the line that leads to a hole the answer is "on the edge", 0.
        assert ((np.reshape(inside, ids.shape) >= 0) == (ids == region)).all()


def test_a_hole_is_a_ring_of_its_own() -> None:
    ids = np.ones((5, 6), np.int32)
    ids[1:3, 2:4] = 0
    (polygon,) = polygons(ids)
    assert polygon.outer.tolist() == [[0, 0], [6, 0], [6, 5], [0, 5]]
    (hole,) = polygon.holes
    assert sorted(hole.tolist()) == [[2, 1], [2, 3], [4, 1], [4, 3]]
    ring = without_holes(polygon)
    assert [0, 1.5] in ring.tolist()
    assert [2, 1.5] in ring.tolist()


def test_pixels_that_touch_at_a_corner_are_two_regions() -> None:
    ids, _ = components(np.eye(3, dtype=np.uint8), ignored=0)
    assert len(polygons(ids)) == 3


def test_a_region_that_meets_itself_at_a_corner_has_a_hole_there() -> None:
    ids = np.ones((3, 3), np.int32)
    ids[1, 1] = ids[2, 2] = 0  # the middle is open to the outside at a corner only
    (polygon,) = polygons(ids)
    assert len(polygon.holes) == 1
    assert shapely.Polygon(polygon.outer, polygon.holes).is_valid


def test_nothing_has_no_outline() -> None:
    ids, owner = components(np.full((3, 4), 7, np.uint8), ignored=7)
    assert owner.tolist() == [7]
    assert polygons(ids) == []


def test_an_inset_outline_is_drawn_as_the_same_pixels_by_opencv() -> None:
    labels = np.kron(np.random.default_rng(3).integers(0, 3, (8, 9)), np.ones((7, 6))).astype(np.uint8)
    ids, _ = components(labels, ignored=0)
    for region, polygon in enumerate(polygons(ids), start=1):
        picture = np.zeros(ids.shape, np.uint8)
        cv2.fillPoly(picture, [without_holes(polygon, 1 / 64).astype(np.int32)], 1)
        assert (picture == (ids == region)).all()


def test_a_polygon_has_no_holes_unless_given() -> None:
    assert Polygon(np.zeros((4, 2), np.int32)).holes == ()
