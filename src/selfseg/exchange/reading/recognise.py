"""Which format files are in, by what lies there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from selfseg.data.labelled.legend import Legend
from selfseg.errors import DataError
from selfseg.exchange.base import FORMATS, READ_ONLY, NamedMask, read
from selfseg.exchange.reading.coco import is_coco
from selfseg.exchange.reading.datumaro import is_datumaro
from selfseg.exchange.reading.files import Tree
from selfseg.exchange.reading.geojson import is_geojson
from selfseg.exchange.reading.label_studio import is_label_studio
from selfseg.exchange.reading.palette import label_files
from selfseg.exchange.reading.photographs import Images
from selfseg.exchange.reading.polygons.labelme import is_labelme

_LISTS = ("legend.json", "classes.txt")
_OURS = ("legend.json", "renamed.json")
_KINDS = {
    "coco": is_coco,
    "datumaro": is_datumaro,
    "label-studio": is_label_studio,
    "geojson": is_geojson,
    "labelme": is_labelme,
}


def read_any(
    path: Path, images: Images | None = None, left_out: list[str] | None = None
) -> tuple[Legend, Iterator[NamedMask]]:
    """Read labels of whatever format is recognised; see `selfseg.exchange.base.read`."""
    return read(recognise(path), path, images, left_out)


def recognise(path: Path) -> str:
    """The name of the format that files are in.

    Args:
        path: a file, folder or zip.

    Raises:
        DataError: if they are in none that can be read, or in several.
    """
    tree = Tree.open(path)
    if tree.ending(".geojson"):
        return "geojson"
    pictures = label_files(tree)
    found = set[str]()
    for name in tree.ending(".json"):
        if name.rpartition("/")[2] not in _OURS:
            try:
                found.update(_kinds(tree, name))
            except DataError:
                if not pictures:
                    raise
    if found == {"labelme"}:  # the PNGs beside are its photographs
        return "labelme"
    if pictures:
        if any(tree.find(name) for name in _LISTS):
            return "palette"
        if tree.find("labelmap.txt"):
            return "cvat"
    if tree.ending(".xml") and not tree.find("labels.xml"):
        return "cvat"
    if len(found) == 1:
        return found.pop()
    if found:
        raise DataError(f"{path} holds files of several formats ({', '.join(sorted(found))}); say which one to read")
    if tree.ending(".yaml", ".yml") or (tree.find("classes.txt") and len(tree.ending(".txt")) > 1):
        return "yolo"
    some = ", ".join(tree.names[:5]) + (f" and {len(tree.names) - 5} more" if len(tree.names) > 5 else "")
    raise DataError(
        f"{path} holds no labels in a format that can be read ({some or 'nothing'}); the formats are "
        f"{', '.join([*FORMATS, *READ_ONLY])}"
    )


def _kinds(tree: Tree, name: str) -> list[str]:
    value = tree.json(name)
    return [kind for kind, looks in _KINDS.items() if value and looks(value)]
