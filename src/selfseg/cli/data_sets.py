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

_DATA = """usage: selfseg data FOLDER [OPTIONS]
       selfseg data NAME:ROOT [OPTIONS]

Say what is in a folder of images, or in images with labels, and what is damaged or missing. Published data sets are
known by a name: camvid:/data/CamVid is CamVid in the folder /data/CamVid. You can write NAME:ROOT wherever images or
data are asked for. The names, and the folders that are expected in ROOT:
"""


def data(words: list[str]) -> int:
    """Check a data set, or list those that are known."""
    if words and words[0] not in HELP:
        return parse("data", _check, words)
    from selfseg.data.labelled.datasets import DATASETS

    say(_DATA)
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
    """Say how data was understood, and check it.

    You get the numbers of images and labels, missing and damaged files, how much of the pixels each class has, and a
    picture of some images with their labels.

    Args:
        data: a folder of images; or images with labels as a folder, a zip or another tool's file; or NAME:ROOT or
            NAME/SPLIT:ROOT.
        splits: which splits are checked. If not given, all of them; train and val must then be there.
        sheet: file for a picture of some images under their labels; NAME-check.png if not given. If many files can't be
            used, a .txt file beside it lists them all, with the reasons.
        count: how many images the picture shows.
        decode: decode every image completely. This is slower, and finds damage in the middle of a file, too.
        partial: accept another number of images than the data set was published with.
        label_suffix: what the name of a label has after the name of its image, e.g. _mask. It is found out if not
            given.
        val: percentage of the images that are drawn at random for measuring, if the folder has no splits. They become
            the split val.
        write: a new folder. The same images and labels are written there as SPLIT/images, SPLIT/labels and classes.txt.
        link: with --write: make links to the images instead of copies.
        leave_out: with --write: leave out labels of another tool that can't be used, instead of stopping.
        channels: for images with many channels or bits: which channels are looked at, by number from 0 or by name. rgb
            reads all files as photographs.
        pages: for files with several pages: which of them are images. all, first, max, mean, channels, or a page's
            number from 0.
    """
    from selfseg.collection.check import check_data
    from selfseg.data.labelled.catalog import parse_source, with_options

    if count < 0:
        raise ConfigError(f"--count can't be negative: {count}")
    if write is None and (link or leave_out):
        raise ConfigError(f"{'--link' if link else '--leave-out'} only works together with --write")
    if write is not None and write.exists():
        raise ConfigError(f"{write} exists already; give --write a new folder")
    asked = with_options(data, label_suffix, val)
    source = parse_source(asked)
    name = source.dataset.name if source.dataset else re.sub(r"[^\w.-]+", "", source.root.resolve().name).strip(".-")
    root = source.root.resolve()
    # Not among the images: it would be one of them the next time.
    beside = root.parent if root.is_dir() and Path.cwd().is_relative_to(root) else Path()
    drawn = sheet or beside / f"{name}-check.png"
    found = check_data(asked, splits, drawn, count, decode, partial, channels=channels, pages=pages)
    OUT.print(found.table())
    say(f"written: {found.sheet}")
    if found.many:
        listed = drawn.with_suffix(".txt")
        if listed.resolve() == root:  # the list of the images
            listed = drawn.with_name(f"{drawn.stem}-faults.txt")
        faults = [fault for split in found.splits for fault in split.faults()]
        write_text(listed, "".join(f"{fault}\n" for fault in faults))
        say(f"written: {listed}, a list of all {len(faults)} files that can't be used, with the reasons")
    if write is not None:
        from selfseg.data.labelled.layouts.finding import counted
        from selfseg.exchange.plain_layout import write_plain

        made = write_plain(asked, write, splits, link, leave_out)
        parts = (f"{counted(count, 'image')} in {split}" for split, count in made.items())
        say(f"written: {write}, with {', '.join(parts)}")
    return 0 if found.healthy else DataError.exit_code
