"""Points that are grouped, wherever they are: all in memory, or in parts on the disk.

Letters: N points, D dimensions, k clusters.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.points.drawing import Drawer, Drawing
from selfseg.data.reading.images import ImageCollection
from selfseg.ops.kmeans import assign, kmeans
from selfseg.ops.parts.kmeans import kmeans_parts
from selfseg.ops.parts.steps import Parts, nearest_of, rows_of
from selfseg.storage.files import write_atomically
from selfseg.threads import one_thread_each
from selfseg.workers.gathering import Skipped
from selfseg.workers.plan import Shard

KEPT = 48
"""Images of each cluster, of which those that are not neighbours are shown."""

Best = tuple[tuple[tuple[int, float], ...], ...]
"""Of each cluster (image, mean similarity times area), best first."""


class Grouped(NamedTuple):
    """What k-means found, the largest cluster first.

    Attributes:
        centroids: (k, D) float32 on the CPU, of unit length.
        share: of the points, of each.
        best: see `Best`.
        inertia: the sum of squared distances.
    """

    centroids: Tensor
    share: tuple[float, ...]
    best: Best
    inertia: float


class Points(Protocol):
    """Points that are grouped.

    Attributes:
        count: N.
        images: that they are of.
    """

    count: int
    images: int

    def group(self, k: int, seed: int) -> Grouped:
        """k-means on the sphere."""
        ...

    def before(self, centroids: Tensor) -> tuple[Tensor, tuple[float, ...]] | None:
        """The clusters of the same pixels before the training, (k, D) and shares; None where that can't be told."""
        ...

    def some(self) -> tuple[Tensor, Tensor]:
        """Points (n, D) and the images (n,) that they are of: as many as are looked at closely."""
        ...


class InMemory:
    """Points that all fit in memory.

    Args:
        kinds: (N, D) float32 once or twice, as of now and as of before the training.
        owners: (N,) int64 on the CPU, the image that each is of.
    """

    def __init__(self, kinds: Sequence[Tensor], owners: Tensor) -> None:
        self._kinds, self._owners = kinds, owners
        self.count, self.images = len(kinds[0]), len(torch.unique(owners))

    def group(self, k: int, seed: int) -> Grouped:
        """As of `Points`."""
        samples = self._kinds[0]
        result = kmeans(samples, k, seed=seed)
        centroids = F.normalize(result.centroids.float(), dim=1).cpu()
        # Sorted by size, so that cluster 0 is the largest and colours mean the same kind of thing in each run.
        assignment = result.assignment.cpu()
        order = torch.bincount(assignment, minlength=k).sort(descending=True, stable=True).indices
        centroids, assignment = centroids[order], torch.argsort(order)[assignment]
        vectors = F.normalize(samples.cpu().float(), dim=1)
        best = rank_images((vectors * centroids[assignment]).sum(1), assignment, self._owners, k)
        share = tuple((torch.bincount(assignment, minlength=k) / len(assignment)).tolist())
        return Grouped(centroids, share, best, result.inertia)

    def before(self, centroids: Tensor) -> tuple[Tensor, tuple[float, ...]] | None:
        """As of `Points`.

        k-means begins at the clusters of after: another seed moves many pixels by itself, and would be taken for what
        the training did.
        """
        if len(self._kinds) == 1:
            return None
        after, before = self._kinds
        k = len(centroids)
        assignment = assign(after, centroids.to(after)).cpu()
        # On the CPU, where adding up by index has an order.
        sums = torch.zeros(k, before.shape[1]).index_add_(0, assignment, before.cpu().float())
        result = kmeans(before, k, initial=F.normalize(sums, dim=1))
        found = F.normalize(result.centroids.float(), dim=1).cpu()
        shares = torch.bincount(result.assignment.cpu(), minlength=k) / len(before)
        return found, tuple(shares.tolist())

    def some(self) -> tuple[Tensor, Tensor]:
        """As of `Points`: all."""
        return self._kinds[0], self._owners


def rank_images(similarity: Tensor, assignment: Tensor, owners: Tensor, k: int) -> Best:
    """The images that show each cluster best: mean similarity times area.

    Args:
        similarity: (N,) of each point to its centroid.
        assignment: (N,) int64, the cluster of each.
        owners: (N,) int64, the image of each.
        k: clusters.
    """
    images, place = torch.unique(owners, return_inverse=True)
    # Mean similarity times area is the sum of similarities over the image's number of points.
    total = torch.zeros(len(images) * k).index_add_(0, place * k + assignment, similarity.clamp(min=0)).reshape(-1, k)
    score = total / torch.bincount(place)[:, None]
    top = score.topk(min(KEPT, len(images)), dim=0)
    return tuple(
        tuple(
            (int(images[i]), value)
            for i, value in zip(top.indices[:, c].tolist(), top.values[:, c].tolist(), strict=True)
            if value > 0
        )
        for c in range(k)
    )


