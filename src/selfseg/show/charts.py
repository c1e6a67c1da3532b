"""Line charts as inline SVG: crisp at any size, in the page's own colours, without a plotting library in the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 32


def line_chart(
    x: Sequence[float],
    y: Sequence[float],
    title: str,
    x_label: str = "step",
    reference: tuple[float, str] | None = None,
    limits: tuple[float, float] | None = None,
    points: int = 400,
) -> str:
    """One curve as an SVG element; colours are the CSS variables --accent, --muted and --line of the page.

    Longer curves are averaged down to `points` values, with the range between each average's least and greatest value
    shaded, so that spikes stay visible.

    Args:
        x: N ascending values.
        y: N values; those that are not finite are left out.
        title: what the curve is, for those who can't see it too.
        x_label: under the axis.
        reference: a dashed horizontal line and its name, e.g. (4.85, "guess").
        limits: least and greatest y shown; from the values if None.
        points: the most points drawn.

    Returns:
        SVG, or an empty string if nothing is finite.

    Example:
        >>> line_chart([0, 1], [3.0, 2.0], "loss").startswith("<svg")
        True
    """
    pairs = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not pairs:
        return ""
    size = math.ceil(len(pairs) / points)
    groups = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    middle = [(_mean([a for a, _ in g]), _mean([b for _, b in g])) for g in groups]
    low, high = limits or (min(b for _, b in pairs), max(b for _, b in pairs))
    if reference is not None and limits is None:
        low, high = min(low, reference[0]), max(high, reference[0])
    if limits is None:
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        low, high = low - margin, high + margin
    first, last = pairs[0][0], pairs[-1][0]
    if first == last:
        first, last = first - 0.5, last + 0.5

    def px(value: float) -> float:
        return _LEFT + (value - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def py(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}: '
        f'from {_format(pairs[0][1])} to {_format(pairs[-1][1])}"><title>{escape(title)}</title>'
    ]
    for tick in ticks(low, high, 4):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{py(tick):.1f}" y2="{py(tick):.1f}"/>'
            f'<text class="tick" x="{_LEFT - 7}" y="{py(tick) + 4:.1f}" text-anchor="end">{_format(tick)}</text>'
        )
    for tick in ticks(first, last, 5):
        parts.append(
            f'<text class="tick" x="{px(tick):.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">'
            f"{_format(tick)}</text>"
        )
    parts.append(
        f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 2}" text-anchor="end">{escape(x_label)}</text>'
    )
    if reference is not None:
        height = py(reference[0])
        parts.append(
            f'<line class="reference" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
            f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{height + 13:.1f}" text-anchor="end">'
            f"{escape(reference[1])}</text>"
        )
    if size > 1:
        upper = [f"{px(m[0]):.1f},{py(max(b for _, b in g)):.1f}" for m, g in zip(middle, groups, strict=True)]
        lower = [f"{px(m[0]):.1f},{py(min(b for _, b in g)):.1f}" for m, g in zip(middle, groups, strict=True)]
        parts.append(f'<polygon class="range" points="{" ".join(upper + lower[::-1])}"/>')
    curve = " ".join(f"{px(a):.1f},{py(b):.1f}" for a, b in middle)
    parts.append(f'<polyline class="curve" points="{curve}"/>')
    parts.append(f'<circle class="end" cx="{px(middle[-1][0]):.1f}" cy="{py(middle[-1][1]):.1f}" r="3.2"/></svg>')
    return "".join(parts)


@dataclass(frozen=True)
class Curve:
    """Some measured points of one thing.

    Attributes:
        name: of the thing.
        x: N ascending values above 0.
        y: N values.
        spread: N standard deviations, drawn as bars; 0 = none.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float, ...]


