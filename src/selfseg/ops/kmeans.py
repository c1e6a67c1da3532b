"""k-means in torch: greedy k-means++ seeding, Lloyd's iterations, Euclidean or on the unit sphere.

Letters: N points, D dimensions, k clusters.

Sources: Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007 (the greedy variant
of their section 5, with 2 + ln k candidates a step); Lloyd, "Least squares quantization in PCM", 1982; Dhillon
and Modha, "Concept decompositions for large sparse text data using clustering", 2001 (spherical).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.errors import ConfigError
from selfseg.ops.kernels.with_triton import by_triton
from selfseg.ops.linear import linear

_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 28}  # values held at a time: 4 MB stay in a core's cache, 1 GB on a card
_SAMPLE = 1 << 17  # points that seeding and first iterations look at, or this many per cluster:
_SAMPLE_PER_CLUSTER = 256


@dataclass(frozen=True)
class KMeansResult:
    """What `kmeans` found.

    Attributes:
        centroids: (k, D) float32; of unit length if spherical.
        assignment: (N,) int64, each point's nearest centroid.
        inertia: the sum of squared distances to it; if spherical, of points of unit length.
        iterations: Lloyd iterations that were run over all points.
    """

    centroids: Tensor
    assignment: Tensor
    inertia: float
    iterations: int


def affine_scores(centroids: Tensor, spherical: bool) -> tuple[Tensor, Tensor]:
    """Nearest centroid as an affine classifier: the largest of `points @ weight.T + bias`.

    Args:
        centroids: (k, D) float.
        spherical: whether nearest means largest cosine, else smallest Euclidean distance.

    Returns:
        weight (k, D), bias (k,). For Euclid |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2), and |x|^2 is the same for all c.

    Example:
        >>> affine_scores(torch.tensor([[3.0, 4.0]]), spherical=False)[1].tolist()
        [-12.5]
    """
    if spherical:
        return F.normalize(centroids, dim=1), centroids.new_zeros(len(centroids))
    return centroids, -0.5 * centroids.square().sum(1)


def assign(points: Tensor, centroids: Tensor, spherical: bool = True) -> Tensor:
    """The nearest centroid of each point.

    Args:
        points: (N, D) float.
        centroids: (k, D) float.
        spherical: whether nearest means largest cosine, else smallest Euclidean distance. The points' lengths do
            not matter to a cosine's order, so they need not be normalised.

    Returns:
        (N,) int64 in [0, k).

    Example:
        >>> assign(torch.tensor([[0.9, 0.1], [0.0, 5.0]]), torch.eye(2)).tolist()
        [0, 1]
    """
    if spherical:
        return nearest(points.float(), *affine_scores(centroids.float(), True))[1]
    middle = centroids.float().mean(0)  # keeps |c|^2 small beside the differences: float32 has 24 bits
    return nearest(points.float() - middle, *affine_scores(centroids.float() - middle, False))[1]


def kmeans(
    points: Tensor,
    k: int,
    seed: int = 0,
    iterations: int = 100,
    spherical: bool = True,
    tolerance: float = 1e-4,
    initial: Tensor | None = None,
) -> KMeansResult:
    """Cluster points.

    A cluster that loses its last point is put on one of the points farthest from their centroids. The result is a
    pure function of the arguments (up to float rounding between devices and thread counts).

    Of more than 131,072 points (and more than 256 per cluster) a random sample of that size is seeded and clustered
    first, and Lloyd's iterations over all points start from what it gave: seeding costs the same for any N, and few
    iterations are left to do.

    Args:
        points: (N, D) float, finite.
        k: number of clusters, at most the number of distinct points.
        seed: of the seeding.
        iterations: the most Lloyd iterations.
        spherical: cluster directions (cosine; points are scaled to unit length first, a zero vector stays zero)
            instead of positions (Euclidean).
        tolerance: stop when the centroids' total squared shift falls to this share of the points' mean squared
            distance from their mean. 0 goes on until nothing moves.
        initial: (k, D) centroids to start from instead of seeding.

    Returns:
        Centroids, the assignment to them, and their inertia.

    Raises:
        ConfigError: if k < 1 or more than the distinct points, or a point is not finite, or `initial` has another
            shape.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> result = kmeans(points, 2, spherical=False)
        >>> sorted(round(c, 2) for c in result.centroids.flatten().tolist())
        [0.05, 5.05]
    """
    if points.dim() != 2:
        raise ConfigError(f"k-means needs points of shape (N, D), not {tuple(points.shape)}")
    if k < 1:
        raise ConfigError(f"k-means needs at least 1 cluster, not k={k}")
    if k > len(points):
        raise ConfigError(f"k={k} clusters can't be made of {len(points)} points; lower k or give more points")
    points = points.detach().float()
    finite = torch.cat([torch.isfinite(part).all(1) for part in _parts(points)])
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise ConfigError(f"{bad} of {len(points)} points are not finite; k-means can't place them")
    if initial is not None and initial.shape != (k, points.shape[1]):
        raise ConfigError(f"initial centroids have shape {tuple(initial.shape)}, not {(k, points.shape[1])}")

    middle = points.new_zeros(points.shape[1]) if spherical else points.mean(0)
    points = F.normalize(points, dim=1) if spherical else points - middle
    distinct = _count_distinct(points, k)
    if distinct < k:
        raise ConfigError(f"k={k} clusters can't be made of {distinct} distinct points (of {len(points)}); lower k")

    squares = _squares(points) if points.is_cuda else points.square()
    square = float(squares.sum(dtype=torch.float64))
    scatter = square / len(points) - float(points.mean(0).square().sum())
    if initial is None:
        generator = np.random.default_rng(seed)
        size = max(_SAMPLE, _SAMPLE_PER_CLUSTER * k)
        sample = points
        if len(points) > size:
            rows = np.sort(generator.choice(len(points), size, replace=False))
            sample = points[torch.from_numpy(rows).to(points.device)]
        # Few points may be nearly all of the distinct ones; then a sample can't seed k clusters.
        sample = sample if _count_distinct(sample, k) >= k else points
        centroids = _seed(sample, k, generator)
        if sample is not points:
            centroids, _ = _lloyd(sample, centroids, iterations, spherical, tolerance * scatter)
    else:
        centroids = initial.to(points) - middle
        centroids = F.normalize(centroids, dim=1) if spherical else centroids
    centroids, done = _lloyd(points, centroids, iterations, spherical, tolerance * scatter)
    weight, bias = affine_scores(centroids, spherical)
    best, assignment = nearest(points, weight, bias)
    # |x - c|^2 = |x|^2 + |c|^2 - 2 x.c, where best is x.c - |c|^2 / 2 for Euclid and x.c with |c| = 1 on the sphere.
    inertia = square - 2 * float(best.sum(dtype=torch.float64)) + (len(points) if spherical else 0)
    return KMeansResult(centroids + middle, assignment, max(inertia, 0.0), done)


def _lloyd(points: Tensor, centroids: Tensor, iterations: int, spherical: bool, enough: float) -> tuple[Tensor, int]:
    """Lloyd's iterations until the squared shift (k, D) falls to `enough`; the centroids, and how many it took."""
    done = 0
    for done in range(1, iterations + 1):  # noqa: B007, the count is returned
        best, assignment = nearest(points, *affine_scores(centroids, spherical))
        moved = _means(points, assignment, best, len(centroids))
        moved = F.normalize(moved, dim=1) if spherical else moved
        shift = float((moved - centroids).square().sum())
        centroids = moved
        if shift <= enough:
            break
    return centroids, done


