"""The compiled CPU kernels of `selfseg.ops.crf`: splat, blur and slice on a permutohedral lattice.

Imported on the first call only, see `selfseg.ops.kernels.slic_cpu`. Letters: N pixels, C classes, M lattice vertices.

A vertex's C values lie together in memory, and vertices are numbered as the raster first meets them, so that
neighbours in the image are near in memory.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import from_numpy as tensor

from selfseg.ops.kernels import crf_torch
from selfseg.ops.kernels.crf_lattice import FIELD, HALF, LOW, D
from selfseg.ops.kernels.slic_cpu import compiled


def gaussian(values: Tensor, size: tuple[int, int], taps: NDArray[np.float64]) -> Tensor:
    """Sums of (N, C) values of an image of `size` (H, W), weighted by `taps` (2 r + 1) along y and along x."""
    picture = values.view(*size, -1).numpy()
    return tensor(cv2.sepFilter2D(picture, -1, taps, taps, borderType=cv2.BORDER_CONSTANT)).view_as(values)


class Lattice:
    """A Gaussian of deviation 1 between points, as a function of values (N, C) float32, contiguous, to sums (N, C)."""

    def __init__(self, points: Tensor) -> None:
        """Args: points (N, D) float32 in the lattice's space; for other D than 5 torch finds the vertices."""
        self.compiled = points.shape[1] == D
        if not self.compiled:
            found = crf_torch.Lattice(points)
            self.vertex, self.share = found.vertex.numpy().astype(np.int32), found.share.contiguous().numpy()
            pairs = [torch.stack(pair).numpy() for pair in found.neighbours]
            self.neighbours = np.stack(pairs).astype(np.int32)
            self.work = np.zeros((2, found.count + 1, 1), np.float32)
            return
        self.vertex, self.share = np.empty((len(points), D + 1), np.int32), np.empty((len(points), D + 1), np.float32)
        room, count = max(64, len(points)), -1
        while count < 0:  # photographs have about as many vertices as pixels, at most there are 6 times as many
            room *= 2
            keys = np.empty(room, np.int64)
            table = np.full((2 << (room - 1).bit_length(), 2), -1, np.int64)
            count = locate(points.numpy(), keys, table, self.vertex, self.share)
        self.neighbours = np.empty((D + 1, 2, count), np.int32)
        link(keys[:count], table, self.neighbours)
        self.work = np.zeros((2, count + 1, 1), np.float32)

    def __call__(self, values: Tensor) -> Tensor:
        """Blur (N, C) float32 values; see the class."""
        if self.work.shape[2] != values.shape[1]:  # kept between calls, for fresh memory costs as much as a blur
            self.work = np.zeros((*self.work.shape[:2], values.shape[1]), np.float32)
        lattice, blurred = self.work
        (splat if self.compiled else splat_any)(values.numpy(), self.vertex, self.share, lattice)
        for before, after in self.neighbours:
            blur(lattice, before, after, blurred)
            lattice, blurred = blurred, lattice
        sums = np.empty(values.shape, np.float32)
        (slice_ if self.compiled else slice_any)(lattice, self.vertex, self.share, sums)
        return tensor(sums)


@compiled("i8(i8[:,::1], i8)")
def _slot(table: NDArray[np.int64], key: int) -> int:
    """Where in the hash table `key` is, or would be put."""
    mask = table.shape[0] - 1
    mixed = (key ^ (key >> 31)) * np.int64(-7046029254386353131)  # 2^64 / the golden ratio
    place = (mixed ^ (mixed >> 32)) & mask
    while table[place, 0] != key and table[place, 0] >= 0:
        place = (place + 1) & mask
    return int(place)


