"""The Triton kernel of `selfseg.ops.slic.slic_batched`: the nearest centre of each pixel.

Import only where `triton` is installed. It has been checked in Triton's interpreter against the CPU kernel, where it
finds the same labels; it has not been run on a GPU yet, and its block size is not tuned.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 256


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _assign(  # type: ignore[no-untyped-def]
    pixels,  # (B, 3, H, W) float32
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
    pixel = pixels + image * 3 * plane + y * width + x
    lab_l = tl.load(pixel, mask=inside, other=0.0)
    lab_a = tl.load(pixel + plane, mask=inside, other=0.0)
    lab_b = tl.load(pixel + 2 * plane, mask=inside, other=0.0)
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


def assign(
    pixels: Tensor,
    centres: Tensor,
    cell_x: Tensor,
    cell_y: Tensor,
    columns: int,
    shift: int,
    weight: float,
    first_y: int,
    step_y: int,
) -> Tensor:
    """The nearest of the 3 x 3 centres around each pixel's cell; arguments as in `selfseg.ops.slic._assign`.

    Returns:
        (B, lines, W) int32.
    """
    batch, _, height, width = pixels.shape
    lines = len(range(first_y, height, step_y))
    labels = torch.empty((batch, lines, width), dtype=torch.int32, device=pixels.device)
    if lines == 0:
        return labels
    options: dict[str, Any] = {"enable_fp_fusion": False}  # fused, the last bit would differ from the CPU's
    _assign[(triton.cdiv(lines * width, _BLOCK), batch)](
        pixels,
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
        torch.tensor([weight], dtype=torch.float32, device=pixels.device),
        BLOCK=_BLOCK,
        **options,
    )
    return labels
