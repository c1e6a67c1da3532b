"""The compiled CPU kernels of `selfseg.ops.slic`.

Imported on the first call only: importing numba and compiling takes seconds, once per machine. The compiled code is
kept beside this file or, where that can't be written, in the user's cache folder (`NUMBA_CACHE_DIR` overrides both).

Speed comes from the layout. The image is cut into tiles `TILE` pixels wide; all the rows that one inner loop reads lie
at offsets known to the compiler, which therefore proves that they don't overlap and uses vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., object])

TILE = 64
_FIELDS = 6  # L, a, b, x, y, id of a centre
_ZERO = np.float32(0)
_FAR = np.float32(1e30)


def _compiled(signature: str) -> Callable[[F], F]:
    """Compile for one signature, without the interpreter's lock; cached on disk where that is possible.

    No fast-math, not even fused multiply-add: the torch path then finds the same regions bit for bit.
    """

    def decorate(function: F) -> F:
        options = {"nogil": True, "error_model": "numpy", "boundscheck": False}
        try:
            return cast(F, numba.njit(signature, cache=True, **options)(function))
        except RuntimeError:  # no folder at all can be written
            return cast(F, numba.njit(signature, **options)(function))

    return decorate


@_compiled("void(u1[:,:,::1], i4[:,:,::1], i4[::1], f4[:,:,::1], i4[:,:,::1])")
def to_lab(
    image: NDArray[np.uint8],
    light: NDArray[np.int32],
    root: NDArray[np.int32],
    lab: NDArray[np.float32],
    sums: NDArray[np.int32],
) -> None:
    """Convert an image to CIELAB.

    Args:
        image: (H, W, 3).
        light: (3, 3, 256), and
        root: (8193,): the tables of `selfseg.ops.slic`.
        lab: (H, tiles, 3 * TILE), filled: L, a and b of each tile, in units of 1; zero beyond the image.
        sums: (H, W + 1, 3), filled: running sums along each row, in units of 1/64.
    """
    height = image.shape[0]
    scale = np.float32(1 / 64)
    for y in range(height):
        total_l = total_a = total_b = np.int32(0)
        total = sums[y]
        total[0, 0] = total[0, 1] = total[0, 2] = 0
        for t in range(lab.shape[1]):
            tile = lab[y, t]
            tile[:] = 0
            row = image[y, t * TILE : (t + 1) * TILE]
            after = total[t * TILE + 1 :]
            for x in range(row.shape[0]):
                r, g, b = row[x, 0], row[x, 1], row[x, 2]
                fx = root[np.uint32(light[0, 0, r] + light[0, 1, g] + light[0, 2, b]) >> 8]
                fy = root[np.uint32(light[1, 0, r] + light[1, 1, g] + light[1, 2, b]) >> 8]
                fz = root[np.uint32(light[2, 0, r] + light[2, 1, g] + light[2, 2, b]) >> 8]
                lab_l = np.int32(((7424 * fy + 32768) >> 16) - 1024)
                lab_a = np.int32((32000 * (fx - fy) + 32768) >> 16)
                lab_b = np.int32((12800 * (fy - fz) + 32768) >> 16)
                tile[x] = np.float32(lab_l) * scale
                tile[TILE + x] = np.float32(lab_a) * scale
                tile[2 * TILE + x] = np.float32(lab_b) * scale
                total_l += lab_l
                total_a += lab_a
                total_b += lab_b
                after[x, 0] = total_l
                after[x, 1] = total_a
                after[x, 2] = total_b


@_compiled("void(f4[:,:,::1], f4[:,:,::1], i4[::1], i4[::1], i8, f4, i4[:,:,::1], i8, i8)")
def assign(
    lab: NDArray[np.float32],
    centres: NDArray[np.float32],
    cell_x: NDArray[np.int32],
    cell_y: NDArray[np.int32],
    shift: int,
    weight: np.float32,
    labels: NDArray[np.int32],
    first_y: int,
    step_y: int,
) -> None:
    """Give each pixel the nearest of the 3 x 3 centres around its grid cell; the first in raster order if tied.

    Args:
        lab: (H, tiles, 3 * TILE) of `to_lab`.
        centres: (rows, columns, 5) as (L, a, b, x * weight, y * weight).
        cell_x: the grid column of each x from -shift to the tiles' end + shift.
        cell_y: (H,) the grid row of each y.
        shift: width of a cell in pixels.
        weight: ruler / size.
        labels: (H, tiles, TILE), filled.
        first_y: the first row of pixels to look at, and
        step_y: the distance to the next one.
    """
    rows, columns = centres.shape[:2]
    height, tiles = labels.shape[:2]
    table = np.empty((9, _FIELDS * TILE), np.float32)  # the centres of three grid rows, repeated along x
    best = np.empty(2 * TILE, np.float32)
    across = np.empty(TILE, np.float32)
    for t in range(tiles):
        for x in range(TILE):
            across[x] = np.float32(t * TILE + x) * weight
        ready = 0
        y = first_y
        for row in range(rows):
            stop = y
            while stop < height and cell_y[stop] == row:
                stop += step_y
            first, last = max(row - 1, 0), min(row + 1, rows - 1)
            while ready <= last:
                for side in range(3):
                    columns_here = cell_x[t * TILE + side * shift : (t + 1) * TILE + side * shift]
                    line = table[(3 * ready + side) % 9]
                    for x in range(TILE):
                        column = columns_here[x]
                        centre = centres[ready, column]
                        line[x] = centre[0]
                        line[TILE + x] = centre[1]
                        line[2 * TILE + x] = centre[2]
                        line[3 * TILE + x] = centre[3]
                        line[4 * TILE + x] = centre[4]
                        line[5 * TILE + x] = np.float32(ready * columns + column)
                ready += 1
            for pixel_y in range(y, stop, step_y):
                down = np.float32(pixel_y) * weight
                pixel = lab[pixel_y, t]
                for x in range(TILE):
                    best[x] = _FAR
                    best[TILE + x] = 0
                for candidate in range(3 * first, 3 * last + 3):
                    centre = table[candidate % 9]
                    for x in range(TILE):
                        d_l = pixel[x] - centre[x]
                        d_a = pixel[TILE + x] - centre[TILE + x]
                        d_b = pixel[2 * TILE + x] - centre[2 * TILE + x]
                        d_x = across[x] - centre[3 * TILE + x]
                        d_y = down - centre[4 * TILE + x]
                        distance = d_l * d_l + d_a * d_a + d_b * d_b + d_x * d_x + d_y * d_y
                        identity = centre[5 * TILE + x] + _ZERO
                        old, old_identity = best[x], best[TILE + x]
                        nearer = distance < old
                        best[x] = distance if nearer else old
                        best[TILE + x] = identity if nearer else old_identity
                label = labels[pixel_y, t]
                for x in range(TILE):
                    label[x] = np.int32(best[TILE + x])
            y = stop


@_compiled("void(i4[:,::1], i4[:,:,::1], f4, f4[:,:,::1], i8, i8)")
def update(
    labels: NDArray[np.int32],
    sums: NDArray[np.int32],
    weight: np.float32,
    centres: NDArray[np.float32],
    first_y: int,
    step_y: int,
) -> None:
    """Move each centre to the mean of its pixels in the rows that `assign` looked at; without any it stays.

    Sums are integers, hence exact in any order.
    """
    rows, columns = centres.shape[:2]
    height, width = sums.shape[0], sums.shape[1] - 1
    total = np.zeros((rows * columns, 6), np.int64)
    for y in range(first_y, height, step_y):
        start = 0
        while start < width:
            label = labels[y, start]
            stop = start + 1
            while stop < width and labels[y, stop] == label:
                stop += 1
            length = stop - start
            total[label, 0] += sums[y, stop, 0] - sums[y, start, 0]
            total[label, 1] += sums[y, stop, 1] - sums[y, start, 1]
            total[label, 2] += sums[y, stop, 2] - sums[y, start, 2]
            total[label, 3] += (start + stop - 1) * length  # twice the sum of x
            total[label, 4] += y * length
            total[label, 5] += length
            start = stop
    for row in range(rows):
        for column in range(columns):
            label = row * columns + column
            count = total[label, 5]
            if count > 0:
                for field in range(3):
                    centres[row, column, field] = np.float32(total[label, field] / (64.0 * count))
                centres[row, column, 3] = np.float32(total[label, 3] / (2.0 * count)) * weight
                centres[row, column, 4] = np.float32(total[label, 4] / float(count)) * weight


@_compiled("i8(i4[::1], i8)")
def _find(parent: NDArray[np.int32], node: int) -> int:
    """The root of a node; halves the path on its way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@_compiled("i8(i4[::1], i4[::1], i4[::1], i4[::1], i8, i4, i4)")
