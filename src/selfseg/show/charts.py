"""Line charts as inline SVG: crisp at any size, in the page's own colours, without a plotting library in the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
