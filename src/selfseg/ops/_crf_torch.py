"""`selfseg.ops.crf` in torch operations, for devices other than a CPU: the same lattice, the same sums.

Letters: N pixels, C classes, M lattice vertices. Every weighted sum is an `embedding_bag`, which gathers and adds in a
fixed order, so that the same input gives the same output on a GPU too (scattered additions would not).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from selfseg.ops.crf import CRFConfig

_D = 5
_FIELD, _LOW = 12, 3  # bits of a packed coordinate, and of the remainder


def mean_field(unary: Tensor, image: Tensor, config: CRFConfig, scale: Tensor, bands: tuple[Tensor, Tensor]) -> Tensor:
    """One image.

    Args:
        unary: (C, H, W) float32 log probabilities.
        image: (H, W, 3) uint8.
        config: parameters.
        scale: (5,) float64, factors from features in deviations to the lattice's space.
        bands: (H, H) and (W, W), the smoothness kernel along columns and along rows, normalised.

    Returns:
        (C, H, W) probabilities.
    """
    classes, height, width = unary.shape
    down, across = (band.to(unary) for band in bands)
    appearance = Lattice(image.to(unary.device), config, scale) if config.appearance_weight else None
    values = torch.softmax(unary, 0)
    for _ in range(config.iterations):
        scores = unary
        if config.smooth_weight:
            scores = scores + config.smooth_weight * (down @ values @ across)
        if appearance is not None:
            scores = scores + appearance(values.flatten(1).T).T.reshape(classes, height, width)
        values = torch.softmax(scores, 0)
    return values


class Lattice:
    """The weighted, symmetrically normalised appearance kernel as a function of (N, C) values."""

    def __init__(self, image: Tensor, config: CRFConfig, scale: Tensor) -> None:
        height, width, _ = image.shape
        device = image.device
        y = (torch.arange(height, device=device) - 0.5 * height).expand(width, height).T
        x = (torch.arange(width, device=device) - 0.5 * width).expand(height, width)
        deviations = torch.tensor([config.appearance_xy] * 2 + [config.appearance_rgb] * 3, dtype=torch.float64)
        factors = (scale / deviations).float().to(device)
        features = torch.cat([torch.stack([x, y], 2), image.float() - 127.5], 2).reshape(-1, _D)
        keys, self.share = _simplices(features * factors)
        found, vertex = torch.unique(keys, return_inverse=True)
        self.count = len(found)
        self.vertex = vertex  # (N, 6)
        # For each vertex the pixels that touch it, one after the other.
        order = torch.argsort(vertex.flatten(), stable=True)
        self.pixel, self.weight = order // (_D + 1), self.share.flatten()[order]
        touches = torch.bincount(vertex.flatten(), minlength=self.count)
        self.begins = touches.cumsum(0) - touches
        self.neighbours = [self._along(found, axis) for axis in range(_D + 1)]
        ones = torch.ones(len(vertex), 1, device=device)
        self.scale = ones
        self.scale = math.sqrt(config.appearance_weight) / self(ones).sqrt()

    def _along(self, keys: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The vertex before and after each along an axis; `count`, a row of zeros, if there is none."""
        unit = 0 if axis == _D else 1 << (_LOW + _FIELD * (_D - 1 - axis))
        every = sum(1 << (_LOW + _FIELD * i) for i in range(_D))
        # All coordinates fall by 1 and that of the axis rises by 5; remainder r becomes r - 1, and 0 becomes 5.
        wanted = torch.where(keys & 7 > 0, keys + (unit - 1), keys + (unit - every + _D))
        place = torch.searchsorted(keys, wanted).clamp(max=self.count - 1)
        there = keys[place] == wanted
        after = torch.where(there, place, self.count)
        before = torch.full_like(after, self.count)
        before[place[there]] = torch.nonzero(there).flatten()
        return before, after

    def __call__(self, values: Tensor) -> Tensor:
        """(N, C) to the kernel's sums (N, C)."""
        lattice = F.embedding_bag(
            self.pixel, values * self.scale, self.begins, mode="sum", per_sample_weights=self.weight
        )
        lattice = torch.cat([lattice, lattice.new_zeros(1, values.shape[1])])
        for before, after in self.neighbours:
            lattice[:-1] += 0.5 * (lattice[before] + lattice[after])
        return self.scale * F.embedding_bag(self.vertex, lattice, mode="sum", per_sample_weights=self.share)


def _simplices(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """The simplices of (N, 5) points (Adams et al., section 3.1): packed corners (N, 6) int64, barycentric weights."""
    later = torch.cat([scaled.flip(1).cumsum(1).flip(1), torch.zeros_like(scaled[:, :1])], 1)  # sums from i on
    lifted = later.clone()
    lifted[:, 1:] -= torch.arange(1, _D + 1, device=scaled.device) * scaled
    nearest = torch.floor(lifted / (_D + 1) + 0.5)
    rest = lifted - (_D + 1) * nearest
    order = torch.argsort(rest, dim=1, descending=True, stable=True)
    rank = torch.argsort(order, dim=1) + nearest.sum(1, keepdim=True).long()
    low, high = rank < 0, rank > _D
    turn = low.long() - high.long()
    rank, nearest, rest = rank + turn * (_D + 1), nearest.long() + turn, rest - turn * (_D + 1)

    part = torch.zeros_like(rest).scatter_(1, rank, rest / (_D + 1))  # by rank
    ascending = part.flip(1)  # what corner k gains is the part of rank D - k; corner k + 1 loses it
    share = ascending - torch.cat([torch.zeros_like(part[:, :1]), ascending[:, :-1]], 1)
    share[:, 0] += 1 - ascending[:, -1]
    corner = torch.arange(_D + 1, device=rank.device)[:, None]
    up = nearest[:, None, :_D] - (rank[:, None, :_D] > _D - corner).long() + (1 << (_FIELD - 1))  # (N, 6, 5)
    shift = _LOW + _FIELD * torch.arange(_D - 1, -1, -1, device=rank.device)
    return (up << shift).sum(2) + corner[:, 0], share