def _add_neighbour(
    head: NDArray[np.int32],
    tail: NDArray[np.int32],
    other: NDArray[np.int32],
    following: NDArray[np.int32],
    edges: int,
    one: int,
    two: int,
) -> int:
    """Append `two` to the list of `one`, unless it is already its last entry; returns the number of entries."""
    last = tail[one]
    if last >= 0 and other[last] == two:
        return edges
    other[edges] = two
    following[edges] = -1
    if last < 0:
        head[one] = edges
    else:
        following[last] = edges
    tail[one] = edges
    return edges + 1


@_compiled("void(i4[::1], i4[::1], i4[::1], i8[:,::1], i8, i4[::1], i8)")
def _merge(
    row_start: NDArray[np.int32],
    begin: NDArray[np.int32],
    piece: NDArray[np.int32],
    total: NDArray[np.int64],
    smallest: int,
    merged: NDArray[np.int32],
    width: int,
) -> None:
    """Join pieces of fewer than `smallest` pixels to the neighbour of the nearest mean colour, smallest first."""
    count, pieces = len(piece), len(total)
    # The neighbours of each small piece, as chained lists, so that joining pieces joins their lists.
    head, tail = np.full(pieces, -1, np.int32), np.full(pieces, -1, np.int32)
    other, following = np.empty(6 * count, np.int32), np.empty(6 * count, np.int32)
    small = np.empty(pieces, np.uint8)
    mean = np.empty((pieces, 3), np.float32)
    for one in range(pieces):
        small[one] = total[one, 3] < smallest
        share = 1.0 / total[one, 3]
        for field in range(3):
            mean[one, field] = np.float32(total[one, field] * share)
    edges = 0
    for y in range(len(row_start) - 1):
        upper = row_start[y - 1] if y else 0
        for run in range(row_start[y], row_start[y + 1]):
            one = piece[run]
            if run > row_start[y]:
                two = piece[run - 1]  # never the same label
                if small[one]:
                    edges = _add_neighbour(head, tail, other, following, edges, one, two)
                if small[two]:
                    edges = _add_neighbour(head, tail, other, following, edges, two, one)
            if y == 0:
                continue
            stop = begin[run + 1] if run + 1 < row_start[y + 1] else width
            while True:
                two = piece[upper]
                if one != two:
                    if small[one]:
                        edges = _add_neighbour(head, tail, other, following, edges, one, two)
                    if small[two]:
                        edges = _add_neighbour(head, tail, other, following, edges, two, one)
                if upper + 1 == row_start[y]:
                    break
                upper_stop = begin[upper + 1]
                if upper_stop > stop:
                    break
                upper += 1
                if upper_stop == stop:
                    break
    # Counting sort of the small pieces by size; stable, hence deterministic.
    start = np.zeros(smallest + 1, np.int32)
    for one in range(pieces):
        if total[one, 3] < smallest:
            start[total[one, 3] + 1] += 1
    for pixels in range(smallest):
        start[pixels + 1] += start[pixels]
    order = np.empty(start[smallest], np.int32)
    for one in range(pieces):
        if total[one, 3] < smallest:
            order[start[total[one, 3]]] = one
            start[total[one, 3]] += 1
    for one in order:
        if total[one, 3] >= smallest or merged[one] != one:
            continue  # it has grown, or was the whole of what is left
        nearest, best = -1, _FAR
        edge = head[one]
        while edge >= 0:
            two = _find(merged, other[edge])
            if two != one:
                d_l = mean[one, 0] - mean[two, 0]
                d_a = mean[one, 1] - mean[two, 1]
                d_b = mean[one, 2] - mean[two, 2]
                distance = d_l * d_l + d_a * d_a + d_b * d_b
                if distance < best or (distance == best and two < nearest):
                    nearest, best = two, distance
            edge = following[edge]
        if nearest < 0:
            continue  # it is the whole image
        merged[one] = nearest
        for field in range(4):
            total[nearest, field] += total[one, field]
        share = 1.0 / total[nearest, 3]
        for field in range(3):
            mean[nearest, field] = np.float32(total[nearest, field] * share)
        if head[nearest] < 0:
            head[nearest] = head[one]
        else:
            following[tail[nearest]] = head[one]
        tail[nearest] = tail[one]


