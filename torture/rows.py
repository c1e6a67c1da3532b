"""What a part of the torture reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what was tried, in a few words.
        tries: how many files, kills, values or calls.
        ok: whether every one of them ended as promised.
        detail: a figure worth keeping, or what went wrong, with the first cases by name.
    """

    what: str
    tries: int
    ok: bool
    detail: str = ""
