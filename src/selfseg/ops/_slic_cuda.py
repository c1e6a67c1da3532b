"""`selfseg.ops.slic.slic_batched` on a GPU: three Triton kernels, and pieces joined on the CPU meanwhile.

Import only where `triton` is installed. The kernels have been checked in Triton's interpreter against the CPU's, where
they find the same regions to the bit, and compiled for sm_80 and sm_90; they have not been run on a GPU yet, and their
block size is not tuned.

The GPU turns colours to CIELAB, finds each pixel's centre and adds up what moves the centres: whole numbers, which are
exact in any order. What follows, joining pieces, goes from run to run and is the CPU's: images travel to it in parts of
`PART`, and while its threads are at work on one part the GPU is with the next.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from selfseg.ops import _slic_connect

_BLOCK = 256
PART = 16
"""Images that travel together."""

_PARTS_AHEAD = 4
_EXACT: dict[str, Any] = {"enable_fp_fusion": False}  # fused, the last bit would differ from the CPU's


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _to_lab(  # type: ignore[no-untyped-def]
    images,  # (B, 3, H, W) uint8
    light,  # (3, 3, 256) int32
    root,  # (8193,) int32
    lab,  # (B, 3, H, W) int16, filled
    plane,
    BLOCK: tl.constexpr,
):
    start = tl.program_id(1).to(tl.int64) * 3 * plane
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < plane
    red = tl.load(images + start + at, mask=inside, other=0).to(tl.int32)
    green = tl.load(images + start + plane + at, mask=inside, other=0).to(tl.int32)
    blue = tl.load(images + start + 2 * plane + at, mask=inside, other=0).to(tl.int32)
    x = tl.load(light + red) + tl.load(light + 256 + green) + tl.load(light + 512 + blue)
    y = tl.load(light + 768 + red) + tl.load(light + 1024 + green) + tl.load(light + 1280 + blue)
    z = tl.load(light + 1536 + red) + tl.load(light + 1792 + green) + tl.load(light + 2048 + blue)
    fx = tl.load(root + (x >> 8))
    fy = tl.load(root + (y >> 8))
    fz = tl.load(root + (z >> 8))
    tl.store(lab + start + at, (((7424 * fy + 32768) >> 16) - 1024).to(tl.int16), mask=inside)
    tl.store(lab + start + plane + at, ((32000 * (fx - fy) + 32768) >> 16).to(tl.int16), mask=inside)
    tl.store(lab + start + 2 * plane + at, ((12800 * (fy - fz) + 32768) >> 16).to(tl.int16), mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _assign(  # type: ignore[no-untyped-def]
    lab,  # (B, 3, H, W) int16
    centres,  # (B, rows * columns, 5) float32
    cell_x,  # (W + 2 * shift,) int32
    cell_y,  # (H,) int32
    labels,  # (B, lines, W) int32, filled
    height,
    width,
    rows,
    columns,
    shift,
    lines,
    first_y,
    step_y,
    weight,  # (1,) float32: as an argument, a Python float could arrive rounded otherwise
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < lines * width
    x = at % width
    y = first_y + (at // width) * step_y
    plane = height * width
    pixel = lab + image * 3 * plane + y * width + x
    lab_l = tl.load(pixel, mask=inside, other=0).to(tl.float32) * 0.015625
    lab_a = tl.load(pixel + plane, mask=inside, other=0).to(tl.float32) * 0.015625
    lab_b = tl.load(pixel + 2 * plane, mask=inside, other=0).to(tl.float32) * 0.015625
    scale = tl.load(weight)
    across = x.to(tl.float32) * scale
    down = y.to(tl.float32) * scale
    row = tl.load(cell_y + y, mask=inside, other=0)
    best = tl.full((BLOCK,), 1e30, tl.float32)
    nearest = tl.zeros((BLOCK,), tl.int32)
    for near in tl.static_range(3):
        candidate_row = row + (near - 1)
        valid = inside & (candidate_row >= 0) & (candidate_row < rows)
        for side in tl.static_range(3):
            column = tl.load(cell_x + x + side * shift, mask=inside, other=0)
            identity = candidate_row * columns + column
            centre = centres + (image * rows * columns + identity) * 5
            d_l = lab_l - tl.load(centre, mask=valid, other=0.0)
            d_a = lab_a - tl.load(centre + 1, mask=valid, other=0.0)
            d_b = lab_b - tl.load(centre + 2, mask=valid, other=0.0)
            d_x = across - tl.load(centre + 3, mask=valid, other=0.0)
            d_y = down - tl.load(centre + 4, mask=valid, other=0.0)
            distance = d_l * d_l + d_a * d_a + d_b * d_b + d_x * d_x + d_y * d_y
            nearer = valid & (distance < best)
            best = tl.where(nearer, distance, best)
            nearest = tl.where(nearer, identity, nearest)
    tl.store(labels + image * lines * width + at, nearest, mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _add_up(  # type: ignore[no-untyped-def]
    lab,  # (B, 3, H, W) int16
    labels,  # (B, lines, W) int32
    totals,  # (6, B, count) int64, added to
    height,
    width,
    count,
    each,  # B * count
    lines,
    first_y,
    step_y,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < lines * width
    x = at % width
    line = at // width
    plane = height * width
    pixel = lab + image * 3 * plane + (first_y + line * step_y) * width + x
    label = tl.load(labels + image * lines * width + at, mask=inside, other=0)
    place = totals + image * count + label
    tl.atomic_add(place, tl.full((BLOCK,), 1, tl.int64), mask=inside, sem="relaxed")
    for channel in tl.static_range(3):
        value = tl.load(pixel + channel * plane, mask=inside, other=0).to(tl.int64)
        tl.atomic_add(place + (channel + 1) * each, value, mask=inside, sem="relaxed")
    tl.atomic_add(place + 4 * each, x.to(tl.int64), mask=inside, sem="relaxed")
    tl.atomic_add(place + 5 * each, (2 * line * step_y + step_y - 1).to(tl.int64), mask=inside, sem="relaxed")


def to_lab(images: Tensor, light: Tensor, root: Tensor) -> Tensor:
    """CIELAB in units of 1/64.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        light: (3, 3, 256) int32, and
        root: (8193,) int32, see `selfseg.ops.slic._tables`; on the device.

    Returns:
        (B, 3, H, W) int16.
    """
    images = images.contiguous()
    batch, _, height, width = images.shape
    lab = torch.empty(images.shape, dtype=torch.int16, device=images.device)
    grid = (triton.cdiv(height * width, _BLOCK), batch)
    _to_lab[grid](images, light, root, lab, height * width, BLOCK=_BLOCK, **_EXACT)
    return lab


def assign(
    lab: Tensor,
    centres: Tensor,
    cell_x: Tensor,
    cell_y: Tensor,
    columns: int,
    shift: int,
    weight: float,
    first_y: int,
    step_y: int,
) -> Tensor:
    """The nearest of the 3 x 3 centres around each pixel's cell; arguments as of `selfseg.ops.slic._assign`.

    Args:
        lab: (B, 3, H, W) int16, of `to_lab`.
        centres: (B, rows * columns, 5) float32.
        cell_x: (W + 2 shift,) int32.
        cell_y: (H,) int32.
        columns: of the grid.
        shift: in pixels.
        weight: ruler / size.
        first_y: the first row that is looked at.
        step_y: rows from one to the next.

    Returns:
        (B, lines, W) int32.
    """
    batch, _, height, width = lab.shape
    lines = len(range(first_y, height, step_y))
    labels = torch.empty((batch, lines, width), dtype=torch.int32, device=lab.device)
    if lines == 0:
        return labels
    _assign[(triton.cdiv(lines * width, _BLOCK), batch)](
        lab,
        centres,
        cell_x,
        cell_y,
        labels,
        height,
        width,
        centres.shape[1] // columns,
        columns,
        shift,
        lines,
        first_y,
        step_y,
        torch.full((1,), weight, dtype=torch.float32, device=lab.device),
        BLOCK=_BLOCK,
        **_EXACT,
    )
    return labels


def add_up(labels: Tensor, lab: Tensor, count: int, first_y: int, step_y: int) -> Tensor:
    """Pixels of each centre, and the sums of their L, a, b, x and (2 y), in every `step_y`-th row.

    Args:
        labels: (B, lines, W) int32.
        lab: (B, 3, H, W) int16.
        count: centres of an image.
        first_y: the first row.
        step_y: rows from one to the next; the last sum is of 2 y + step_y - 1 - 2 first_y.

    Returns:
        (6, B, count) int64.
    """
    batch, _, height, width = lab.shape
    lines = labels.shape[1]
    totals = torch.zeros(6, batch, count, dtype=torch.int64, device=lab.device)
    if lines:
        grid = (triton.cdiv(lines * width, _BLOCK), batch)
        sizes = (height, width, count, batch * count, lines, first_y, step_y)
        _add_up[grid](lab, labels.contiguous(), totals, *sizes, BLOCK=_BLOCK, **_EXACT)
    return totals


class Finisher:
    """Joins pieces on the CPU's cores while the GPU goes on; a context manager.

    Args:
        device: the images'.
        centres: of an image.
        smallest: pixels of a piece.
        connectivity: whether pieces are joined, or ids only made dense.
    """

    def __init__(self, device: torch.device, centres: int, smallest: int, connectivity: bool) -> None:
        self.device, self.centres = device, centres
        self.smallest, self.connectivity = smallest, connectivity
        self.pool = ThreadPoolExecutor(max(1, min(2 * PART, os.cpu_count() or 1)))
        self.waiting: list[tuple[list[Future[None]], Tensor]] = []
        self.done: list[Tensor] = []

    def __enter__(self) -> Finisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def add(self, labels: Tensor, lab: Tensor) -> None:
        """Take over labels (B, H, W) int32 and colours (B, 3, H, W) int16 of a part; returns at once."""
        if len(self.waiting) >= _PARTS_AHEAD:
            self._take()
        batch, height, width = labels.shape
        short = labels.to(torch.int16) if self.centres < 2**15 else labels
        label = self._fetch(short).numpy()
        colour = self._fetch(lab.permute(0, 2, 3, 1).contiguous()).numpy() if self.connectivity else None
        copied = None
        if self.device.type == "cuda":
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        out = torch.empty((batch, height, width), dtype=torch.int32, pin_memory=self.device.type == "cuda")
        found = out.numpy()

        def one(index: int) -> None:
            if copied is not None:
                copied.synchronize()
            mine = np.ascontiguousarray(label[index], np.int32)
            if colour is None:
                _slic_connect.densify(mine, self.centres, found[index])
                return
            sums = np.zeros((height, width + 1, 3), np.int32)
            np.cumsum(colour[index], axis=1, dtype=np.int32, out=sums[:, 1:])
            _slic_connect.connect(mine, sums, self.smallest, found[index])

        self.waiting.append(([self.pool.submit(one, index) for index in range(batch)], out))

    def result(self) -> Tensor:
        """All parts' ids, (B, H, W) int64 on the device."""
        while self.waiting:
            self._take()
        return torch.cat(self.done)

    def _take(self) -> None:
        futures, out = self.waiting.pop(0)
        for future in futures:
            future.result()
        self.done.append(out.to(self.device, non_blocking=True).long())

    def _fetch(self, values: Tensor) -> Tensor:
        """The values in the host's memory, once the event that follows has come."""
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=self.device.type == "cuda")
        return host.copy_(values, non_blocking=True)
