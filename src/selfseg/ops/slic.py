"""SLIC superpixels: k-means in colour and position, each pixel compared with the centres near it.

After Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods", TPAMI 2012
(https://doi.org/10.1109/TPAMI.2012.120).

The distance of a pixel to a centre is

    d^2 = (L - L')^2 + (a - a')^2 + (b - b')^2 + (ruler / size)^2 * ((x - x')^2 + (y - y')^2)

in CIELAB (sRGB, D65; L in 0..100) and pixels: `ruler` is the paper's m, the colour difference that weighs as much as
one grid step. Deviations from the paper, and why:

- A pixel is compared with the 3 x 3 centres around the grid cell it lies in (as in gSLIC, Ren & Reid 2011), not with
  the centres whose 2 x 2 cell windows hold it: each pixel always has candidates, and CPU and GPU do the same work.
- CIELAB comes from integer tables, in steps of 1/64, so that sums are exact in any order.
- A piece below the smallest size joins the neighbour of the nearest mean colour, not the one met last.
"""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError

ALGORITHM_VERSION = 1
"""Raised whenever the same image and parameters would give other regions; part of the region cache's key."""

_MOST_CENTRES = 2**24  # ids travel as float32 in the kernels


@cache
def _tables() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tables from sRGB to CIELAB.

    Returns:
        light: (3, 3, 256) int32 indexed by (X Y Z, R G B, value): its share of X / Xn and so on, in units of
            1 / (8191 * 256); the sums of a grey are equal in X, Y and Z, so that a grey has a = b = 0.
        root: (8193,) int32, f of CIE 15 in units of 2^-16.
    """
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.array(  # IEC 61966-2-1
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    matrix /= matrix.sum(1, keepdims=True)
    light = np.rint(matrix[:, :, None] * linear * (8191 * 256)).astype(np.int32)
    light[:, 1] = np.rint(linear * (8191 * 256)).astype(np.int32) - light[:, 0] - light[:, 2]
    light[:, 1] += 128  # so that the shift by 8 bits rounds
    t = np.arange(8193) / 8191
    root = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return light, np.rint(root * 65536).astype(np.int32)


def _cells(length: int, size: int) -> tuple[int, int]:
    """The number of grid cells along a side, and where the first begins (the outer cells take up the rest)."""
    count = max(1, (length + size // 2) // size)
    return count, (length - count * size) // 2


def check_parameters(size: int, ruler: float, iterations: int) -> None:
    """Raise ConfigError, with the value, if `slic` can't use a parameter."""
    if isinstance(size, bool) or int(size) != size or size < 2:
        raise ConfigError(f"size must be a whole number of at least 2 pixels, not {size!r}")
    if not (ruler > 0 and np.isfinite(ruler)):
        raise ConfigError(f"ruler must be a number above 0 (10 is usual), not {ruler!r}")
    if isinstance(iterations, bool) or int(iterations) != iterations or iterations < 1:
        raise ConfigError(f"iterations must be a whole number of at least 1, not {iterations!r}")


