"""The verb that checks data: data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from selfseg.cli.console import HELP, OUT, parse, say
from selfseg.errors import ConfigError, DataError
from selfseg.storage.files import write_text
from selfseg.storage.remote.places import at_places


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


@at_places(reads=["data"], writes=["sheet", "write"])
def _check(
    data: Annotated[Positional[str], arg(metavar="DATA")],
    splits: tuple[str, ...] = (),
    sheet: Path | None = None,
    count: int = 12,
    decode: bool = False,
    partial: bool = False,
    label_suffix: str | None = None,
    val: float | None = None,
    write: Path | None = None,
    link: bool = False,
    leave_out: bool = False,
    channels: tuple[str, ...] = (),
    pages: str = "auto",
) -> int:
    """Tell how data was understood and check it: counts, missing and damaged files, class shares, a contact sheet.

    Args:
        data: NAME:ROOT, NAME/SPLIT:ROOT, a folder of images, or a folder, zip or file with images and labels.
        splits: which ones; if not given all, of which train and val must be there.
        sheet: picture of some images under their labels; NAME-check.png if not given. Where much can't be
            used, all of it is listed with its reason in a .txt beside it.
        count: images on it.
        decode: decode every image too, instead of looking at its header and end.
        partial: other numbers of images than published are no error.
        label_suffix: what labels' names have behind their images', e.g. _mask; found out if not given.
        val: percent of the images that are drawn as val where the folder isn't divided.
        write: a new folder, in which the same is written as SPLIT/images, SPLIT/labels and classes.txt.
        link: what is written has links to the images instead of copies.
        leave_out: what can't be used of another tool's labels is left out of what is written.
        channels: of images with many channels or bits, those that are looked at, by number from 0 or by name;
            rgb reads all files as photographs.
        pages: of files with several pages, which are images: all, first, max, mean, channels, or a number from 0.
    """
    from selfseg.collection.check import check_data
    from selfseg.data.labelled.catalog import parse_source, with_options

    if write is not None and write.exists():
        raise ConfigError(f"{write} is there already; give a new folder to --write")
    asked = with_options(data, label_suffix, val)
    source = parse_source(asked)
    name = source.dataset.name if source.dataset else re.sub(r"[^\w.-]+", "", source.root.resolve().name).strip(".-")
    drawn = sheet or Path(f"{name}-check.png")
    found = check_data(asked, splits, drawn, count, decode, partial, channels=channels, pages=pages)
    OUT.print(found.table())
    say(f"written: {found.sheet}")
    if found.many:
        listed = drawn.with_suffix(".txt")
        faults = [fault for split in found.splits for fault in split.faults()]
        write_text(listed, "".join(f"{fault}\n" for fault in faults))
        say(f"written: {listed}, all {len(faults)} that can't be used, and why")
    if write is not None:
        from selfseg.data.labelled.layouts.finding import counted
        from selfseg.exchange.plain_layout import write_plain

        made = write_plain(asked, write, splits, link, leave_out)
        parts = (f"{counted(count, 'image')} in {split}" for split, count in made.items())
        say(f"written: {write}, with {', '.join(parts)}")
    return 0 if found.healthy else DataError.exit_code
