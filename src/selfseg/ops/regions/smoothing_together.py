"""`selfseg.ops.regions.smoothing.smooth_map` of several images at once, in torch operations on their device.

The same superpixels and the same least squares. Images have different numbers of superpixels: the graphs are filled up
to the largest with superpixels of no area that are joined to nothing. What is added up over pixels is added up in whole
numbers, which come out the same in any order, as a GPU adds.

Letters in shapes: B images, N superpixels of the one that has most, H W pixels, D C channels, h w cells of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.ops.levels import fill_void, level_scale
from selfseg.ops.regions.slic import slic, slic_batched

_UNIT = 1 << 24  # of a pixel's share of a cell
_FINE = 1 << 16  # of a unit of CIELAB
_HELD = 1 << 30  # bytes that the shares of cells in superpixels may take at a time


def smooth_together(
    values: Tensor,
    image: Tensor,
    strength: float,
    guides: Sequence[Tensor],
    rgb: bool,
    spacing: int,
    stride: int,
    sigma_squared: float,
) -> Tensor:
    """`smooth_map` of each image of a batch, on its device; the same up to 2e-3.

    Args:
        values: (B, D, h, w) float.
        image: (B, 3, H, W) float, RGB in [0, 1], or (B, C, H, W) levels / 255.
        strength: as of `smooth_map`.
        guides: (B, C_i, h_i, w_i) float each.
        rgb: as of `smooth_map`.
        spacing: px between superpixels.
        stride: of the result, in px.
        sigma_squared: of the graph.

    Returns:
        (B, D, ceil(H / stride), ceil(W / stride)) float32, of unit length over D.
    """
    height, width = image.shape[2:]
    regions, colours = _superpixels(image, rgb, spacing)
    count = int(regions.max()) + 1
    areas = _sums(torch.ones_like(regions), regions, count)  # (B, N) int64
    there = areas > 0
    means = torch.stack([_sums(_whole(each), regions, count) for each in colours.unbind(1)], 2).double()
    means = means / (_FINE * areas.clamp(min=1)[..., None])  # (B, N, C)
    vectors = _pooled(values, regions, count, areas)
    seen = [_standardised(_pooled(each, regions, count, areas), areas) for each in guides] or [vectors]
    unit = torch.cat([F.normalize(each, dim=2, eps=1e-9) for each in seen], 2) / math.sqrt(len(seen))
    # Differences of squares lose digits that the colours of neighbours need.
    apart = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")  # (B, N, N)
    near = _near(regions, count)
    graph = torch.zeros_like(apart)
    for distance in (apart, (1 - unit @ unit.mT).clamp(min=0).double()):
        largest = (distance * near).flatten(1).amax(1).clamp(min=1e-6)
        graph += distance / (2 * largest[:, None, None])
    graph = torch.exp(-graph / sigma_squared) * near
    graph = (graph + graph.mT) / 2
    share = areas.double() * there.sum(1, keepdim=True) / (height * width)  # the mean area is 1
    laplacian = torch.diag_embed(graph.sum(2)) - graph
    matrix = strength * laplacian + torch.diag_embed(torch.where(there, share, 1.0))
    factor = torch.linalg.cholesky(matrix)
    found = torch.cholesky_solve(share[..., None] * vectors.double(), factor)  # (B, N, D)
    smoothed = F.normalize(found.float(), dim=2, eps=1e-9)
    rows, columns = (_places(side, stride, image.device) for side in (height, width))
    cells = regions[:, rows[:, None], columns]  # (B, H / 4, W / 4)
    batch = torch.arange(len(regions), device=regions.device)[:, None, None]
    return smoothed[batch, cells].permute(0, 3, 1, 2).contiguous()


def _superpixels(image: Tensor, rgb: bool, spacing: int) -> tuple[Tensor, Tensor]:
    """Superpixels (B, H, W) int64, and what colours are compared by (B, C, H, W) float32."""
    if rgb:
        pixels = (image * 255).round().clamp(0, 255) / 255
        return slic_batched(pixels, spacing), _lab(pixels)
    levels = (image * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    filled = [fill_void(each) for each in levels]
    regions = np.stack([slic(np.ascontiguousarray(each), spacing, rgb=False) for each in filled])
    pixels = torch.from_numpy(np.stack(filled)).to(image.device).permute(0, 3, 1, 2).float()
    return torch.from_numpy(regions).long().to(image.device), pixels * float(level_scale(image.shape[1]))


def _lab(image: Tensor) -> Tensor:
    """OpenCV's CIELAB of 8-bit colours / 255, up to .02: (B, 3, H, W) to the same, L in 0..100.

    As OpenCV does: between the colours of a lattice of 33 nodes along each axis, at places in steps of 1/16 of a cell.
    """
    place = (image * 255).round().mul_((1 << 14) / 255).round_().long().div(32, rounding_mode="floor") / 256 - 1
    grid = place.float().permute(0, 2, 3, 1)[None]  # (1, B, H, W, 3)
    volume = _nodes().to(image.device)
    return F.grid_sample(volume, grid, mode="bilinear", align_corners=True)[0].transpose(0, 1)


@cache
def _nodes() -> Tensor:
    """CIELAB at the nodes: (1, 3, 33, 33, 33) float32, the axes blue, green and red."""
    side = np.arange(33, dtype=np.float32) / 32
    blue, green, red = np.meshgrid(side, side, side, indexing="ij")
    colours = np.stack([red, green, blue], 3).reshape(33, -1, 3)
    lab = cv2.cvtColor(colours, cv2.COLOR_RGB2Lab).reshape(33, 33, 33, 3)
    return torch.from_numpy(np.ascontiguousarray(lab.transpose(3, 0, 1, 2)))[None]


def _whole(values: Tensor) -> Tensor:
    return (values.double() * _FINE).round().long()


def _sums(values: Tensor, regions: Tensor, count: int) -> Tensor:
    """Sums of whole numbers (B, H, W) in each superpixel: (B, N) int64."""
    sums = torch.zeros(len(regions), count, dtype=torch.int64, device=regions.device)
    return sums.scatter_add_(1, regions.flatten(1), values.flatten(1))


def _pooled(values: Tensor, regions: Tensor, count: int, areas: Tensor) -> Tensor:
    """`pool_map` of each: the mean (B, N, C) float32 of maps (B, C, h, w) in each superpixel."""
    height, width = values.shape[2:]
    (above, below, down), (left, right, along) = (
        _between(large, small, values.device) for large, small in zip(regions.shape[1:], (height, width), strict=True)
    )
    at_once = max(1, _HELD // (24 * count * height * width))
    found = []
    for some, where, size in zip(*(torch.split(each, at_once) for each in (values, regions, areas)), strict=True):
        share = torch.zeros(len(some), count * height * width, dtype=torch.int64, device=values.device)
        for row, vertical in ((above, 1 - down), (below, down)):
            for column, horizontal in ((left, 1 - along), (right, along)):
                cell = row[:, None] * width + column
                weight = (vertical[:, None] * horizontal * _UNIT).round().long().expand_as(where)
                share.scatter_add_(1, (where * (height * width) + cell).flatten(1), weight.flatten(1))
        mean = share.view(len(some), count, -1).double() / (_UNIT * size.clamp(min=1)[..., None])
        found.append(mean.float() @ some.float().flatten(2).mT)
    return torch.cat(found)


def _between(large: int, small: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `large` places the two of `small` cells that it lies between, and how far on the way."""
    place = torch.arange(large, device=device, dtype=torch.float64)
    place = ((place + 0.5) * small / large - 0.5).clamp(0, small - 1)
    first = place.long().clamp(max=small - 1)
    return first, (first + 1).clamp(max=small - 1), place - first


