"""GeoJSON as QuPath reads it: NAME.geojson for each image, in pixels, x to the right and y down.

A feature is a class (a MultiPolygon if it has several regions), or a region with `per` "component"; its properties hold
the name and colour as `classification`. Outlines go along the edges of pixels, (0, 0) is the corner of the first one;
holes are rings of their own. Void pixels belong to no feature. "image" beside the features has the name and size.

For map coordinates, each point goes through the image's affine transform; docs/formats.md has the lines.
"""

from __future__ import annotations

import json
from typing import Any

from selfseg.data.labelled.legend import Legend
from selfseg.exchange.writing.names import FileNames, ListedNames
from selfseg.exchange.writing.places import Place
from selfseg.exchange.writing.writer import Entry, Thing, Writer
from selfseg.ops.regions.outlines import Polygon, Ring


class GeoJsonWriter(Writer):
    """See the top of this module."""

    def __init__(self, legend: Legend, place: Place, **common: Any) -> None:
        super().__init__(legend, place, **common)
        self._names, self._listed = FileNames(".geojson"), ListedNames()

    def add(self, entry: Entry) -> None:
        """Write the features of one mask."""
        place = self._names.place(entry.name)
        height, width = entry.size
        value = {
            "type": "FeatureCollection",
            "image": {"name": self._listed.place(entry.name), "height": height, "width": width},
            "features": [self._feature(entry, thing) for thing in entry.things(self.per)],
        }
        self.write_text(f"{place}.geojson", json.dumps(value, separators=(",", ":")) + "\n")
        self.add_photograph(entry, place)

    def finish(self) -> None:
        """Write the classes."""
        self.write_json("legend.json", {"void": self.legend.void, "classes": self.legend.to_json()})
        self.write_names(self._names.renamed)

    def _feature(self, entry: Entry, thing: Thing) -> dict[str, Any]:
        rings = [_rings(polygon) for polygon in entry.outlines(thing, self.per)]
        one = self.legend.classes[thing.value]
        several = len(rings) > 1
        return {
            "type": "Feature",
            "geometry": {
                "type": "MultiPolygon" if several else "Polygon",
                "coordinates": rings if several else rings[0],
            },
            "properties": {
                "objectType": "annotation",
                "classification": {"name": one.name, "color": list(one.colour)},
                "isLocked": False,
            },
        }


def _rings(polygon: Polygon) -> list[list[list[int]]]:
    return [_closed(ring) for ring in (polygon.outer, *polygon.holes)]


def _closed(ring: Ring) -> list[list[int]]:
    points: list[list[int]] = ring.tolist()
    return [*points, points[0]]
