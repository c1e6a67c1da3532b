"""Charts as inline SVG: crisp at any size, in the page's own colours, without a plotting library in the page."""

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


_NAMED = 40  # classes, up to which a confusion has names and figures
_LONGEST = 18  # letters of a name that are shown
_LEVELS = 25  # shades of a confusion without figures


def confusion_chart(
    confusion: Sequence[Sequence[float]], names: Sequence[str], title: str, columns: Sequence[str] | None = None
) -> str:
    """Which class was taken for which, as an SVG element: each row's shares of its sum, in percent.

    Up to 40 classes have their names and figures, and a tooltip at each cell; of more every tenth is numbered.
    Shares below half a percent are left blank, and so is a row without any pixel. The picture is as wide as it needs
    to be (about 300 to 900 px) and shrinks with the page.

    Args:
        confusion: (C, K) counts, at least 0; rows = truth, columns = prediction.
        names: C names of the rows.
        title: what is shown.
        columns: K names of the columns; the rows' if None.

    Returns:
        SVG, or an empty string without any class.

    Raises:
        ValueError: if names and confusion differ in size.

    Example:
        >>> confusion_chart([[3, 1], [0, 4]], ["sky", "road"], "val").count(">75<")
        1
    """
    columns = names if columns is None else columns
    if len(confusion) != len(names) or any(len(row) != len(columns) for row in confusion):
        raise ValueError(
            f"a confusion of {len(confusion)} rows can't have {len(names)} names and {len(columns)} columns"
        )
    if not names or not columns:
        return ""
    most = max(len(names), len(columns))
    named = most <= _NAMED
    cell = (44 if most <= 12 else 34 if most <= 22 else 23) if named else max(2.0, 720 / most)
    letters = [min(len(name), _LONGEST) for name in (*names, *columns)] if named else [4]
    left = 34 + 7.2 * max(letters)
    top = 30 + (0.75 * 7.2 * max(letters[len(names) :] or letters) if named else 8)  # names lean by 45 degrees
    right = left + cell * len(columns) + 8
    if named:  # a long name reaches out over the last column
        ends = (left + (j + 0.5) * cell + 0.75 * 7.2 * letters[len(names) + j] for j in range(len(columns)))
        right = max(right, *ends)
    width, height = right, top + cell * len(names) + 6
    parts = [
        f'<svg class="chart confusion" viewBox="0 0 {width:.0f} {height:.0f}" style="max-width: {width:.0f}px" '
        f'role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f'<text class="tick" x="{left + cell * len(columns) / 2:.1f}" y="12" text-anchor="middle">predicted</text>'
        f'<text class="tick" transform="translate(12 {top + cell * len(names) / 2:.1f}) rotate(-90)" '
        f'text-anchor="middle">truth</text>'
        f'<rect class="frame" x="{left:.1f}" y="{top:.1f}" width="{cell * len(columns):.1f}" '
        f'height="{cell * len(names):.1f}"/>'
    ]
    parts += _class_labels(names, columns, left, top, cell, named)
    shares = [[value / (sum(row) or 1) for value in row] for row in confusion]
    if named:
        size = 12 if cell > 30 else 10
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                if share < 0.005:
                    continue
                x, y = left + j * cell, top + i * cell
                shown = f"{100 * share:.0f}"
                parts.append(
                    f"<g><title>{escape(names[i])} taken for {escape(columns[j])}: {100 * share:.1f} %</title>"
                    f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{cell}" height="{cell}" '
                    f'fill-opacity="{share:.2f}"/><text class="value{" light" if share > 0.7 else ""}" '
                    f'font-size="{size}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 0.36 * size:.1f}" '
                    f'text-anchor="middle">{shown}</text></g>'
                )
        if columns is names:  # what should be full is marked, also where it is blank
            parts += [
                f'<rect class="frame" x="{left + i * cell:.1f}" y="{top + i * cell:.1f}" width="{cell}" '
                f'height="{cell}"/>'
                for i in range(len(names))
            ]
    else:  # one path for each shade: some 29,000 cells of 171 classes are too many elements
        places: dict[int, list[str]] = {}
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                if share >= 0.005:
                    level = max(1, round(share * _LEVELS))
                    places.setdefault(level, []).append(f"M{j} {i}h1v1h-1z")
        parts.append(f'<g transform="translate({left:.1f} {top:.1f}) scale({cell:.4f})">')
        for level, squares in sorted(places.items()):
            parts.append(f'<path class="cell" fill-opacity="{level / _LEVELS:.2f}" d="{"".join(squares)}"/>')
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _class_labels(
    names: Sequence[str], columns: Sequence[str], left: float, top: float, cell: float, named: bool
) -> list[str]:
    """The names, or the number of every tenth class, of a confusion's rows and columns."""
    parts = []
    for i, name in enumerate(names):
        if named or i % 10 == 0:
            text = _short(name) if named else str(i)
            parts.append(
                f'<text class="tick" x="{left - 7:.1f}" y="{top + (i + 0.5) * cell + 4:.1f}" text-anchor="end">'
                f"{escape(text)}<title>{escape(name)}</title></text>"
            )
    for j, name in enumerate(columns):
        if named:
            place = f"translate({left + (j + 0.5) * cell:.1f} {top - 7:.1f}) rotate(-45)"
            parts.append(
                f'<text class="tick" transform="{place}">{escape(_short(name))}<title>{escape(name)}</title></text>'
            )
        elif j % 10 == 0:
            parts.append(
                f'<text class="tick" x="{left + (j + 0.5) * cell:.1f}" y="{top - 6:.1f}" text-anchor="middle">{j}'
                f"<title>{escape(name)}</title></text>"
            )
    return parts


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


_ALONE = """<style>
svg { background: #fff; font-family: sans-serif; } .grid { stroke: #e4e1db; }
.tick { fill: #6b6862; font-size: 11.5px; }
.curve { fill: none; stroke: #2f5fd0; stroke-width: 2; } .curve.other { stroke: #6b6862; stroke-dasharray: 6 4; }
.dot { fill: #2f5fd0; stroke: #2f5fd0; stroke-width: 1.6; } .dot.other { fill: #fff; stroke: #6b6862; }
.spread { fill: none; stroke: #2f5fd0; stroke-width: 1.4; } .spread.other { stroke: #6b6862; }
.reference { stroke: #6b6862; stroke-width: 1.2; stroke-dasharray: 2 4; }
.cell { fill: #2f5fd0; } .value { fill: #1d1c1a; } .value.light { fill: #fff; } .frame { fill: none; stroke: #e4e1db; }
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
