from pathlib import Path

import pytest
from PIL import Image

from selfseg.data.labelled.legend import Legend
from selfseg.errors import LabelError
from selfseg.exchange.reading.painting import Faults, Picture, Thing, coded, filled, paint
from selfseg.exchange.reading.photographs import Photographs

LEGEND = Legend.of(["a", "b", "c"])
NONE = Photographs(None)


def square(x0: int, x1: int) -> list[list[list[int]]]:
    return [[[x0, 0, x1, 0, x1, 1, x0, 1]]]


def row(*things: Thing, size: tuple[int, int] | None = (1, 6), faults: Faults | None = None) -> list[int]:
    found = paint(Picture("x.jpg", size, things, Path("labels")), LEGEND, NONE, faults or Faults())
    assert found is not None
    return found.mask[0].tolist()


def test_what_is_on_top() -> None:
    large, small = filled(square(0, 5)), filled(square(1, 3))
    # The later one, where there is an order,
    assert row(Thing(0, large, ""), Thing(1, small, "")) == [0, 1, 1, 0, 0, 255]
    assert row(Thing(1, small, ""), Thing(0, large, "")) == [0, 0, 0, 0, 0, 255]
    # the higher layer, whatever the order and the areas,
    assert row(Thing(0, large, "", layer=1), Thing(1, small, "")) == [0, 0, 0, 0, 0, 255]
    assert row(Thing(1, small, "", layer=1, area=9), Thing(0, large, "", area=5)) == [0, 1, 1, 0, 0, 255]
    # and the smaller one, where areas are given; of equal ones the later.
    assert row(Thing(1, small, "", area=2), Thing(0, large, "", area=5)) == [0, 1, 1, 0, 0, 255]
    assert row(Thing(1, small, "", area=2), Thing(2, small, "", area=2)) == [255, 2, 2, 255, 255, 255]


def test_coordinates_as_pixels_shares_and_percents() -> None:
    for extent, right in ((None, 3), (1, 0.5), (100, 50)):
        height = extent or 1
        draw = filled([[[0, 0, right, 0, right, height, 0, height]]], extent)
        assert row(Thing(2, draw, "")) == [2, 2, 2, 255, 255, 255]
    assert row(Thing(2, filled([*square(0, 1), *square(4, 5)]), "")) == [2, 255, 255, 255, 2, 255]


def test_faults_are_raised_or_listed() -> None:
    outside = Thing(0, filled(square(7, 9)), "object 7")
    other = Thing(0, coded([6], [6, 1]), "object 8")
    good = Thing(1, coded([0, 1, 5], [1, 6], by_rows=True), "")
    with pytest.raises(LabelError, match=r"labels: object 7 of image 'x.jpg': it lies outside of the image of 6x1"):
        row(outside)
    left_out: list[str] = []
    assert row(outside, good, other, faults=Faults(left_out)) == [1, 255, 255, 255, 255, 255]
    assert len(left_out) == 2
    assert "object 8 of image 'x.jpg': its run lengths are of the size [6, 1], but the image has [1, 6]" in left_out[1]


def test_sizes_are_held_against_the_photographs(tmp_path: Path) -> None:
    Image.new("RGB", (6, 1)).save(tmp_path / "x.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (6, 1)).save(tmp_path / "turned.jpg", exif=turned)
    photographs = Photographs(tmp_path)

    def mask(name: str, size: tuple[int, int] | None) -> object:
        return paint(Picture(name, size, [], Path("labels")), LEGEND, photographs, Faults())

    assert mask("x.png", (1, 6)) is not None
    assert mask("x.png", None).size == (1, 6)  # type: ignore[attr-defined]
    assert mask("turned.jpg", None).size == (6, 1)  # type: ignore[attr-defined]
    with pytest.raises(
        LabelError, match=r"labels: the labels of image 'x.png' are of 7x1 pixels, but .*x\.png has 6x1"
    ):
        mask("x.png", (1, 7))
    with pytest.raises(LabelError, match="turned by its EXIF orientation"):
        mask("turned.jpg", (1, 6))
    with pytest.raises(LabelError, match=r"labels: the size of image 'gone.jpg' isn't known"):
        mask("gone.jpg", None)
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(LabelError, match=r"labels: .*x\.png: unreadable"):
        mask("x.png", None)
