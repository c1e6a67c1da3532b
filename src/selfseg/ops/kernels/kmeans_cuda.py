"""The Triton kernels of `selfseg.ops.kmeans` for points on a GPU: the nearest centroid, and a step of the seeding.

Import only where `triton` is installed, for sm_80 and later. They have been checked in Triton's interpreter, and
compiled for sm_80 and sm_90 as they are launched; they have not been run on a GPU yet, and their tiles are not tuned.

Letters: N points, D dimensions, k clusters, T candidates.

Scores are products of float32 by three products of bfloat16 halves, x = high + low: high.high + high.low + low.high, in
float32 sums. What is left out is below 2^-15 of |x| |c| (low is up to 2^-8 of x, and is rounded to 2^-9 of itself), and
far less as a rule, since errors cancel: a point goes to another centroid than in float32 only where two are that near
to each other. Plain float32 products would take 0.26 s for 16 million points, 128 dimensions and 4,096 clusters at an
H100's peak, three of bfloat16 take 0.05 s; one of TF32 is off by 2^-10.

Points stay in a block's memory while all centroids go by, which are read N / 128 times therefore: 260 GB in that
example, from the L2 cache, while products are at work.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

HALF = torch.bfloat16  # float16 in Triton's interpreter, which can't multiply the other
CENTROIDS: int | None = None  # of a tile, in place of what `plan` chooses
_POINTS = 128  # of a tile
_FUSED: dict[str, Any] = {"enable_fp_fusion": True}  # said, because Triton's default is about to change


class Plan(NamedTuple):
    """How `_nearest` is cut.

    Attributes:
        centroids: of a tile.
        depth: dimensions of a tile.
        tail: dimensions beyond `depth` that are held too, so that positions beside 128 features don't double the work.
        whole: whether depth and tail are all there is; otherwise points are read again for each tile of centroids.
        stages: tiles that are under way or at work.
    """

    centroids: int
    depth: int
    tail: int
    whole: bool
    stages: int


def plan(dimensions: int, shared: int) -> Plan:
    """What fits into a block's memory and a thread's 255 registers.

    Args:
        dimensions: D.
        shared: bytes that a block may have: 232,448 on sm_90, 166,912 on sm_80, about 100,000 on consumers' cards.
    """
    if dimensions > 144 or shared < 160_000:
        return Plan(128, 32, 0, False, 3)
    depth = min(128, max(16, triton.next_power_of_2(dimensions)))
    tail = 16 if dimensions > depth else 0
    if shared >= 227_000:
        return Plan(128, depth, tail, True, 2)
    return Plan(64, depth, tail, True, 2 if tail else 3)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _halves(values, like):  # type: ignore[no-untyped-def]
    high = values.to(like.dtype.element_ty)
    return high, (values - high.to(tl.float32)).to(like.dtype.element_ty)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _add_products(scores, mine, rest, high, low, at):  # type: ignore[no-untyped-def]
    upper = tl.load(high + at)
    scores = tl.dot(mine, tl.load(low + at), scores)
    scores = tl.dot(rest, upper, scores)
    return tl.dot(mine, upper, scores)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _nearest(  # type: ignore[no-untyped-def]
    points,  # (N, D) float32
    high,  # (K, P) bfloat16: K is k and P is D, filled up with zeros to whole tiles
    low,  # (K, P) bfloat16
    bias,  # (K,) float32, -inf where it is filled up
    best,  # (N,) float32, filled
    index,  # (N,) int64, filled
    n,
    d,
    k,
    p,
    TILE: tl.constexpr,
    CENTROIDS: tl.constexpr,
    DEPTH: tl.constexpr,
    TAIL: tl.constexpr,
    WHOLE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    column = tl.arange(0, DEPTH)
    inside = row < n
    start = points + row[:, None] * d
    if WHOLE:
        mine, rest = _halves(tl.load(start + column[None], mask=inside[:, None] & (column < d)[None], other=0.0), high)
        if TAIL > 0:
            beyond = DEPTH + tl.arange(0, TAIL)
            wanted = inside[:, None] & (beyond < d)[None]
            mine_beyond, rest_beyond = _halves(tl.load(start + beyond[None], mask=wanted, other=0.0), high)
    top = tl.full((TILE,), float("-inf"), tl.float32)
    place = tl.zeros((TILE,), tl.int32)
    for first in range(0, k, CENTROIDS):
        which = first + tl.arange(0, CENTROIDS)
        scores = tl.zeros((TILE, CENTROIDS), tl.float32)
        if WHOLE:
            scores = _add_products(scores, mine, rest, high, low, which[None] * p + column[:, None])
            if TAIL > 0:
                at = which[None] * p + beyond[:, None]
                scores = _add_products(scores, mine_beyond, rest_beyond, high, low, at)
        else:
            for depth in range(0, p, DEPTH):
                here = depth + column
                part = tl.load(start + here[None], mask=inside[:, None] & (here < d)[None], other=0.0)
                mine_part, rest_part = _halves(part, high)
                at = which[None] * p + here[:, None]
                scores = _add_products(scores, mine_part, rest_part, high, low, at)
        scores += tl.load(bias + which)[None]
        tile_top, tile_place = tl.max(scores, axis=1, return_indices=True)  # of equals the first
        nearer = tile_top > top
        top = tl.where(nearer, tile_top, top)
        place = tl.where(nearer, tile_place + first, place)
    tl.store(best + row, top, mask=inside)
    tl.store(index + row, place.to(tl.int64), mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _shorten(  # type: ignore[no-untyped-def]
    points,  # (N, D) float32
    square,  # (N,) float32, |x|^2
    candidates,  # (T, D) float32
    candidate_square,  # (T,) float32
    distance,  # (N,) float32, squared, to the nearest centroid so far
    shortened,  # (T, N) float32, filled
    sums,  # (T, programs) float32, filled: of `shortened`
    n,
    d,
    t,
    programs,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
    CANDIDATES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    which = tl.arange(0, CANDIDATES)
    inside, given = row < n, which < t
    products = tl.zeros((TILE, CANDIDATES), tl.float32)
    for depth in range(0, d, DEPTH):
        here = depth + tl.arange(0, DEPTH)
        there = here < d
        mine = tl.load(points + row[:, None] * d + here[None], mask=inside[:, None] & there[None], other=0.0)
        at = which[None] * d + here[:, None]
        theirs = tl.load(candidates + at, mask=there[:, None] & given[None], other=0.0)
        products = tl.dot(mine, theirs, products, input_precision="tf32x3")
    mine_square = tl.load(square + row, mask=inside, other=0.0)
    their_square = tl.load(candidate_square + which, mask=given, other=0.0)
    new = tl.maximum(mine_square[:, None] + their_square[None] - 2 * products, 0.0)
    old = tl.load(distance + row, mask=inside, other=0.0)  # beyond the last point 0, which adds nothing
    result = tl.minimum(new, old[:, None])
    tl.store(shortened + which.to(tl.int64)[None] * n + row[:, None], result, mask=inside[:, None] & given[None])
    tl.store(sums + which * programs + tl.program_id(0), tl.sum(result, axis=0), mask=given)


def nearest(points: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The best score of each point and its centroid; of equal ones the first.

    Args:
        points: (N, D) float32.
        weight: (k, D) float32, the centroids.
        bias: (k,) float32; a score is `point @ centroid + bias`.

    Returns:
        (N,) float32 and (N,) int64.
    """
    points = points.contiguous()
    n, d = points.shape
    best = torch.empty(n, dtype=torch.float32, device=points.device)
    index = torch.empty(n, dtype=torch.int64, device=points.device)
    if n == 0:
        return best, index
    cut = plan(d, _shared_memory(points.device))
    centroids = CENTROIDS or cut.centroids
    padded = cut.depth + cut.tail if cut.whole else triton.cdiv(d, cut.depth) * cut.depth
    rows = triton.cdiv(len(weight), centroids) * centroids
    filled = weight.new_zeros(rows, padded)
    filled[: len(weight), :d] = weight
    high = filled.to(HALF)
    low = (filled - high.float()).to(HALF)
    filled_bias = bias.new_full((rows,), -float("inf"))
    filled_bias[: len(bias)] = bias
    with torch.cuda.device_of(points):  # type: ignore[no-untyped-call]
        _nearest[(triton.cdiv(n, _POINTS),)](
            points,
            high,
            low,
            filled_bias,
            best,
            index,
            n,
            d,
            rows,
            padded,
            TILE=_POINTS,
            CENTROIDS=centroids,
            DEPTH=cut.depth,
            TAIL=cut.tail,
            WHOLE=cut.whole,
            num_warps=8,
            num_stages=cut.stages,
            **_FUSED,
        )
    return best, index


