"""Labelled data of any form, written as a plain labelled folder.

| file | holds |
|---|---|
| OUT/classes.txt | index, name and colour of each class |
| OUT/SPLIT/images/NAME.jpg | the images as they are |
| OUT/SPLIT/labels/NAME.png | class indices with a palette, of the image's size; 255 is void |
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from selfseg.data.labelled.catalog import LabelledImages, check_same_classes, parse_source
from selfseg.data.labelled.coloured import ColouredCodes
from selfseg.data.labelled.labels import VOID
from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.listed import list_classes
from selfseg.errors import ConfigError, DataError
from selfseg.exchange.any_labels import drawn_labels, open_labels, splits_of_labels, unpacked
from selfseg.storage.files import permitted, storage_errors
from selfseg.storage.leftovers import sweep, temporary_prefix


def write_plain(
    data: Path | str, out: Path | str, splits: Sequence[str] = (), link: bool = False, leave_out: bool = False
) -> dict[str, int]:
    """Write labelled data of any form as a plain labelled folder, which appears when all is written.

    Args:
        data: a labelled folder, zip or file of labels, or NAME:ROOT.
        out: a new folder.
        splits: which ones; all if none are named.
        link: images are links to the originals instead of copies.
        leave_out: what can't be used of another tool's labels is left out instead of refused.

    Returns:
        How many images each split has.

    Raises:
        ConfigError: if `out` is there or among the images, the splits have other classes, or images in a zip should be
            linked.
        DataError, LabelError: if the data can't be understood, or a label can't be used.
        StorageError: if the disk is full.
    """
    out, source = Path(out), parse_source(data)
    if out.exists():
        raise ConfigError(f"{out} exists already; give a new folder")
    if source.root.is_dir() and out.resolve().is_relative_to(source.root.resolve()):
        raise ConfigError(f"{out} would lie among the images of {source.root}; give a folder beside it")
    if link and unpacked(source) is not source:
        raise ConfigError(f"{data} is a zip, whose images can't be linked; leave the links out, or unpack it")
    wanted = tuple(splits) or splits_of_labels(source)
    if not wanted:
        raise DataError(f"{data} holds no labels that are understood, so there is nothing to write")
    opened = [open_labels(data, split, leave_out) for split in wanted]
    for other in opened[1:]:
        check_same_classes(opened[0], other)
    drawn = drawn_labels(unpacked(source))
    text, legend = list_classes(_legend(opened[0]) if drawn is None else drawn.legend)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(legend.classes)] = [one.colour for one in legend.classes]

    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=temporary_prefix()))
        try:
            (temporary / "classes.txt").write_text(text, encoding="utf-8")
            for split in opened:
                _write_split(temporary / split.split, split, colours.tobytes(), link)
            temporary.chmod(permitted(0o777))
            os.replace(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return {split.split: len(split) for split in opened}


def _legend(data: LabelledImages) -> Legend:
    given = data.codes.colours if isinstance(data.codes, ColouredCodes) else ()
    first = {data.class_names[c]: (red, green, blue) for red, green, blue, c in reversed(given) if c != VOID}
    return Legend.of(data.class_names, first)


def _write_split(folder: Path, data: LabelledImages, palette: bytes, link: bool) -> None:
    for i, (name, path) in enumerate(zip(data.images.names, data.images.paths, strict=True)):
        label = Image.fromarray(data.read_label(i))
        label.putpalette(palette)
        places = folder / "images" / f"{name}{path.suffix}", folder / "labels" / f"{name}.png"
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
        if link:
            os.symlink(path.resolve(), places[0])
        else:
            shutil.copyfile(path, places[0])
        label.save(places[1])
