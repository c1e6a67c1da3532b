"""Sums of the rows of each group on a GPU, by Triton, in the same order each time: scattered additions have none.

Import only where `triton` is installed. Checked in Triton's interpreter and compiled for sm_80 and sm_90; it has not
been run on a GPU yet.

Rows are sorted by group, each group is cut into parts of at most `_PART` rows, a program adds up a part in float32, and
the parts of a group are added one after the other in float64. So a group may be of any size, and few large ones don't
hold up the others. Nothing here waits for the device.

Letters: N rows, D dimensions, G groups.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_PART = 2048  # rows whose sum is taken by one program,
_ROWS = 32  # so many at a time
_FUSED: dict[str, Any] = {"enable_fp_fusion": True}  # said, because Triton's default is about to change


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _sum_parts(  # type: ignore[no-untyped-def]
    rows,  # (N, D) float
    order,  # (N,) int64: the rows, group by group
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
        here = place + tl.arange(0, ROWS)
        row = tl.load(order + here, mask=here < last, other=0)
        wanted = (here < last)[:, None] & (column < d)[None]
        values = tl.load(rows + row[:, None] * d + column[None], mask=wanted, other=0.0)
        total += tl.sum(values.to(tl.float32), axis=0)
        place += ROWS
    tl.store(parts + program * d + column, total, mask=column < d)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _join_parts(  # type: ignore[no-untyped-def]
    parts,  # (programs, D) float32
    first,  # (G + 1,) int64: where the parts of each group begin
    total,  # (G, D) float64, filled
    d,
    DEPTH: tl.constexpr,
):
    group = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    inside = column < d
    result = tl.zeros((DEPTH,), tl.float64)
    part = tl.load(first + group)
    last = tl.load(first + group + 1)
    while part < last:
        result += tl.load(parts + part * d + column, mask=inside, other=0.0).to(tl.float64)
        part += 1
    tl.store(total + group * d + column, result, mask=inside)


# A compiled loss steps out here: what sorts and launches kernels needs no compiling.
@torch.compiler.disable  # type: ignore[untyped-decorator, unused-ignore]
def group_sums(rows: Tensor, group: Tensor, count: Tensor) -> Tensor:
    """The sum of each group's rows.

    Args:
        rows: (N, D) float.
        group: (N,) int64 in [0, G); rows of -1 count nowhere.
        count: (G,) int64, how many rows each group has.

    Returns:
        (G, D) float64.
    """
    rows = rows.contiguous()
    (n, d), groups = rows.shape, len(count)
    total = torch.zeros(groups, d, dtype=torch.float64, device=rows.device)
    if n == 0 or groups == 0:
        return total
    # The fewer bits a key has, the fewer passes a sort takes.
    order = group.to(torch.int16 if groups < 2**15 else torch.int32).sort(stable=True).indices
    # There are at most so many parts, and those that are too many are empty.
    programs = triton.cdiv(n, _PART) + groups
    parts_of = (count + (_PART - 1)) // _PART
    first = torch.zeros(groups + 1, dtype=torch.int64, device=rows.device)
    first[1:] = parts_of.cumsum(0)
    program = torch.arange(programs, device=rows.device)
    owner = torch.searchsorted(first[1:], program, right=True).clamp(max=groups - 1)
    ends = count.cumsum(0) + (n - count.sum())  # those of -1 come first
    begin = (ends - count)[owner] + (program - first[owner]) * _PART
    end = torch.minimum(begin + _PART, ends[owner])
    parts = torch.empty(programs, d, dtype=torch.float32, device=rows.device)
    depth = min(128, max(16, triton.next_power_of_2(d)))
    across = triton.cdiv(d, depth)
    with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]
        _sum_parts[(programs, across)](rows, order, begin, end, parts, d, ROWS=_ROWS, DEPTH=depth, **_FUSED)
        _join_parts[(groups, across)](parts, first, total, d, DEPTH=depth, **_FUSED)
    return total
