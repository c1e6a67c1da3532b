"""Which image a name in a file of labels means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from selfseg.data.labelled.catalog import find_images
from selfseg.data.labelled.coco_json import inner_path
from selfseg.data.labelled.labels import upright_size
from selfseg.data.reading.decoding import SUFFIXES
from selfseg.data.reading.measured import size_of
from selfseg.data.reading.packed.shards import is_shards
from selfseg.data.reading.sniffing import WINDOWED, stem_of
from selfseg.errors import BadImage, ConfigError, EmptyCollection, LabelError
from selfseg.exchange.reading.files import Tree

Images = Path | str | Sequence[Path | str]
_BESIDE = ("JPEGImages", "images")  # where writers of labels put photographs


def without_suffix(name: str) -> str:
    """A name without the suffix of an image, if it has one.

    Example:
        >>> without_suffix("a/b.c.JPG"), without_suffix("a/b.c"), without_suffix("a.ome.tif")
        ('a/b.c', 'a/b.c', 'a')
    """
    stem, dot, suffix = name.rpartition(".")
    known = f".{suffix.lower()}" in (*SUFFIXES, *WINDOWED)
    return stem_of(name) if known and dot and stem and not stem.endswith("/") else name


@dataclass
class _Index:
    """Images by their names, and by those without suffix."""

    named: dict[str, list[str]] = field(default_factory=dict)
    stems: dict[str, list[str]] = field(default_factory=dict)

    def add(self, written: str, name: str) -> None:
        self.named.setdefault(written, []).append(name)
        self.stems.setdefault(without_suffix(written), []).append(name)

    def find(self, path: str, bare: bool) -> Sequence[str]:
        if bare:
            return self.stems.get(path) or self.named.get(path) or ()
        return self.named.get(path) or self.stems.get(path) or self.stems.get(without_suffix(path)) or ()


class Photographs:
    """Images by name.

    A name means the image of that path below the folder; if there is none, the one of that path whose suffix is
    another; then the only one whose path ends so ("a.jpg" is "monday/a.jpg"). Only suffixes of images are suffixes:
    "a.b" may be the image "a.b.jpg", and is never "a.jpg".

    Folders before the names ("upload/7/a.jpg") are taken off if all names of a file of labels have them (`told`), so
    that "cam2/7.jpg" in a list of several cameras is never taken for the 7.jpg of another one.

    Args:
        images: as of `find_images`; None: no name means any.

    Raises:
        ConfigError: for images in shards.
        DataError: as `find_images`.
    """

    def __init__(self, images: Images | None) -> None:
        self.paths: dict[str, Path] = {}
        self.claimed: set[str] = set()  # names that are never meant by one without suffix
        self._before = ""  # what stands before the names, with a "/" at the end
        self._above: tuple[str, ...] = ()  # folders that the images lie in
        if images is not None:
            if isinstance(images, str) and is_shards(images):
                raise ConfigError(f"labels are read for images in folders, not for {images}")
            found = find_images(images)
            self.paths = {path.relative_to(found.root).as_posix(): path for path in found.paths}
            self._above = found.root.absolute().parts[1:]
        self._whole, self._ends = _Index(), _Index()
        for name in self.paths:
            # A file's name may hold a backslash, but in labels it nearly always divides folders.
            for written in dict.fromkeys((name, name.replace("\\", "/"))):
                self._whole.add(written, name)
            parts = name.split("/")
            for i in range(1, len(parts)):
                self._ends.add("/".join(parts[i:]), name)

    def told(self, names: Iterable[str], bare: bool = False) -> Photographs:
        """The same images, for the names of one file of labels: the folders before them are told here, once for all.

        They are those that all names begin with, or some of those, or the end of the path that the images lie in; of
        these, what lets most of the names be found, and of equal ones the shortest.

        Args:
            names: all names in the file.
            bare: see `find`.
        """
        if not self.paths:
            return self
        inner = [path for name in names if (path := _inner(name))]
        folders = [name.split("/")[:-1] for name in inner]
        ends = zip(min(folders, default=[]), max(folders, default=[]), strict=False)  # what they share, all between do
        common = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], ends)]
        befores = ["", *("".join(f"{part}/" for part in common[: i + 1]) for i in range(len(common)))]
        befores += ["".join(f"{part}/" for part in self._above[-i:]) for i in range(1, len(self._above) + 1)]

        def found(before: str) -> int:
            return sum(bool(self._at(name, before, bare)) for name in inner)

        other_one = copy(self)
        other_one._before = max(dict.fromkeys(befores), key=lambda before: (found(before), -before.count("/")))
        return other_one

    def find(self, name: str, bare: bool = False) -> str | None:
        """The name below the folder of the image that is meant; None if none is.

        Args:
            name: as a file of labels has it.
            bare: whether it has no suffix, so that a dot in it begins none.

        Raises:
            LabelError: if several may be, or the name leads out of the folder.
        """
        if name in self.paths and not bare:
            return name
        alike = self._at(inner_path(name), self._before, bare)
        alike = [one for one in alike if one not in self.claimed] or alike
        if len(alike) > 1:
            raise LabelError(f"the name {name!r} may mean {', '.join(sorted(alike)[:5])}; give images of one folder")
        return alike[0] if alike else None

    def _at(self, path: str, before: str, bare: bool) -> Sequence[str]:
        if before:
            return self._whole.find(path.removeprefix(before), bare) if path.startswith(before) else ()
        return self._whole.find(path, bare) or self._ends.find(path, bare)

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of an image as it is read.

        Raises:
            BadImage: if its header can't be read.
        """
        path = self.paths[name]
        try:
            return upright_size(path)
        except OSError as error:
            if path.suffix.lower() in WINDOWED:
                try:
                    return size_of(path)  # of a kind that can't be a photograph
                except OSError:
                    pass
            raise BadImage(path, "unreadable", str(error)) from error


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


def _inner(name: str) -> str:
    try:
        return inner_path(name)
    except LabelError:
        return ""