@compiled("i8(f4[:,::1], i8[::1], i8[:,::1], i4[:,::1], f4[:,::1])")
def locate(
    points: NDArray[np.float32],
    keys: NDArray[np.int64],
    table: NDArray[np.int64],
    vertex: NDArray[np.int32],
    share: NDArray[np.float32],
) -> int:
    """The simplex that holds each point (Adams et al., section 3.1).

    A vertex's D + 1 coordinates add up to 0 and leave the same remainder r when divided by D + 1. Its key is the whole
    quotients of the first D, of `FIELD` bits each, and r.

    Args:
        points: (N, 5) in the lattice's space.
        keys: filled with the keys of vertices, in the order in which they are met.
        table: (a power of two, 2), all -1; filled: the hash table, keys and their vertices.
        vertex: (N, 6), filled: the corners of each point's simplex, corner k of remainder k.
        share: (N, 6), filled: its barycentric coordinates in it.

    Returns:
        The number of vertices, or -1 if more than half of `table` or all of `keys` would be filled.
    """
    capacity = min(keys.shape[0], table.shape[0] // 2)
    weight = np.empty(D + 2, np.float32)
    lifted, rest = np.empty(D + 1, np.float32), np.empty(D + 1, np.float32)
    nearest, rank = np.empty(D + 1, np.int64), np.empty(D + 1, np.int64)
    count = 0
    for i in range(points.shape[0]):
        # To the plane in D + 1 dimensions whose coordinates add up to 0.
        total = np.float32(0)
        for d in range(D, 0, -1):
            value = points[i, d - 1]
            lifted[d] = total - np.float32(d) * value
            total += value
        lifted[0] = total
        # The nearest vertex of remainder 0, and the order of what is left over, which names the simplex around it.
        excess = 0
        for d in range(D + 1):
            nearest[d] = np.int64(np.floor(lifted[d] * np.float32(1 / (D + 1)) + np.float32(0.5)))
            rest[d] = lifted[d] - np.float32(D + 1) * np.float32(nearest[d])
            excess += nearest[d]
            rank[d] = 0
        for d in range(D):
            for e in range(d + 1, D + 1):
                if rest[d] < rest[e]:
                    rank[d] += 1
                else:
                    rank[e] += 1
        weight[:] = 0
        for d in range(D + 1):
            rank[d] += excess
            turn = 1 if rank[d] < 0 else (-1 if rank[d] > D else 0)  # back to where coordinates add up to 0
            rank[d] += turn * (D + 1)
            nearest[d] += turn
            part = rest[d] * np.float32(1 / (D + 1)) - np.float32(turn)
            weight[D - rank[d]] += part
            weight[D + 1 - rank[d]] -= part
        weight[0] += np.float32(1) + weight[D + 1]
        for corner in range(D + 1):
            key = np.int64(0)
            for d in range(D):
                key = (key << FIELD) | (nearest[d] - (1 if rank[d] > D - corner else 0) + HALF)
            key = (key << LOW) | corner
            place = _slot(table, int(key))
            if table[place, 0] < 0:
                if count >= capacity:
                    return -1
                keys[count] = key
                table[place, 0], table[place, 1] = key, count
                count += 1
            vertex[i, corner] = table[place, 1]
            share[i, corner] = weight[corner]
    return count


@compiled("void(i8[::1], i8[:,::1], i4[:,:,::1])")
def link(keys: NDArray[np.int64], table: NDArray[np.int64], neighbours: NDArray[np.int32]) -> None:
    """Neighbours of vertices along the six axes.

    Args:
        keys: (M) of `locate`.
        table: of `locate`.
        neighbours: (6, 2, M), filled: the vertex before and the one after along each axis; M, a row of zeros, if there
            is none.
    """
    count = keys.shape[0]
    neighbours[:] = count
    every = np.int64(0)
    for d in range(D):
        every += np.int64(1) << (LOW + FIELD * d)
    for axis in range(D + 1):
        unit = np.int64(0) if axis == D else np.int64(1) << (LOW + FIELD * (D - 1 - axis))
        for v in range(count):
            # All coordinates fall by 1 and that of the axis rises by D; remainder r becomes r - 1, and 0 becomes D.
            wanted = keys[v] + unit - 1 if keys[v] & 7 else keys[v] + unit - every + D
            found = table[_slot(table, wanted), 1]
            if found >= 0:
                neighbours[axis, 1, v] = found
                neighbours[axis, 0, found] = v


@compiled("void(f4[:,::1], i4[:,::1], f4[:,::1], f4[:,::1])")
def splat(
    values: NDArray[np.float32], vertex: NDArray[np.int32], share: NDArray[np.float32], lattice: NDArray[np.float32]
) -> None:
    """Fill the lattice (M + 1, C) with the values (N, C), each shared out to the corners of its simplex."""
    lattice[:] = 0
    for i in range(values.shape[0]):
        value = values[i]
        for corner in range(D + 1):
            factor, into = share[i, corner], lattice[vertex[i, corner]]
            for c in range(values.shape[1]):
                into[c] += factor * value[c]


@compiled("void(f4[:,::1], i4[::1], i4[::1], f4[:,::1])")
def blur(
    lattice: NDArray[np.float32], before: NDArray[np.int32], after: NDArray[np.int32], blurred: NDArray[np.float32]
) -> None:
    """Fill `blurred` with each vertex's values and half of both neighbours' along an axis; the last row stays zero."""
    for v in range(before.shape[0]):
        here, left, right, into = lattice[v], lattice[before[v]], lattice[after[v]], blurred[v]
        for c in range(lattice.shape[1]):
            into[c] = here[c] + np.float32(0.5) * (left[c] + right[c])


@compiled("void(f4[:,::1], i4[:,::1], f4[:,::1], f4[:,::1])")
def slice_(
    lattice: NDArray[np.float32], vertex: NDArray[np.int32], share: NDArray[np.float32], sums: NDArray[np.float32]
) -> None:
    """Fill the sums (N, C) with what each pixel reads off the corners of its simplex."""
    for i in range(sums.shape[0]):
        v, s, into = vertex[i], share[i], sums[i]
        # All six at once: a sum per corner would be written and read six times.
        a, b, c, d, e, f = lattice[v[0]], lattice[v[1]], lattice[v[2]], lattice[v[3]], lattice[v[4]], lattice[v[5]]
        for j in range(sums.shape[1]):
            into[j] = s[0] * a[j] + s[1] * b[j] + s[2] * c[j] + s[3] * d[j] + s[4] * e[j] + s[5] * f[j]


@compiled("void(f4[:,::1], i4[:,::1], f4[:,::1], f4[:,::1])")
def splat_any(
    values: NDArray[np.float32], vertex: NDArray[np.int32], share: NDArray[np.float32], lattice: NDArray[np.float32]
) -> None:
    """`splat` for simplices of any number of corners, (N, D + 1)."""
    lattice[:] = 0
    for i in range(values.shape[0]):
        for corner in range(vertex.shape[1]):
            factor, into = share[i, corner], lattice[vertex[i, corner]]
            for c in range(values.shape[1]):
                into[c] += factor * values[i, c]


@compiled("void(f4[:,::1], i4[:,::1], f4[:,::1], f4[:,::1])")
def slice_any(
    lattice: NDArray[np.float32], vertex: NDArray[np.int32], share: NDArray[np.float32], sums: NDArray[np.float32]
) -> None:
    """`slice_` for simplices of any number of corners, (N, D + 1)."""
    sums[:] = 0
    for i in range(sums.shape[0]):
        for corner in range(vertex.shape[1]):
            factor, found = share[i, corner], lattice[vertex[i, corner]]
            for c in range(sums.shape[1]):
                sums[i, c] += factor * found[c]
