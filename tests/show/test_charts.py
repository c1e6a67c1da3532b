import math
import re
from xml.etree import ElementTree

import pytest

from selfseg.show.charts import Curve, line_chart, points_chart, standalone, ticks


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
