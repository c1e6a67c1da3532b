"""k-means of points that lie in parts: in files, which one process or many go through, and never all in memory.

Lloyd's iterations are exact: every part gives its counts and sums, which are added up in the parts' order. So the
result is the same to the bit whoever works on the parts, and that of `selfseg.ops.kmeans` up to float rounding when
both start from the same centroids. Seeding is by oversampling: a few passes, each of which draws many points at once.

Letters: N points, D dimensions, k clusters, M candidates.

Sources: Lloyd, "Least squares quantization in PCM", 1982; Bahmani et al., "Scalable k-means++", VLDB 2012 (algorithm 2,
k-means||); Sculley, "Web-scale k-means clustering", WWW 2010 (mini-batches).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.errors import ConfigError
from selfseg.ops.kmeans import squared_distances
from selfseg.ops.parts.steps import (
    Assign,
    Draw,
    Far,
    Farthest,
    Parts,
    Pick,
    Shorten,
    Summed,
    Survey,
    Surveyed,
    nearest_of,
)
from selfseg.threads import one_thread_each

_ROUNDS = 5  # of oversampling, as in the paper's experiments
_FACTOR = 2.0  # points that a round draws, for each cluster: the paper's l = 2 k
_TOGETHER = 8  # parts of a mini-batch: fixed, so that the number of workers changes nothing


class PartsResult(NamedTuple):
    """What `kmeans_parts` found.

    Attributes:
        centroids: (k, D) float32; of unit length if spherical.
        counts: (k,) int64 points of each.
        inertia: the sum of squared distances to the nearest; if spherical, of points of unit length.
        iterations: of Lloyd over all points, or passes of mini-batches.
    """

    centroids: Tensor
    counts: NDArray[np.int64]
    inertia: float
    iterations: int


@one_thread_each()
def kmeans_parts(
    parts: Parts,
    k: int,
    seed: int = 0,
    iterations: int = 100,
    spherical: bool = True,
    tolerance: float = 1e-4,
    initial: Tensor | None = None,
    batches: int = 0,
) -> PartsResult:
    """Cluster points that lie in parts; see the top of this module.

    Args:
        parts: the points.
        k: number of clusters.
        seed: of the seeding.
        iterations: the most Lloyd iterations.
        spherical: cluster directions instead of positions, as of `selfseg.ops.kmeans.kmeans`.
        tolerance: as there.
        initial: (k, D) centroids to start from instead of seeding.
        batches: passes of mini-batches instead of Lloyd's iterations, a few parts at a time; 0 = Lloyd.

    Returns:
        Centroids, counts and inertia.

    Raises:
        ConfigError: if k < 1 or more than there are points, a point is not finite, or `initial` has another shape.
    """
    surveyed: list[Surveyed] = parts.each(Survey(spherical))
    count, bad = sum(one.rows for one in surveyed), sum(one.bad for one in surveyed)
    if k < 1 or k > count:
        raise ConfigError(f"k={k} clusters can't be made of {count} points; k is from 1 to the number of points")
    if bad:
        raise ConfigError(f"{bad} of {count} points are not finite; k-means can't place them")
    full = [one for one in surveyed if one.rows]
    mean = np.sum([one.total for one in full], axis=0) / count
    scatter = math.fsum(one.square for one in full) / count - float(np.square(mean).sum())
    if initial is None:
        centroids = seed_parts(parts, [one.rows for one in surveyed], k, seed, spherical)
    elif initial.shape != (k, len(mean)):
        raise ConfigError(f"initial centroids have shape {tuple(initial.shape)}, not {(k, len(mean))}")
    else:
        centroids = F.normalize(initial.float(), dim=1) if spherical else initial.float()
    if batches:
        centroids, done = _by_batches(parts, centroids, seed, batches, spherical), batches
    else:
        centroids, done = _lloyd(parts, centroids, iterations, spherical, tolerance * scatter)
    last = _add_up(parts.each(Assign(centroids.numpy(), spherical)))
    return PartsResult(centroids, last.counts, last.inertia, done)


def seed_parts(parts: Parts, counts: Sequence[int], k: int, seed: int, spherical: bool) -> Tensor:
    """Seeding by oversampling (k-means||): (k, D).

    One point is drawn first; then in each of five rounds about 2 k at once, by squared distance from those before. What
    is drawn is weighted by how many points are nearest to it, and clustered in memory.

    Args:
        parts: the points.
        counts: points of each part.
        k: number of clusters.
        seed: of the draws.
        spherical: as of `kmeans_parts`.
    """
    generator = np.random.default_rng(seed)
    place = int(generator.integers(sum(counts)))
    ends = np.cumsum(counts)
    first = int(np.searchsorted(ends, place, side="right"))
    new: NDArray[np.float32] = parts.each(Pick((place - int(ends[first]) + counts[first],), spherical), [first])[0]
    candidates = new
    for number in range(_ROUNDS):
        cost = math.fsum(parts.each(Shorten(new, spherical, first=number == 0)))
        if not cost > 0:  # every point is a candidate
            break
        new = np.concatenate(parts.each(Draw((seed, number), _FACTOR * k / cost, spherical)))
        candidates = np.concatenate([candidates, new])
        if not len(new):
            break
    if len(np.unique(candidates, axis=0)) < k:  # few points, or many equal ones
        rest = np.concatenate(parts.each(Draw((seed, _ROUNDS), math.inf, spherical)))
        candidates = np.concatenate([candidates, rest])
        if len(np.unique(candidates, axis=0)) < k:
            raise ConfigError(f"k={k} clusters can't be made of so few distinct points; lower k")
    weights = _add_up(parts.each(Assign(candidates, spherical))).counts
    return _of_weighted(torch.from_numpy(candidates), torch.from_numpy(weights), k, generator, spherical)


def _of_weighted(points: Tensor, weights: Tensor, k: int, generator: np.random.Generator, spherical: bool) -> Tensor:
    """Greedy k-means++ and Lloyd's iterations of weighted points (M, D) in memory: (k, D)."""
    weights, square = weights.double(), points.square().sum(1)
    trials = 2 + int(math.log(k))
    drawn = int(np.searchsorted(np.cumsum(weights.numpy()), generator.random() * float(weights.sum()), side="right"))
    chosen = [min(drawn, len(points) - 1)]
    distance = squared_distances(points, square, points[chosen])[:, 0]
    while len(chosen) < k:
        running = (distance.double() * weights).cumsum(0)
        wanted = torch.from_numpy(generator.random(trials)) * running[-1]
        tried = torch.searchsorted(running, wanted, right=True).clamp(max=len(points) - 1)
        shortened = torch.minimum(distance[:, None], squared_distances(points, square, points[tried]))
        best = int((shortened.double() * weights[:, None]).sum(0).min(0).indices)
        chosen.append(int(tried[best]))
        distance = shortened[:, best]
    centroids = points[chosen].clone()
    for _ in range(30):
        nearest = nearest_of(points, centroids, spherical)[1]
        mass = torch.zeros(k, dtype=torch.float64).index_add_(0, nearest, weights)
        sums = torch.zeros(k, points.shape[1], dtype=torch.float64)
        sums.index_add_(0, nearest, points.double() * weights[:, None])
        moved = torch.where(mass[:, None] > 0, sums / mass.clamp(min=1)[:, None], centroids.double()).float()
        moved = F.normalize(moved, dim=1) if spherical else moved
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids


