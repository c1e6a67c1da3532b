"""What a notebook shows of an object: small pieces of HTML that stand alone, put together by `card`.

They have inline styles only, ask nobody for anything and run nothing. Every text is escaped, since names of files and
classes come from people. Colours of text and paper are the notebook's own, so that they fit a dark one and a light one.
Where a site takes the styles away, the words still say everything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from markupsafe import Markup

_LINE = "1px solid rgba(128,128,128,.35)"
_CARD = Markup(
    '<div style="border:{};border-radius:8px;padding:10px 14px;margin:4px 0;max-width:860px;box-sizing:border-box;'
    'font:14px/1.5 system-ui,sans-serif;overflow-wrap:anywhere">{}</div>'
)
_WARNING = Markup(
    '<div style="border-left:4px solid #d18700;background:rgba(209,135,0,.15);padding:4px 10px;margin:0 0 8px">{}</div>'
)
_FACT = Markup('<div style="min-width:0"><div style="opacity:.7;font-size:12px">{}</div><div>{}</div></div>')
_CELL = 'style="text-align:{};vertical-align:top;padding:3px 14px 3px 0;border:0;border-bottom:{};max-width:420px{}"'
_PICTURE = Markup(
    '<figure style="margin:0;flex:0 1 auto;max-width:100%"><img src="{}" width="{}" height="{}" alt="{}" '
    'style="max-width:100%;height:auto;display:block;border-radius:4px"><figcaption style="opacity:.7;font-size:12px">'
    "{}</figcaption></figure>"
)
_GRAY = "#8a8a8a"
_IS_COLOUR = re.compile("#[0-9a-fA-F]{6}")
MOST_ROWS = 40
"""Rows of a table that are shown."""


def card(title: str, *parts: Markup, warnings: Sequence[str] = (), headline: str = "") -> str:
    """What an object's `_repr_html_` gives.

    Args:
        title: what it is.
        parts: made by the functions below; empty ones are left out.
        warnings: what to know before anything else is read; they come first.
        headline: the one thing that matters most.

    Example:
        >>> "&lt;b&gt;" in card("<b>")
        True
    """
    head = Markup('<div style="font-weight:600;margin-bottom:6px">{}</div>').format(title)
    large = Markup('<div style="font-size:20px;font-weight:600;margin-bottom:6px">{}</div>').format(headline)
    told = [_WARNING.format(warning) for warning in warnings]
    return str(_CARD.format(_LINE, _joined([*told, head, large if headline else Markup(""), *parts])))


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Short facts side by side, (name, value) each."""
    inside = _joined(_FACT.format(name, str(value)) for name, value in pairs)
    return Markup('<div style="display:flex;flex-wrap:wrap;gap:6px 22px;margin-bottom:6px">{}</div>').format(inside)


def note(text: str) -> Markup:
    """A sentence in small letters."""
    return Markup('<div style="opacity:.75;font-size:12.5px;margin-top:6px">{}</div>').format(text)


def listed(sentences: Iterable[str]) -> Markup:
    """Sentences in small letters, one below the other."""
    return _joined(note(sentence) for sentence in sentences)


def strong(text: str) -> Markup:
    """What stands out among its like."""
    return Markup("<b>{}</b>").format(text)


def table(
    head: Sequence[str], rows: Sequence[Sequence[object]], right: Collection[int] = (), what: str = "rows"
) -> Markup:
    """A table, whose first `MOST_ROWS` rows are shown; it scrolls by itself where it is too wide.

    Args:
        head: the columns' names.
        rows: a cell for each column: text, or what a function of this module made.
        right: the columns whose cells stand on the right, as numbers do.
        what: the rows are, for the line that says how many are left out.
    """

    def line(tag: str, cells: Sequence[object]) -> Markup:
        sides = ("right" if place in right else "left" for place in range(len(cells)))
        wraps = ";white-space:nowrap" if tag == "th" else ""
        made = [
            Markup(f"<{tag} {_CELL.format(side, _LINE, wraps)}>{{}}</{tag}>").format(cell)
            for side, cell in zip(sides, cells, strict=True)
        ]
        return Markup("<tr>{}</tr>").format(_joined(made))

    shown = _joined(line("td", row) for row in rows[:MOST_ROWS])
    style = (
        "border-collapse:collapse;margin:0;font-size:13px;font-variant-numeric:tabular-nums;overflow-wrap:break-word"
    )
    made = Markup('<table style="{}"><thead>{}</thead><tbody>{}</tbody></table>').format(style, line("th", head), shown)
    rest = len(rows) - MOST_ROWS
    return _scrolling(made) + (note(f"{rest:,} more {what} are not shown") if rest > 0 else Markup(""))


