"""`selfseg apply`: the masks of a whole collection, at each image's own size.

A call can be repeated after an interruption: what the same segmenter made of the same file is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.collection.batching.room import AUTO, Batching
from selfseg.collection.false_colours import painter_of
from selfseg.collection.large.mosaic import Mosaic
from selfseg.collection.large.places import check_geojson_of, write_areas
from selfseg.collection.large.rasters import (
    BandStore,
    Form,
    Look,
    ResultPlaces,
    forms,
    map_file,
    map_large,
    remove,
    write_map,
)
from selfseg.collection.opening import Images, collect, whole_images
from selfseg.collection.streaming import Embedded, Fetched, Looked, map_embedded
from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.listed import list_classes
from selfseg.data.reading.ahead import Versions
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.long.images import LongList
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.palette_png import VOID_COLOUR
from selfseg.drawing.pictures import hex_colour, overlay, write_image
from selfseg.pages.shown_path import ShownPath
from selfseg.segmenter.segmenter import Segmenter, load_segmenter
from selfseg.storage.files import clear, mark_output, read_json, storage_errors, write_json, write_text
from selfseg.storage.outputs.claiming import check_output, own_output
from selfseg.storage.outputs.left_over import remove_left_over
from selfseg.storage.progress import ProgressFile
from selfseg.storage.remote.places import at_places
from selfseg.workers.gathering import SkipList, Skipped, carry_out, remove_outdated, small_then_large
from selfseg.workers.hiring import hire
from selfseg.workers.long_lists import LongWork
from selfseg.workers.plan import HERE, Shard, Where, Workers


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
    where: Where = HERE,
    batch: Batching = AUTO,
) -> Path:
    """Write a mask of each image, with the classes of a named segmenter.

    Writes `out/masks/NAME.png` (a palette PNG: the pixels are class values, 255 for void; gray of 16 bits above 255
    classes), `out/overlay/NAME.jpg` (the photograph under the classes' colours), `out/legend.json` (value, name, colour
    and share of the pixels of each class), `out/classes.txt` and `out/skipped.jsonl`. If an image is too large to be
    looked at whole, or says where it lies on the map, its mask is `out/masks/NAME.tif`, tiled, with overviews, at the
    same place (`selfseg.collection.large.files`).

    If a call is interrupted, the same call continues: a mask is kept if the same segmenter made it from the same file.
    Masks that another segmenter made here are removed first, so that `legend.json` is always true.

    Args:
        segmenter: a segmenter; or the folder of one, or of a run that has one.
        images: a folder, a list file, NAME:ROOT, paths, a collection, arrays, tensors or PIL images.
        out: the folder to write.
        overlays: whether to write `out/overlay`.
        device: where a segmenter that is loaded is put, see `load_segmenter`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].
        window: side in px of the windows that large images are looked at in; the run's own if None.
        geojson: also write `out/geojson/NAME.geojson`, the areas as polygons; needs `rasterio`.
        min_area: smallest area of a polygon in px; smaller ones become part of the largest one beside them.
        large_as: "zarr" writes the masks of large images as OME-Zarr, `out/masks/NAME.zarr`.
        where: where the work is done: in this process, in several, or on Ray.
        batch: how many images a GPU looks at together (`selfseg.collection.batching`).

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
    out = Path(out)
    check_output(out, "segmenter")
    job = _Applying(segmenter, out, overlays, device, window, large_as, progress, batch)
    work = job.open()
    collection = collect(images, work.segmenter.embedder, cut=False)
    crew = hire(where, "apply", progress, device)
    with own_output(out, "segmenter"):
        return _apply(job, work, crew, where, collection, max_bad, min_area if geojson else None)