def nearest(points: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The best score (N,) of `points @ weight.T + bias` and its row (N,), without ever holding N x k scores."""
    if by_triton(points.device):
        from selfseg.ops.kernels import kmeans_cuda

        return kmeans_cuda.nearest(points, weight, bias)
    best = points.new_empty(len(points))
    index = torch.empty(len(points), dtype=torch.int64, device=points.device)
    rows = max(1, _held(points) // len(weight))
    for start in range(0, len(points), rows):
        chunk = slice(start, start + rows)
        # max(1) and not argmax(1): the same answer, five times as fast on a CPU.
        best[chunk], index[chunk] = linear(points[chunk], weight, bias).max(1)
    return best, index


def _means(points: Tensor, assignment: Tensor, best: Tensor, k: int) -> Tensor:
    """The mean of each cluster's points (k, D); an empty cluster gets one of the farthest points."""
    count = torch.bincount(assignment, minlength=k)
    empty = (count == 0).nonzero().flatten()
    if len(empty):
        # Farthest by distance: for Euclid |x|^2 - 2 best; on the sphere |x|^2 = 1 and the same order.
        far = (_squares(points) - 2 * best).topk(len(empty)).indices
        assignment = assignment.index_put((far,), empty)
        count = torch.bincount(assignment, minlength=k)
    if by_triton(points.device):
        from selfseg.ops.kernels.group_sums_cuda import group_sums

        sums: Tensor = group_sums(points, assignment, count)
        return (sums / count.clamp(min=1)[:, None]).float()
    total = torch.zeros(k, points.shape[1], dtype=torch.float64, device=points.device)
    rows = max(1, _held(points) // max(k, points.shape[1]))
    for start in range(0, len(points), rows):
        chunk = slice(start, start + rows)
        if points.is_cuda:  # index_add on a GPU adds in any order; a product of matrices does not
            member = F.one_hot(assignment[chunk], k).to(points)
            total += member.T @ points[chunk]
        else:
            part = points.new_zeros(k, points.shape[1])
            total += part.index_add_(0, assignment[chunk], points[chunk])
    # Taking a far point can empty the cluster that it came from; that one is re-seeded an iteration later.
    return (total / count.clamp(min=1)[:, None]).float()


def _seed(points: Tensor, k: int, generator: np.random.Generator) -> Tensor:
    """Greedy k-means++: each next centroid is the best of a few points drawn by squared distance; (k, D)."""
    trials = 2 + int(math.log(k))
    square = _squares(points)
    # All draws at once, and choices that stay tensors: a GPU is never waited for.
    chosen = torch.full((k,), int(generator.integers(len(points))), device=points.device)
    shares = torch.from_numpy(generator.random((k - 1, trials))).to(points.device)
    distance = squared_distances(points, square, points[chosen[:1]])[:, 0]  # (N,) to the nearest centroid
    for number, drawn in enumerate(shares, start=1):
        cumulative = _cumulative(distance)
        place = (drawn * cumulative[-1]).to(cumulative.dtype)
        candidates = torch.searchsorted(cumulative, place, right=True).clamp(max=len(points) - 1)
        distance, winner = _shorten(points, square, points[candidates], distance)
        chosen[number] = candidates[winner][0]
    return points[chosen].clone()


def _cumulative(distance: Tensor) -> Tensor:
    """Running sums (N,) to draw from."""
    if not distance.is_cuda:
        return distance.double().cumsum(0)
    # A GPU adds up in any order, which changes the last bits; not those of whole numbers.
    unit = distance.max().double().clamp(min=1e-30) / (2.0**62 / len(distance))
    return (distance.double() / unit).long().cumsum(0)


def _shorten(points: Tensor, square: Tensor, candidates: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (N,) with the best of the candidates (T, D) among the centroids, and its number (1,)."""
    if by_triton(points.device):
        from selfseg.ops.kernels import kmeans_cuda

        return kmeans_cuda.shorten(points, square, candidates, distance)
    shortened = torch.minimum(distance[:, None], squared_distances(points, square, candidates))
    winner = shortened.sum(0).min(0).indices[None]
    return shortened.index_select(1, winner)[:, 0].contiguous(), winner


def _held(points: Tensor) -> int:
    """How many values of a temporary are held at a time."""
    return _CHUNK.get(points.device.type, 1 << 20)


def _squares(points: Tensor) -> Tensor:
    """|x|^2 of each point (N,); on a GPU, whose memory the points may half fill, without a temporary of their size."""
    if not points.is_cuda:
        return points.square().sum(1)
    return torch.cat([part.square().sum(1) for part in _parts(points)])


def _parts(points: Tensor) -> tuple[Tensor, ...]:
    """The points in pieces of which a temporary may be held."""
    return torch.split(points, max(1, _held(points) // max(1, points.shape[1])))


def squared_distances(points: Tensor, square: Tensor, centroids: Tensor) -> Tensor:
    """Squared distances (N, k), never negative."""
    result = linear(points, -2 * centroids, centroids.square().sum(1))
    return result.add_(square[:, None]).clamp_(min=0)


def _count_distinct(points: Tensor, enough: int) -> int:
    """How many distinct rows there are, or any number of at least `enough`."""
    first = points[: 2 * enough]
    found = len(torch.unique(_fingerprint(first)))
    return found if found >= enough else len(torch.unique(_fingerprint(points)))


def _fingerprint(points: Tensor) -> Tensor:
    """A 64-bit number per row (N,), equal for equal rows; two of 10^6 others agree by chance with p below 1e-7."""
    factors = np.random.default_rng(0).integers(1, 2**62, points.shape[1], dtype=np.int64) | 1
    weights = torch.from_numpy(factors).to(points.device)
    result = torch.empty(len(points), dtype=torch.int64, device=points.device)
    rows = max(1, _held(points) // points.shape[1])
    for start in range(0, len(points), rows):
        bits = (points[start : start + rows] + 0.0).view(torch.int32).long()  # + 0.0: -0.0 is 0.0
        bits = bits * 0x9E3779B97F4A7C1 ^ (bits >> 7)
        result[start : start + rows] = (bits * weights).sum(1)
    return result
