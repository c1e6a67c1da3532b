"""The verb that checks data: data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from selfseg.cli.console import HELP, OUT, parse, say
from selfseg.errors import ConfigError, DataError


def data(words: list[str]) -> int:
    """Check a data set, or list those that are known."""
    if words and words[0] not in HELP:
        return parse("data", _check, words)
    from selfseg.data.labelled.datasets import DATASETS

    say("selfseg data NAME:ROOT [options] checks a data set on disk; NAME:ROOT stands wherever data is asked for:\n")
    for known in DATASETS.values():
        OUT.print(f"[bold]{known.name:14}[/]", end="", highlight=False)
        say(known.about)
    if words:
        parse("data", _check, words)
    return 0 if words else ConfigError.exit_code


def _check(
    data: Annotated[Positional[str], arg(metavar="DATA")],
    splits: tuple[str, ...] = (),
    sheet: Path | None = None,
    count: int = 12,
    decode: bool = False,
    partial: bool = False,
) -> int:
    """Check a data set on disk: counts, missing and damaged files, class shares, and a contact sheet.

    Args:
        data: NAME:ROOT, NAME/SPLIT:ROOT, a labelled folder, or a folder of images.
        splits: which ones; if not given all, of which train and val must be there.
        sheet: picture of some images under their labels; NAME-check.png if not given.
        count: images on it.
        decode: decode every image too, instead of looking at its header and end.
        partial: other numbers of images than published are no error.
    """
    from selfseg.collection.check import check_data
    from selfseg.data.labelled.catalog import parse_source

    source = parse_source(data)
    name = source.dataset.name if source.dataset else source.root.resolve().name
    found = check_data(data, splits, sheet or Path(f"{name}-check.png"), count, decode, partial)
    OUT.print(found.table())
    say(f"written: {found.sheet}")
    return 0 if found.healthy else DataError.exit_code
