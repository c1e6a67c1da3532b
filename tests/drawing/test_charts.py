import math
import re
from xml.etree import ElementTree

import pytest

from selfseg.drawing.charts import Curve, confusion_chart, line_chart, points_chart, standalone, ticks


def curve(svg):
    points = ElementTree.fromstring(svg).find("polyline").get("points")
    return [tuple(float(v) for v in pair.split(",")) for pair in points.split()]


def test_a_falling_curve_falls_on_the_page():
    points = curve(line_chart([0, 1, 2], [3.0, 2.0, 1.0], "loss"))
    assert len(points) == 3
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[0][1] < points[1][1] < points[2][1]  # y runs down in SVG


def test_long_curves_are_averaged_with_their_range():
    svg = line_chart(range(1000), [0.0 if i != 500 else 100.0 for i in range(1000)], "x", points=100)
    assert len(curve(svg)) == 100
    heights = [float(p.split(",")[1]) for p in ElementTree.fromstring(svg).find("polygon").get("points").split()]
    assert min(heights) < min(y for _, y in curve(svg)) - 50  # the spike is in the shade


def test_odd_values():
    assert line_chart([], [], "x") == ""
    assert line_chart([1], [math.nan], "x") == ""
    assert len(curve(line_chart([1], [5.0], "x"))) == 1
    assert len(curve(line_chart([1, 2, 3], [1.0, math.inf, 1.0], "<&>"))) == 2


def test_the_reference_is_inside():
    svg = line_chart([0, 1], [1.0, 2.0], "x", reference=(10.0, "guess"))
    height = [
        float(line.get("y1")) for line in ElementTree.fromstring(svg).iter("line") if "reference" in line.get("class")
    ]
    assert 0 < height[0] < min(y for _, y in curve(svg))


def test_ticks_are_round():
    assert ticks(0.03, 0.97, 4) == [0.25, 0.5, 0.75]
    assert ticks(5, 5, 3) == [5]


CURVES = [
    Curve("<ours>", (1, 10, 100), (0.2, 0.3, 0.4), (0.05, 0, 0.02)),
    Curve("theirs", (1, 100), (0.1, 0.4), (0, 0)),
]


def test_points_lie_on_a_logarithmic_axis_with_their_deviations():
    chart = ElementTree.fromstring(points_chart(CURVES, "few", "%", "mIoU", (0.03, "constant")))
    lines = [line.get("points").split() for line in chart.findall("polyline")]
    x, y = zip(*([float(v) for v in pair.split(",")] for pair in lines[0]), strict=True)
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.2)
    assert lines[1][1] == lines[0][2]
    bars = [path.get("d") for path in chart.findall("path")]
    assert len(bars) == 2
    low, up = (float(v) for v in re.fullmatch(r"M[\d.]+ ([\d.]+)V([\d.]+)M.*", bars[0]).groups())
    assert (low + up) / 2 == pytest.approx(y[0], abs=0.2)
    assert low - up == pytest.approx(y[0] - y[1], abs=0.2)  # twice 0.05
    texts = [text.text for text in chart.findall("text")]
    assert {"<ours>", "theirs", "1", "10", "100", "constant", "mIoU"} <= set(texts)


def test_points_of_one_place_or_none():
    assert points_chart([], "few", "%", "mIoU") == ""
    one = points_chart([Curve("a", (5,), (0.0,), (0.0,))], "few", "%", "mIoU")
    assert "nan" not in one
    alone = ElementTree.fromstring(standalone(one))
    assert alone.tag.endswith("svg")
    assert "stroke" in alone[0].text


def cells(chart):
    """Text of the cells' tooltips, and the figures."""
    groups = [group for group in ElementTree.fromstring(chart).findall("g") if group.find("rect") is not None]
    return {group.find("title").text: group.find("text").text for group in groups}


def test_a_confusion_is_shares_of_the_truth():
    chart = confusion_chart([[6, 2, 0], [0, 0, 0], [1, 0, 999]], ["sky", "<road>", "a" * 30], "val & all")
    assert cells(chart) == {
        "sky taken for sky: 75.0 %": "75",
        "sky taken for <road>: 25.0 %": "25",
        "a" * 30 + " taken for " + "a" * 30 + ": 99.9 %": "100",
    }
    root = ElementTree.fromstring(chart)
    frames = [r for r in root.iter("rect") if r.get("class") == "frame"]
    squares = [r for r in root.iter("rect") if r.get("class") == "cell"]
    assert [r.get("fill-opacity") for r in squares] == ["0.75", "0.25", "1.00"]
    # Rows go down and columns to the right; the cell of "sky taken for road" is right of the first.
    first, second, last = [(float(r.get("x")), float(r.get("y"))) for r in squares]
    assert second[0] > first[0]
    assert second[1] == first[1]
    assert last == pytest.approx((first[0] + 88, first[1] + 88))  # two cells of 44 px
    assert len(frames) == 1 + 3
    assert root.get("aria-label") == "val & all"
    assert "a" * 17 + "…" in [text.text for text in root.iter("text")]
    assert ElementTree.fromstring(standalone(chart)).tag.endswith("svg")


@pytest.mark.parametrize("count", [1, 11, 21, 40, 41, 171])
def test_every_cell_of_a_confusion_lies_in_the_picture(count):
    names = [f"class {i}" for i in range(count)]
    chart = confusion_chart([[1] * min(count, 50) + [0] * (count - 50) for _ in names], names, "all alike")
    root = ElementTree.fromstring(chart)
    width, height = (float(v) for v in root.get("viewBox").split()[2:])
    assert width < 1100
    shown = [text.text for text in root.iter("text")]
    if count <= 40:
        boxes = [tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in root.iter("rect")]
        assert len(boxes) == 1 + count * count + count
        assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
        assert shown.count("class 0") == 2
    else:
        places = "".join(path.get("d") for path in root.iter("path")).split("M")[1:]
        assert len(set(places)) == count * min(count, 50)  # a fiftieth each is enough to be seen
        (group,) = [g for g in root.findall("g") if "scale" in g.get("transform", "")]
        x, y, scale = (float(v) for v in re.findall(r"[\d.]+", group.get("transform")))
        assert x + scale * count <= width
        assert y + scale * count <= height
        assert "class 0" not in shown
        assert shown.count("40") == 2


def test_confusions_that_can_not_be_drawn():
    assert confusion_chart([], [], "x") == ""
    with pytest.raises(ValueError, match="2 rows can't have 2 names and 3 columns"):
        confusion_chart([[1, 2], [3, 4]], ["a", "b"], "x", ["a", "b", "none"])
    assert len(cells(confusion_chart([[1, 1, 2]], ["a"], "x", ["a", "b", "none"]))) == 3
