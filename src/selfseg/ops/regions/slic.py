"""SLIC superpixels: k-means in colour and position, each pixel compared with the centres near it.

After Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods", TPAMI 2012
(https://doi.org/10.1109/TPAMI.2012.120).

The distance of a pixel to a centre is

    d^2 = (L - L')^2 + (a - a')^2 + (b - b')^2 + (ruler / size)^2 * ((x - x')^2 + (y - y')^2)

in CIELAB (sRGB, D65; L in 0..100) and pixels: `ruler` is the paper's m, the colour difference that weighs as much as
one grid step. Deviations from the paper, and why:

- A pixel is compared with the 3 x 3 centres around the grid cell it lies in (as in gSLIC, Ren & Reid 2011), not with
  the centres whose 2 x 2 cell windows hold it: each pixel always has candidates, and CPU and GPU do the same work.
- Centres start at the mean colour of their cells, not at one pixel that is moved to the lowest gradient.
- From size 8 on, every iteration but the last looks at every other row, even and odd ones in turn, which
  saves about a quarter of the time.
- CIELAB comes from integer tables, in steps of 1/64, so that sums are exact in any order. It is within 0.5 of the
  exact value (0.02 on average; the largest differences are in a of nearly black pixels).
- A piece below the smallest size joins the neighbour of the nearest mean colour, smallest first, not the one met last.

Of measured channels (`selfseg.ops.levels`) the levels take the place of L, a and b, as `colour_like` scales them: the
whole range of all channels counts 100, as from black to white in L. Void pixels are in no superpixel: -1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.errors import ConfigError
from selfseg.ops.kernels.slic_grid import Grid
from selfseg.ops.kernels.with_triton import by_triton
from selfseg.ops.levels import check_image, level_scale

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


def _grid(
    height: int, width: int, size: int, padded: int
) -> tuple[int, int, int, NDArray[np.int32], NDArray[np.int32]]:
    """The grid of cells: rows, columns, shift, the row of each y, and the column of each x in [-shift, padded + shift).

    The candidates of x are the centres in the columns of x - shift, x and x + shift.
    """
    columns, left = _cells(width, size)
    rows, top = _cells(height, size)
    shift = min(size, width)  # a larger one changes nothing: there is one column then
    cell_x = np.clip((np.arange(-shift, padded + shift) - left) // size, 0, columns - 1).astype(np.int32)
    cell_y = np.clip((np.arange(height) - top) // size, 0, rows - 1).astype(np.int32)
    return rows, columns, shift, cell_y, cell_x


def check_parameters(size: int, ruler: float, iterations: int) -> None:
    """Raise ConfigError, with the value, if `slic` can't use a parameter."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 2:
        raise ConfigError(f"size must be a whole number of at least 2 pixels, not {size!r}")
    if not (ruler > 0 and np.isfinite(ruler)):
        raise ConfigError(f"ruler must be a number above 0 (10 is usual), not {ruler!r}")
    if isinstance(iterations, bool) or not isinstance(iterations, int | np.integer) or iterations < 1:
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

    Fresh memory would cost 1 to 2 ms at 480 x 360, since the system hands it out, zeroed, page by page.
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
    image: NDArray[np.uint8],
    size: int = 20,
    ruler: float = 10.0,
    iterations: int = 5,
    connectivity: bool = True,
    rgb: bool = True,
) -> NDArray[np.int32]:
    """Superpixels of an image, on one CPU core.

    The first call of a process loads the compiled kernels; the first on a machine compiles them, which takes seconds.
    The same image and parameters always give the same regions.

    Args:
        image: (H, W, 3) uint8, RGB in [0, 255], or (H, W, C) levels of measured channels; any size from 1 x 1.
        size: the mean spacing of superpixels, in pixels, at least 2. The image gets about H * W / size^2 of them.
        ruler: compactness: the difference in CIELAB (L in 0..100) that weighs as much as `size` pixels. 5 follows
            colours closely, 40 gives nearly square superpixels. Of levels 100 is the whole range of all channels.
        iterations: rounds of assignment and update; quality hardly changes after 5 to 10.
        connectivity: whether each superpixel is made one 4-connected piece of at least size^2 / 4 pixels. Otherwise
            a superpixel may be scattered in its neighbourhood. An island in what is void may be smaller.
        rgb: whether the image is a photograph; False for levels.

    Returns:
        (H, W) int32 ids, dense from 0, each used at least once; numbered in raster order of their first pixel. Void
        pixels of levels have -1.

    Raises:
        ConfigError: if the image or a parameter can't be used.

    Example:
        >>> image = np.zeros((40, 60, 3), np.uint8)
        >>> image[:, 20:] = 255
        >>> regions = slic(image, size=20)
        >>> regions.shape, int(regions.max()) + 1
        ((40, 60), 6)
    """
    check_image(image, rgb)
    height, width = image.shape[:2]
    check_parameters(size, ruler, iterations)
    _check_shape(size, height, width)
    if not rgb:
        return _slic_channels(image, size, ruler, iterations, connectivity)
    from selfseg.ops.kernels import slic_cpu as cpu

    light, root = _tables()
    tiles = -(-width // cpu.TILE)
    weight = np.float32(ruler / size)
    lab, sums, labels = _workspace(height, width, tiles, cpu.TILE)
    cpu.to_lab(np.require(image, requirements=["C", "W"]), light, root, lab, sums)

    padded = tiles * cpu.TILE
    rows, columns, shift, cell_y, cell_x = _grid(height, width, size, padded)
    centres = np.empty((rows, columns, 5), np.float32)
    # The grid itself is the first assignment: centres start at the mean colour of their cells.
    np.add(cell_y[:, None] * np.int32(columns), cell_x[shift : shift + padded], out=labels)
    cpu.update(labels, sums, weight, centres, 0, 1)
    tiled = labels.reshape(height, tiles, cpu.TILE)
    for first, step in _rows(size, iterations):
        cpu.assign(lab, centres, cell_x, cell_y, shift, weight, tiled, first, step)
        cpu.update(labels, sums, weight, centres, first, step)
    cpu.assign(lab, centres, cell_x, cell_y, shift, weight, tiled, 0, 1)
    return _pieces(labels, sums, (height, width), size, rows * columns, connectivity)


def _slic_channels(
    image: NDArray[np.uint8], size: int, ruler: float, iterations: int, connectivity: bool
) -> NDArray[np.int32]:
    """`slic` of (H, W, C) levels."""
    from selfseg.ops.kernels import slic_cpu as cpu

    height, width, channels = image.shape
    tiles = -(-width // cpu.TILE)
    padded = tiles * cpu.TILE
    weight, scale = np.float32(ruler / size), level_scale(channels)
    rows, columns, shift, cell_y, cell_x = _grid(height, width, size, padded)
    labels = cell_y[:, None] * np.int32(columns) + cell_x[shift : shift + padded]
    tiled = np.empty((height, tiles, channels * cpu.TILE), np.float32)
    sums = np.empty((height, width + 1, channels), np.int32)
    cpu.to_tiles(np.require(image, requirements=["C", "W"]), scale, tiled, sums, labels)
    centres = np.full((rows, columns, channels + 2), cpu.FAR_AWAY, np.float32)  # a void cell's is no pixel's nearest
    cpu.update_channels(labels, sums, scale, weight, centres, 0, 1)
    by_tile = labels.reshape(height, tiles, cpu.TILE)
    for first, step in _rows(size, iterations):
        cpu.assign_channels(tiled, centres, cell_x, cell_y, shift, weight, by_tile, first, step)
        cpu.update_channels(labels, sums, scale, weight, centres, first, step)
    cpu.assign_channels(tiled, centres, cell_x, cell_y, shift, weight, by_tile, 0, 1)
    return _pieces(labels, sums, (height, width), size, rows * columns, connectivity)


def _pieces(
    labels: NDArray[np.int32],
    sums: NDArray[np.int32],
    shape: tuple[int, int],
    size: int,
    cells: int,
    connectivity: bool,
) -> NDArray[np.int32]:
    """The superpixels of an image of a shape, dense from 0, of the grid cells that its pixels were given."""
    from selfseg.ops.kernels import slic_connect

    out = np.empty(shape, np.int32)
    if connectivity:
        slic_connect.connect(labels, sums, smallest_piece(size, *shape), out)
    else:
        slic_connect.densify(labels, cells, out)
    return out


def slic_batched(
    images: Tensor, size: int = 20, ruler: float = 10.0, iterations: int = 5, connectivity: bool = True
) -> Tensor:
    """Superpixels of a batch of photographs on its device: the regions that `slic` finds, bit for bit on a CPU.

    Colours, centres and assignments are computed on the device, by Triton kernels on CUDA if triton is installed and
    by torch operations otherwise. Connectivity is enforced on the CPU, by the kernel of `slic` in as many threads as
    there are cores: labels and colours travel to the host (8 bytes a pixel), and ids back, while the device is at work
    on the next images.

    The CUDA path has not been run on a GPU yet. Its integer sums don't depend on order, and its kernels are compiled
    without fused multiply-add, so that no other regions are expected there either. On a CPU, `slic` is far quicker.

    Args:
        images: (B, 3, H, W) float RGB in [0, 1], rounded to 8 bits; any device.
        size: the mean spacing of superpixels, in pixels, at least 2.
        ruler: compactness, as in `slic`.
        iterations: rounds of assignment and update.
        connectivity: as in `slic`.

    Returns:
        (B, H, W) int64 on the device of `images`; the ids of each image are dense from 0, in raster order.

    Raises:
        ConfigError: if the batch or a parameter can't be used.

    Example:
        >>> regions = slic_batched(torch.rand(2, 3, 40, 60), size=20)
        >>> regions.shape, regions.dtype
        (torch.Size([2, 40, 60]), torch.int64)
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ConfigError(f"images must be (B, 3, H, W) float in [0, 1], not {images.dtype} {tuple(images.shape)}")
    height, width = images.shape[2:]
    check_parameters(size, ruler, iterations)
    _check_shape(size, height, width)
    device = images.device
    grid = _grid_on(device, height, width, size, ruler)
    centres, smallest = grid.rows * grid.columns, smallest_piece(size, height, width)
    if by_triton(device):
        from selfseg.ops.kernels import slic_cuda

        tables = [torch.from_numpy(table).to(device) for table in _tables()]
        finisher = slic_cuda.Finisher(device, centres, smallest, connectivity)
        with torch.cuda.device_of(images), finisher:  # type: ignore[no-untyped-call]
            for part in torch.split(images, slic_cuda.PART):
                lab = slic_cuda.to_lab((part * 255).round_().clamp_(0, 255).to(torch.uint8), *tables)
                labels = _iterate(lab, lab, grid, size, iterations, slic_cuda.assign, slic_cuda.move)
                finisher.add(labels, lab)
            return finisher.result()
    lab = _to_lab(images)  # (B, 3, H, W) int32
    labels = _iterate(lab, lab.float() * (1 / 64), grid, size, iterations, _assign, _move)
    return _finish(labels, lab, centres, smallest, connectivity).to(device)


def _grid_on(device: torch.device, height: int, width: int, size: int, ruler: float) -> Grid:
    rows, columns, shift, cell_y, cell_x = _grid(height, width, size, width)
    edge_y = np.searchsorted(cell_y, np.arange(rows + 1)).astype(np.int32)
    edge_x = np.searchsorted(cell_x[shift : shift + width], np.arange(columns + 1)).astype(np.int32)
    y, x, y_edge, x_edge = (torch.from_numpy(array).to(device) for array in (cell_y, cell_x, edge_y, edge_x))
    weight = torch.tensor(ruler / size, dtype=torch.float32, device=device)
    return Grid(rows, columns, shift, y, x, y_edge, x_edge, weight)


def _iterate(
    lab: Tensor,
    pixels: Tensor,
    grid: Grid,
    size: int,
    iterations: int,
    assign: Callable[[Tensor, Tensor, Grid, int, int], Tensor],
    move: Callable[[Tensor, Tensor, Tensor, Grid, int, int], None],
) -> Tensor:
    """Rounds of assignment and update; lab (B, 3, H, W) whole numbers, pixels what `assign` takes of it."""
    batch, width = len(lab), lab.shape[3]
    centres = torch.zeros(batch, grid.rows * grid.columns, 5, device=lab.device)
    # The grid itself is the first assignment: centres start at the mean colour of their cells.
    cells = grid.cell_y[:, None] * grid.columns + grid.cell_x[grid.shift : grid.shift + width]
    move(centres, cells.expand(batch, -1, -1), lab, grid, 0, 1)
    for first, step in _rows(size, iterations):
        move(centres, assign(pixels, centres, grid, first, step), lab, grid, first, step)
    return assign(pixels, centres, grid, 0, 1)


def _to_lab(images: Tensor) -> Tensor:
    """(B, 3, H, W) float RGB in [0, 1] to int32 CIELAB in units of 1/64."""
    light, root = (torch.from_numpy(table).to(images.device) for table in _tables())
    red, green, blue = (images * 255).round_().clamp_(0, 255).long().unbind(1)
    fx, fy, fz = (root[(share[0][red] + share[1][green] + share[2][blue]).long() >> 8].long() for share in light)
    lab = (((7424 * fy + 32768) >> 16) - 1024, (32000 * (fx - fy) + 32768) >> 16, (12800 * (fy - fz) + 32768) >> 16)
    return torch.stack(lab, 1).int()


def _assign(pixels: Tensor, centres: Tensor, grid: Grid, first_y: int, step_y: int) -> Tensor:
    """The nearest centre of the pixels in every `step_y`-th row: (B, lines, W) int32. Operations in `slic`'s order."""
    batch, _, height, width = pixels.shape
    device = pixels.device
    pixels = pixels[:, :, first_y::step_y]
    lines = pixels.shape[2]
    across = torch.arange(width, dtype=torch.float32, device=device) * grid.weight
    down = torch.arange(first_y, height, step_y, dtype=torch.float32, device=device)[:, None] * grid.weight
    best = torch.full((batch, lines, width), 1e30, device=device)
    labels = torch.zeros((batch, lines, width), dtype=torch.int32, device=device)
    for near in (-1, 0, 1):
        row = grid.cell_y[first_y::step_y, None] + near
        valid = (row >= 0) & (row < grid.rows)
        for side in (0, 1, 2):
            identity = row.clamp(0, grid.rows - 1) * grid.columns + grid.cell_x[side * grid.shift :][:width]
            centre = centres[:, identity.reshape(-1).long()].view(batch, lines, width, 5)
            distance = (pixels[:, 0] - centre[..., 0]) ** 2
            for channel in (1, 2):
                distance += (pixels[:, channel] - centre[..., channel]) ** 2
            distance += (across - centre[..., 3]) ** 2
            distance += (down - centre[..., 4]) ** 2
            nearer = (distance < best) & valid
            best = torch.where(nearer, distance, best)
            labels = torch.where(nearer, identity, labels)
    return labels


def _add_up(labels: Tensor, lab: Tensor, count: int, first_y: int, step_y: int) -> Tensor:
    """Pixels of each centre, and the sums of their L, a, b, x and 2 y + step_y - 1 - 2 first_y: (6, B, count) int64."""
    batch, _, height, width = lab.shape
    device = lab.device
    index = (labels + torch.arange(batch, device=device)[:, None, None] * count).reshape(-1)

    def total(values: Tensor) -> Tensor:
        sums = torch.zeros(batch * count, dtype=torch.int64, device=device)
        return sums.index_add_(0, index, values.expand(labels.shape).reshape(-1).long()).view(batch, count)

    down = 2 * torch.arange(first_y, height, step_y, device=device)[:, None] + (step_y - 1 - 2 * first_y)
    return torch.stack(
        [
            total(torch.ones((), dtype=torch.int64, device=device)),
            *(total(lab[:, c, first_y::step_y]) for c in range(3)),
            total(torch.arange(width, device=device)),
            total(down),
        ]
    )


def _move(centres: Tensor, labels: Tensor, lab: Tensor, grid: Grid, first_y: int, step_y: int) -> None:
    """Move each centre (B, count, 5) to the mean of its pixels; one without any stays."""
    totals = _add_up(labels, lab, centres.shape[1], first_y, step_y)
    area = totals[0]
    divisor = area.clamp(min=1).double()
    means = [(totals[1 + c] / (64 * divisor)).float() for c in range(3)]
    means.append((totals[4] / divisor).float() * grid.weight)
    means.append((totals[5] / (2 * divisor)).float() * grid.weight)
    torch.where((area > 0)[..., None], torch.stack(means, -1), centres, out=centres)


def _finish(labels: Tensor, lab: Tensor, centres: int, smallest: int, connectivity: bool) -> Tensor:
    """Connected (or only dense) ids: (B, H, W) int64 on the CPU."""
    from selfseg.ops.kernels import slic_connect

    label = labels.int().cpu().contiguous().numpy()
    colour = lab.to(torch.int16).cpu().numpy()  # |a|, |b| < 128 * 64
    batch, height, width = label.shape
    out = np.empty((batch, height, width), np.int32)

    def one(index: int) -> None:
        if not connectivity:
            slic_connect.densify(label[index], centres, out[index])
            return
        sums = np.empty((height, width + 1, 3), np.int32)
        slic_connect.running_sums(colour[index], sums)
        slic_connect.connect(label[index], sums, smallest, out[index])

    with ThreadPoolExecutor(max(1, min(batch, torch.get_num_threads()))) as pool:
        list(pool.map(one, range(batch)))
    return torch.from_numpy(out).long()
