"""The compiled CPU kernels of `selfseg.ops.regions.slic`.

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

from selfseg.telling import tell

F = TypeVar("F", bound=Callable[..., object])

TILE = 64
_FIELDS = 6  # L, a, b, x, y, id of a centre
_ZERO = np.float32(0)
FAR = np.float32(1e30)
FAR_AWAY = np.float32(1e12)  # its square is below `FAR`


def compiled(signature: str) -> Callable[[F], F]:
    """Compile for one signature, without the interpreter's lock; cached on disk where that is possible.

    No fast-math, not even fused multiply-add: the torch path then finds the same regions bit for bit.
    """

    def decorate(function: F) -> F:
        options = {"nogil": True, "error_model": "numpy", "boundscheck": False}
        try:
            made = numba.njit(signature, cache=True, **options)(function)
            often = "the first time that each part of the program runs"
        except RuntimeError:  # no folder at all can be written
            made = numba.njit(signature, **options)(function)
            often = "each time, because no cache folder can be written; NUMBA_CACHE_DIR names another one"
        if made.stats.cache_misses:  # it has just taken a second, and others will follow
            tell(f"compiling for this machine: up to half a minute, {often}")
        return cast(F, made)

    return decorate


@compiled("void(u1[:,:,::1], i4[:,:,::1], i4[::1], f4[:,:,::1], i4[:,:,::1])")
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
        root: (8193,): the tables of `selfseg.ops.regions.slic`.
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


@compiled("void(f4[:,:,::1], f4[:,:,::1], i4[::1], i4[::1], i8, f4, i4[:,:,::1], i8, i8)")
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
                    best[x] = FAR
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


@compiled("void(i4[:,::1], i4[:,:,::1], f4, f4[:,:,::1], i8, i8)")
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
    offset = step_y - 1 - 2 * first_y  # a row stands for all `step_y`: twice the way to their middle
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
            total[label, 4] += (2 * y + offset) * length
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
                centres[row, column, 4] = np.float32(total[label, 4] / (2.0 * count)) * weight


@compiled("void(u1[:,:,::1], f4, f4[:,:,::1], i4[:,:,::1], i4[:,::1])")
def to_tiles(
    image: NDArray[np.uint8],
    scale: np.float32,
    tiled: NDArray[np.float32],
    sums: NDArray[np.int32],
    labels: NDArray[np.int32],
) -> None:
    """`to_lab` for measured channels.

    Args:
        image: (H, W, C) levels.
        scale: of a level.
        tiled: (H, tiles, C * TILE), filled: the levels of each tile times `scale`; zero beyond the image.
        sums: (H, W + 1, C), filled: running sums along each row, in levels.
        labels: (H, tiles * TILE), -1 is written where all channels are 0.
    """
    height, width, channels = image.shape
    for y in range(height):
        tiled[y] = 0
        for c in range(channels):
            sums[y, 0, c] = 0
        for x in range(width):
            tile, place = tiled[y, x // TILE], x % TILE
            void = True
            for c in range(channels):
                level = np.int32(image[y, x, c])
                void = void and level == 0
                tile[c * TILE + place] = np.float32(level) * scale
                sums[y, x + 1, c] = sums[y, x, c] + level
            if void:
                labels[y, x] = -1


@compiled("void(f4[:,:,::1], f4[:,:,::1], i4[::1], i4[::1], i8, f4, i4[:,:,::1], i8, i8)")
def assign_channels(
    tiled: NDArray[np.float32],
    centres: NDArray[np.float32],
    cell_x: NDArray[np.int32],
    cell_y: NDArray[np.int32],
    shift: int,
    weight: np.float32,
    labels: NDArray[np.int32],
    first_y: int,
    step_y: int,
) -> None:
    """`assign` for any number of channels; pixels whose label is below 0 keep it.

    Args:
        tiled: (H, tiles, C * TILE) of `to_tiles`.
        centres: (rows, columns, C + 2) as (channels, x * weight, y * weight).
        cell_x: the grid column of each x from -shift to the tiles' end + shift.
        cell_y: (H,) the grid row of each y.
        shift: width of a cell in pixels.
        weight: ruler / size.
        labels: (H, tiles, TILE), filled.
        first_y: the first row of pixels to look at, and
        step_y: the distance to the next one.
    """
    rows, columns, fields = centres.shape
    channels = fields - 2
    height, tiles = labels.shape[:2]
    table = np.empty((9, fields * TILE), np.float32)  # the candidates of a row of cells, repeated along x
    names = np.empty((9, TILE), np.int32)
    best, distance = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    found = np.empty(TILE, np.int32)
    for t in range(tiles):
        there, candidates = -1, 0
        for y in range(first_y, height, step_y):
            if cell_y[y] != there:
                there, candidates = cell_y[y], 0
                for row in range(max(there - 1, 0), min(there + 1, rows - 1) + 1):
                    for side in range(3):
                        columns_here = cell_x[t * TILE + side * shift : (t + 1) * TILE + side * shift]
                        for x in range(TILE):
                            column = columns_here[x]
                            names[candidates, x] = row * columns + column
                            for field in range(fields):
                                table[candidates, field * TILE + x] = centres[row, column, field]
                        candidates += 1
            down, pixel = np.float32(y) * weight, tiled[y, t]
            best[:] = FAR
            found[:] = 0
            for candidate in range(candidates):
                line, name = table[candidate], names[candidate]
                distance[:] = 0
                for c in range(channels):
                    seen, wanted = pixel[c * TILE : (c + 1) * TILE], line[c * TILE : (c + 1) * TILE]
                    for x in range(TILE):
                        difference = seen[x] - wanted[x]
                        distance[x] += difference * difference
                centre_x, centre_y = line[channels * TILE :], line[(channels + 1) * TILE :]
                for x in range(TILE):
                    d_x = np.float32(t * TILE + x) * weight - centre_x[x]
                    d_y = down - centre_y[x]
                    total = distance[x] + d_x * d_x + d_y * d_y
                    if total < best[x]:
                        best[x], found[x] = total, name[x]
            label = labels[y, t]
            for x in range(TILE):
                if label[x] >= 0:
                    label[x] = found[x]


@compiled("void(i4[:,::1], i4[:,:,::1], f4, f4, f4[:,:,::1], i8, i8)")
def update_channels(
    labels: NDArray[np.int32],
    sums: NDArray[np.int32],
    scale: np.float32,
    weight: np.float32,
    centres: NDArray[np.float32],
    first_y: int,
    step_y: int,
) -> None:
    """`update` for any number of channels, whose sums are in levels of `scale`; labels below 0 count for nothing."""
    rows, columns, fields = centres.shape
    channels = fields - 2
    height, width = sums.shape[0], sums.shape[1] - 1
    total = np.zeros((rows * columns, fields + 1), np.int64)
    offset = step_y - 1 - 2 * first_y
    for y in range(first_y, height, step_y):
        start = 0
        while start < width:
            label = labels[y, start]
            stop = start + 1
            while stop < width and labels[y, stop] == label:
                stop += 1
            if label >= 0:
                length = stop - start
                for c in range(channels):
                    total[label, c] += sums[y, stop, c] - sums[y, start, c]
                total[label, channels] += (start + stop - 1) * length  # twice the sum of x
                total[label, channels + 1] += (2 * y + offset) * length
                total[label, fields] += length
            start = stop
    for row in range(rows):
        for column in range(columns):
            label = row * columns + column
            count = total[label, fields]
            if count > 0:
                for c in range(channels):
                    centres[row, column, c] = np.float32(total[label, c] / count) * scale
                centres[row, column, channels] = np.float32(total[label, channels] / (2.0 * count)) * weight
                centres[row, column, channels + 1] = np.float32(total[label, channels + 1] / (2.0 * count)) * weight