def _shared_memory(device: torch.device) -> int:
    """Bytes that a block may have; in Triton's interpreter those of an H100."""
    if device.type != "cuda":
        return 232_448
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)


def shorten(points: Tensor, square: Tensor, candidates: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """A step of the seeding: the candidate with which the sum of all squared distances is the smallest.

    Args:
        points: (N, D) float32.
        square: (N,) float32, |x|^2.
        candidates: (T, D) float32.
        distance: (N,) float32, squared, to the nearest centroid so far.

    Returns:
        (N,) float32, squared distances with that candidate among the centroids, and its number (1,) int64.
    """
    points = points.contiguous()
    (n, d), t = points.shape, len(candidates)
    programs = triton.cdiv(n, _POINTS)
    shortened = points.new_empty(t, n)
    sums = points.new_empty(t, programs)
    arrays = (points, square, candidates, candidates.square().sum(1), distance, shortened, sums)
    tile = {"TILE": _POINTS, "DEPTH": 32, "CANDIDATES": max(16, triton.next_power_of_2(t))}
    with torch.cuda.device_of(points):  # type: ignore[no-untyped-call]
        _shorten[(programs,)](*arrays, n, d, t, programs, **tile, num_warps=4, num_stages=3, **_FUSED)
    winner = sums.sum(1, dtype=torch.float64).min(0).indices[None]
    return shortened.index_select(0, winner)[0], winner
