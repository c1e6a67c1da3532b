"""What a part of the torture has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One promise that was tried.

    Attributes:
        what: the promise.
        tries: how often.
        ok: whether it was kept every time.
        detail: what was seen.
    """

    what: str
    tries: int
    ok: bool
    detail: str
