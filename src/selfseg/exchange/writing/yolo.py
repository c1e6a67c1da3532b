"""YOLO's segmentation text: data.yaml, labels/NAME.txt, and the photographs in images/ if asked for.

A line for each region: the class's number, then x and y of each corner as shares of the image's width and height. A
hole is cut open along a line of no width, for these polygons have none. An image of void pixels only gets an empty
file. Objects are always regions here, whatever `per` says: the format has no object of several polygons.

The outlines lie 1/64 of a pixel inside of the edges of pixels. Trainers cut the fractions off and draw with the edge
included, so they get the same pixels again, and not one more to the right and below.
"""

from __future__ import annotations

from typing import Any

import yaml

from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.listed import plain_labels
from selfseg.exchange.writing.names import FileNames
from selfseg.exchange.writing.places import Place
from selfseg.exchange.writing.writer import Entry, Writer
from selfseg.ops.regions.outlines import without_holes

_INSET = 1 / 64


class YoloWriter(Writer):
    """See the top of this module."""

    def __init__(self, legend: Legend, place: Place, **common: Any) -> None:
        super().__init__(legend, place, **common)
        self._names = FileNames(".txt")

    def add(self, entry: Entry) -> None:
        """Write the polygons of one mask."""
        place = self._names.place(entry.name)
        height, width = entry.size
        lines = []
        for thing in entry.things("component"):
            (polygon,) = entry.outlines(thing, "component")
            shares = (without_holes(polygon, _INSET) / (width, height)).ravel().tolist()
            lines.append(f"{thing.value} {' '.join(map(_short, shares))}\n")
        self.write_text(f"labels/{place}.txt", "".join(lines))
        self.add_photograph(entry, place)

    def finish(self) -> None:
        """Write the classes."""
        value = {"train": "images", "val": "images", "names": dict(enumerate(plain_labels(self.legend.names)))}
        self.write_text("data.yaml", yaml.safe_dump(value, allow_unicode=True, sort_keys=False))
        self.write_names(self._names.renamed)


def _short(share: float) -> str:
    """Eight digits are a thousandth of a pixel at 100,000."""
    return f"{share:.8f}".rstrip("0").rstrip(".")
