"""Objects of an image, laid on each other to one mask.

Where objects overlap, one of a higher layer is on top. Within a layer it is the later one, or, in formats that know no
order, the smaller one, and of equally large ones the later: a window is then seen on its house whichever was drawn
first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.legend import Colour, Legend
from selfseg.data.labelled.shapes import BadOutline, fill_window, points, runs, shorten, spread, touches
from selfseg.errors import BadImage, ConfigError, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.reading.photographs import Photographs

Size = tuple[int, int]
Window = tuple[tuple[slice, slice], NDArray[np.bool_]]


@dataclass(frozen=True)
class Thing:
    """An object.

    Attributes:
        value: its class.
        draw: from the image's (H, W) to the rows and columns that it lies in, and its pixels there; raises BadOutline.
        called: what it is in messages, e.g. "annotation 7".
        layer: higher ones are on top.
        area: smaller ones are on top within a layer; 0 where the format has an order.
    """

    value: int
    draw: Callable[[Size], Window]
    called: str
    layer: int = 0
    area: float = 0.0


@dataclass(frozen=True)
class Picture:
    """An image's objects.

    Attributes:
        name: as the file says.
        size: (H, W), as the file says; None if it doesn't.
        things: in the file's order.
        where: the file, for messages.
        bare: whether the name has no suffix.
        split: of `NamedMask`.
    """

    name: str
    size: Size | None
    things: Sequence[Thing]
    where: Path
    bare: bool = False
    split: str = ""


@dataclass
class Faults:
    """What can't be used: raised as LabelError, or, if there is a list, left out and said there."""

    left_out: list[str] | None = field(default=None)

    def add(self, where: Path | str, sentence: object) -> None:
        """Say what is wrong in a file."""
        text = f"{where}: {sentence}"
        if self.left_out is None:
            raise LabelError(text)
        self.left_out.append(text)


def filled(polygons: Sequence[Sequence[Any]], extent: int | None = None) -> Callable[[Size], Window]:
    """To draw polygons, each a list of rings: the outline and its holes, x, y, x, y, ...

    Args:
        polygons: what is in any of them belongs to the object.
        extent: what x and y are at the image's right and bottom: 1 of shares, 100 of percents; None of pixels.
    """

    def draw(size: Size) -> Window:
        unit = size if extent is None else (extent, extent)
        factor = np.array([size[1] / unit[1], size[0] / unit[0]])
        shapes = [[points(ring, unit) * factor for ring in rings] for rings in polygons]
        rings = [ring for shape in shapes for ring in shape]
        if not rings or not all(shapes):
            raise BadOutline("it has no outline")
        if not touches(rings, size):
            raise BadOutline(f"it lies outside of the image of {size[1]}x{size[0]} pixels")
        if len(shapes) == 1:
            return fill_window(shapes[0], size)
        mask = np.zeros(size, bool)
        for shape in shapes:
            window, inside = fill_window(shape, size)
            mask[window] |= inside
        return (slice(0, size[0]), slice(0, size[1])), mask

    return draw


def coded(counts: Any, size: Any, by_rows: bool = False) -> Callable[[Size], Window]:
    """To draw run lengths of the whole image.

    Args:
        counts: a list, or COCO's text.
        size: [H, W], as the file has it.
        by_rows: whether they go along rows and not down columns.
    """

    def draw(wanted: Size) -> Window:
        if not isinstance(size, list | tuple) or list(size) != list(wanted):
            raise BadOutline(f"its run lengths are of the size {shorten(size)}, but the image has {list(wanted)}")
        mask = spread(runs(counts, wanted[0] * wanted[1]), wanted, by_rows)
        return (slice(0, wanted[0]), slice(0, wanted[1])), mask

    return draw


def legend_of(names: Sequence[str], colours: Mapping[str, Colour], where: Path | str) -> Legend:
    """The classes that a file names.

    Raises:
        LabelError: if there is none, or two have one name.
    """
    if not names:
        raise LabelError(f"{where} names no class")
    try:
        return Legend.of(names, colours)
    except ConfigError as error:
        raise LabelError(f"{where}: {error}") from error


def paint(picture: Picture, legend: Legend, photographs: Photographs, faults: Faults) -> NamedMask | None:
    """The mask of an image; None if it can't be had and faults are left out.

    Raises:
        LabelError: unless faults are left out: for an object that can't be drawn, a size that is not the image's or
            not known.
    """
    try:
        name, size, path = settle(picture.name, picture.size, photographs, picture.bare)
    except (BadImage, LabelError) as error:
        faults.add(picture.where, error)
        return None
    mask = np.full(size, legend.void, np.uint8 if legend.void == 255 else np.uint16)
    for thing in sorted(picture.things, key=lambda one: (one.layer, -one.area)):
        try:
            window, inside = thing.draw(size)
        except BadOutline as error:
            faults.add(picture.where, f"{thing.called} of image {picture.name!r}: {error}")
        else:
            mask[window][inside] = thing.value
    return NamedMask(name, mask, path, picture.split)


def settle(name: str, size: Size | None, photographs: Photographs, bare: bool = False) -> tuple[str, Size, Path | None]:
    """Name, size and file of an image, from what a file of labels says and from the photograph.

    Raises:
        BadImage: if the photograph can't be read.
        LabelError: if the sizes differ, there is none, or the name is none.
    """
    found = photographs.find(name, bare)
    if found is None:
        if size is None:
            raise LabelError(f"the size of image {name!r} isn't known; give the images")
        return name, size, None
    own = photographs.size(found)
    if size is not None and size != own:
        turned = "; the photograph is turned by its EXIF orientation, the labels are not" if size == own[::-1] else ""
        raise LabelError(
            f"the labels of image {name!r} are of {size[1]}x{size[0]} pixels, but {photographs.paths[found]} has "
            f"{own[1]}x{own[0]}{turned}"
        )
    return found, own, photographs.paths[found]
