"""`selfseg apply`: the masks of a whole collection, at each image's own size.

A call can be repeated after an interruption: what the same segmenter made of the same file is kept.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.collection.false_colours import painter_of
from selfseg.collection.large.mosaic import Mosaic
from selfseg.collection.large.places import check_geojson_of, write_areas
from selfseg.collection.large.rasters import BandStore, Form, Look, forms, map_file, map_large, remove, write_map
from selfseg.collection.opening import Images, collect, whole_images
from selfseg.collection.streaming import Fetched, WriteBehind, embed_images
from selfseg.data.labelled.coco_json import inner_path
from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.listed import list_classes
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.palette_png import VOID_COLOUR
from selfseg.drawing.pictures import hex_colour, overlay, write_image
from selfseg.errors import BadImage, LabelError
from selfseg.segmenter.segmenter import Segmenter, load_segmenter
from selfseg.storage.files import mark_output, read_json, storage_errors, write_json, write_text
from selfseg.storage.remote.places import at_places


@at_places(models=["segmenter"], writes=["out"])
def apply(
    segmenter: Segmenter | Path | str,
    images: Images,
    out: Path | str,
    overlays: bool = True,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
    window: int | None = None,
    geojson: bool = False,
    min_area: int = 0,
    large_as: Form = "tiff",
) -> Path:
    """Write the mask of each image, in the classes of a named segmenter.

    Writes `out/masks/NAME.png` (a palette PNG: the pixels are class values, 255 for void; gray of 16 bits above 255
    classes), `out/overlay/NAME.jpg` (the photograph under the classes' colours), `out/legend.json` (value, name,
    colour and share of the pixels of each class), `out/classes.txt` and `out/skipped.jsonl`. Of an image that is too
    large to be looked at whole, and of one that knows where it lies, the mask is `out/masks/NAME.tif`, tiled, with
    overviews, at the same place (`selfseg.collection.large.files`).

    An interrupted call goes on where it stopped: a mask is kept if the same segmenter made it from the same file. What
    another segmenter made here before is removed first, so that `legend.json` never says what is not so.

    Args:
        segmenter: one; or the folder of one, or a run that has one.
        images: a folder, a list file, NAME:ROOT, paths or a collection.
        out: the folder to write.
        overlays: whether to write them.
        device: where a segmenter that is loaded shall live, see `load_segmenter`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].
        window: side in px of the windows that large images are looked at in; the run's own if None.
        geojson: also write `out/geojson/NAME.geojson`, the areas as polygons; needs `rasterio`.
        min_area: px; smaller polygons become part of the largest one beside them.
        large_as: "zarr" writes the masks of large images as OME-Zarr, `out/masks/NAME.zarr`.

    Returns:
        `out`.

    Raises:
        RunError: if there is no segmenter, or it is damaged.
        EmptyCollection: if there are no images, or none can be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.
        ConfigError: if options don't fit each other.
    """
    check_geojson_of(geojson, min_area, large_as)
    if not isinstance(segmenter, Segmenter):
        segmenter = load_segmenter(segmenter, device)
    if window is not None:
        segmenter.embedder.window = replace(segmenter.embedder.config, window=window).side  # checked
    collection, out = collect(images, segmenter.embedder, cut=False), Path(out)
    legend, digest = segmenter.legend, segmenter.digest()
    if window is not None:
        digest += f"-{segmenter.embedder.window}"
    listed, shown_as = list_classes(legend)
    colours = np.array([one.colour for one in shown_as.classes], np.uint8)
    how = Look(colours, {one["value"]: one["name"] for one in legend.to_json()}, legend.void)
    for kind in ("masks", "overlay") if overlays else ("masks",):
        mark_output(out / kind)
    painter = painter_of(collection)
    log = SkipLog(out / "skipped.jsonl", len(collection), max_bad)
    journal = out / "progress.jsonl"
    known = _read_journal(journal)
    done = {name: entry for name, entry in known.items() if entry["segmenter"] == digest}
    for name in known.keys() - done.keys():
        for file in (*forms(out / "masks", name), out / "overlay" / f"{name}.jpg"):
            remove(file)
    if _told_by(out / "legend.json") != digest:  # before the first mask, as this may be stopped at any time
        write_json(out / "legend.json", {"segmenter": digest, **_legend_of(legend, None)})
        write_text(out / "classes.txt", listed)
    whole = whole_images(collection, log)

    def is_done(i: int) -> bool:
        entry = done.get(collection.names[i])
        return _is_of(entry, collection, i, out, overlays) and map_file(out / "masks", collection, i, large_as).exists()

    todo = [i for i in whole if not is_done(i)]

    def entry_of(i: int, counts: NDArray[np.int64], version: Any) -> dict[str, Any]:
        there = {str(value): int(counts[value]) for value in np.flatnonzero(counts)}
        name = collection.names[i]
        return {"name": name, "source": version, "pixels": there, "segmenter": digest, "overlay": overlays}

    def draw(name: str, image: NDArray[np.uint8], mask: NDArray[Any]) -> None:
        overlay_file = out / "overlay" / f"{name}.jpg"
        if overlays:
            shown = np.where(mask == legend.void, np.int32(-1), mask)
            write_image(overlay_file, overlay(painter(image), shown, colours))
        else:
            overlay_file.unlink(missing_ok=True)  # of what the image was before

    def write(i: int, image: NDArray[np.uint8], found: Fetched, version: Any) -> dict[str, Any]:
        mask = segmenter.without_void(found.numpy(), image)
        write_map(out / "masks", collection, i, mask, how)
        draw(collection.names[i], image, mask)
        return entry_of(i, np.bincount(mask.ravel(), minlength=legend.void + 1), version)

    def make_large(i: int) -> dict[str, Any]:
        target, version = map_file(out / "masks", collection, i, large_as), collection.version(i)
        store = BandStore(
            target, {"segmenter": digest, "source": version}, Mosaic.of(segmenter.embedder, collection.size(i))
        )
        map_large(
            segmenter.embedder, collection, i, store, *segmenter.rows(), legend.void, "apply", progress, segmenter.look
        )
        drawn, counts = store.picture(), store.counts(legend.void)
        draw(collection.names[i], drawn.image, drawn.values)
        store.finish(how, collection, i)
        return entry_of(i, counts, version)

    with storage_errors(journal), journal.open("a", encoding="utf-8") as lines:

        def finished(entry: dict[str, Any]) -> None:
            done[entry["name"]] = entry
            lines.write(json.dumps(entry) + "\n")
            lines.flush()

        with WriteBehind(finished) as writer, torch.no_grad():
            small = [i for i in todo if not collection.is_large(i)]
            seen = embed_images(segmenter.embedder, collection, small, log, "apply", progress, look=segmenter.look)
            for i, image, _, embedding in seen:
                found = segmenter.assign_later(embedding, (image.shape[0], image.shape[1]))
                writer.call(write, i, image, found, collection.version(i))
        for i in (i for i in todo if collection.is_large(i)):
            try:
                finished(make_large(i))
            except BadImage as error:
                log.add(collection.names[i], error.reason, error.detail)
    entries = [done[name] for name in collection.names if name in done and name not in log.skipped]
    write_json(out / "legend.json", {"segmenter": digest, **_legend_of(legend, entries)})
    write_text(out / "classes.txt", listed)
    if geojson:
        for i in (i for i in whole if collection.names[i] not in log.skipped):
            raster, name = map_file(out / "masks", collection, i), collection.names[i]
            write_areas(raster, out / "geojson", name, legend.to_json(), legend.void, min_area)
    return out


def _told_by(legend: Path) -> str:
    """The digest of the segmenter that a legend.json is of; "" if none can be read."""
    try:
        return str(read_json(legend)["segmenter"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _legend_of(legend: Legend, entries: list[dict[str, Any]] | None) -> dict[str, Any]:
    """The classes with their share of all pixels; without shares where the masks are still to be made."""
    if entries is None:
        return {"classes": legend.to_json(), "void": {"value": legend.void, "colour": hex_colour(VOID_COLOUR)}}
    counts: dict[int, int] = {}
    for entry in entries:
        for value, count in entry["pixels"].items():
            counts[int(value)] = counts.get(int(value), 0) + count
    total = max(sum(counts.values()), 1)
    classes = [{**one, "share": counts.get(one["value"], 0) / total} for one in legend.to_json()]
    void = {"value": legend.void, "colour": hex_colour(VOID_COLOUR), "share": counts.get(legend.void, 0) / total}
    return {"images": len(entries), "classes": classes, "void": void}


def _read_journal(journal: Path) -> dict[str, dict[str, Any]]:
    """The last entry of each image that earlier calls wrote, with any segmenter, by name."""
    known: dict[str, dict[str, Any]] = {}
    if journal.is_file():
        for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                inner_path(entry["name"])  # files of that name may be removed
                known[entry["name"]] = {key: entry[key] for key in ("name", "source", "pixels", "segmenter")} | {
                    "overlay": entry.get("overlay", False)
                }
            except (ValueError, KeyError, TypeError, LabelError):  # a line cut off by a crash
                continue
    return known


def _is_of(entry: dict[str, Any] | None, collection: ImageCollection, i: int, out: Path, overlays: bool) -> bool:
    """Whether an entry was made from the image as it is now, and the overlay is there if it is wanted."""
    version = collection.version(i)
    return (
        entry is not None
        and version is not None
        and entry["source"] == version
        and (not overlays or (entry["overlay"] and (out / "overlay" / f"{collection.names[i]}.jpg").is_file()))
    )
