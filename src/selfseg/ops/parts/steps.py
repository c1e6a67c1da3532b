"""What is done with points that lie in parts: with each part by itself, in any process, as often as one likes.

Letters: N points, D dimensions, k clusters, M candidates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.errors import StorageError
from selfseg.ops.kmeans import affine_scores, nearest
from selfseg.threads import one_thread_each, usable_cores

_ROWS = 1 << 16  # points of a part that are in memory at once


class Step(Protocol):
    """Something that is done with each part; a value that can be pickled."""

    def on(self, part: Path, number: int) -> Any:
        """Do it with a part, the `number`th. Doing it twice comes to the same."""
        ...


class Parts(Protocol):
    """Points in parts. `each` lets someone do a step with every part, or with some."""

    def __len__(self) -> int: ...

    def each(self, step: Step, some: Sequence[int] | None = None) -> list[Any]:
        """What a step gives for the parts, in their order."""
        ...


@dataclass(frozen=True)
class PartFiles:
    """Parts that this process goes through, as many at once as there are cores.

    Attributes:
        paths: .npy files, (N_i, D) float16 or float32 each.
    """

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def each(self, step: Step, some: Sequence[int] | None = None) -> list[Any]:
        """As of `Parts`."""
        numbers = range(len(self)) if some is None else some
        with ThreadPoolExecutor(usable_cores()) as pool:
            return list(pool.map(lambda i: step.on(self.paths[i], i), numbers))


def rows_of(part: Path, spherical: bool) -> Iterator[tuple[slice, Tensor]]:
    """A part's points, (n, D) float32 at a time, scaled to unit length if spherical."""
    points = np.load(part, mmap_mode="r", allow_pickle=False)
    for first in range(0, len(points), _ROWS):
        where = slice(first, min(first + _ROWS, len(points)))
        rows = torch.from_numpy(np.array(points[where], np.float32))
        yield where, F.normalize(rows, dim=1) if spherical else rows


class Surveyed(NamedTuple):
    """Of a part: points, how many are not finite, their sum (D,) and the sum of their squares, in float64."""

    rows: int
    bad: int
    total: NDArray[np.float64]
    square: float


@dataclass(frozen=True)
class Survey:
    """How many points there are, and where."""

    spherical: bool

    @one_thread_each()
    def on(self, part: Path, number: int) -> Surveyed:
        """As of `Step`."""
        del number
        count, bad, total, square = 0, 0, torch.zeros(0), 0.0
        for _, rows in rows_of(part, self.spherical):
            total = total if len(total) else torch.zeros(rows.shape[1], dtype=torch.float64)
            count += len(rows)
            bad += int((~torch.isfinite(rows).all(1)).sum())
            total += rows.double().sum(0)
            square += float(rows.double().square().sum())
        return Surveyed(count, bad, total.numpy(), square)


class Summed(NamedTuple):
    """Of a part: points of each cluster (k,), their sums (k, D) float64, and the sum of squared distances."""

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    inertia: float


