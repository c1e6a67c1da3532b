"""What files, labels and colours are called in a format that can't hold every name, so that no two become one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, product

from selfseg.data.labelled.legend import Colour

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # and bytes that are no UTF-8
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
            choice for choice in self._choices(wanted, _CONTROL.sub("_", suffix)) if self._claim(choice + self.suffix)
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
    safe = _CONTROL.sub("_", part).replace("\\", "_")
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


def plain_labels(names: Iterable[str], taken: Iterable[str] = (), in_map: bool = False) -> list[str]:
    """Names of classes on one line each, without spaces at the ends, all different.

    Args:
        names: as a person typed them.
        taken: labels that the format uses itself.
        in_map: whether they go into a labelmap.txt, where ":" ends a name and "#" begins a comment; "_" stands for
            them.

    Example:
        >>> plain_labels(["a:b", "a_b", " #c"], in_map=True)
        ['a_b', 'a_b 2', '_c']
    """
    used, labels = set(taken), list[str]()
    for name in names:
        label = _CONTROL.sub(" ", name).strip() or "_"
        if in_map:
            label = re.sub("^#|:", "_", label)
        if label in used:
            label = next(numbered for i in count(2) if (numbered := f"{label} {i}") not in used)
        used.add(label)
        labels.append(label)
    return labels


def distinct_colours(colours: Sequence[Colour], taken: Iterable[Colour] = ((0, 0, 0),)) -> list[Colour]:
    """The colours, where the second of two that are equal becomes the nearest that is free.

    Args:
        colours: R, G, B in [0, 255].
        taken: colours that mean something else; black is what tools read as no class.

    Example:
        >>> distinct_colours([(9, 9, 9), (9, 9, 9), (0, 0, 0)])
        [(9, 9, 9), (8, 9, 9), (0, 0, 1)]
    """
    kept = set(colours) - set(taken)  # the first of each keeps its own
    used, found, near = set(taken), list[Colour](), dict[Colour, Iterator[Colour]]()
    for colour in colours:
        if colour in used:
            choices = near.setdefault(colour, _neighbours(colour))
            colour = next(choice for choice in choices if choice not in used and choice not in kept)
        used.add(colour)
        found.append(colour)
    return found


def _neighbours(colour: Colour) -> Iterator[Colour]:
    """All other colours, those at a smaller distance first."""
    for distance in range(1, 256):
        steps = [step for step in product(range(-distance, distance + 1), repeat=3) if _reach(step) == distance]
        for step in sorted(steps, key=lambda step: (sum(map(abs, step)), step)):
            red, green, blue = (c + s for c, s in zip(colour, step, strict=True))
            if 0 <= min(red, green, blue) and max(red, green, blue) <= 255:
                yield red, green, blue


def _reach(step: tuple[int, ...]) -> int:
    return max(map(abs, step))
