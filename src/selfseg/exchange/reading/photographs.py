"""Which image a name in a file of labels means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from selfseg.data.labelled.catalog import find_images
from selfseg.data.labelled.coco_json import inner_path
from selfseg.data.labelled.labels import upright_size
from selfseg.data.reading.shards import is_shards
from selfseg.errors import BadImage, ConfigError, EmptyCollection, LabelError
from selfseg.exchange.reading.files import Tree

Images = Path | str | Sequence[Path | str]
_BESIDE = ("JPEGImages", "images")  # where writers of labels put photographs


class Photographs:
    """Images by name.

    A name means the image of that path below the folder. If there is none: the one of that path without suffix; then
    the same without the name's first folder, without its first two and so on ("upload/7/a.jpg" is "a.jpg"); then the
    only one whose path ends with the name ("a.jpg" is "monday/a.jpg").

    Args:
        images: as of `find_images`; None: no name means any.

    Raises:
        ConfigError: for images in shards.
        DataError: as `find_images`.
    """

    def __init__(self, images: Images | None) -> None:
        self.paths: dict[str, Path] = {}
        self.claimed: set[str] = set()  # names that are never meant by one without suffix
        if images is not None:
            if isinstance(images, str) and is_shards(images):
                raise ConfigError(f"labels are read for images in folders, not for {images}")
            found = find_images(images)
            self.paths = {path.relative_to(found.root).as_posix(): path for path in found.paths}
        # A file's name may hold a backslash, but in labels it nearly always divides folders.
        self._turned = {name.replace("\\", "/"): name for name in self.paths if "\\" in name}
        self._bare: dict[str, list[str]] = {}
        self._ends: dict[str, list[str]] = {}
        for name in self.paths:
            bare = os.path.splitext(name)[0]
            self._bare.setdefault(bare, []).append(name)
            for full in (name, bare):
                parts = full.split("/")
                for i in range(1, len(parts)):
                    self._ends.setdefault("/".join(parts[i:]), []).append(name)

    def find(self, name: str) -> str | None:
        """The name below the folder of the image that is meant; None if none is.

        Raises:
            LabelError: if several may be, or the name leads out of the folder.
        """
        if name in self.paths:
            return name
        parts = inner_path(name).split("/")
        for i in range(len(parts)):
            rest = "/".join(parts[i:])
            if rest in self.paths or rest in self._turned:
                return self._turned.get(rest, rest)
            if alike := self._bare.get(os.path.splitext(rest)[0]) or self._bare.get(rest):
                return self._only(name, alike)
        whole = "/".join(parts)
        alike = self._ends.get(whole) or self._ends.get(os.path.splitext(whole)[0]) or []
        return self._only(name, alike) if alike else None

    def _only(self, name: str, alike: list[str]) -> str:
        alike = [one for one in alike if one not in self.claimed] or alike
        if len(alike) > 1:
            raise LabelError(f"the name {name!r} may mean {', '.join(sorted(alike)[:5])}; give images of one folder")
        return alike[0]

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of an image as it is read.

        Raises:
            BadImage: if its header can't be read.
        """
        try:
            return upright_size(self.paths[name])
        except OSError as error:
            raise BadImage(self.paths[name], "unreadable", str(error)) from error


def photographs_for(tree: Tree, images: Images | None) -> Photographs:
    """The images that are given, or those that lie beside the labels in a folder."""
    if images is None and tree.archive is None:
        for name in _BESIDE:
            folder = tree.path / name
            if folder.is_dir():
                try:
                    return Photographs(folder)
                except EmptyCollection:
                    continue
    return Photographs(images)
