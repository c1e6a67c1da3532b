"""`selfseg.ops.regions.slic.slic_batched` on a GPU: three Triton kernels, and pieces joined on the CPU meanwhile.

Import only where `triton` is installed. The kernels have been checked in Triton's interpreter against the CPU's, where
they find the same regions to the bit, and compiled for sm_80 and sm_90; they have not been run on a GPU yet, and their
block size is not tuned.

The GPU turns colours to CIELAB, finds each pixel's centre and moves the centres. A centre looks for its pixels itself,
in the 3 x 3 cells where they may be, since pixels that add to their centres would wait for each other; sums are whole
numbers, which are exact in any order. What follows, joining pieces, goes from run to run and is the CPU's: images
travel to it in parts of `PART`, and while its threads are at work on one part the GPU is with the next.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from selfseg.ops.kernels import slic_connect

if TYPE_CHECKING:
    from selfseg.ops.kernels.slic_grid import Grid

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
    weight,  # () float32: as an argument, a Python float could arrive rounded otherwise
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
def _move(  # type: ignore[no-untyped-def]
    centres,  # (B, rows * columns, 5) float32, changed
    lab,  # (B, 3, H, W) int16
    labels,  # (B, lines, W) int32
    edge_x,  # (columns + 1,) int32
    edge_y,  # (rows + 1,) int32
    height,
    width,
    rows,
    columns,
    lines,
    first_y,
    step_y,
    weight,  # () float32
    BLOCK: tl.constexpr,
):
    centre = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    row = centre // columns
    column = centre % columns
    left = tl.load(edge_x + tl.maximum(column - 1, 0))
    across = tl.load(edge_x + tl.minimum(column + 2, columns)) - left
    # Lines are the rows that were looked at; these are the first one of the three rows of cells, and the one after.
    top = (tl.maximum(tl.load(edge_y + tl.maximum(row - 1, 0)) - first_y, 0) + step_y - 1) // step_y
    bottom = (tl.maximum(tl.load(edge_y + tl.minimum(row + 2, rows)) - first_y, 0) + step_y - 1) // step_y
    plane = height * width
    pixels = lab + image * 3 * plane
    of_image = labels + image * lines * width
    area = tl.zeros((BLOCK,), tl.int64)
    total_l = tl.zeros((BLOCK,), tl.int64)
    total_a = tl.zeros((BLOCK,), tl.int64)
    total_b = tl.zeros((BLOCK,), tl.int64)
    total_x = tl.zeros((BLOCK,), tl.int64)
    total_y = tl.zeros((BLOCK,), tl.int64)
    count = (bottom - top) * across
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        line = top + at // across
        x = left + at % across
        mine = tl.load(of_image + line * width + x, mask=at < count, other=-1) == centre
        pixel = pixels + (first_y + line * step_y) * width + x
        area += mine.to(tl.int64)
        total_l += tl.load(pixel, mask=mine, other=0).to(tl.int64)
        total_a += tl.load(pixel + plane, mask=mine, other=0).to(tl.int64)
        total_b += tl.load(pixel + 2 * plane, mask=mine, other=0).to(tl.int64)
        total_x += tl.where(mine, x, 0).to(tl.int64)
        total_y += tl.where(mine, 2 * line * step_y + step_y - 1, 0).to(tl.int64)  # twice the way to a line's middle
    pixels_of_it = tl.sum(area, axis=0)
    divisor = tl.maximum(pixels_of_it, 1).to(tl.float64)
    scale = tl.load(weight)
    place = centres + (image * rows * columns + centre) * 5
    any_pixel = pixels_of_it > 0  # else it stays
    tl.store(place, (tl.sum(total_l, axis=0).to(tl.float64) / (divisor * 64.0)).to(tl.float32), mask=any_pixel)
    tl.store(place + 1, (tl.sum(total_a, axis=0).to(tl.float64) / (divisor * 64.0)).to(tl.float32), mask=any_pixel)
    tl.store(place + 2, (tl.sum(total_b, axis=0).to(tl.float64) / (divisor * 64.0)).to(tl.float32), mask=any_pixel)
    tl.store(place + 3, (tl.sum(total_x, axis=0).to(tl.float64) / divisor).to(tl.float32) * scale, mask=any_pixel)
    mean_y = (tl.sum(total_y, axis=0).to(tl.float64) / (divisor * 2.0)).to(tl.float32)
    tl.store(place + 4, mean_y * scale, mask=any_pixel)


def to_lab(images: Tensor, light: Tensor, root: Tensor) -> Tensor:
    """CIELAB in units of 1/64.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        light: (3, 3, 256) int32, and
        root: (8193,) int32, see `selfseg.ops.regions.slic._tables`; on the device.

    Returns:
        (B, 3, H, W) int16.
    """
    images = images.contiguous()
    batch, _, height, width = images.shape
    lab = torch.empty(images.shape, dtype=torch.int16, device=images.device)
    grid = (triton.cdiv(height * width, _BLOCK), batch)
    _to_lab[grid](images, light, root, lab, height * width, BLOCK=_BLOCK, **_EXACT)
    return lab


def assign(lab: Tensor, centres: Tensor, grid: Grid, first_y: int, step_y: int) -> Tensor:
    """The nearest of the 3 x 3 centres around each pixel's cell, as `selfseg.ops.regions.slic._assign`.

    Args:
        lab: (B, 3, H, W) int16, of `to_lab`.
        centres: (B, rows * columns, 5) float32.
        grid: of the images.
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
        grid.cell_x,
        grid.cell_y,
        labels,
        height,
        width,
        grid.rows,
        grid.columns,
        grid.shift,
        lines,
        first_y,
        step_y,
        grid.weight,
        BLOCK=_BLOCK,
        **_EXACT,
    )
    return labels


