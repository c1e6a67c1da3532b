"""`selfseg segment`: every image in the segments of a run's clusters, at its own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfseg.collection.clusters import load_clusters
from selfseg.collection.false_colours import painter_of
from selfseg.collection.opening import Images, collect, load, whole_images
from selfseg.collection.streaming import Fetched, WriteBehind, embed_images
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.palette_png import write_index_png
from selfseg.drawing.pictures import hex_colour, overlay, palette, write_image
from selfseg.models.embedder import Looks
from selfseg.storage.files import mark_output, write_json
from selfseg.storage.hashes import embedder_hash


def segment(
    run: Path | str,
    images: Images,
    out: Path | str,
    k: int | None = None,
    looks: Looks | None = None,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
) -> Path:
    """Segment each image at its own size with a run's clusters.

    Writes `out/index/NAME.png` (the cluster of each pixel: a palette PNG, which viewers show in the clusters' colours;
    above k = 256 gray of 16 bits), `out/overlay/NAME.jpg` (the photograph with coloured segments), `out/legend.json`
    (the clusters' values, names and colours) and `out/skipped.jsonl`.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths or a collection.
        out: the folder to write.
        k: which clustering; the largest one there is if None.
        looks: how often each image is looked at; once if None (`selfseg.models.embedder.Looks`).
        device: see `load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].

    Returns:
        `out`.

    Raises:
        RunError: if the run has no such clusters yet; see `load` too.
        EmptyCollection: if there are no images, or none can be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.
    """
    embedder = load(run, device, looks)
    clusters = load_clusters(run, k).to(embedder.mean.device)  # once, not for each image
    collection, out = collect(images), Path(out)
    colours, painter = palette(clusters.k), painter_of(collection)
    for kind in ("index", "overlay"):
        mark_output(out / kind)
    log = SkipLog(out / "skipped.jsonl", len(collection), max_bad)

    def write(name: str, image: NDArray[np.uint8], found: Fetched) -> None:
        ids = found.numpy()
        write_index_png(out / "index" / f"{name}.png", ids, colours)
        write_image(out / "overlay" / f"{name}.jpg", overlay(painter(image), ids, colours))

    whole = whole_images(collection, log)
    writer: WriteBehind[None] = WriteBehind()
    with writer:
        for i, image, _, embedding in embed_images(embedder, collection, whole, log, "segment", progress):
            found = clusters.assign_later(embedding, (image.shape[0], image.shape[1]))
            writer.call(write, collection.names[i], image, found)
    legend = [
        {"cluster": c, "value": c, "name": f"cluster {c}", "colour": hex_colour(colour), "share": share}
        for c, (colour, share) in enumerate(zip(colours, clusters.share, strict=True))
    ]
    write_json(out / "legend.json", {"k": clusters.k, "embedder": embedder_hash(run), "clusters": legend})
    return out
