"""What files and images are called in a format that can't hold every name, so that no two become one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import count

from selfseg.data.labelled.listed import CONTROL

_LONGEST = 200  # bytes of a folder's or a file's name; most file systems take 255, and suffixes are added


class FileNames:
    """Safe places for what is made of images: each keeps the image's name as far as that is possible.

    Folders are kept. Changed are characters that no list of names can hold (control characters, line ends),
    backslashes, steps out of the folder ("..", a leading "/"), a leading "#" (a comment in lists), spaces at the ends,
    names of more than 200 bytes, and the second of two that would be one.

    Args:
        suffix: of the files that are made, e.g. ".png".

    Attributes:
        renamed: the place, without suffix, by name of each image whose name is not simply without its suffix.

    Example:
        >>> names = FileNames(".png")
        >>> [names.place(name) for name in ("a/b c.jpg", "a/b c.png", "../x.jpg")]
        ['a/b c', 'a/b c.png', 'x']
    """

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.renamed: dict[str, str] = {}
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def place(self, name: str) -> str:
        """The path for the image `name`, with "/" and without suffix; differs from all earlier ones."""
        stem, suffix = os.path.splitext(name)
        wanted = _safe_path(stem)
        place = next(
            choice for choice in self._choices(wanted, CONTROL.sub("_", suffix)) if self._claim(choice + self.suffix)
        )
        if place != stem:
            self.renamed[name] = place
        return place

    @staticmethod
    def _choices(wanted: str, suffix: str) -> Iterator[str]:
        yield wanted
        yield wanted + suffix
        yield from (f"{wanted}-{i}" for i in range(2, 10))
        flat = wanted.replace("/", "_")  # a folder may be called as a file
        yield from (f"{flat}-{i}" for i in count(2))

    def _claim(self, file: str) -> bool:
        parts = file.split("/")
        folders = {"/".join(parts[:i]) for i in range(1, len(parts))}
        if file in self._files or file in self._folders or folders & self._files:
            return False
        self._files.add(file)
        self._folders |= folders
        return True


def _safe_path(path: str) -> str:
    parts = [_safe_part(part) for part in path.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "image"


def _safe_part(part: str) -> str:
    safe = CONTROL.sub("_", part).replace("\\", "_")
    if safe != (bare := safe.strip()):
        safe = bare or "_"
    if safe.startswith("#"):
        safe = "_" + safe[1:]
    data = safe.encode()
    if len(data) > _LONGEST:
        mark = hashlib.blake2b(data, digest_size=4).hexdigest()
        safe = f"{data[: _LONGEST - 9].decode(errors='ignore')}-{mark}"
    return safe


class ListedNames:
    """Names of images in lists, which can be anything but a path that leads out of their folder.

    Attributes:
        renamed: the listed name by name of each image that is called otherwise.

    Example:
        >>> names = ListedNames()
        >>> [names.place(name) for name in ("#1: a.jpg", "../x.jpg", "x.jpg")]
        ['#1: a.jpg', 'x.jpg', 'x-2.jpg']
    """

    def __init__(self) -> None:
        self.renamed: dict[str, str] = {}
        self._used: set[str] = set()

    def place(self, name: str) -> str:
        """What the image `name` is called in the list; differs from all earlier ones."""
        place = "/".join(part for part in name.split("/") if part not in ("", ".", "..")) or "image"
        if place in self._used:
            stem, suffix = os.path.splitext(place)
            place = next(numbered for i in count(2) if (numbered := f"{stem}-{i}{suffix}") not in self._used)
        self._used.add(place)
        if place != name:
            self.renamed[name] = place
        return place
