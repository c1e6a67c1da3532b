"""`selfseg cluster`: the pixels of a whole collection become concepts.

Embeddings of drawn pixels are grouped by k-means, once for each k, from one pass over the images.

Letters in shapes: D embedding dimension, h w embedding cells, K clusters, N points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.collection.clusters import Clusters, ClusterTree, add_position, diverse, save_clusters, save_tree
from selfseg.collection.opening import Images, collect, load, whole_images
from selfseg.collection.proposal import propose_k, save_proposal
from selfseg.collection.streaming import Embedded, Looked, map_embedded, to_device
from selfseg.data.reading.ahead import spread_points
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import ConfigError, EmptyCollection
from selfseg.models.embedder import Embedder, Looks
from selfseg.ops.kmeans import assign, kmeans
from selfseg.ops.merging import merge_tree
from selfseg.ops.threads import usable_cores
from selfseg.storage.hashes import embedder_hash
from selfseg.workers.gathering import SkipList, Skipped, gather
from selfseg.workers.hiring import hire
from selfseg.workers.plan import HERE, Shard, Where, cut

_KEPT = 48  # images of each cluster, of which those that are not neighbours are shown


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
) -> tuple[Path, ...]:
    """Group the pixels of a collection into concepts: k-means on their embeddings, for each k from one pass.

    Writes `RUN/clusters/k{K}.safetensors` (centroids) and `k{K}.json` (see `Clusters`); with `merge` also
    `tree.safetensors` and `tree.json`, from which `segment` and the others take any other k.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths or a collection.
        k: the numbers of clusters.
        seed: of the sampled images and pixels, and of k-means.
        points: how many pixels to sample in all, equally many from each image. From more than points / 64 images,
            points / 64 are drawn and 64 pixels of each.
        position: how much a pixel's place in its image has a say (`selfseg.collection.clusters.add_position`);
            above 0 for cameras that stand or always look ahead, e.g. 1.
        merge: so many clusters are found first and then merged to each k by average linkage (`selfseg.ops.merging`),
            e.g. 200. None = k-means with k clusters, as in the papers.
        looks: how often each image is looked at; once if None (`selfseg.models.embedder.Looks`).
        device: see `load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].
        propose: also look for a number of clusters to begin with, and keep what is found
            (`selfseg.collection.proposal`).
        where: the images are looked at.

    Returns:
        The paths of the JSON files, in the order of `k`.

    Raises:
        ConfigError: if a k is below 2 or above the number of points that the images give.
        RunError: see `load`.
        EmptyCollection: if there are no images, or none could be read.
        TooManyBadImages: if too many can't be read.
    """
    counts = (k,) if isinstance(k, int) else tuple(k)
    if not counts or min(counts) < 2:
        raise ConfigError(f"k is {counts}; give one or more numbers of clusters, each 2 or more")
    if merge is not None and merge < max(counts):
        raise ConfigError(f"merge = {merge} clusters can't be merged to k = {max(counts)}; raise merge or lower k")
    if max(counts) > points:
        raise ConfigError(f"k = {max(counts)} is more than {points} points; lower k or raise points")
    embedder = load(run, device, looks)
    collection = collect(images, embedder)
    log = SkipLog(Path(run) / "clusters" / "skipped.jsonl", len(collection), max_bad)
    job = _Drawing(Path(run), looks, device, len(collection), seed, points, position, True, progress)
    kinds, owners = _draw(job, _Drawer(job, embedder, here=True), collection, log, where)
    samples = kinds[0]
    if max(counts) > len(samples):
        raise ConfigError(f"k = {max(counts)} is more than the {len(samples)} points that the images give; lower k")
    found = {"seed": seed, "position": position, "skipped": len(log.skipped)}
    run = Path(run)
    if merge is not None and merge > len(samples):
        raise ConfigError(f"merge = {merge} is more than the {len(samples)} points that the images give; lower merge")
    if merge is None:
        found_clusters = [_cluster_once(run, collection, kinds, owners, count, found) for count in counts]
    else:
        tree, start = _find_trees(run, collection, kinds, owners, merge, {**found, "merge": merge})
        save_tree(run, tree)
        found_clusters = [replace(tree.cut(n), before=None if start is None else start.cut(n)) for n in counts]
    (run / "clusters" / "proposal.json").unlink(missing_ok=True)  # it may be of other images
    paths = tuple(save_clusters(run, clusters) for clusters in found_clusters)
    if propose:
        save_proposal(run, propose_k(samples, owners, seed, merge))
    return paths


def sample_pixels(
    embedder: Embedder,
    collection: ImageCollection,
    seed: int,
    points: int,
    position: float,
    log: SkipLog,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """Embeddings of pixels drawn from a collection; a pure function of (seed, image index).

    Returns:
        (N, D) float32 on the embedder's device, (N, D + 4) with a `position` above 0 (`add_position`), and (N,) int64
        on the CPU: the image that each is of. N is at most about `points`, less where images have fewer cells.

    Raises:
        EmptyCollection: if no image could be read.
    """
    job = _Drawing(Path(), None, "auto", len(collection), seed, points, position, False, progress)
    (samples,), owners = _draw(job, _Drawer(job, embedder, here=True), collection, log)
    return samples, owners


def look_twice(embedder: Embedder, before: Embedder) -> Callable[[Tensor], Tensor]:
    """A look that finds what an embedder sees and what it saw before its training, at little more than one's cost.

    Args:
        embedder: one that has a `before_training`.
        before: that one.

    Returns:
        A function of (B, 3, H, W) float in [0, 1]: (B, 2 D, h, w) float32, the embedder's D first.
    """

    def look(image: Tensor) -> Tensor:
        if embedder.looks != Looks():
            return torch.cat([embedder.look(image), before.look(image)], dim=1)
        features = embedder.features(image)
        return torch.cat([F.normalize(one.decoder.project(features).float(), dim=1) for one in (embedder, before)], 1)

    return look


def _draw(
    job: _Drawing,
    work: _Drawer,
    collection: ImageCollection,
    log: SkipLog,
    where: Where = HERE,
) -> tuple[list[Tensor], Tensor]:
    """`sample_pixels`, and the same pixels as of before the training where they are wanted: (N, D) each, and owners."""
    chosen, _ = spread_points(len(collection), job.points, job.seed)
    whole = whole_images(collection, log, chosen.tolist())
    with hire(where, "cluster", job.progress, job.device) as workers:
        shards = cut(collection, whole, where)
        with closing(gather(workers, job, shards, collection.names, log, work)) as found:
            drawn = sorted(found, key=lambda one: one[0])
    if not drawn:
        raise EmptyCollection(f"none of the {len(chosen)} images in {collection.root} could be read")
    device = work.embedder.mean.device
    samples = [
        torch.cat([torch.as_tensor(one).to(device) for one in kind])
        for kind in zip(*(kept for _, kept in drawn), strict=True)
    ]
    return samples, torch.cat([torch.full((len(kinds[0]),), i) for i, kinds in drawn])


@dataclass(frozen=True)
class _Drawing:
    """The job of `cluster`: draw pixels of a collection of so many images."""

    run: Path
    looks: Looks | None
    device: str
    images: int
    seed: int
    points: int
    position: float
    before: bool
    progress: bool

    def open(self) -> _Drawer:
        """Load the network."""
        return _Drawer(self, load(self.run, self.device, self.looks))


class _Drawer:
    """Draws pixels of a shard: for each image its number, and (n, D) of what is wanted of them.

    Args:
        job: what is drawn.
        embedder: which looks.
        here: whether the values stay in this process, and on their device.
    """

    def __init__(self, job: _Drawing, embedder: Embedder, here: bool = False) -> None:
        self.job, self.embedder, self.here = job, embedder, here
        self.before = embedder.before_training() if job.before else None

    def __call__(self, shard: Shard[ImageCollection]) -> Iterator[tuple[int, list[Any]] | Skipped]:
        job, embedder, before, skips = self.job, self.embedder, self.before, SkipList()
        _, per_image = spread_points(job.images, job.points, job.seed)
        kinds = 1 if before is None else 2

        def draw(one: Embedded) -> list[Tensor]:
            cells = one.embedding.shape[1] * one.embedding.shape[2]
            key = (job.seed, shard.indices[one.number])
            drawn = np.random.default_rng(key).choice(cells, min(per_image, cells), replace=False)
            found = []
            for each in one.embedding.chunk(kinds):
                vectors = add_position(each, job.position).flatten(1)  # (D, h w)
                found.append(vectors[:, to_device(np.sort(drawn), vectors.device)].T.contiguous())
            return found

        def keep(one: Looked, found: list[Tensor]) -> tuple[int, list[Any]]:
            kept = found if self.here else [each.cpu().numpy() for each in found]
            return shard.indices[one.number], kept

        look = None if before is None else look_twice(embedder, before)
        stream = map_embedded(
            embedder,
            shard.images,
            range(len(shard)),
            draw,
            keep,
            skips,
            "cluster",
            job.progress and shard.alone,
            threads=max(2, usable_cores()),  # nothing is written meanwhile
            look=look,
        )
        yield from skips.among(stream)


def _cluster_once(
    run: Path,
    collection: ImageCollection,
    kinds: Sequence[Tensor],
    owners: Tensor,
    k: int,
    info: Mapping[str, Any],
) -> Clusters:
    """k-means for one k, and what the clusters look like; `info` holds the seed and what else is to be kept."""
    centroids, share, best, info = _find(run, collection, kinds[0], owners, k, info)
    typical = tuple(diverse([(name, index) for name, index, _ in each], int(info["count"])) for each in best)
    before = None
    if len(kinds) > 1:
        start, shares = _find_before(kinds, centroids)
        before = Clusters(start, shares, ((),) * k, info)
    return Clusters(centroids, share, typical, info, before=before)


def _find_trees(
    run: Path,
    collection: ImageCollection,
    kinds: Sequence[Tensor],
    owners: Tensor,
    merge: int,
    info: Mapping[str, Any],
) -> tuple[ClusterTree, ClusterTree | None]:
    """k-means with many clusters, and how they are joined; and those of before the training, if they are asked for."""
    centroids, share, best, info = _find(run, collection, kinds[0], owners, merge, info)
    tree = ClusterTree(centroids, merge_tree(centroids), share, best, info)
    if len(kinds) == 1:
        return tree, None
    start, shares = _find_before(kinds, centroids)
    return tree, ClusterTree(start, merge_tree(start), shares, ((),) * merge, info)


def _find_before(kinds: Sequence[Tensor], centroids: Tensor) -> tuple[Tensor, tuple[float, ...]]:
    """The clusters of the same pixels before the training: centroids (k, D), shares.

    k-means begins at the clusters of after: another seed moves many pixels by itself, and would be taken for what the
    training did.
    """
    after, before = kinds
    k = len(centroids)
    assignment = assign(after, centroids.to(after)).cpu()
    # On the CPU, where adding up by index has an order.
    sums = torch.zeros(k, before.shape[1]).index_add_(0, assignment, before.cpu().float())
    result = kmeans(before, k, initial=F.normalize(sums, dim=1))
    found = F.normalize(result.centroids.float(), dim=1).cpu()
    shares = torch.bincount(result.assignment.cpu(), minlength=k) / len(before)
    return found, tuple(shares.tolist())


_Best = tuple[tuple[str, int, float], ...]


def _find(
    run: Path, collection: ImageCollection, samples: Tensor, owners: Tensor, k: int, info: Mapping[str, Any]
) -> tuple[Tensor, tuple[float, ...], tuple[_Best, ...], dict[str, Any]]:
    """k-means: centroids (k, D), shares, the images that show each cluster best, and how they were found."""
    result = kmeans(samples, k, seed=info["seed"])
    centroids = F.normalize(result.centroids.float(), dim=1).cpu()
    # Sorted by size, so that cluster 0 is the largest and colours mean the same kind of thing in each run.
    assignment = result.assignment.cpu()
    order = torch.bincount(assignment, minlength=k).sort(descending=True, stable=True).indices
    centroids, assignment = centroids[order], torch.argsort(order)[assignment]
    vectors = F.normalize(samples.cpu().float(), dim=1)
    similarity = (vectors * centroids[assignment]).sum(1).clamp(min=0)
    images, place = torch.unique(owners, return_inverse=True)
    # Mean similarity times area is the sum of similarities over the image's number of points.
    total = torch.zeros(len(images) * k).index_add_(0, place * k + assignment, similarity).reshape(-1, k)
    score = total / torch.bincount(place)[:, None]
    top = score.topk(min(_KEPT, len(images)), dim=0)
    best = tuple(
        tuple(
            (collection.names[int(images[i])], int(images[i]), value)
            for i, value in zip(top.indices[:, c].tolist(), top.values[:, c].tolist(), strict=True)
            if value > 0
        )
        for c in range(k)
    )
    share = tuple((torch.bincount(assignment, minlength=k) / len(assignment)).tolist())
    found = {
        "k": k,
        "images": str(collection.root),
        "count": len(images),
        "points": len(samples),
        "inertia": result.inertia,
        **info,
        "embedder": embedder_hash(run),
    }
    return centroids, share, best, found