def folded(title: str, inside: Markup) -> Markup:
    """What is only seen after a click on its title."""
    return Markup('<details style="margin-top:6px"><summary style="cursor:pointer">{}</summary>{}</details>').format(
        title, inside
    )


def swatch(colour: str) -> Markup:
    """A square of a colour such as "#ff8000"; a sign and no box, so that something is left where styles are not."""
    style = "font-size:17px;line-height:1;text-shadow:0 0 1px rgba(128,128,128,.9)"
    return Markup('<span style="color:{};{}">&#9632;</span>').format(_colour(colour), style)


def bar(share: float, colour: str = _GRAY) -> Markup:
    """A share from 0 to 1 as percent, and as the length of a bar."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}%"
    line = Markup(
        '<span style="display:inline-block;width:70px;height:6px;border-radius:3px;background:rgba(128,128,128,.25);'
        'vertical-align:middle;margin-left:8px"><span style="display:block;width:{};height:6px;border-radius:3px;'
        'background:{}"></span></span>'
    )
    whole = Markup('<span style="white-space:nowrap">{}{}</span>')
    return whole.format(percent(share), line.format(width, _colour(colour)))


def percent(share: float) -> str:
    """A share from 0 to 1 in words.

    Example:
        >>> percent(0.125), percent(0.0001), percent(0)
        ('12.5 %', 'less than 0.1 %', '0 %')
    """
    if 0 < share < 0.0005:
        return "less than 0.1 %"
    return f"{100 * share:.1f} %" if share else "0 %"


def pictures(figures: Iterable[tuple[str, int, int, str]]) -> Markup:
    """Pictures side by side, (data URI, width and height in px, caption) each."""
    made = _joined(_PICTURE.format(uri, width, height, caption, caption) for uri, width, height, caption in figures)
    return Markup('<div style="display:flex;flex-wrap:wrap;gap:10px;margin:6px 0">{}</div>').format(made)


def in_line(name: str, pairs: Iterable[tuple[str, object]]) -> str:
    """What `__repr__` gives: one line.

    Example:
        >>> in_line("Clusters", [("k", 8), ("", "of 7 images")])
        'Clusters(k=8, of 7 images)'
    """
    return f"{name}({', '.join(f'{key}={value}' if key else str(value) for key, value in pairs)})"


def _colour(text: str) -> str:
    """A colour that may stand in a style: what a stranger's file says there could be an address to ask."""
    return text if _IS_COLOUR.fullmatch(text) else _GRAY


def _scrolling(inside: Markup) -> Markup:
    return Markup('<div style="overflow-x:auto;max-width:100%">{}</div>').format(inside)


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def learned_with(recipe: Any) -> str:
    """A sentence on what a run was trained with; "" if nothing says it.

    Args:
        recipe: plain values of recipe.yaml.

    Example:
        >>> learned_with({"name": "vice_small", "steps": 600, "batch_size": 8, "seed": 0})
        'vice_small, 600 steps of 8 images, seed 0'
        >>> learned_with({"name": "pyramid", "steps": 0})
        'pyramid, which trains nothing'
    """
    if not isinstance(recipe, dict) or not isinstance(recipe.get("name"), str):
        return ""
    name, steps, epochs, batch = (recipe.get(word) for word in ("name", "steps", "epochs", "batch_size"))
    if steps == 0 and not epochs:
        return f"{name}, which trains nothing"
    length = f"{epochs:g} epochs" if isinstance(epochs, float | int) else f"{steps} steps"
    seed = f", seed {recipe['seed']}" if isinstance(recipe.get("seed"), int) else ""
    return f"{name}, {length} of {batch} images{seed}" if batch else f"{name}, {length}{seed}"