def _standardised(vectors: Tensor, areas: Tensor) -> Tensor:
    """With mean 0 and deviation 1 over each image in each channel: (B, N, C) float32."""
    share = (areas / areas.sum(1, keepdim=True)).float()[:, None]  # (B, 1, N)
    centred = vectors - share @ vectors
    return centred / ((share @ centred.square()).sqrt() + 1e-6)


def _near(regions: Tensor, count: int) -> Tensor:
    """Which superpixels share an edge or a neighbour: (B, N, N) bool, symmetric, False on the diagonal."""
    batch = torch.arange(len(regions), device=regions.device)[:, None, None]
    adjacent = torch.zeros(len(regions), count, count, dtype=torch.bool, device=regions.device)
    yes = torch.ones((), dtype=torch.bool, device=regions.device)
    for one, other in ((regions[:, :, :-1], regions[:, :, 1:]), (regions[:, :-1], regions[:, 1:])):
        adjacent[batch, one, other] = yes
    adjacent |= adjacent.mT.clone()
    nobody = torch.eye(count, dtype=torch.bool, device=regions.device)
    adjacent &= ~nobody
    steps = adjacent.float()
    return (adjacent | (steps @ steps > 0.5)) & ~nobody


def _places(side: int, stride: int, device: torch.device) -> Tensor:
    """As `cell_places`."""
    return (torch.arange(math.ceil(side / stride), device=device) * stride + stride // 2).clamp(max=side - 1)
