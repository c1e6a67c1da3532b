"""CVAT's XML, as its documentation has it, and its masks; what its writer here writes is read in test_round_trip."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfseg.errors import DataError, LabelError
from selfseg.exchange import read

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels>
    <label><name>road</name><color>#804080</color><attributes/></label>
    <label><name>sky</name><color>red</color></label>
    <label><name>arm</name><parent>person</parent></label>
  </labels></task></meta>
"""
SIZE = 'width="6" height="3"'


def xml(tmp_path: Path, shapes: str, head: str = HEAD, image: str = f'name="a.jpg" {SIZE}') -> Path:
    path = tmp_path / "annotations.xml"
    path.write_text(f'{head}<image id="0" {image}>{shapes}</image></annotations>')
    return path


def test_polygons_masks_and_their_layers(tmp_path: Path) -> None:
    path = xml(
        tmp_path,
        """<tag label="road" source="manual"/>
        <polygon label="road" points="0,0;6,0;6,2;0,2" z_order="1" occluded="0"><attribute name="x"/></polygon>
        <mask label="sky" source="manual" rle="1, 2, 1" left="4" top="1" width="2" height="2" z_order="2"/>
        <polygon label="sky" points="0,0;6,0;6,3;0,3" z_order="0"/>""",
    )
    legend, masks = read("auto", path)
    assert legend.names == ("road", "sky")
    assert legend.classes[0].colour == (128, 64, 128)
    (one,) = masks
    assert (one.name, one.size) == ("a.jpg", (3, 6))
    expected = [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(one.mask, expected)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ('<box label="road" xtl="0" ytl="0" xbr="3" ybr="2"/>', "a box has no outline"),
        ('<ellipse label="road" cx="1" cy="1" rx="1" ry="1"/>', "a ellipse has no outline"),
        ('<polygon label="tree" points="0,0;6,0;6,2"/>', r"polygon 0 \('tree'\) of image 'a.jpg': its label is none"),
        ('<polygon points="0,0;6,0;6,2"/>', "its label is none"),
        ('<polygon label="road" points="0,0;6,0"/>', "2 points, which enclose nothing"),
        ('<polygon label="road" points="0,0;6;2"/>', "points|numbers"),
        ('<polygon label="road" points="a,b"/>', "points are x,y;x,y"),
        ('<polygon label="road" points="0,0;nan,0;6,2"/>', "not a finite number"),
        ('<polygon label="road" points="0,0;6,0;6,2" z_order="high"/>', "z_order is a whole number"),
        ('<polygon label="road" points="9,0;10,0;10,2"/>', "lies outside of the image"),
        ('<mask label="road" rle="1,2" left="4" top="1" width="2" height="2"/>', "3 pixels in all, but the mask has 4"),
        ('<mask label="road" rle="1,x" left="4" top="1" width="2" height="2"/>', "rle is a list of whole numbers"),
        ('<mask label="road" rle="9" left="4" top="1" width="3" height="3"/>', "reaches out of the image"),
        ('<mask label="road" rle="1,3" left="-4" top="1" width="2" height="2"/>', "whole numbers left, top"),
        ('<mask label="road" rle="1,3" top="1" width="2" height="2"/>', "whole numbers left, top"),
    ],
)
def test_shapes_that_can_not_be_used(shapes: str, message: str, tmp_path: Path) -> None:
    path = xml(tmp_path, shapes + '<polygon label="sky" points="0,0;6,0;6,3;0,3"/>')
    with pytest.raises(LabelError, match=rf"annotations\.xml: .* of image 'a\.jpg': .*{message}|{message}"):
        list(read("cvat", path)[1])
    left_out: list[str] = []
    (one,) = read("cvat", path, left_out=left_out)[1]
    assert (one.mask == 1).all()
    assert len(left_out) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": 'name="a.jpg" width="6"'}, "height and width are numbers of pixels, not None and 6"),
        ({"image": 'name="a.jpg" width="99999999" height="99999999"'}, "are more than the"),
        ({"image": f'name="../../a.jpg" {SIZE}'}, "leads out of the folder"),
        ({"image": SIZE}, "'' is no file's name"),
        ({"head": HEAD + '<track id="0" label="road"/>'}, "holds tracks of a video"),
    ],
)
def test_images_that_can_not_be_used(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=message):
        list(read("cvat", xml(tmp_path, "", **arguments))[1])


def test_xml_without_a_head_and_of_something_else(tmp_path: Path) -> None:
    path = xml(
        tmp_path, '<polygon label="b" points="0,0;6,0;6,3"/><polygon label="a" points="0,0;6,0;6,3"/>', "<annotations>"
    )
    assert read("auto", path)[0].names == ("a", "b")
    path.write_text("<annotation/>")
    with pytest.raises(DataError, match="no XML of CVAT: its root is <annotation>"):
        read("cvat", path)
    path.unlink()
    with pytest.raises(DataError, match=r"neither a labelmap\.txt nor an XML file"):
        read("cvat", tmp_path)


LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\nsky:70,130,180::\n"


def masks(tmp_path: Path, labelmap: str, pixels: np.ndarray, palette: list[int] | None = None) -> Path:
    (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
    (tmp_path / "labelmap.txt").write_text(labelmap)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(palette)
    image.save(tmp_path / "SegmentationClass" / "a.png")
    return tmp_path


def test_black_is_no_class_and_only_colours_count(tmp_path: Path) -> None:
    table = np.array([[0, 0, 0], [128, 64, 128], [70, 130, 180]], np.uint8)
    values = np.array([[0, 1, 2, 1]])
    for pixels, palette in ((table[values], None), (2 - values.astype(np.uint8), table[::-1].ravel().tolist())):
        legend, found = read("auto", masks(tmp_path, LABELMAP, pixels, palette))
        assert legend.names == ("road", "sky")
        (one,) = found
        np.testing.assert_array_equal(one.mask, [[255, 0, 1, 0]])


@pytest.mark.parametrize(
    ("labelmap", "message"),
    [
        (LABELMAP + "tree", "a line is NAME:R,G,B:PARTS:ACTIONS, not 'tree'"),
        (LABELMAP + "tree:1,2::", "a line is NAME"),
        (LABELMAP + "tree:1,2,300::", "above 255"),
        (LABELMAP + "tree:1,2,9999999999999::", "above 255"),
        (LABELMAP + "sky:1,2,3::", "names 'sky' twice"),
        (LABELMAP + "tree:128,64,128::", r"gives the colour \(128, 64, 128\) to both 'road' and 'tree'"),
        ("background:0,0,0::", "names no class"),
    ],
)
def test_lists_of_labels_that_make_no_sense(labelmap: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=rf"labelmap\.txt.*{message}"):
        read("cvat", masks(tmp_path, labelmap, np.zeros((2, 2, 3), np.uint8)))


def test_a_colour_of_no_label_is_named_with_its_place(tmp_path: Path) -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    pixels[2, 3] = 1, 2, 3
    with pytest.raises(LabelError, match=r"a\.png: the colour \(1, 2, 3\) at x = 3, y = 2 is none of the listed"):
        list(read("cvat", masks(tmp_path, LABELMAP, pixels))[1])