def move(centres: Tensor, labels: Tensor, lab: Tensor, grid: Grid, first_y: int, step_y: int) -> None:
    """Move each centre to the mean of its pixels in every `step_y`-th row; one without any stays.

    Args:
        centres: (B, rows * columns, 5) float32, changed.
        labels: (B, lines, W) int32, each that of a centre whose cell is the pixel's or touches it.
        lab: (B, 3, H, W) int16.
        grid: of the images.
        first_y: the first row.
        step_y: rows from one to the next.
    """
    batch, _, height, width = lab.shape
    _move[(grid.rows * grid.columns, batch)](
        centres,
        lab,
        labels.contiguous(),
        grid.edge_x,
        grid.edge_y,
        height,
        width,
        grid.rows,
        grid.columns,
        labels.shape[1],
        first_y,
        step_y,
        grid.weight,
        BLOCK=_BLOCK,
        **_EXACT,
    )


@cache
def _pool() -> ThreadPoolExecutor:
    """Kept, since its threads keep their memory."""
    return ThreadPoolExecutor(max(1, min(2 * PART, os.cpu_count() or 1)), thread_name_prefix="slic")


_kept = threading.local()


def _room(height: int, width: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """This thread's labels (H, W) and running sums (H, W + 1, 3), unfilled: fresh memory would cost a millisecond."""
    if getattr(_kept, "shape", None) != (height, width):
        _kept.arrays = np.empty((height, width), np.int32), np.empty((height, width + 1, 3), np.int32)
        _kept.shape = (height, width)
    arrays: tuple[NDArray[np.int32], NDArray[np.int32]] = _kept.arrays
    return arrays


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
        self.waiting: list[tuple[list[Future[None]], Tensor]] = []
        self.done: list[Tensor] = []

    def __enter__(self) -> Finisher:
        return self

    def __exit__(self, *_: object) -> None:
        for futures, _out in self.waiting:  # only after an error
            for future in futures:
                future.cancel()

    def add(self, labels: Tensor, lab: Tensor) -> None:
        """Take over labels (B, H, W) int32 and colours (B, 3, H, W) int16 of a part; returns at once."""
        if len(self.waiting) >= _PARTS_AHEAD:
            self._take()
        batch, height, width = labels.shape
        short = labels.to(torch.int16) if self.centres < 2**15 else labels
        label = self._fetch(short).numpy()
        colour = self._fetch(lab).numpy() if self.connectivity else None
        copied = None
        if self.device.type == "cuda":
            # Blocking: a thread that waits leaves its core to the others instead of looking at the event all the time.
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(self.device))
        out = torch.empty((batch, height, width), dtype=torch.int32, pin_memory=self.device.type == "cuda")
        found = out.numpy()

        def one(index: int) -> None:
            if copied is not None:
                copied.synchronize()
            mine, sums = _room(height, width)
            mine[...] = label[index]
            if colour is None:
                slic_connect.densify(mine, self.centres, found[index])
                return
            slic_connect.running_sums(colour[index], sums)
            slic_connect.connect(mine, sums, self.smallest, found[index])

        self.waiting.append(([_pool().submit(one, index) for index in range(batch)], out))

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