class Written(NamedTuple):
    """A part that a worker wrote: its number, points, and images."""

    number: int
    points: int
    images: int


@dataclass(frozen=True)
class DrawingParts:
    """The job of drawing pixels into files: a shard becomes a part.

    Attributes:
        drawing: what is drawn.
        folder: of the parts.
    """

    drawing: Drawing
    folder: Path

    def open(self) -> PartDrawer:
        """Load the network."""
        return PartDrawer(self, self.drawing.open())


class PartDrawer:
    """Draws pixels of a shard into a file, `part_file`, with the images that they are of beside it."""

    def __init__(self, job: DrawingParts, drawer: Drawer) -> None:
        self._job, self._drawer = job, drawer

    def __call__(self, shard: Shard[ImageCollection]) -> Iterator[Written | Skipped]:
        """The part, and what was skipped."""
        points: list[NDArray[np.float32]] = []
        owners: list[NDArray[np.int64]] = []
        for value in self._drawer(shard):
            if isinstance(value, Skipped):
                yield value
                continue
            image, (vectors, *_) = value
            points.append(np.asarray(torch.as_tensor(vectors).cpu().numpy(), np.float32))
            owners.append(np.full(len(points[-1]), image))
        if points:
            part = part_file(self._job.folder, shard.indices[0])
            joined = np.concatenate(owners)
            write_atomically(owners_of(part), lambda path: np.save(path, joined))
            write_atomically(part, lambda path: np.save(path, np.concatenate(points)))  # last: then the part is whole
            yield Written(shard.indices[0], len(joined), len(points))


def part_file(folder: Path, number: int) -> Path:
    """Where a part lies that begins with the image of that number."""
    return folder / f"part-{number:012d}.npy"


def owners_of(part: Path) -> Path:
    """Where the numbers of the images lie, (N_i,) int64."""
    return part.with_name(part.name.replace("part-", "owners-"))


@dataclass(frozen=True)
class Rank:
    """The best images of each cluster in a part (`selfseg.ops.parts.steps.Step`)."""

    centroids: NDArray[np.float32]

    @one_thread_each()
    def on(self, part: Path, number: int) -> Best:
        """As of `Step`."""
        del number
        centroids, near = torch.from_numpy(self.centroids), []
        for _, rows in rows_of(part, spherical=True):
            nearest = nearest_of(rows, centroids, spherical=True)[1]
            near.append(((rows * centroids[nearest]).sum(1), nearest))
        similarity, assignment = (torch.cat(each) for each in zip(*near, strict=True))
        owners = torch.from_numpy(np.load(owners_of(part), allow_pickle=False))
        return rank_images(similarity, assignment, owners, len(centroids))


@dataclass(frozen=True)
class Take:
    """Every `step`th point of a part, (n, D) float32, and the images that they are of."""

    step: int

    def on(self, part: Path, number: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As of `Step`."""
        del number
        points = np.load(part, mmap_mode="r", allow_pickle=False)[:: self.step]
        return np.array(points), np.load(owners_of(part), allow_pickle=False)[:: self.step]


class InParts:
    """Points in files.

    Args:
        parts: who goes through them.
        folder: where they lie.
        written: of the parts.
        batches: passes of mini-batches instead of Lloyd's iterations; 0 = Lloyd.
        most: points that are looked at closely.
    """

    def __init__(
        self, parts: Parts, folder: Path, written: Sequence[Written], batches: int, most: int = 200_000
    ) -> None:
        self._parts, self._folder, self._batches, self._most = parts, folder, batches, most
        self.count, self.images = sum(one.points for one in written), sum(one.images for one in written)

    def group(self, k: int, seed: int) -> Grouped:
        """As of `Points`."""
        found = kmeans_parts(self._parts, k, seed, batches=self._batches)
        order = np.argsort(-found.counts, kind="stable")
        centroids = F.normalize(found.centroids[torch.from_numpy(order)], dim=1)
        each: list[Best] = self._parts.each(Rank(centroids.numpy()))
        best = tuple(
            tuple(sorted((one for part in each for one in part[c]), key=lambda one: (-one[1], one[0]))[:KEPT])
            for c in range(k)
        )
        return Grouped(centroids, tuple((found.counts[order] / found.counts.sum()).tolist()), best, found.inertia)

    def before(self, centroids: Tensor) -> tuple[Tensor, tuple[float, ...]] | None:
        """As of `Points`: pixels in parts are looked at once, as they are now."""
        del centroids
        return None

    def some(self) -> tuple[Tensor, Tensor]:
        """As of `Points`."""
        found = self._parts.each(Take(max(1, -(-self.count // self._most))))
        points, owners = (torch.from_numpy(np.concatenate(each)) for each in zip(*found, strict=True))
        return points, owners

    def remove(self) -> None:
        """Remove the files; they are not needed any more."""
        shutil.rmtree(self._folder, ignore_errors=True)
