"""CVAT's "Segmentation mask 1.1": PASCAL VOC's layout, where colours say the class.

    labelmap.txt                            "name:r,g,b::" a line; the first is what has no class, black
    ImageSets/Segmentation/default.txt      NAME of each image
    SegmentationClass/NAME.png              the colour of each pixel's class, black where it has none
    SegmentationObject/NAME.png             the object of each pixel, in VOC's colours 1 to 255, black for none
    JPEGImages/NAME.jpg                     the photographs, if asked for; a task that has them needs none
    renamed.json                            NAME of images whose own names can't be files' here, if there are any

CVAT finds the frame by NAME. An image has room for 255 objects: one with more regions gets an object per class.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.listed import distinct_colours, plain_labels
from selfseg.drawing.pictures import encode
from selfseg.errors import LabelError
from selfseg.exchange.writing.names import FileNames
from selfseg.exchange.writing.places import Place
from selfseg.exchange.writing.writer import Entry, Writer

_OBJECTS = 255
_NOTHING = "background"  # CVAT's own word for pixels of no label


def voc_colours(count: int) -> NDArray[np.uint8]:
    """(count, 3) uint8: the colours of PASCAL VOC, whose bits are those of the number dealt out to R, G and B in turn.

    Example:
        >>> voc_colours(4).tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    number = np.arange(count)[:, None]
    channel = np.arange(3)
    colours = np.zeros((count, 3), np.int64)
    for bit in range(8):
        colours |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


class CvatWriter(Writer):
    """See the top of this module."""

    images_folder: ClassVar[str] = "JPEGImages"

    def __init__(self, legend: Legend, place: Place, **common: Any) -> None:
        super().__init__(legend, place, **common)
        self._names = FileNames(".png")
        self._list = place.open("ImageSets/Segmentation/default.txt")
        self._colours = distinct_colours([one.colour for one in legend.classes])
        self._of_value = np.zeros((legend.void + 1, 3), np.uint8)
        self._of_value[: len(self._colours)] = self._colours
        self._of_object = voc_colours(_OBJECTS + 1)

    def add(self, entry: Entry) -> None:
        """Write one mask."""
        place = self._names.place(entry.name)
        self.place.write(f"SegmentationClass/{place}.png", encode(self._of_value[entry.mask], ".png"))
        self.place.write(f"SegmentationObject/{place}.png", encode(self._of_object[self._objects(entry)], ".png"))
        self.add_photograph(entry, place)
        self._list.write(f"{place}\n")

    def finish(self) -> None:
        """Write the classes."""
        names = self.legend.names
        labels = plain_labels(names, in_map=True)
        nothing = _NOTHING if _NOTHING not in labels else plain_labels(["no class"], taken=labels)[0]
        lines = [f"{nothing}:0,0,0::\n"]
        lines += [f"{label}:{r},{g},{b}::\n" for label, (r, g, b) in zip(labels, self._colours, strict=True)]
        self.write_text("labelmap.txt", "".join(["# label:color_rgb:parts:actions\n", *lines]))
        self.write_names(self._names.renamed)

    def _objects(self, entry: Entry) -> NDArray[np.uint8]:
        """(H, W) number of each pixel's object, 0 = none."""
        per = self.per if len(entry.things(self.per)) <= _OBJECTS else "class"
        things = entry.things(per)
        if len(things) > _OBJECTS:
            raise LabelError(
                f"{entry.name} has {len(things)} classes, and CVAT's masks can hold {_OBJECTS} in one image"
            )
        labels, ignored = entry.labels(per)
        number = np.zeros(max([ignored, *(thing.label for thing in things)]) + 1, np.uint8)
        for i, thing in enumerate(things, start=1):
            number[thing.label] = i
        objects: NDArray[np.uint8] = number[labels]
        return objects
