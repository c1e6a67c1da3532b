"""`selfseg segment`: every image in the segments of a run's clusters, at its own size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.collection.assigning import cell_scores
from selfseg.collection.clusters import Clusters, load_clusters
from selfseg.collection.false_colours import painter_of
from selfseg.collection.large.mosaic import Mosaic, Scores
from selfseg.collection.large.places import check_geojson_of, write_areas
from selfseg.collection.large.rasters import BandStore, Form, Look, map_file, map_large, write_map
from selfseg.collection.opening import Images, collect, load, whole_images
from selfseg.collection.streaming import Fetched, WriteBehind, embed_images
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.pictures import hex_colour, overlay, palette, write_image
from selfseg.errors import BadImage, ConfigError
from selfseg.models.embedder import Looks
from selfseg.ops.levels import mark_void
from selfseg.storage.files import mark_output, write_json
from selfseg.storage.hashes import embedder_hash
from selfseg.storage.remote.places import at_places


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
) -> Path:
    """Segment each image at its own size with a run's clusters.

    Writes `out/index/NAME.png` (the cluster of each pixel: a palette PNG, which viewers show in the clusters' colours;
    above k = 256 gray of 16 bits), `out/overlay/NAME.jpg` (the photograph with coloured segments), `out/legend.json`
    (the clusters' values, names and colours) and `out/skipped.jsonl`. Of an image that is too large to be looked at
    whole, and of one that knows where it lies, `out/index/NAME.tif` instead: tiled, with overviews, at the same place
    (`selfseg.collection.large.files`). A large one that was interrupted goes on where it stopped. Pixels of measured
    images where nothing was measured are 255 (65535 above k = 255).

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths or a collection.
        out: the folder to write.
        k: which clustering; the largest one there is if None.
        looks: how often each image is looked at; once if None (`selfseg.models.embedder.Looks`).
        device: see `load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].
        window: side in px of the windows that large images are looked at in; the run's own if None.
        geojson: also write `out/geojson/NAME.geojson`, the segments as polygons; needs `rasterio`.
        min_area: px; smaller polygons become part of the largest one beside them.
        large_as: "zarr" writes the maps of large images as OME-Zarr, `out/index/NAME.zarr`.

    Returns:
        `out`.

    Raises:
        RunError: if the run has no such clusters yet; see `load` too.
        EmptyCollection: if there are no images, or none can be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.
        ConfigError: if options don't fit each other; if there are large images and the clusters look at places.
    """
    check_geojson_of(geojson, min_area, large_as)
    embedder = load(run, device, looks, window)
    clusters = load_clusters(run, k).to(embedder.mean.device)  # once, not for each image
    collection, out = collect(images, embedder, cut=False), Path(out)
    fingerprint, colours, painter = embedder_hash(run), palette(clusters.k), painter_of(collection)
    void = 255 if clusters.k <= 255 else 65535
    names = {c: f"cluster {c}" for c in range(clusters.k)}
    how = Look(colours, names, void if collection.channels is not None else None)
    for kind in ("index", "overlay"):
        mark_output(out / kind)
    log = SkipLog(out / "skipped.jsonl", len(collection), max_bad)

    def write(i: int, image: NDArray[np.uint8], found: Fetched) -> None:
        ids = found.numpy()
        if how.void is not None:
            ids = mark_void(ids, image, void)
        write_map(out / "index", collection, i, ids, how)
        draw(i, image, ids)

    def draw(i: int, image: NDArray[np.uint8], ids: NDArray[Any]) -> None:
        shown = ids if how.void is None else np.where(ids == void, -1, ids.astype(np.int32))
        write_image(out / "overlay" / f"{collection.names[i]}.jpg", overlay(painter(image), shown, colours))

    whole = whole_images(collection, log)
    writer: WriteBehind[None] = WriteBehind()
    small = [i for i in whole if not collection.is_large(i)]
    large = [i for i in whole if collection.is_large(i)]
    scored = cluster_rows(clusters) if large else None  # an error comes before any work
    with writer:
        for i, image, _, embedding in embed_images(embedder, collection, small, log, "segment", progress):
            found = clusters.assign_later(embedding, (image.shape[0], image.shape[1]))
            writer.call(write, i, image, found)
    for i in large:
        target = map_file(out / "index", collection, i, large_as)
        key = {"embedder": fingerprint, "looks": embedder.looks.name, "k": clusters.k}
        store = BandStore(target, {**key, "source": collection.version(i)}, Mosaic.of(embedder, collection.size(i)))
        assert scored is not None
        try:
            map_large(embedder, collection, i, store, *scored, void, "segment", progress)
        except BadImage as error:
            log.add(collection.names[i], error.reason, error.detail)
            continue
        drawn = store.picture()
        draw(i, drawn.image, drawn.values)
        store.finish(how, collection, i)
    legend: list[dict[str, Any]] = [
        {"cluster": c, "value": c, "name": names[c], "colour": hex_colour(colour), "share": share}
        for c, (colour, share) in enumerate(zip(colours, clusters.share, strict=True))
    ]
    nothing = {"void": {"value": void}} if collection.channels is not None else {}
    if geojson:
        for i in (i for i in whole if collection.names[i] not in log.skipped):
            write_areas(
                map_file(out / "index", collection, i), out / "geojson", collection.names[i], legend, how.void, min_area
            )
    write_json(out / "legend.json", {"k": clusters.k, "embedder": fingerprint, "clusters": legend, **nothing})
    return out


def cluster_rows(clusters: Clusters) -> tuple[Scores, NDArray[Any]]:
    """How cells of a large image are scored, and the cluster that each row of scores stands for.

    Raises:
        ConfigError: if the clusters look at a pixel's place in its image, which a window has not.
    """
    if clusters.position:
        raise ConfigError(
            "these clusters look at a pixel's place in its image, which windows of a large image have not"
        )
    rows = len(clusters.centroids)
    groups = np.arange(rows) if clusters.groups is None else clusters.groups.cpu().numpy()
    kind = np.uint8 if clusters.k <= 255 else np.uint16  # with room for void
    return lambda embedding: cell_scores(embedding, clusters.centroids), groups.astype(kind)
