"""Masks that `selfseg apply` wrote, in the files of other tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.labelled.catalog import find_images
from selfseg.data.labelled.layouts.finding import counted
from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError, LabelError
from selfseg.exchange.base import NamedMask, write_formats
from selfseg.storage.files import read_json
from selfseg.telling import tell

FOLDER = "formats"


def write_applied(
    formats: Iterable[str] | Mapping[str, Mapping[str, Any]], folder: Path | str, images: Any, **options: Any
) -> dict[str, Path]:
    """Write the masks in a folder of `selfseg apply` for other tools, into `folder/formats`.

    Only masks that are PNGs are taken. Those of rasters are TIFFs, which stay as they are, and a sentence says so.

    Args:
        formats: names in `selfseg.exchange.FORMATS`, or names with the options of each.
        folder: what `apply` wrote.
        images: the images that it was given; the files name them with their suffixes.
        options: as of `write_formats`.

    Returns:
        The folder or zip of each format.

    Raises:
        ConfigError: if there is no such format or option, or `folder/formats` holds other things.
        LabelError: if the folder has no legend.json, or no mask that is a PNG.
        DataError: if the images are not found.
        StorageError: if the disk is full.
    """
    folder = Path(folder)
    try:
        legend = Legend.from_json(read_json(folder / "legend.json")["classes"])
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise LabelError(f"{folder} has no legend of masks ({error}); give what selfseg apply wrote") from error
    masks = folder / "masks"
    others = [path for path in masks.rglob("*") if path.suffix in (".tif", ".zarr")]
    pictures = sorted(masks.rglob("*.png"))
    if others:
        tell(
            f"{counted(len(others), 'mask')} of rasters, e.g. {others[0]}, can't be written in these formats, only "
            "masks that are PNGs; --geojson makes polygons of rasters"
        )
    if not pictures:
        raise LabelError(f"{masks} holds no mask that is a PNG")
    found = find_images(images)
    of_name = dict(zip(found.names, found.paths, strict=True))

    def named() -> Iterator[NamedMask]:
        for file in pictures:
            name = file.relative_to(masks).as_posix().removesuffix(".png")
            image = of_name.get(name)  # a page of a stack has none of its own
            called = f"{name}.png" if image is None else image.relative_to(found.root).as_posix()
            yield NamedMask(called, _mask_in(file), image)

    return write_formats(formats, named(), legend, folder / FOLDER, **options)


def _mask_in(file: Path) -> NDArray[Any]:
    """Its values; LabelError if it is damaged."""
    try:
        with Image.open(file) as picture:
            return np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise LabelError(f"{file} can't be read ({error}); remove it, and run selfseg apply again") from error
