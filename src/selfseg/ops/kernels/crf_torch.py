"""`selfseg.ops.kernels.crf_cpu` in torch operations, for devices other than a CPU: the same lattice, the same sums.

The lattice may have other dimensions than five here, as images of many channels need it.

Several images are one list of pixels here, each with vertices of its own: what one gets does not depend on the others.

Letters: N pixels, of all images together, C classes, M lattice vertices. Every weighted sum is an `embedding_bag`,
which gathers and adds in a fixed order, so that the same input gives the same output on a GPU too (scattered additions
would not).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.ops.kernels.crf_lattice import HALF, packing


def gaussian(values: Tensor, size: tuple[int, int], taps: NDArray[np.float64]) -> Tensor:
    """Sums of (N, C) values of images of `size` (H, W), weighted by `taps` (2 r + 1) along y and along x."""
    down, across = (_band(length, tuple(taps), values.device) for length in size)
    images = len(values) // (size[0] * size[1])
    rows = (down @ values.view(images, size[0], -1)).view(images * size[0], size[1], -1)  # (B H, W, C)
    return (across @ rows).view_as(values)


@lru_cache(maxsize=16)  # each round of mean field asks for the same, and making it takes longer than the product
def _band(length: int, taps: tuple[float, ...], device: torch.device) -> Tensor:
    """The taps as a matrix (length, length) float32."""
    radius = len(taps) // 2
    place = np.arange(length)[:, None] - np.arange(length) + radius
    inside = (place >= 0) & (place <= 2 * radius)
    return torch.from_numpy(np.where(inside, np.array(taps)[place.clip(0, 2 * radius)], 0)).float().to(device)


class Lattice:
    """A Gaussian of deviation 1 between points, as a function of values (N, C) to sums (N, C)."""

    def __init__(self, points: Tensor, images: int = 1) -> None:
        """Args: points (N, D) float32 in the lattice's space, of so many images with equally many each."""
        keys, self.share = _simplices(points)
        self.dimensions = D = points.shape[1]
        found, self.vertex = torch.unique(keys, return_inverse=True)  # (M), (N, D + 1)
        # A vertex is the number of its image and of its key: keys have no bits to spare for the image.
        self.keys, self.places = found, torch.arange(len(found), device=found.device)
        if images > 1:
            of_image = torch.arange(images, device=found.device).repeat_interleave(len(points) // images)
            numbers = self.vertex + of_image[:, None] * len(found)
            self.places, self.vertex = torch.unique(numbers, return_inverse=True)
        self.count = len(self.places)
        # For each vertex the pixels that touch it, one after the other.
        order = torch.argsort(self.vertex.flatten(), stable=True)
        self.pixel, self.weight = order // (D + 1), self.share.flatten()[order]
        touches = torch.bincount(self.vertex.flatten(), minlength=self.count)
        self.begins = touches.cumsum(0) - touches
        self.neighbours = [self._along(axis) for axis in range(D + 1)]

    def _along(self, axis: int) -> tuple[Tensor, Tensor]:
        """The vertex before and after each along an axis; `count`, a row of zeros, if there is none."""
        D = self.dimensions
        factors, low = packing(D)
        unit = 0 if axis == D else factors[axis]
        # All coordinates fall by 1 and that of the axis rises by D; remainder r becomes r - 1, and 0 becomes D.
        lower, higher = _signed(unit - 1), _signed(unit - sum(factors) + D)
        keys = self.keys
        wanted = torch.where(keys & ((1 << low) - 1) > 0, keys + lower, keys + higher)
        number = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        known = keys[number] == wanted
        # The same in each image that has both.
        own = self.places % len(keys)
        wanted = self.places - own + number[own]
        place = torch.searchsorted(self.places, wanted).clamp(max=self.count - 1)
        there = known[own] & (self.places[place] == wanted)
        after = torch.where(there, place, self.count)
        before = torch.full_like(after, self.count)
        before[place[there]] = torch.nonzero(there).flatten()
        return before, after

    def __call__(self, values: Tensor) -> Tensor:
        """Blur (N, C) float32 values; see the class."""
        lattice = F.embedding_bag(self.pixel, values, self.begins, mode="sum", per_sample_weights=self.weight)
        lattice = F.pad(lattice, (0, 0, 0, 1))
        for before, after in self.neighbours:
            lattice[:-1] += 0.5 * (lattice[before] + lattice[after])
        return F.embedding_bag(self.vertex, lattice, mode="sum", per_sample_weights=self.share)


def _signed(number: int) -> int:
    """A number modulo 2^64 as an int64 has it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _simplices(points: Tensor) -> tuple[Tensor, Tensor]:
    """The simplices of (N, D) points (Adams et al., section 3.1): packed corners (N, D + 1) int64, their weights."""
    D = points.shape[1]
    later = torch.cat([points.flip(1).cumsum(1).flip(1), torch.zeros_like(points[:, :1])], 1)  # sums from i on
    lifted = later.clone()
    lifted[:, 1:] -= torch.arange(1, D + 1, device=points.device) * points
    nearest = torch.floor(lifted / (D + 1) + 0.5)
    rest = lifted - (D + 1) * nearest
    order = torch.argsort(rest, dim=1, descending=True, stable=True)
    rank = torch.argsort(order, dim=1) + nearest.sum(1, keepdim=True).long()
    turn = (rank < 0).long() - (rank > D).long()  # back to where coordinates add up to 0
    rank, nearest, rest = rank + turn * (D + 1), nearest.long() + turn, rest - turn * (D + 1)

    part = torch.zeros_like(rest).scatter_(1, rank, rest / (D + 1))  # by rank
    ascending = part.flip(1)  # what corner k gains is the part of rank D - k; corner k + 1 loses it
    share = ascending - torch.cat([torch.zeros_like(part[:, :1]), ascending[:, :-1]], 1)
    share[:, 0] += 1 - ascending[:, -1]
    corner = torch.arange(D + 1, device=rank.device)[:, None]
    factors = torch.tensor([_signed(factor) for factor in packing(D)[0]], device=rank.device)
    keys = torch.zeros_like(rank)  # (N, D + 1)
    for d, factor in enumerate(factors):
        keys += (nearest[:, d, None] - (rank[:, d, None] > D - corner[:, 0]).long() + HALF) * factor
    return keys + corner[:, 0], share