@dataclass(frozen=True)
class Assign:
    """Each point to its nearest centroid.

    Attributes:
        centroids: (k, D) float32.
        spherical: as of `kmeans_parts`.
    """

    centroids: NDArray[np.float32]
    spherical: bool

    @one_thread_each()
    def on(self, part: Path, number: int) -> Summed:
        """As of `Step`."""
        del number
        centroids = torch.from_numpy(self.centroids)
        k, inertia = len(centroids), 0.0
        counts, sums = torch.zeros(k, dtype=torch.int64), torch.zeros(centroids.shape, dtype=torch.float64)
        for _, rows in rows_of(part, self.spherical):
            distance, cluster = nearest_of(rows, centroids, self.spherical)
            counts += torch.bincount(cluster, minlength=k)
            for few in torch.split(torch.arange(len(rows)), max(1, (1 << 20) // max(k, rows.shape[1]))):
                sums += torch.zeros_like(centroids).index_add_(0, cluster[few], rows[few])
            inertia += float(distance.double().sum())
        return Summed(counts.numpy(), sums.numpy(), inertia)


class Far(NamedTuple):
    """Points (n, D) float32, their squared distances (n,), and their clusters (n,)."""

    points: NDArray[np.float32]
    distance: NDArray[np.float32]
    cluster: NDArray[np.int64]


@dataclass(frozen=True)
class Farthest:
    """The points of a part that lie farthest from their centroids, see `Far`."""

    centroids: NDArray[np.float32]
    spherical: bool
    most: int

    @one_thread_each()
    def on(self, part: Path, number: int) -> Far:
        """As of `Step`."""
        del number
        centroids = torch.from_numpy(self.centroids)
        found = centroids[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        for _, rows in rows_of(part, self.spherical):
            near = nearest_of(rows, centroids, self.spherical)
            joined = [torch.cat(both) for both in zip(found, (rows, *near), strict=True)]
            kept = joined[1].topk(min(self.most, len(joined[1]))).indices
            found = joined[0][kept], joined[1][kept], joined[2][kept]
        return Far(*(each.numpy() for each in found))


@dataclass(frozen=True)
class Shorten:
    """Keep, in a file beside the part, how far each point is from the nearest of all candidates so far.

    Attributes:
        candidates: (M, D) float32, those that are new.
        spherical: as of `kmeans_parts`.
        first: whether there were none before.
    """

    candidates: NDArray[np.float32]
    spherical: bool
    first: bool

    @one_thread_each()
    def on(self, part: Path, number: int) -> float:
        """As of `Step`; gives the sum of the squared distances."""
        del number
        candidates, cost = torch.from_numpy(self.candidates), 0.0
        count = len(np.load(part, mmap_mode="r", allow_pickle=False))
        # A worker that dies in the middle leaves some distances shortened: to shorten them again changes nothing.
        _reserve(distances_of(part), 4 * count)
        kept = np.memmap(distances_of(part), np.float32, "r+", shape=(count,))
        for where, rows in rows_of(part, self.spherical):
            distance = nearest_of(rows, candidates, self.spherical)[0].numpy()
            kept[where] = distance if self.first else np.minimum(kept[where], distance)
            cost += float(kept[where].sum(dtype=np.float64))
        kept.flush()
        return cost


@dataclass(frozen=True)
class Draw:
    """Points (n, D), each drawn with a chance that grows with its squared distance from the candidates.

    Attributes:
        key: of the draw, with the part's number.
        share: what a squared distance is multiplied by.
        spherical: as of `kmeans_parts`.
    """

    key: tuple[int, ...]
    share: float
    spherical: bool

    @one_thread_each()
    def on(self, part: Path, number: int) -> NDArray[np.float32]:
        """As of `Step`."""
        generator = np.random.default_rng((*self.key, number))
        drawn = [np.zeros((0, np.load(part, mmap_mode="r", allow_pickle=False).shape[1]), np.float32)]
        count = len(np.load(part, mmap_mode="r", allow_pickle=False))
        kept = np.memmap(distances_of(part), np.float32, "r", shape=(count,))
        for where, rows in rows_of(part, self.spherical):
            chance = generator.random(len(rows))
            if math.isinf(self.share):  # all that are not candidates themselves
                chance[:] = 0
            drawn.append(rows.numpy()[chance < kept[where] * min(self.share, 1e30)])
        return np.concatenate(drawn)


@dataclass(frozen=True)
class Pick:
    """Points of a part by their places in it, (n, D)."""

    places: tuple[int, ...]
    spherical: bool

    @one_thread_each()
    def on(self, part: Path, number: int) -> NDArray[np.float32]:
        """As of `Step`."""
        del number
        points = np.load(part, mmap_mode="r", allow_pickle=False)
        rows = torch.from_numpy(np.array(points[list(self.places)], np.float32))
        return np.asarray((F.normalize(rows, dim=1) if self.spherical else rows).numpy())


def distances_of(part: Path) -> Path:
    """Where `Shorten` keeps a part's distances."""
    return part.with_suffix(".distances")


def nearest_of(rows: Tensor, centroids: Tensor, spherical: bool) -> tuple[Tensor, Tensor]:
    """Squared distance (n,) of each row to its nearest centroid, and which that is (n,)."""
    middle = torch.zeros(rows.shape[1]) if spherical else centroids.mean(0)  # float32 has 24 bits
    rows, centroids = rows - middle, centroids - middle
    weight, bias = affine_scores(centroids, spherical)
    best, which = nearest(rows, weight, bias)
    distance = rows.square().sum(1) - 2 * best + (1 if spherical else 0)
    return distance.clamp(min=0), which


def _reserve(path: Path, size: int) -> None:
    """Make a file of so many bytes that has its place on the disk: a full one would kill whoever fills a map of it.

    Raises:
        StorageError: if there is no space.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(file, size)
        if size:
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        raise StorageError(f"no space left for {size:,} bytes in {path}: {error.strerror}; free some") from error
    finally:
        os.close(file)