def points_chart(
    curves: Sequence[Curve], title: str, x_label: str, y_label: str, reference: tuple[float, str] | None = None
) -> str:
    """A few measured points of several things, as an SVG element: x on a logarithmic axis, y from 0.

    The first curve has the page's accent and full dots, the others are gray and dashed with hollow ones, so that they
    differ without colour too.

    Args:
        curves: at least one with a point.
        title: what is shown.
        x_label: under the axis.
        y_label: above the axis.
        reference: a dashed horizontal line and its name.

    Returns:
        SVG, or an empty string without any point.

    Example:
        >>> points_chart([Curve("a", (1, 100), (0.2, 0.4), (0, 0.1))], "few", "%", "mIoU").startswith("<svg")
        True
    """
    places = sorted({value for curve in curves for value in curve.x})
    if not places:
        return ""
    top = _TOP + 18 * (1 + len(curves))
    height = _HEIGHT + 18 * len(curves)
    first, last = math.log(places[0]), math.log(places[-1])
    if first == last:
        first, last = first - 1, last + 1
    reach = [y + s for curve in curves for y, s in zip(curve.y, curve.spread, strict=True)]
    high = 1.06 * max(*reach, reference[0] if reference else 0.0, 1e-9)
    inner = 14  # keeps the first and last points off the frame

    def px(value: float) -> float:
        share = (math.log(value) - first) / (last - first)
        return _LEFT + inner + share * (_WIDTH - _LEFT - _RIGHT - 2 * inner)

    def py(value: float) -> float:
        return height - _BOTTOM - min(max(value / high, 0.0), 1.0) * (height - top - _BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
        f'<text class="tick" x="{_LEFT - 34}" y="{top - 12}">{escape(y_label)}</text>'
    ]
    for tick in ticks(0, high, 4):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{py(tick):.1f}" y2="{py(tick):.1f}"/>'
            f'<text class="tick" x="{_LEFT - 7}" y="{py(tick) + 4:.1f}" text-anchor="end">{_format(tick)}</text>'
        )
    right = -math.inf
    for place in places:
        if px(place) - right >= 26:  # room for the figures
            right = px(place)
            parts.append(
                f'<text class="tick" x="{right:.1f}" y="{height - _BOTTOM + 14}" text-anchor="middle">'
                f"{_format(place)}</text>"
            )
    parts.append(
        f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{height - 5}" text-anchor="end">{escape(x_label)}</text>'
    )
    if reference is not None:
        parts.append(
            f'<line class="reference" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{py(reference[0]):.1f}" '
            f'y2="{py(reference[0]):.1f}"/><text class="tick" x="{_WIDTH - _RIGHT}" y="{py(reference[0]) - 5:.1f}" '
            f'text-anchor="end">{escape(reference[1])}</text>'
        )
    for number, curve in enumerate(curves):
        other = " other" if number else ""
        row = _TOP + 18 * number
        parts.append(
            f'<line class="curve{other}" x1="{_LEFT}" x2="{_LEFT + 26}" y1="{row}" y2="{row}"/>'
            f'<circle class="dot{other}" cx="{_LEFT + 13}" cy="{row}" r="3.6"/>'
            f'<text class="tick" x="{_LEFT + 34}" y="{row + 4}">{escape(curve.name)}</text>'
        )
        line = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
        parts.append(f'<polyline class="curve{other}" points="{line}"/>')
        for x, y, spread in zip(curve.x, curve.y, curve.spread, strict=True):
            if spread > 0:
                low, up = py(y - spread), py(y + spread)
                parts.append(
                    f'<path class="spread{other}" d="M{px(x):.1f} {low:.1f}V{up:.1f}M{px(x) - 4:.1f} {low:.1f}h8'
                    f'M{px(x) - 4:.1f} {up:.1f}h8"/>'
                )
            parts.append(f'<circle class="dot{other}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="3.6"/>')
    return "".join([*parts, "</svg>"])


_ALONE = """<style>
svg { background: #fff; font-family: sans-serif; } .grid { stroke: #e4e1db; }
.tick { fill: #6b6862; font-size: 11.5px; }
.curve { fill: none; stroke: #2f5fd0; stroke-width: 2; } .curve.other { stroke: #6b6862; stroke-dasharray: 6 4; }
.dot { fill: #2f5fd0; stroke: #2f5fd0; stroke-width: 1.6; } .dot.other { fill: #fff; stroke: #6b6862; }
.spread { fill: none; stroke: #2f5fd0; stroke-width: 1.4; } .spread.other { stroke: #6b6862; }
.reference { stroke: #6b6862; stroke-width: 1.2; stroke-dasharray: 2 4; }
</style>"""


def standalone(svg: str) -> str:
    """A chart as a file of its own, with the page's light colours.

    Example:
        >>> chart = points_chart([Curve("a", (1,), (0.2,), (0,))], "few", "%", "mIoU")
        >>> standalone(chart).startswith('<svg xmlns="http://www.w3.org/2000/svg" width="920"')
        True
    """
    opened = svg.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * _WIDTH}"', 1)
    return opened.replace(">", ">" + _ALONE, 1) + "\n"


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers in [low, high].

    Example:
        >>> ticks(0, 100, 4)
        [0.0, 25.0, 50.0, 75.0, 100.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _format(value: float) -> str:
    """A short number: 0.004, 12.5, 1,200, 15k."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10_000:
        return f"{value / 1000:.4g}k"
    if size < 0.001:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.4g}" if size < 1000 else f"{value:,.0f}"
