"""What every format of masks has in common: the masks themselves, the list of formats, and the two verbs.

A format's writer and reader are named in `FORMATS` and imported when they are used, as entry points are: so a format
is a file in `exchange/writing`, one in `exchange/reading`, and an entry here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from numpy.typing import NDArray

from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError, LabelError


@dataclass(frozen=True)
class NamedMask:
    """An image's mask in the classes of a legend.

    Attributes:
        name: the image's file name, with "/" where it lies in folders below the root, e.g. "monday/a b.jpg".
        mask: (H, W) of any integer type, class values 0 to C - 1; the legend's `void` (255 up to 255 classes, else
            65535) where there is no class. The frame is the upright image's, as `read_image` gives it.
        image: the photograph's file, where there is one.
        split: the one that the file of labels puts it in: train, val or test; "" if it doesn't say.

    Raises:
        LabelError: if the mask has another shape or no pixel, or isn't of whole numbers.
    """

    name: str
    mask: NDArray[Any]
    image: Path | None = None
    split: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise LabelError("a mask needs the name of its image")
        if self.mask.ndim != 2 or 0 in self.mask.shape or self.mask.dtype.kind not in "iu":
            raise LabelError(
                f"{self.name}: a mask is (H, W) whole numbers with a pixel at least, not {self.mask.shape} "
                f"{self.mask.dtype}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.mask.shape[0], self.mask.shape[1]

    def check(self, legend: Legend) -> None:
        """Raise LabelError if a value is neither a class of `legend` nor its void."""
        low, high = int(self.mask.min()), int(self.mask.max())
        count = len(legend.classes)
        if low < 0 or (high >= count and (strange := _strange(self.mask, count, legend.void)) is not None):
            value = low if low < 0 else strange
            raise LabelError(
                f"{self.name}: the mask holds {value}; the legend has classes 0 to {count - 1}, and void is "
                f"{legend.void}"
            )


def _strange(mask: NDArray[Any], count: int, void: int) -> int | None:
    found = mask[(mask >= count) & (mask != void)]
    return int(found[0]) if found.size else None


@dataclass(frozen=True)
class Format:
    """A format of masks.

    Attributes:
        name: as it is given to `write` and `read`.
        title: for a list to choose from.
        for_what: which tools read it, in a sentence.
        how_to_import: what to do there, in a sentence.
        cannot_hold: what gets lost, in a sentence; "" if nothing does.
        writer: "module:class", a `selfseg.exchange.writing.writer.Writer`.
        reader: "module:function" of (path, images, left_out) that returns what `read` does.
        zipped: whether the tool takes only a zip, so that `write_formats` makes one.
    """

    name: str
    title: str
    for_what: str
    how_to_import: str
    cannot_hold: str
    writer: str
    reader: str
    zipped: bool = False


_ALL = (
    Format(
        "palette",
        "Palette PNG (PASCAL VOC)",
        "One indexed PNG for each image, in the layout of PASCAL VOC; read by mmsegmentation, torchvision, Pillow, "
        "Fiji, and by selfseg as a labelled folder.",
        "Open SegmentationClass/NAME.png; the value of a pixel is the line of labelmap.txt after its first, from 0.",
        "",
        "selfseg.exchange.writing.palette:PaletteWriter",
        "selfseg.exchange.reading.palette:read",
    ),
    Format(
        "coco",
        "COCO JSON",
        "One JSON file with run-length masks or polygons; read by pycocotools, Detectron2, FiftyOne, Roboflow, CVAT.",
        'In CVAT: Actions, Upload annotations, "COCO 1.0". In Python: pycocotools.coco.COCO("annotations.json").',
        "Polygons have no holes: each is cut along a line of no width, which keeps every pixel.",
        "selfseg.exchange.writing.coco:CocoWriter",
        "selfseg.exchange.reading.coco:read",
    ),
    Format(
        "cvat",
        "CVAT, Segmentation mask 1.1",
        "A zip that CVAT takes for a task with the same images and labels.",
        'In CVAT: open the task, Actions, Upload annotations, "Segmentation mask 1.1", choose the zip.',
        "Colours must differ and black is no class, so a colour may change by a shade; an image has at most 255 "
        "objects, and Datumaro, with which CVAT reads, takes no class after the 255th.",
        "selfseg.exchange.writing.cvat:CvatWriter",
        "selfseg.exchange.reading.cvat:read",
        zipped=True,
    ),
    Format(
        "datumaro",
        "Datumaro",
        "Datumaro's own JSON, from which its own command makes more than forty formats; read by Datumaro, CVAT, Geti.",
        'In CVAT: Actions, Upload annotations, "Datumaro 1.0". In a shell: datum convert -i FOLDER -if datumaro.',
        "",
        "selfseg.exchange.writing.datumaro:DatumaroWriter",
        "selfseg.exchange.reading.datumaro:read",
    ),
    Format(
        "label-studio",
        "Label Studio",
        "Tasks with brush masks, and the labelling interface with the names and colours; read by Label Studio.",
        "In Label Studio: paste labels.xml in Settings, Labeling Interface, Code; then import tasks.json.",
        "",
        "selfseg.exchange.writing.label_studio:LabelStudioWriter",
        "selfseg.exchange.reading.label_studio:read",
    ),
    Format(
        "geojson",
        "GeoJSON",
        "Polygons in pixel coordinates, a file for each image; read by QuPath, QGIS, shapely and geopandas.",
        "In QuPath: open the image and drag its .geojson onto the viewer.",
        "",
        "selfseg.exchange.writing.geojson:GeoJsonWriter",
        "selfseg.exchange.reading.geojson:read",
    ),
    Format(
        "yolo",
        "YOLO segmentation",
        "A text file of polygons for each image and a data.yaml; read by YOLO trainers.",
        "Put the images in images/ (or write them with the masks) and give data.yaml to the trainer.",
        "Polygons have no holes: each is cut along a line of no width, which keeps every pixel; an object is a region.",
        "selfseg.exchange.writing.yolo:YoloWriter",
        "selfseg.exchange.reading.polygons.yolo:read",
    ),
)


class ReadOnly(NamedTuple):
    """A format that is read and not written; title and reader as of `Format`."""

    title: str
    reader: str


READ_ONLY: Mapping[str, ReadOnly] = MappingProxyType(
    {"labelme": ReadOnly("LabelMe JSON", "selfseg.exchange.reading.polygons.labelme:read")}
)
"""Formats that are only read, by name."""

FORMATS: Mapping[str, Format] = MappingProxyType({one.name: one for one in _ALL})
"""Every format by name."""


def find_format(name: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in FORMATS:
        only = " (which is only read)" if name in READ_ONLY else ""
        raise ConfigError(f"no format {name!r}{only}; there are {', '.join(FORMATS)}")
    return FORMATS[name]


def load_part(entry: str) -> Any:
    """What "module:name" names."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def read(
    format: str, path: Path | str, images: Any = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """Read masks that another tool wrote.

    Args:
        format: a name in `FORMATS` or `READ_ONLY`, or "auto", which looks what is there.
        path: the file, folder or zip.
        images: the photographs, as of `selfseg.data.labelled.catalog.find_images`; their sizes are held against the
            labels', and each mask gets the name and file of its own. Without them those in JPEGImages or images beside
            the labels are taken. Only YOLO can't be read without any.
        left_out: a list to which sentences are added on what can't be used, which is then left out; without it, the
            first such thing is an error.

    Returns:
        The classes, and the masks one by one, as they are read. A mask whose image isn't among the photographs has no
        image.

    Raises:
        ConfigError: if there is no such format.
        DataError: if the files are not what they should be; while the masks are read, too.
    """
    if format == "auto":
        reader = "selfseg.exchange.reading.recognise:read_any"
    elif format in READ_ONLY:
        reader = READ_ONLY[format].reader
    else:
        reader = find_format(format).reader
    legend, masks = load_part(reader)(Path(path), images=images, left_out=left_out)
    return legend, masks


