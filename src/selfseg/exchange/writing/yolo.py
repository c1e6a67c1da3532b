"""YOLO's segmentation text: data.yaml, labels/NAME.txt, and the photographs in images/ if asked for.

A line for each region: the class's number, then x and y of each corner as shares of the image's width and height, along
the edges of pixels. A hole is cut open along a line of no width, for these polygons have none. An image of void pixels
only gets an empty file. Objects are always regions here, whatever `per` says: the format has no object of several
polygons.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import yaml

from selfseg.data.labelled.legend import Legend
from selfseg.exchange.writing.names import FileNames, plain_labels
from selfseg.exchange.writing.places import Place
from selfseg.exchange.writing.writer import Entry, Writer
from selfseg.ops.regions.outlines import without_holes


class YoloWriter(Writer):
    """See the top of this module."""

    def __init__(self, legend: Legend, place: Place, **common: Any) -> None:
        super().__init__(legend, place, **common)
        self._names = FileNames(".txt")

    def add(self, entry: Entry) -> None:
        """Write the polygons of one mask."""
        place = self._names.place(entry.name)
        height, width = entry.size
        across, down = _shares(width), _shares(height)
        lines = []
        for thing in entry.things("component"):
            (polygon,) = entry.outlines(thing, "component")
            corners = [f"{across[x]} {down[y]}" for x, y in without_holes(polygon).tolist()]
            lines.append(f"{thing.value} {' '.join(corners)}\n")
        self.write_text(f"labels/{place}.txt", "".join(lines))
        self.add_photograph(entry, place)

    def finish(self) -> None:
        """Write the classes."""
        value = {"train": "images", "val": "images", "names": dict(enumerate(plain_labels(self.legend.names)))}
        self.write_text("data.yaml", yaml.safe_dump(value, allow_unicode=True, sort_keys=False))
        self.write_names(self._names.renamed)


@lru_cache(maxsize=16)
def _shares(size: int) -> list[str]:
    """0 to `size` pixels as shares of it; seven digits are a hundredth of a pixel at 100,000."""
    return [f"{pixels / size:.7f}".rstrip("0").rstrip(".") for pixels in range(size + 1)]
