"""COCO JSON, as of COCO-Stuff: annotations.json, and the photographs in images/ if asked for.

Category ids are class values plus 1, since 0 is no class by custom; categories carry the colour as [r, g, b]. Void
pixels belong to no annotation. With `per` "class", the default, an annotation is all there is of a class in an image,
as in COCO-Stuff; with "component" each region. `iscrowd` is 0: no group of objects is meant, and tools evaluate it.

With `shapes` "rle" masks are exact. With "polygons" they go along the edges of pixels, which pycocotools turns into the
same pixels again; a hole is cut open along a line of no width, for COCO's polygons have none.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError
from selfseg.exchange.coding.coco_rle import compressed
from selfseg.exchange.coding.runs import runs_of
from selfseg.exchange.writing.names import FileNames, ListedNames
from selfseg.exchange.writing.places import Place
from selfseg.exchange.writing.writer import Entry, JsonList, Thing, Writer
from selfseg.ops.regions.outlines import without_holes


class CocoWriter(Writer):
    """See the top of this module.

    Args:
        legend: the classes.
        place: where files go.
        shapes: "rle" or "polygons".
        common: see `Writer`.
    """

    def __init__(
        self, legend: Legend, place: Place, *, shapes: Literal["rle", "polygons"] = "rle", **common: Any
    ) -> None:
        super().__init__(legend, place, **common)
        if shapes not in ("rle", "polygons"):
            raise ConfigError(f"COCO files have no shapes called {shapes!r}; give rle or polygons")
        self._shapes = shapes
        self._names = FileNames("") if self.images else ListedNames()
        self._pictures: list[dict[str, Any]] = []
        self._count = 0
        categories = [
            {"id": value + 1, "name": one.name, "supercategory": "", "isthing": 0, "color": list(one.colour)}
            for value, one in enumerate(legend.classes)
        ]
        head = {"info": {"description": "masks of selfseg"}, "licenses": [], "categories": categories}
        self._annotations = JsonList(place, "annotations.json", json.dumps(head)[:-1] + ', "annotations": [')

    def add(self, entry: Entry) -> None:
        """Write the annotations of one mask."""
        place = self._names.place(entry.name)
        file = self.add_photograph(entry, place) if self.images else place
        height, width = entry.size
        self._pictures.append({"id": entry.index + 1, "file_name": file, "height": height, "width": width})
        labels, ignored = entry.labels(self.per)
        runs = runs_of(labels.T, ignored) if self._shapes == "rle" else {}
        for thing in entry.things(self.per):
            self._count += 1
            if self._shapes == "rle":
                shape: Any = {"size": [height, width], "counts": compressed(runs[thing.label])}
            else:
                shape = self._polygons(entry, thing)
            self._annotations.add(
                {
                    "id": self._count,
                    "image_id": entry.index + 1,
                    "category_id": thing.value + 1,
                    "iscrowd": 0,
                    "area": thing.area,
                    "bbox": list(thing.box),
                    "segmentation": shape,
                }
            )

    def finish(self) -> None:
        """Write the list of images."""
        self._annotations.end(f'], "images": {json.dumps(self._pictures)}}}\n')
        self.write_names(self._names.renamed)

    def _polygons(self, entry: Entry, thing: Thing) -> list[list[float]]:
        rings = [without_holes(polygon).ravel().tolist() for polygon in entry.outlines(thing, self.per)]
        return [[int(v) if v.is_integer() else v for v in ring] for ring in rings]