def write(format: str, masks: Iterable[NamedMask], legend: Legend, out: Path | str, **options: Any) -> Path:
    """Write masks for another tool.

    Args:
        format: a name in `FORMATS`.
        masks: any number of them, which are gone through once and not kept. Names differ.
        legend: what their values mean.
        out: the folder to write; a zip where it ends in ".zip". One that `write` made before is replaced at the end.
        options: `per` "class" or "component": what is one object; `images`: whether to add the photographs; and the
            format's own, see its writer.

    Returns:
        `out`.

    Raises:
        ConfigError: if there is no such format or option, or `out` holds other things.
        LabelError: if a mask has values that the legend doesn't name, or two masks one name.
        EmptyCollection: if there is no mask.
        StorageError: if the disk is full.
    """
    return _write({format: options}, masks, legend, {format: Path(out)})[format]


def write_formats(
    formats: Iterable[str] | Mapping[str, Mapping[str, Any]],
    masks: Iterable[NamedMask],
    legend: Legend,
    out: Path | str,
    *,
    zipped: bool = False,
    **options: Any,
) -> dict[str, Path]:
    """Write masks in several formats, going through them once.

    Args:
        formats: names in `FORMATS`, or names with the options of each.
        masks: see `write`.
        legend: see `write`.
        out: the folder to write: OUT/FORMAT for each, or OUT/FORMAT.zip.
        zipped: whether each format becomes one zip; those that their tool takes only as a zip always do.
        options: for all formats that don't say otherwise.

    Returns:
        The folder or zip of each format.

    Raises:
        ConfigError: see `write`, which lists the other errors too. Either all are written or none.
    """
    given = {name: dict(formats[name]) if isinstance(formats, Mapping) else {} for name in formats}
    if not given:
        raise ConfigError(f"no format is given; the formats are {', '.join(FORMATS)}")
    places = {name: Path(out) / (f"{name}.zip" if zipped or find_format(name).zipped else name) for name in given}
    return _write({name: {**options, **own} for name, own in given.items()}, masks, legend, places)


def _write(
    wanted: Mapping[str, Mapping[str, Any]], masks: Iterable[NamedMask], legend: Legend, places: Mapping[str, Path]
) -> dict[str, Path]:
    together = load_part("selfseg.exchange.writing.together:write_together")
    writers = {name: load_part(find_format(name).writer) for name in wanted}
    written: dict[str, Path] = together(writers, wanted, masks, legend, places)
    return written