def _apply(
    job: _Applying,
    work: _Applier,
    crew: Workers,
    where: Where,
    collection: ImageCollection,
    max_bad: float,
    polygons: int | None,
) -> Path:
    """`apply` into a folder that nobody else writes to; `polygons` is their smallest area, None for none."""
    out, legend, overlays, progress = job.out, work.segmenter.legend, job.overlays, job.progress
    told = _told_by(out / "legend.json")
    if told and told != work.digest:  # it was written before the first mask: all of them are that one's
        for kind in ("masks", "overlay", "geojson"):
            clear(out / kind)
    done: ProgressFile | LongWork
    if isinstance(collection, LongList):
        done = LongWork(collection, out, "segmenter", work.digest, max_bad, work.are_there, _summed)
        others = done.foreign()
    else:
        log = SkipLog(out / "skipped.jsonl", len(collection), max_bad)
        done = ProgressFile(out / "progress.jsonl", "segmenter", work.digest)
        others = iter(done.of_others())
    for name in others:  # where no legend tells
        for file in (*forms(out / "masks", name), out / "overlay" / f"{name}.jpg"):
            with storage_errors(file):
                remove(file)
    for kind in ("masks", "overlay") if overlays else ("masks",):
        mark_output(out / kind)
    if told != work.digest:  # before the first mask, as this may be stopped at any time
        write_json(out / "legend.json", {"segmenter": work.digest, **_legend_of(legend, None)})
        write_text(out / "classes.txt", work.listed)
    made: Iterable[int]
    if isinstance(done, LongWork):
        done.do(job, work, crew, where, "apply", progress)
        made, summed = done.made(), _summed(done.progress.entries())
    else:
        whole = whole_images(collection, log)
        remove_left_over(out, done.beside(set(collection.names)), collection.paths, work.places, remove)
        todo = [i for i in whole if not work.is_done(done, collection, i)]
        carry_out(job, work, crew, where, collection, todo, done, log)
        remove_outdated(done, collection, log.skipped, work.places, remove)
        log.keep_current()
        made = [i for i in whole if collection.names[i] not in log.skipped]
        kept = (done.of(name) for name in collection.names if name not in log.skipped)
        summed = _summed(entry for entry in kept if entry is not None)
    write_json(out / "legend.json", {"segmenter": work.digest, **_legend_of(legend, summed)})
    write_text(out / "classes.txt", work.listed)
    if polygons is not None:
        for i in made:
            raster, name = map_file(out / "masks", collection, i), collection.names[i]
            write_areas(raster, out / "geojson", name, legend.to_json(), legend.void, polygons)
    return ShownPath(out)


@dataclass(frozen=True)
class _Applying:
    """The job of `apply`, with its arguments."""

    segmenter: Segmenter | Path | str
    out: Path
    overlays: bool
    device: str
    window: int | None
    large_as: Form
    progress: bool
    batch: Batching = AUTO

    def open(self) -> _Applier:
        """Load the segmenter."""
        return _Applier(self)