def _check_shape(size: int, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ConfigError(f"the image has no pixels: {height} x {width}")
    if _cells(height, size)[0] * _cells(width, size)[0] >= _MOST_CENTRES:
        raise ConfigError(f"size={size} gives too many superpixels at {width} x {height}; use a larger one")


def _rows(size: int, iterations: int) -> list[tuple[int, int]]:
    """The rows that each iteration but the last looks at, as (first, step); the last looks at all."""
    step = 2 if size >= 8 else 1
    return [(iteration % step, step) for iteration in range(iterations - 1)]


def smallest_piece(size: int, height: int, width: int) -> int:
    """The fewest pixels a superpixel may have: a quarter of a grid cell's (or all, in a tiny image)."""
    return min(size * size // 4, height * width)


_kept = threading.local()


def _workspace(
    height: int, width: int, tiles: int, tile: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """CIELAB, its running sums and labels, unfilled; the same arrays for this thread's next image of that shape.

    Fresh memory would cost a third of the time, since the system hands it out, zeroed, page by page.
    """
    shape = (height, width)
    if getattr(_kept, "shape", None) == shape:
        arrays: tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]] = _kept.arrays
        return arrays
    arrays = (
        np.empty((height, tiles, 3 * tile), np.float32),
        np.empty((height, width + 1, 3), np.int32),
        np.empty((height, tiles * tile), np.int32),
    )
    small = height * width <= 2**20  # some 28 MB
    _kept.shape, _kept.arrays = (shape, arrays) if small else (None, None)
    return arrays


def slic(
    image: NDArray[np.uint8], size: int = 20, ruler: float = 10.0, iterations: int = 5, connectivity: bool = True
) -> NDArray[np.int32]:
    """Superpixels of an image, on one CPU core.

    The first call of a process loads the compiled kernels; the first on a machine compiles them, which takes seconds.
    The same image and parameters always give the same regions.

    Args:
        image: (H, W, 3) uint8, RGB in [0, 255]; any size from 1 x 1.
        size: the mean spacing of superpixels, in pixels, at least 2. The image gets about H * W / size^2 of them.
        ruler: compactness: the difference in CIELAB (L in 0..100) that weighs as much as `size` pixels. 5 follows
            colours closely, 40 gives nearly square superpixels.
        iterations: rounds of assignment and update; quality hardly changes after 5 to 10.
        connectivity: whether each superpixel is made one 4-connected piece of at least size^2 / 4 pixels. Otherwise
            a superpixel may be scattered in its neighbourhood.

    Returns:
        (H, W) int32 ids, dense from 0, each used at least once; numbered in raster order of their first pixel.

    Raises:
        ConfigError: if the image or a parameter can't be used.

    Example:
        >>> image = np.zeros((40, 60, 3), np.uint8)
        >>> image[:, 30:] = 255
        >>> regions = slic(image, size=20)
        >>> regions.shape, int(regions.max()) + 1
        ((40, 60), 6)
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ConfigError(f"image must be an (H, W, 3) uint8 RGB array, not {what}")
    height, width = image.shape[:2]
    check_parameters(size, ruler, iterations)
    _check_shape(size, height, width)
    from selfseg.ops import _slic_cpu as cpu

    light, root = _tables()
    tiles = -(-width // cpu.TILE)
    weight = np.float32(ruler / size)
    lab, sums, labels = _workspace(height, width, tiles, cpu.TILE)
    cpu.to_lab(np.ascontiguousarray(image), light, root, lab, sums)

    columns, left = _cells(width, size)
    rows, top = _cells(height, size)
    shift = min(size, width)  # a larger one changes nothing: there is one column then
    padded = tiles * cpu.TILE
    cell_x = np.clip((np.arange(-shift, padded + shift) - left) // size, 0, columns - 1).astype(np.int32)
    cell_y = np.clip((np.arange(height) - top) // size, 0, rows - 1).astype(np.int32)
    centres = np.empty((rows, columns, 5), np.float32)
    # The grid itself is the first assignment: centres start at the mean colour of their cells.
    np.add(cell_y[:, None] * np.int32(columns), cell_x[shift : shift + padded], out=labels)
    cpu.update(labels, sums, weight, centres, 0, 1)
    tiled = labels.reshape(height, tiles, cpu.TILE)
    for first, step in _rows(size, iterations):
        cpu.assign(lab, centres, cell_x, cell_y, shift, weight, tiled, first, step)
        cpu.update(labels, sums, weight, centres, first, step)
    cpu.assign(lab, centres, cell_x, cell_y, shift, weight, tiled, 0, 1)
    out = np.empty((height, width), np.int32)
    if connectivity:
        cpu.connect(labels, sums, smallest_piece(size, height, width), out)
    else:
        cpu.densify(labels, rows * columns, out)
    return out
