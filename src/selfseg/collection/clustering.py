"""`selfseg cluster`: the pixels of a whole collection become concepts.

Embeddings of drawn pixels are grouped by k-means, once for each k, from one pass over the images.

Letters in shapes: D embedding dimension, h w embedding cells, K clusters, N points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from selfseg.collection.batching.room import AUTO, Batching
from selfseg.collection.clusters import MOST_POSITION, Clusters, ClusterTree, diverse, save_clusters, save_tree
from selfseg.collection.opening import Images, collect, load_known, whole_images
from selfseg.collection.points.drawing import Drawer, Drawing, draw_pixels
from selfseg.collection.points.found import (
    DrawingParts,
    Grouped,
    InMemory,
    InParts,
    PartDrawer,
    Points,
    Written,
    owners_of,
    part_file,
)
from selfseg.collection.proposal import propose_k, save_proposal
from selfseg.data.reading.ahead import spread_points
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import ConfigError, EmptyCollection
from selfseg.models.embedder import Looks
from selfseg.ops.merging import merge_tree
from selfseg.ops.parts.steps import PartFiles
from selfseg.pages.shown_path import ShownPaths
from selfseg.storage.files import mark_output, sole_use, storage_errors
from selfseg.storage.remote.places import at_places
from selfseg.telling import tell
from selfseg.workers.gathering import gather
from selfseg.workers.hiring import hire
from selfseg.workers.parts import SharedParts
from selfseg.workers.plan import HERE, Where, Workers, cut_evenly

IN_MEMORY = 1 << 30
"""Bytes of drawn points up to which they are held in memory."""

PART = 1 << 18
"""Points of a part, about."""


@at_places(runs=["run"])
def cluster(
    run: Path | str,
    images: Images,
    k: Sequence[int] = (27,),
    seed: int = 0,
    points: int = 200_000,
    position: float = 0.0,
    merge: int | None = None,
    looks: Looks | None = None,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
    propose: bool = False,
    where: Where = HERE,
    batches: int = 0,
    batch: Batching = AUTO,
) -> tuple[Path, ...]:
    """Group the pixels of a collection into concepts by k-means on their embeddings, for one or several k in one pass.

    Writes `RUN/clusters/k{K}.safetensors` (centroids) and `k{K}.json` (see `Clusters`); with `merge` also
    `tree.safetensors` and `tree.json`, from which `segment` and the others take any other k.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths, a collection, arrays, tensors or PIL images.
        k: the numbers of clusters.
        seed: seed of the random choice of images and pixels, and of k-means.
        points: how many pixels to sample in all, equally many from each image. If there are more than points / 64
            images, points / 64 of them are drawn, and 64 pixels of each. Points that need more than 1 GiB lie in files
            in RUN/clusters meanwhile.
        position: how much a pixel's place in its image counts (`selfseg.collection.clusters.add_position`). Take a
            value above 0, e.g. 1, for cameras that stand still or always look ahead.
        merge: find this many clusters first, e.g. 200, and merge them to each k by average linkage
            (`selfseg.ops.merging`). None = k-means with k clusters, as in the papers.
        looks: how often each image is looked at; once if None (`selfseg.models.embedder.Looks`).
        device: see `load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].
        propose: also look for a number of clusters to begin with, and keep what is found
            (`selfseg.collection.proposal`).
        where: where the work is done: in this process, in several, or on Ray.
        batches: how many times to go through the points by mini-batches, instead of Lloyd's iterations. For more points
            than one wants to go through often; 0 = exact k-means.
        batch: how many images a GPU looks at together (`selfseg.collection.batching`).

    Returns:
        The paths of the JSON files, in the order of `k`.

    Raises:
        ConfigError: if a k is below 2 or above the number of points that the images give; for other numbers that
            cannot be.
        RunError: see `load`; also if another process is clustering this run.
        EmptyCollection: if there are no images, or none could be read.
        TooManyBadImages: if too many can't be read.
    """
    counts = (k,) if isinstance(k, int) else tuple(k)
    if not counts or min(counts) < 2:
        raise ConfigError(f"k is {counts}; give one or more numbers of clusters, each 2 or more")
    if merge is not None and merge < max(counts):
        raise ConfigError(f"merge = {merge} clusters can't be merged to k = {max(counts)}; raise merge or lower k")
    if seed < 0 or batches < 0:
        raise ConfigError(f"--seed and --batches can't be negative: {min(seed, batches)}")
    if not 0 <= position <= MOST_POSITION:
        raise ConfigError(f"position must be a weight from 0 to {MOST_POSITION:g}, not {position}")
    if max(counts) > points:
        raise ConfigError(f"k = {max(counts)} is more than {points} points; lower k or raise points")
    run = Path(run)
    embedder, made_by = load_known(run, device, looks)
    collection = collect(images, embedder)
    mark_output(run / "clusters")
    with ExitStack() as held:
        held.enter_context(sole_use(run / "clusters", fixed=True))  # two at once would write one another's files
        log = SkipLog(run / "clusters" / "skipped.jsonl", len(collection), max_bad)
        job = Drawing(run, looks, device, len(collection), seed, points, position, True, progress, batch, made_by)
        work = Drawer(job, embedder, here=True)
        info = {"seed": seed, "position": position, "images": str(collection.root), "embedder": made_by}
        kinds = 1 if work.before is None else 2
        width = embedder.dim + (4 if position else 0)
        fits = not batches and 4 * width * kinds * points <= IN_MEMORY
        found: Points
        if fits:
            found = InMemory(*draw_pixels(job, work, collection, log, where))
        else:
            workers = held.enter_context(hire(where, "cluster", progress, device))
            found = _in_parts(job, work, collection, log, where, workers, batches)
            tell(
                f"{found.count:,} points of {width} numbers are kept in {run / 'clusters'} while they are grouped; "
                "how much the training moved them is not reported then"
            )
        for name, wanted in (("k", max(counts)), ("merge", merge or 0)):
            if wanted > found.count:
                raise ConfigError(
                    f"{name} = {wanted} is more than the {found.count} points that the images give; lower {name}"
                )
        info |= {"skipped": len(log.skipped), "count": found.images, "points": found.count}
        if merge is None:
            made = [_cluster_once(found, collection.names, count, info) for count in counts]
        else:
            tree, start = _find_trees(found, collection.names, merge, {**info, "merge": merge})
            save_tree(run, tree)
            made = [replace(tree.cut(n), before=None if start is None else start.cut(n)) for n in counts]
        some = found.some() if propose else None
        if isinstance(found, InParts):
            found.remove()
        (run / "clusters" / "proposal.json").unlink(missing_ok=True)  # it may be of other images
        paths = tuple(save_clusters(run, clusters) for clusters in made)
        log.keep_current()
        if some is not None:
            save_proposal(run, propose_k(*some, seed, merge))
        return ShownPaths(paths)


def _in_parts(
    job: Drawing,
    work: Drawer,
    collection: ImageCollection,
    log: SkipLog,
    where: Where,
    workers: Workers,
    batches: int,
) -> InParts:
    """Points that don't fit in memory: drawn into files, where an earlier call's are kept that was stopped."""
    chosen, per_image = spread_points(len(collection), job.points, job.seed)
    whole = whole_images(collection, log, chosen.tolist())
    digest = hashlib.blake2b(repr((job.made_by, job.looks, job.points)).encode(), digest_size=8)
    digest.update(repr((job.seed, job.position, len(collection))).encode())
    for i in whole:  # another picture under the same name is another point
        digest.update(repr((i, collection.names[i], collection.version(i))).encode())
    folder = job.run / "clusters" / f"points-{digest.hexdigest()}"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written, todo = [], []
    # The parts are the same whoever makes them, so that the sums are, too.
    for shard in cut_evenly(collection, whole, max(1, PART // per_image)):
        part = part_file(folder, shard.indices[0])
        if part.is_file():
            owners = np.load(owners_of(part), allow_pickle=False)
            written.append(Written(shard.indices[0], len(owners), len(np.unique(owners))))
        else:
            todo.append(shard)
    drawing = DrawingParts(replace(job, before=False), folder)
    here = PartDrawer(drawing, Drawer(drawing.drawing, work.embedder, here=True)) if where.here else None
    with closing(gather(workers, drawing, todo, collection.names, log, here)) as parts:
        written += parts
    if not written:
        raise EmptyCollection(f"none of the {len(chosen)} images in {collection.root} could be read")
    written.sort()
    paths = [part_file(folder, one.number) for one in written]
    return InParts(PartFiles(tuple(paths)) if where.here else SharedParts(workers, paths), folder, written, batches)


def _cluster_once(points: Points, names: Sequence[str], k: int, info: Mapping[str, Any]) -> Clusters:
    """k-means for one k, and what the clusters look like; `info` holds what else is to be kept."""
    found, told = _group(points, k, info)
    typical = tuple(diverse([(names[i], i) for i, _ in each], points.images) for each in found.best)
    before, earlier = None, points.before(found.centroids)
    if earlier is not None:
        before = Clusters(*earlier, ((),) * k, told)
    return Clusters(found.centroids, found.share, typical, told, before=before)


def _find_trees(
    points: Points, names: Sequence[str], merge: int, info: Mapping[str, Any]
) -> tuple[ClusterTree, ClusterTree | None]:
    """k-means with many clusters, and how they are joined; and those of before the training, where that can be told."""
    found, told = _group(points, merge, info)
    best = tuple(tuple((names[i], i, value) for i, value in each) for each in found.best)
    tree = ClusterTree(found.centroids, merge_tree(found.centroids), found.share, best, told)
    earlier = points.before(found.centroids)
    if earlier is None:
        return tree, None
    start, shares = earlier
    return tree, ClusterTree(start, merge_tree(start), shares, ((),) * merge, told)


def _group(points: Points, k: int, info: Mapping[str, Any]) -> tuple[Grouped, dict[str, Any]]:
    found = points.group(k, info["seed"])
    return found, {"k": k, "inertia": found.inertia, **info}
