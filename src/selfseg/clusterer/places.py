"""Images of any kind as something that a training can read: a folder, or a list of files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from selfseg.data.reading.ahead import map_images
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import READ
from selfseg.data.reading.long.images import LongList
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import ConfigError
from selfseg.models.inputs.in_memory import hold, is_held, is_image
from selfseg.storage.files import write_atomically


def is_one(images: Any) -> bool:
    """Whether it is one image, and no collection of them."""
    if isinstance(images, str | Path):
        return Path(images).suffix.lower() in READ
    return is_image(images)


def give_place(images: Any, folder: Path) -> tuple[Path, ImageCollection | None]:
    """Where a training finds images, wherever they were.

    Args:
        images: as `PixelClusterer.fit` takes them.
        folder: what has to be written is written into it.

    Returns:
        A folder or a list file; and the images themselves where these files alone don't say which pages, windows and
        channels of them are meant.

    Raises:
        ConfigError: if something is no image, or there are none.
        DataError: if too many of a collection can't be read.
    """
    if isinstance(images, str | Path):
        return Path(images), None
    if isinstance(images, ImageCollection) and (type(images) is ImageCollection or isinstance(images, LongList)):
        place = _write_list(folder / "images.txt", images.paths)
        return place, None if isinstance(images, LongList) else images
    if not isinstance(images, ImageCollection):
        images = images if is_held(images) else list(images)
        if len(images) == 0:
            raise ConfigError("there are no images to learn from")
        if not is_held(images):
            return _write_list(folder / "images.txt", images), None
        images = hold(images)
    return _write_pixels(folder / "images", images), None


def _write_list(file: Path, paths: Iterable[str | Path]) -> Path:
    unique = dict.fromkeys(os.path.abspath(path) for path in paths)
    text = "".join(f"{path}\n" for path in unique)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda temporary: temporary.write_text(text, "utf-8", "surrogateescape"))
    return file


def _write_pixels(folder: Path, images: ImageCollection) -> Path:
    """Images that are no files of their own, as files; those that can't be read are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    log = SkipLog(None, len(images))
    read = map_images(images, range(len(images)), lambda _, pixels: Image.fromarray(pixels), log, "images", False)
    with closing(read):
        for number, picture in read:
            file = folder / f"{images.names[number]}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, partial(picture.save, format="png"))
    return folder
