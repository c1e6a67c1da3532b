"""Label Studio: tasks.json with brush masks, and labels.xml, the labelling interface with names and colours.

Label Studio finds a photograph by an address. `url` is what stands before the image's name in it; the default is that
of its local files, whose document root is the folder of images then. Void pixels belong to no mask.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.listed import plain_labels
from selfseg.exchange.coding.brush_rle import packed
from selfseg.exchange.coding.runs import runs_of
from selfseg.exchange.writing.names import FileNames, ListedNames
from selfseg.exchange.writing.places import Place
from selfseg.exchange.writing.writer import Entry, JsonList, Writer

LOCAL_FILES = "/data/local-files/?d="
_QUOTE = {'"': "&quot;"}


class LabelStudioWriter(Writer):
    """See the top of this module.

    Args:
        legend: the classes.
        place: where files go.
        url: what stands before each image's name, with its special characters as %XX.
        predictions: whether the masks are a model's predictions, which a person accepts there, and not annotations.
        common: see `Writer`.
    """

    def __init__(
        self, legend: Legend, place: Place, *, url: str = LOCAL_FILES, predictions: bool = False, **common: Any
    ) -> None:
        super().__init__(legend, place, **common)
        self._url, self._kind = url, "predictions" if predictions else "annotations"
        self._labels = plain_labels(legend.names)
        self._names = FileNames("") if self.images else ListedNames()
        self._tasks = JsonList(place, "tasks.json", "[")

    def add(self, entry: Entry) -> None:
        """Write one task."""
        place = self._names.place(entry.name)
        file = self.add_photograph(entry, place) if self.images else place
        height, width = entry.size
        labels, ignored = entry.labels(self.per)
        runs = runs_of(labels, ignored)
        result = [
            {
                "id": f"mask{i}",
                "type": "brushlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": packed(runs[thing.label]).tolist(),
                    "brushlabels": [self._labels[thing.value]],
                },
            }
            for i, thing in enumerate(entry.things(self.per))
        ]
        address = self._url + quote(file, safe="/", errors="surrogateescape")
        self._tasks.add({"data": {"image": address, "name": file}, self._kind: [{"result": result}]})

    def finish(self) -> None:
        """Write the labelling interface."""
        self._tasks.end("\n]\n")
        labels = [
            f'    <Label value="{escape(label, _QUOTE)}" background="#{r:02x}{g:02x}{b:02x}"/>\n'
            for label, (r, g, b) in zip(self._labels, (one.colour for one in self.legend.classes), strict=True)
        ]
        lines = [
            "<View>\n",
            '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n',
            '  <BrushLabels name="label" toName="image">\n',
            *labels,
            "  </BrushLabels>\n",
            "</View>\n",
        ]
        self.write_text("labels.xml", "".join(lines))
        self.write_names(self._names.renamed)