def _add_up(found: Sequence[Summed]) -> Summed:
    counts = np.sum([one.counts for one in found], axis=0)
    sums = np.sum([one.sums for one in found], axis=0)
    return Summed(counts, sums, math.fsum(one.inertia for one in found))


def _lloyd(parts: Parts, centroids: Tensor, iterations: int, spherical: bool, enough: float) -> tuple[Tensor, int]:
    """Lloyd's iterations until the squared shift falls to `enough`; the centroids, and how many it took."""
    done = 0
    for done in range(1, iterations + 1):  # noqa: B007, the count is returned
        moved = _moved(parts, centroids, _add_up(parts.each(Assign(centroids.numpy(), spherical))), spherical)
        shift = float((moved - centroids).square().sum())
        centroids = moved
        if shift <= enough:
            break
    return centroids, done


def _moved(parts: Parts, centroids: Tensor, found: Summed, spherical: bool) -> Tensor:
    """The means of the clusters; an empty one is put on one of the farthest points."""
    counts, sums = found.counts.copy(), found.sums.copy()
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        each = parts.each(Farthest(centroids.numpy(), spherical, len(empty)))
        far = Far(*(np.concatenate(one) for one in zip(*each, strict=True)))
        taken = np.argsort(-far.distance, kind="stable")[: len(empty)]
        np.subtract.at(counts, far.cluster[taken], 1)  # which may empty that one, until the next iteration
        np.subtract.at(sums, far.cluster[taken], far.points[taken])
        counts[empty], sums[empty] = 1, far.points[taken]
    moved = torch.from_numpy(sums / np.maximum(counts, 1)[:, None]).float()
    return F.normalize(moved, dim=1) if spherical else moved


def _by_batches(parts: Parts, centroids: Tensor, seed: int, passes: int, spherical: bool) -> Tensor:
    """Mini-batches: after a few parts each centroid moves to the mean of all that it was given so far."""
    given = torch.zeros(len(centroids), dtype=torch.float64)
    for number in range(passes):
        order = np.random.default_rng((seed, number)).permutation(len(parts))
        for first in range(0, len(order), _TOGETHER):
            some = sorted(int(i) for i in order[first : first + _TOGETHER])
            found = _add_up(parts.each(Assign(centroids.numpy(), spherical), some))
            counts = torch.from_numpy(found.counts).double()
            given += counts
            share = (counts / given.clamp(min=1))[:, None]
            mean = torch.from_numpy(found.sums) / counts.clamp(min=1)[:, None]
            moved = (centroids.double() * (1 - share) + mean * share).float()
            centroids = F.normalize(moved, dim=1) if spherical else moved
    return centroids
