"""The Triton kernels of `selfseg.ops.kmeans` for points on a GPU: the nearest centroid, and the sum of each cluster.

Import only where `triton` is installed. They have been checked in Triton's interpreter, and compiled for sm_80 and
sm_90; they have not been run on a GPU yet, and their tiles are not tuned.

Letters: N points, D dimensions, k clusters.

Scores are products of float32 by three products of bfloat16 halves, x = high + low: high.high + high.low + low.high, in
float32 sums. What is left out is below 2^-16 of |x| |c|, so that a point goes to another centroid than in float32 only
where two are that near to each other. Plain float32 products would take 0.26 s for 16 million points, 128 dimensions
and 4,096 clusters at an H100's peak, three of bfloat16 take 0.05 s; one of TF32 is off by 2^-11.

Sums are taken in a fixed order (points sorted by cluster, parts of at most `_PART`, then the parts one after the other
in float64), so that the same points give the same centroids each time. Nothing here waits for the device.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_POINTS = 128  # of a tile, if a point has at most
_SHORT = 128  # dimensions; else half as many
_WHOLE = 256  # dimensions up to which a point is held whole, and for longer ones
_DEPTH = 64  # so many at a time
HALF = torch.bfloat16  # float16 in Triton's interpreter, which can't multiply the other
CENTROIDS: int | None = None  # of a tile; None: 128 from sm_90 on, where they fit in the registers, else 64
_PART = 2048  # points whose sum is taken by one program,
_ROWS = 32  # so many at a time
_FUSED: dict[str, Any] = {"enable_fp_fusion": True}  # said, because Triton's default is about to change


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _halves(values, like):  # type: ignore[no-untyped-def]
    high = values.to(like.dtype.element_ty)
    return high, (values - high.to(tl.float32)).to(like.dtype.element_ty)


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
    WHOLE: tl.constexpr,  # whether one depth holds all dimensions
):
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    column = tl.arange(0, DEPTH)
    inside = row < n
    start = points + row[:, None] * d
    if WHOLE:
        mine, rest = _halves(tl.load(start + column[None], mask=inside[:, None] & (column < d)[None], other=0.0), high)
    top = tl.full((TILE,), float("-inf"), tl.float32)
    place = tl.zeros((TILE,), tl.int32)
    for first in range(0, k, CENTROIDS):
        which = first + tl.arange(0, CENTROIDS)
        scores = tl.zeros((TILE, CENTROIDS), tl.float32)
        if WHOLE:
            at = which[None] * p + column[:, None]  # (DEPTH, CENTROIDS)
            upper = tl.load(high + at)
            scores = tl.dot(mine, tl.load(low + at), scores)
            scores = tl.dot(rest, upper, scores)
            scores = tl.dot(mine, upper, scores)
        else:
            for depth in range(0, p, DEPTH):
                here = depth + column
                part = tl.load(start + here[None], mask=inside[:, None] & (here < d)[None], other=0.0)
                mine_part, rest_part = _halves(part, high)
                at = which[None] * p + here[:, None]
                upper = tl.load(high + at)
                scores = tl.dot(mine_part, tl.load(low + at), scores)
                scores = tl.dot(rest_part, upper, scores)
                scores = tl.dot(mine_part, upper, scores)
        scores += tl.load(bias + which)[None]
        tile_top, tile_place = tl.max(scores, axis=1, return_indices=True)  # of equals the first
        nearer = tile_top > top
        top = tl.where(nearer, tile_top, top)
        place = tl.where(nearer, tile_place + first, place)
    tl.store(best + row, top, mask=inside)
    tl.store(index + row, place.to(tl.int64), mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _sum_parts(  # type: ignore[no-untyped-def]
    points,  # (N, D) float32
    order,  # (N,) int64: the points, cluster by cluster
    begin,  # (programs,) int64: places in `order`
    end,  # (programs,) int64
    parts,  # (programs, D) float32, filled
    d,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    total = tl.zeros((DEPTH,), tl.float32)
    place = tl.load(begin + program)
    last = tl.load(end + program)
    while place < last:
        rows = place + tl.arange(0, ROWS)
        point = tl.load(order + rows, mask=rows < last, other=0)
        wanted = (rows < last)[:, None] & (column < d)[None]
        total += tl.sum(tl.load(points + point[:, None] * d + column[None], mask=wanted, other=0.0), axis=0)
        place += ROWS
    tl.store(parts + program * d + column, total, mask=column < d)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _join_parts(  # type: ignore[no-untyped-def]
    parts,  # (programs, D) float32
    first,  # (k + 1,) int64: where the parts of each cluster begin
    total,  # (k, D) float64, filled
    d,
    DEPTH: tl.constexpr,
):
    cluster = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    inside = column < d
    result = tl.zeros((DEPTH,), tl.float64)
    part = tl.load(first + cluster)
    last = tl.load(first + cluster + 1)
    while part < last:
        result += tl.load(parts + part * d + column, mask=inside, other=0.0).to(tl.float64)
        part += 1
    tl.store(total + cluster * d + column, result, mask=inside)


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
    depth = max(16, triton.next_power_of_2(d)) if d <= _WHOLE else _DEPTH
    padded = triton.cdiv(d, depth) * depth
    tile = _POINTS if depth <= _SHORT and d <= _WHOLE else _POINTS // 2
    centroids = CENTROIDS or (128 if tile == _POINTS and _is_hopper(points.device) else 64)
    rows = triton.cdiv(len(weight), centroids) * centroids
    filled = weight.new_zeros(rows, padded)
    filled[: len(weight), :d] = weight
    high = filled.to(HALF)
    low = (filled - high.float()).to(HALF)
    filled_bias = bias.new_full((rows,), -float("inf"))
    filled_bias[: len(bias)] = bias
    _nearest[(triton.cdiv(n, tile),)](
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
        TILE=tile,
        CENTROIDS=centroids,
        DEPTH=depth,
        WHOLE=d <= _WHOLE,
        num_warps=8 if tile == _POINTS else 4,
        num_stages=2 if centroids == 128 else 3,
        **_FUSED,
    )
    return best, index


def _is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def sums(points: Tensor, assignment: Tensor, count: Tensor) -> Tensor:
    """The sum of each cluster's points, the same each time.

    Args:
        points: (N, D) float32.
        assignment: (N,) int64 in [0, k).
        count: (k,) int64, how many points each cluster has.

    Returns:
        (k, D) float64.
    """
    points = points.contiguous()
    (n, d), k = points.shape, len(count)
    total = torch.empty(k, d, dtype=torch.float64, device=points.device)
    order = assignment.to(torch.int32).sort(stable=True).indices
    # Every cluster is cut into parts; there are at most so many, and those that are too many are empty.
    programs = triton.cdiv(n, _PART) + k
    parts_of = (count + (_PART - 1)) // _PART
    first = torch.zeros(k + 1, dtype=torch.int64, device=points.device)
    first[1:] = parts_of.cumsum(0)
    program = torch.arange(programs, device=points.device)
    cluster = torch.searchsorted(first[1:], program, right=True).clamp(max=k - 1)
    ends = count.cumsum(0)
    begin = (ends - count)[cluster] + (program - first[cluster]) * _PART
    end = torch.minimum(begin + _PART, ends[cluster])
    parts = torch.empty(programs, d, dtype=torch.float32, device=points.device)
    depth = min(128, max(16, triton.next_power_of_2(d)))
    across = triton.cdiv(d, depth)
    _sum_parts[(programs, across)](points, order, begin, end, parts, d, ROWS=_ROWS, DEPTH=depth, **_FUSED)
    _join_parts[(k, across)](parts, first, total, d, DEPTH=depth, **_FUSED)
    return total