class _Applier:
    """Writes the masks and overlays of a shard, and gives a line of progress.jsonl for each image."""

    def __init__(self, job: _Applying) -> None:
        given = job.segmenter
        self.job, self.places = job, ResultPlaces(job.out, "masks")
        self.segmenter = given if isinstance(given, Segmenter) else load_segmenter(given, job.device)
        self.digest = self.segmenter.digest()
        if job.window is not None:
            embedder = self.segmenter.embedder
            embedder.window = replace(embedder.config, window=job.window).side  # checked
            self.digest += f"-{embedder.window}"
        legend = self.segmenter.legend
        self.listed, shown_as = list_classes(legend)
        colours = np.array([one.colour for one in shown_as.classes], np.uint8)
        self.how = Look(colours, {one["value"]: one["name"] for one in legend.to_json()}, legend.void)

    def is_done(self, done: ProgressFile, collection: ImageCollection, index: int) -> bool:
        """Whether an image's files were made of the image as it is now, and are there."""
        entry = done.made_from(collection.names[index], collection.version(index))
        return entry is not None and self.are_there(collection, index, entry)

    def are_there(self, collection: ImageCollection, index: int, entry: Mapping[str, Any]) -> bool:
        """Whether an image's files are there, by what was noted of it or of its shard."""
        name = collection.names[index]
        return (
            isinstance(entry.get("pixels"), dict)
            and (not self.job.overlays or (entry.get("overlay", False) and self.places.overlay(name).is_file()))
            and map_file(self.job.out / "masks", collection, index, self.job.large_as).exists()
        )

    def __call__(self, shard: Shard[ImageCollection]) -> Iterator[dict[str, Any] | Skipped]:
        images, skips, segmenter, how = shard.images, SkipList(), self.segmenter, self.how
        painter, void, out = painter_of(images), self.segmenter.legend.void, self.job.out / "masks"
        versions: Versions = {}

        def assign(one: Embedded) -> Fetched:
            return segmenter.assign_later(one.embedding, (one.image.shape[0], one.image.shape[1]))

        def write(one: Looked, found: Fetched) -> dict[str, Any]:
            mask, version = segmenter.without_void(found.numpy(), one.image), versions.pop(one.number)
            self.places.remove_polygons(images.names[one.number])
            write_map(out, images, one.number, mask, how)
            draw(images.names[one.number], one.image, mask)
            return entry_of(one.number, np.bincount(mask.ravel(), minlength=void + 1), version)

        def entry_of(i: int, counts: NDArray[np.int64], version: Any) -> dict[str, Any]:
            there = {str(value): int(counts[value]) for value in np.flatnonzero(counts)}
            return {"name": images.names[i], "source": version, "pixels": there, "overlay": self.job.overlays}

        def draw(name: str, image: NDArray[np.uint8], mask: NDArray[Any]) -> None:
            if self.job.overlays:
                shown = np.where(mask == void, np.int32(-1), mask)
                write_image(self.places.overlay(name), overlay(painter(image), shown, how.colours))
            else:
                self.places.overlay(name).unlink(missing_ok=True)  # of what the image was before

        def make_large(i: int) -> dict[str, Any]:
            embedder, version = segmenter.embedder, images.version(i)
            key = {"segmenter": self.digest, "source": version}
            store = BandStore(map_file(out, images, i, self.job.large_as), key, Mosaic.of(embedder, images.size(i)))
            map_large(embedder, images, i, store, *segmenter.rows(), void, "apply", shown_as, segmenter.look)
            drawn, counts = store.picture(), store.counts(void)
            draw(images.names[i], drawn.image, drawn.values)
            self.places.remove_polygons(images.names[i])
            store.finish(how, images, i)
            return entry_of(i, counts, version)

        shown_as = self.job.progress and shard.alone
        embedder, look, batch = segmenter.embedder, segmenter.look, self.job.batch
        yield from small_then_large(
            images,
            skips,
            lambda some: map_embedded(
                embedder,
                images,
                some,
                assign,
                write,
                skips,
                "apply",
                shown_as,
                look=look,
                batch=batch,
                versions=versions,
            ),
            make_large,
        )


def _told_by(legend: Path) -> str:
    """The digest of the segmenter that a legend.json is of; "" if none can be read."""
    try:
        return str(read_json(legend)["segmenter"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _summed(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What was noted of images, or of shards of them, added up."""
    pixels: Counter[str] = Counter()
    images, overlay = 0, True
    for entry in entries:
        pixels.update(entry["pixels"])
        images += entry.get("images", 1)
        overlay = overlay and bool(entry.get("overlay"))
    return {"images": images, "pixels": dict(pixels), "overlay": overlay}


def _legend_of(legend: Legend, summed: Mapping[str, Any] | None) -> dict[str, Any]:
    """The classes with their share of all pixels; without shares where the masks are still to be made."""
    if summed is None:
        return {"classes": legend.to_json(), "void": {"value": legend.void, "colour": hex_colour(VOID_COLOUR)}}
    counts = {int(value): count for value, count in summed["pixels"].items()}
    total = max(sum(counts.values()), 1)
    classes = [{**one, "share": counts.get(one["value"], 0) / total} for one in legend.to_json()]
    void = {"value": legend.void, "colour": hex_colour(VOID_COLOUR), "share": counts.get(legend.void, 0) / total}
    return {"images": summed["images"], "classes": classes, "void": void}
