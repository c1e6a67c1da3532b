"""What each format does with the masks: begin, add one after the other, finish."""

from __future__ import annotations

import inspect
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

from selfseg.data.labelled.legend import Legend
from selfseg.errors import BadImage, ConfigError, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.writing.places import Place
from selfseg.ops.regions.outlines import Polygon, components, polygons
from selfseg.storage.files import storage_errors

Per = Literal["class", "component"]


class Thing(NamedTuple):
    """What a format calls an object, an annotation or a region.

    Attributes:
        value: its class.
        label: its value in `Entry.labels`.
        area: its pixels.
        box: x, y, width and height in pixels.
    """

    value: int
    label: int
    area: int
    box: tuple[int, int, int, int]


class Entry:
    """A mask on its way into files; what several formats need of it is worked out once.

    Attributes:
        name: the image's, as it was given.
        index: how many masks came before it.
        mask: (H, W) uint8, or uint16 for more than 255 classes; class values and void.
        void: see `Legend`.
    """

    def __init__(self, one: NamedMask, index: int, legend: Legend) -> None:
        self.one, self.name, self.index = one, one.name, index
        self.void = legend.void
        self.mask: NDArray[Any] = one.mask.astype(np.uint8 if legend.void == 255 else np.uint16, copy=False)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.one.size

    @cached_property
    def _components(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        return components(self.mask, self.void)

    @cached_property
    def _polygons(self) -> list[Polygon]:
        return polygons(self._components[0])

    def labels(self, per: Per) -> tuple[NDArray[Any], int]:
        """(H, W) labels, one for each thing, and the label of what belongs to none."""
        return (self.mask, self.void) if per == "class" else (self._components[0], 0)

    def things(self, per: Per) -> list[Thing]:
        """Each class that occurs, or each region of a class whose pixels touch at their sides; by class."""
        return self._of_classes if per == "class" else self._of_components

    @cached_property
    def _of_classes(self) -> list[Thing]:
        dense = self.mask.astype(np.int32) + 1
        dense[self.mask == self.void] = 0
        return [Thing(label - 1, label - 1, area, box) for label, area, box in _measured(dense)]

    @cached_property
    def _of_components(self) -> list[Thing]:
        ids, owner = self._components
        return [Thing(int(owner[label]), label, area, box) for label, area, box in _measured(ids)]

    def outlines(self, thing: Thing, per: Per) -> list[Polygon]:
        """The polygons of a thing, one for each region."""
        if per == "component":
            return [self._polygons[thing.label - 1]]
        owner = self._components[1]
        return [self._polygons[i - 1] for i in np.flatnonzero(owner[1:] == thing.value) + 1]


def _measured(labels: NDArray[np.int32]) -> Iterator[tuple[int, int, tuple[int, int, int, int]]]:
    areas = np.bincount(labels.ravel())
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is not None:
            y, x = window
            yield label, int(areas[label]), (x.start, y.start, x.stop - x.start, y.stop - y.start)


class Writer(ABC):
    """Writes the masks of a collection in one format. A format's own options are keywords of its `__init__`.

    Args:
        legend: the classes.
        place: where files go.
        per: what is one object: "class", all pixels of a class in an image, or "component", each region of a class
            whose pixels touch at their sides.
        images: whether to add the photographs, as they are; those that EXIF turns are turned.
    """

    images_folder: ClassVar[str] = "images"

    def __init__(self, legend: Legend, place: Place, *, per: Per = "class", images: bool = False) -> None:
        if per not in ("class", "component"):
            raise ConfigError(
                f"per says what is one object: a class, or a component of it. {per!r} is neither; give class or "
                "component"
            )
        self.legend, self.place, self.per, self.images = legend, place, per, images

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """The names of the options."""
        known = {"per", "images"} | inspect.signature(cls.__init__).parameters.keys()
        return tuple(sorted(known - {"self", "legend", "place", "common"}))

    @abstractmethod
    def add(self, entry: Entry) -> None:
        """Write what the format has of one mask."""

    @abstractmethod
    def finish(self) -> None:
        """Write what lies beside all masks."""

    def write_text(self, name: str, text: str) -> None:
        """Write a file of UTF-8 text."""
        self.place.write(name, text.encode(errors="replace"))

    def write_json(self, name: str, value: Any) -> None:
        """Write a file of JSON."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_names(self, renamed: dict[str, str]) -> None:
        """Write down which images' files are called otherwise than the images; nothing if none are."""
        if renamed:
            self.write_text("renamed.json", json.dumps(renamed, indent=2) + "\n")

    def add_photograph(self, entry: Entry, place: str) -> str:
        """Write the photograph, if photographs are asked for.

        Args:
            entry: whose.
            place: its path in the folder of photographs, without suffix.

        Returns:
            The path with suffix; the image's own suffix if nothing is written.

        Raises:
            ConfigError: if there is no photograph.
            BadImage: if it can't be read.
            LabelError: if it has another size than the mask.
        """
        source = entry.one.image
        suffix = (source.suffix if source is not None else "") or _suffix(entry.name) or ".jpg"
        if not self.images:
            return place + suffix
        if source is None:
            raise ConfigError(
                f"{entry.name}: its photograph is not known, so it can't be added; give its path, or leave images out"
            )
        try:
            with Image.open(source) as image:
                turned = image.getexif().get(0x0112, 1) != 1
                upright = ImageOps.exif_transpose(image) if turned else image
                if upright.size != entry.size[::-1]:
                    raise LabelError(
                        f"{entry.name}: the mask is {entry.size[1]}x{entry.size[0]}, the photograph "
                        f"{upright.size[0]}x{upright.size[1]}"
                    )
                if turned:
                    kind = {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}.get(suffix.lower(), "JPEG")
                    data = io.BytesIO()
                    upright.save(data, kind, quality=95)
        except (OSError, SyntaxError, ValueError) as error:
            raise BadImage(source, "unreadable", str(error)) from error
        path = f"{self.images_folder}/{place}{suffix}"
        if turned:
            self.place.write(path, data.getvalue())
        else:
            self.place.copy(path, source)
        return place + suffix


def _suffix(name: str) -> str:
    last = name.rpartition("/")[2]
    suffix = last[last.rindex(".") :] if "." in last[1:] else ""
    return suffix if suffix.isascii() and suffix[1:].isalnum() else ""


class JsonList:
    """A long list in a JSON file, written value by value.

    Args:
        place: where the file goes.
        name: the file's.
        head: what stands before the list's first value, such as '{"items": ['.
        separator: what stands between two values.
    """

    def __init__(self, place: Place, name: str, head: str, separator: str = ",\n") -> None:
        self._file, self._path = place.open(name), place.path / name
        self._between, self._separator = "\n", separator
        self.end(head)

    def add(self, value: Any) -> None:
        """Write one value; characters beyond ASCII are escaped, so that every name survives every reader."""
        self.end(self._between + json.dumps(value, separators=(",", ":")))
        self._between = self._separator

    def end(self, tail: str) -> None:
        """Write what stands after the list's last value."""
        with storage_errors(self._path):
            self._file.write(tail)
