"""`selfseg segment`: every image in the segments of a run's clusters, at its own size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.collection.assigning import cell_scores
from selfseg.collection.batching.room import AUTO, Batching
from selfseg.collection.clusters import Clusters, available_clusters, load_clusters
from selfseg.collection.false_colours import painter_of
from selfseg.collection.large.mosaic import Mosaic, Scores
from selfseg.collection.large.places import check_geojson_of, write_areas
from selfseg.collection.large.rasters import (
    SUFFIXES,
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
from selfseg.collection.opening import Images, collect, load_known, require_same, whole_images
from selfseg.collection.streaming import Embedded, Fetched, Looked, map_embedded
from selfseg.data.reading.ahead import Versions
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.long.images import LongList
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.pictures import hex_colour, overlay, palette, write_image
from selfseg.errors import ConfigError
from selfseg.models.embedder import Looks
from selfseg.ops.levels import mark_void
from selfseg.pages.shown_path import ShownPath
from selfseg.storage.files import clear, mark_output, read_json, write_json
from selfseg.storage.outputs.claiming import check_output, own_output
from selfseg.storage.outputs.left_over import remove_left_over
from selfseg.storage.progress import ProgressFile
from selfseg.storage.remote.places import at_places
from selfseg.telling import tell
from selfseg.workers.gathering import SkipList, Skipped, carry_out, remove_outdated, small_then_large
from selfseg.workers.hiring import hire
from selfseg.workers.long_lists import LongWork
from selfseg.workers.plan import HERE, Shard, Where, Workers


@at_places(models=["run"], writes=["out"])
def segment(
    run: Path | str,
    images: Images,
    out: Path | str,
    k: int | None = None,
    looks: Looks | None = None,
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
    """Segment each image at its own size with a run's clusters.

    Writes `out/index/NAME.png` (the cluster of each pixel: a palette PNG, which viewers show in the clusters' colours;
    above k = 256 gray of 16 bits), `out/overlay/NAME.jpg` (the photograph with coloured segments), `out/legend.json`
    (the clusters' values, names and colours) and `out/skipped.jsonl`. An image that is too large to be looked at whole,
    or that says where it lies on the map, gets `out/index/NAME.tif` instead: tiled, with overviews, at the same place
    (`selfseg.collection.large.files`). Pixels of measured images where nothing was measured are 255 (65535 above k =
    255). If a call is interrupted, the same call continues, even in the middle of a large image: what the same clusters
    made of the same file is kept. Maps that other clusters made here are removed first, so that `legend.json` is always
    true.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths, a collection, arrays, tensors or PIL images.
        out: the folder to write.
        k: which clustering: the one with this many clusters; the largest one if None.
        looks: how often each image is looked at; once if None (`selfseg.models.embedder.Looks`).
        device: see `load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].
        window: side in px of the windows that large images are looked at in; the run's own if None.
        geojson: also write `out/geojson/NAME.geojson`, the segments as polygons; needs `rasterio`.
        min_area: smallest area of a polygon in px; smaller ones become part of the largest one beside them.
        large_as: "zarr" writes the maps of large images as OME-Zarr, `out/index/NAME.zarr`.
        where: where the work is done: in this process, in several, or on Ray.
        batch: how many images a GPU looks at together (`selfseg.collection.batching`).

    Returns:
        `out`.

    Raises:
        RunError: if the run has no such clusters yet; see `load` too.
        EmptyCollection: if there are no images, or none can be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.
        ConfigError: if options don't fit each other; if there are large images and the clusters look at places; if
            `out` holds maps of other clusters that `progress.jsonl` doesn't tell of.
    """
    check_geojson_of(geojson, min_area, large_as)
    out = Path(out)
    check_output(out, "clusters")
    job = _Segmenting(Path(run), out, k, looks, device, window, large_as, progress, batch)
    work = job.open()
    several = available_clusters(run)
    if k is None and len(several) > 1:
        tell(f"k = {work.clusters.k} is taken, the largest of {', '.join(map(str, several))}; -k takes another one")
    collection = collect(images, work.embedder, cut=False)
    crew = hire(where, "segment", progress, device)
    with own_output(out, "clusters"):
        return _segment(
            replace(job, made_by=work.maker), work, crew, where, collection, max_bad, min_area if geojson else None
        )


def _segment(
    job: _Segmenting,
    work: _Segmenter,
    crew: Workers,
    where: Where,
    collection: ImageCollection,
    max_bad: float,
    polygons: int | None,
) -> Path:
    """`segment` into a folder that nobody else writes to; `polygons` is their smallest area, None for none."""
    out, clusters, how, progress = job.out, work.clusters, work.how, job.progress
    void = how.void if collection.channels is not None else None
    made: Iterable[int]
    legend: list[dict[str, Any]] = [
        {"cluster": c, "value": c, "name": how.names[c], "colour": hex_colour(colour), "share": share}
        for c, (colour, share) in enumerate(zip(how.colours, clusters.share, strict=True))
    ]
    nothing = {} if void is None else {"void": {"value": void}}
    about = {"k": clusters.k, "embedder": work.fingerprint, "maker": work.maker, "clusters": legend, **nothing}
    if isinstance(collection, LongList):
        many = LongWork(collection, out, "clusters", work.maker, max_bad, lambda some, i, _: work.are_there(some, i))
        _make_way(out, work.maker, many.foreign())
        _begin(out, about)
        many.do(job, work, crew, where, "segment", progress)
        made = many.made()
    else:
        log = SkipLog(out / "skipped.jsonl", len(collection), max_bad)
        whole = whole_images(collection, log)
        if any(collection.is_large(i) for i in whole):
            cluster_rows(clusters)  # an error comes before any work
        done = ProgressFile(out / "progress.jsonl", "clusters", work.maker)
        _make_way(out, work.maker, (*done.known, *done.of_others()))
        _begin(out, about)
        remove_left_over(out, done.beside(set(collection.names)), collection.paths, work.places, remove)
        todo = [i for i in whole if not work.is_done(done, collection, i)]
        carry_out(job, work, crew, where, collection, todo, done, log)
        remove_outdated(done, collection, log.skipped, work.places, remove)
        log.keep_current()
        made = (i for i in whole if collection.names[i] not in log.skipped)
    if polygons is not None:
        for i in made:
            raster, name = map_file(out / "index", collection, i), collection.names[i]
            write_areas(raster, out / "geojson", name, legend, void, polygons)
    return ShownPath(out)


def _begin(out: Path, about: Mapping[str, Any]) -> None:
    """Make the folders, and say what will be in them: before the first map, as the call may be stopped at any time."""
    for kind in ("index", "overlay"):
        mark_output(out / kind)
    write_json(out / "legend.json", about)


def _make_way(out: Path, maker: str, names: Iterable[str]) -> None:
    """Remove what other clusters made here, so that the one legend.json is true of every map.

    legend.json is written before the first map, so all maps are of those clusters that it names.

    Args:
        out: the verb's folder.
        maker: the clusters that will make maps.
        names: of the images whose maps progress.jsonl tells of.

    Raises:
        ConfigError: if there are maps, but no word on which clusters made them: an older version's.
    """
    try:
        made_by = read_json(out / "legend.json").get("maker")
    except FileNotFoundError:
        return
    except (ValueError, AttributeError):
        made_by = None
    if made_by == maker:
        return
    if made_by is None:
        known = {file for name in names for file in forms(out / "index", name)}
        for file in (out / "index").rglob("*.*"):
            if file.suffix in SUFFIXES and file not in known and not file.name.startswith("."):
                raise ConfigError(
                    f"{out} holds {file.relative_to(out)}, which an older selfseg wrote, and nothing says which "
                    "clusters made it; give another --out, or remove the folder"
                )
    tell(f"{out} has maps that other clusters made before; they are replaced")
    for kind in ("index", "overlay", "geojson"):
        clear(out / kind)


@dataclass(frozen=True)
class _Segmenting:
    """The job of `segment`, with its arguments."""

    run: Path
    out: Path
    k: int | None
    looks: Looks | None
    device: str
    window: int | None
    large_as: Form
    progress: bool
    batch: Batching = AUTO
    made_by: str = ""  # what a worker must have loaded

    def open(self) -> _Segmenter:
        """Load the network and the clusters."""
        return _Segmenter(self)


class _Segmenter:
    """Writes the maps and overlays of a shard, and gives a line of progress.jsonl for each image."""

    def __init__(self, job: _Segmenting) -> None:
        self.job, self.places = job, ResultPlaces(job.out, "index")
        self.embedder, self.fingerprint = load_known(job.run, job.device, job.looks, job.window)
        self.clusters = load_clusters(job.run, job.k).to(self.embedder.mean.device)  # once, not for each image
        k = self.clusters.k
        self.how = Look(palette(k), {c: f"cluster {c}" for c in range(k)}, 255 if k <= 255 else 65535)
        self.maker = self._maker()
        require_same(job.run, job.made_by, self.maker)

    def _maker(self) -> str:
        """What decides what is made of an image."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.clusters.centroids, self.clusters.groups):
            digest.update(b"" if part is None else part.cpu().numpy().tobytes())
        described = f"{self.fingerprint} {self.embedder.looks.name} {self.clusters.position} {self.job.window}"
        digest.update(described.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def is_done(self, done: ProgressFile, collection: ImageCollection, index: int) -> bool:
        """Whether an image's files were made of the image as it is now, and are there."""
        name = collection.names[index]
        return done.made_from(name, collection.version(index)) is not None and self.are_there(collection, index)

    def are_there(self, collection: ImageCollection, index: int) -> bool:
        """Whether an image's files are there."""
        return (
            self.places.overlay(collection.names[index]).exists()
            and map_file(self.job.out / "index", collection, index, self.job.large_as).exists()
        )

    def __call__(self, shard: Shard[ImageCollection]) -> Iterator[dict[str, Any] | Skipped]:
        images, skips, embedder, clusters = shard.images, SkipList(), self.embedder, self.clusters
        versions: Versions = {}
        painter, how, out = painter_of(images), self.how, self.job.out / "index"
        assert how.void is not None
        if images.channels is None:
            how = replace(how, void=None)

        def assign(one: Embedded) -> Fetched:
            return clusters.assign_later(one.embedding, (one.image.shape[0], one.image.shape[1]))

        def write(one: Looked, found: Fetched) -> dict[str, Any]:
            ids = found.numpy()
            if how.void is not None:
                ids = mark_void(ids, one.image, how.void)
            self.places.remove_polygons(images.names[one.number])
            write_map(out, images, one.number, ids, how)
            draw(one.number, one.image, ids)
            return {"name": images.names[one.number], "source": versions.pop(one.number)}

        def draw(i: int, image: NDArray[np.uint8], ids: NDArray[Any]) -> None:
            shown = ids if how.void is None else np.where(ids == how.void, -1, ids.astype(np.int32))
            write_image(self.places.overlay(images.names[i]), overlay(painter(image), shown, how.colours))

        def make_large(i: int) -> dict[str, Any]:
            target, version = map_file(out, images, i, self.job.large_as), images.version(i)
            store = BandStore(target, {"clusters": self.maker, "source": version}, Mosaic.of(embedder, images.size(i)))
            scores, values = cluster_rows(clusters)
            assert self.how.void is not None
            map_large(embedder, images, i, store, scores, values, self.how.void, "segment", shown)
            drawn = store.picture()
            draw(i, drawn.image, drawn.values)
            self.places.remove_polygons(images.names[i])
            store.finish(how, images, i)
            return {"name": images.names[i], "source": version}

        shown = self.job.progress and shard.alone
        yield from small_then_large(
            images,
            skips,
            lambda some: map_embedded(
                embedder, images, some, assign, write, skips, "segment", shown, batch=self.job.batch, versions=versions
            ),
            make_large,
        )


def cluster_rows(clusters: Clusters) -> tuple[Scores, NDArray[Any]]:
    """How cells of a large image are scored, and the cluster that each row of scores stands for.

    Raises:
        ConfigError: if the clusters look at a pixel's place in its image, which a window has not.
    """
    if clusters.position:
        raise ConfigError(
            "these clusters depend on a pixel's place in its image (--position), which the windows of a large image "
            "don't have; cluster again without --position"
        )
    rows = len(clusters.centroids)
    groups = np.arange(rows) if clusters.groups is None else clusters.groups.cpu().numpy()
    kind = np.uint8 if clusters.k <= 255 else np.uint16  # with room for void
    return lambda embedding: cell_scores(embedding, clusters.centroids), groups.astype(kind)
