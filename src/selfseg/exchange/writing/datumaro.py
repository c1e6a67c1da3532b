"""Datumaro's own JSON: annotations/default.json, and the photographs in images/default/ if asked for.

An item for each image, an annotation with COCO's run lengths for each object; labels and colours are listed before.
Void pixels belong to no annotation. The format has no place for the image's own name where that can't be a file's:
renamed.json has it then.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from selfseg.data.labelled.legend import Legend
from selfseg.exchange.coding.coco_rle import compressed
from selfseg.exchange.coding.runs import runs_of
from selfseg.exchange.writing.names import FileNames
from selfseg.exchange.writing.places import Place
from selfseg.exchange.writing.writer import Entry, JsonList, Writer

_IMAGES = 2  # of the format's kinds of media


class DatumaroWriter(Writer):
    """See the top of this module."""

    images_folder: ClassVar[str] = "images/default"

    def __init__(self, legend: Legend, place: Place, **common: Any) -> None:
        super().__init__(legend, place, **common)
        self._names = FileNames("")
        labels = [{"name": name, "parent": "", "attributes": []} for name in legend.names]
        colours = [
            {"label_id": value, **dict(zip("rgb", one.colour, strict=True))} for value, one in enumerate(legend.classes)
        ]
        head = {
            "dm_format_version": "1.0",
            "media_type": _IMAGES,
            "infos": {},
            "categories": {
                "label": {"labels": labels, "label_groups": [], "attributes": []},
                "mask": {"colormap": colours},
            },
        }
        self._items = JsonList(place, "annotations/default.json", json.dumps(head)[:-1] + ', "items": [')

    def add(self, entry: Entry) -> None:
        """Write one item."""
        place = self._names.place(entry.name)
        size = list(entry.size)
        labels, ignored = entry.labels(self.per)
        runs = runs_of(labels.T, ignored)
        annotations = [
            {
                "id": i,
                "type": "mask",
                "attributes": {},
                "group": 0,
                "label_id": thing.value,
                "rle": {"counts": compressed(runs[thing.label]), "size": size},
                "z_order": 0,
            }
            for i, thing in enumerate(entry.things(self.per))
        ]
        image = {"path": self.add_photograph(entry, place), "size": size}
        self._items.add({"id": place, "annotations": annotations, "image": image})

    def finish(self) -> None:
        """End the list of items."""
        self._items.end("]}\n")
        self.write_names(self._names.renamed)
