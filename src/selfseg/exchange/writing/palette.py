"""Palette PNGs in the layout of PASCAL VOC.

    SegmentationClass/NAME.png              8 bits with a palette: the class of each pixel, 0 to C - 1; 255 is void and
                                            shown black. Gray of 16 bits for more than 255 classes, 65535 is void
    ImageSets/Segmentation/default.txt      NAME of each image
    labelmap.txt                            a class a line, "name:r,g,b::", in the order of the values
    classes.txt                             a class a line, "VALUE name #rrggbb": selfseg's labelled folders
    legend.json                             the classes as they are, with values, names and colours
    JPEGImages/NAME.jpg                     the photographs, if asked for
    renamed.json                            NAME of images whose own names can't be files' here, if there are any

VOC itself has a class "background" as 0; here 0 is the first class of the legend, whatever it is.
"""

from __future__ import annotations

from typing import Any, ClassVar

from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.listed import distinct_colours, list_classes, plain_labels
from selfseg.drawing.palette_png import encode_index_png
from selfseg.exchange.writing.names import FileNames
from selfseg.exchange.writing.places import Place
from selfseg.exchange.writing.writer import Entry, Writer


class PaletteWriter(Writer):
    """See the top of this module; `per` changes nothing here."""

    images_folder: ClassVar[str] = "JPEGImages"

    def __init__(self, legend: Legend, place: Place, **common: Any) -> None:
        super().__init__(legend, place, **common)
        self._names = FileNames(".png")
        self._list = place.open("ImageSets/Segmentation/default.txt")
        self._colours = distinct_colours([one.colour for one in legend.classes])

    def add(self, entry: Entry) -> None:
        """Write one mask."""
        place = self._names.place(entry.name)
        data = encode_index_png(entry.mask, self._colours)
        self.place.write(f"SegmentationClass/{place}.png", data)
        self.add_photograph(entry, place)
        self._list.write(f"{place}\n")

    def finish(self) -> None:
        """Write the classes."""
        names = self.legend.names
        colours = zip(plain_labels(names, in_map=True), self._colours, strict=True)
        lines = [f"{label}:{red},{green},{blue}::\n" for label, (red, green, blue) in colours]
        self.write_text("labelmap.txt", "".join(["# label:color_rgb:parts:actions\n", *lines]))
        self.write_text("classes.txt", list_classes(self.legend)[0])
        self.write_json("legend.json", {"void": self.legend.void, "classes": self.legend.to_json()})
        self.write_names(self._names.renamed)