@_compiled("i8(i4[:,::1], i4[:,:,::1], i8, i4[:,::1])")
def connect(labels: NDArray[np.int32], sums: NDArray[np.int32], smallest: int, out: NDArray[np.int32]) -> int:
    """Make every region one 4-connected piece of at least `smallest` pixels; ids dense in raster order.

    A smaller piece joins the neighbouring region whose mean colour is nearest, smallest pieces first.

    Returns:
        The number of regions.
    """
    height, width = out.shape
    # Runs of equal labels; there are some 10 times fewer than pixels.
    count = height
    for y in range(height):
        line = labels[y, :width]
        previous = line[: width - 1]
        for x in range(width - 1):
            count += np.int64(line[1 + x] != previous[x])
    row_start = np.empty(height + 1, np.int32)
    begin = np.empty(count + 1, np.int32)
    parent = np.empty(count, np.int32)
    run = 0
    for y in range(height):
        row_start[y] = run
        line = labels[y, :width]
        begin[run] = 0
        parent[run] = run
        run += 1
        label = line[0]
        for x in range(width):
            if line[x] != label:
                label = line[x]
                begin[run] = x
                parent[run] = run
                run += 1
    row_start[height] = count
    # Join runs that touch; a parent always comes before its children.
    for y in range(1, height):
        upper, upper_end = row_start[y - 1], row_start[y]
        for run in range(row_start[y], row_start[y + 1]):
            stop = begin[run + 1] if run + 1 < row_start[y + 1] else width
            label = labels[y, begin[run]]
            while True:
                upper_stop = begin[upper + 1] if upper + 1 < upper_end else width
                if labels[y - 1, begin[upper]] == label:
                    one = _find(parent, upper)
                    if parent[run] == run:
                        parent[run] = one
                    else:
                        two = _find(parent, run)
                        if one < two:
                            parent[two] = one
                        else:
                            parent[one] = two
                if upper_stop > stop or upper + 1 == upper_end:
                    break
                upper += 1
                if upper_stop == stop:
                    break
    piece = np.empty(count, np.int32)
    pieces = 0
    for run in range(count):
        if parent[run] == run:
            piece[run] = pieces
            pieces += 1
        else:
            piece[run] = piece[parent[run]]
    total = np.zeros((pieces, 4), np.int64)
    for y in range(height):
        for run in range(row_start[y], row_start[y + 1]):
            start = begin[run]
            stop = begin[run + 1] if run + 1 < row_start[y + 1] else width
            p = piece[run]
            total[p, 3] += stop - start
            for field in range(3):
                total[p, field] += sums[y, stop, field] - sums[y, start, field]
    merged = np.empty(pieces, np.int32)
    small = 0
    for p in range(pieces):
        merged[p] = p
        if total[p, 3] < smallest:
            small += 1
    if small:
        _merge(row_start, begin, piece, total, smallest, merged, width)
    number = np.full(pieces, -1, np.int32)
    regions = 0
    for y in range(height):
        for run in range(row_start[y], row_start[y + 1]):
            root = _find(merged, piece[run])
            if number[root] < 0:
                number[root] = regions
                regions += 1
            identity = number[root]
            stop = begin[run + 1] if run + 1 < row_start[y + 1] else width
            for x in range(begin[run], stop):
                out[y, x] = identity
    return regions


@_compiled("i8(i4[:,::1], i8, i4[:,::1])")
def densify(labels: NDArray[np.int32], centres: int, out: NDArray[np.int32]) -> int:
    """Renumber labels densely in raster order; returns how many there are."""
    number = np.full(centres, -1, np.int32)
    regions = 0
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            label = labels[y, x]
            if number[label] < 0:
                number[label] = regions
                regions += 1
            out[y, x] = number[label]
    return regions
