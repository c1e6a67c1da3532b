"""GitHub's Markdown, in which the pages are written, for Python-Markdown, which makes the site of them.

GitHub begins a list or a table right below a paragraph, and indents what belongs to a list's item by as much as the
item's mark is wide. Python-Markdown wants an empty line before them, and four spaces for each level.
"""

from __future__ import annotations

import re

_ITEM = re.compile(r"( *)([-*+]|\d+[.)])( +)(?=\S)")
_FENCE = re.compile(r" *(`{3,}|~{3,})")


def for_python_markdown(text: str) -> str:
    r"""The same page with empty lines before lists and tables, and four spaces for each level of a list.

    Examples:
        >>> print(for_python_markdown("Two:\\n- a\\n  b\\n  - c\\n| x |\\n| - |"))
        Two:
        <BLANKLINE>
        - a
            b
            - c
        <BLANKLINE>
        | x |
        | - |
    """
    out: list[str] = []
    inside: list[int] = []  # of each open item, the column where its content begins
    closing, shift, blank, fenced = "", 0, True, False
    for line in text.split("\n"):
        bare = line.lstrip(" ")
        indent = len(line) - len(bare)
        if closing:  # within a fence nothing is looked at
            out.append(" " * max(indent + shift, 0) + bare if bare else "")
            if bare.startswith(closing) and not bare.strip(closing[0] + " "):
                closing, fenced = "", not inside
            continue
        if not bare:
            out.append("")
            blank = True
            continue
        item, fence = _ITEM.match(line), _FENCE.match(line)
        starts = bool(item or fence) or bare[0] in "|#<"
        if starts or blank:
            while inside and indent < inside[-1]:
                inside.pop()
        shift = 4 * len(inside) - (inside[-1] if inside else 0) if starts or blank or indent else 0
        table = bare[0] == "|" and not (out and out[-1].lstrip().startswith("|"))
        begins = table or (item and not inside and (fenced or not _listed(out)))
        if begins and not blank:
            out.append("")
        fenced = False
        out.append(" " * max(indent + shift, 0) + bare)
        if item:
            inside.append(len(item[0]))
        elif fence:
            closing = fence[1]
        blank = False
    return "\n".join(out)


def _listed(out: list[str]) -> bool:
    """Whether the lines above, up to an empty one, are a list."""
    for line in reversed(out):
        if not line:
            return False
        if _ITEM.match(line):
            return True
    return False
