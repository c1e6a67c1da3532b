"""Affine maps between a view and its source image, and maps of ids cut from it.

Frame: both sides of an affine map live in [-1, 1] x [-1, 1], (x, y), `align_corners=False`: -1 is the outer edge of the
first pixel, +1 the outer edge of the last. A map is a (2, 3) matrix [A | b]: p_image = A p_view + b. A horizontal flip
shows as a negative determinant of A.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in whole pixels, edges: (0, 0, W, H) is the whole image."""


def crop_affine(
    box: tuple[float, float, float, float], image_size: tuple[int, int], flip: bool = False
) -> NDArray[np.float32]:
    """The affine of a crop that is resized to any size.

    Args:
        box: (x0, y0, x1, y1) in pixels of the image, edges: (0, 0, W, H) is the whole image.
        image_size: (H, W).
        flip: whether the view is mirrored left to right.

    Returns:
        (2, 3) float32, from view to image.

    Example:
        >>> crop_affine((0, 0, 4, 4), (4, 8)).tolist()
        [[0.5, 0.0, -0.5], [0.0, 1.0, 0.0]]
    """
    x0, y0, x1, y1 = box
    height, width = image_size
    scale_x, scale_y = (x1 - x0) / width, (y1 - y0) / height
    shift_x, shift_y = (x0 + x1) / width - 1, (y0 + y1) / height - 1
    return np.array([[-scale_x if flip else scale_x, 0, shift_x], [0, scale_y, shift_y]], np.float32)


def invert(affine: Tensor) -> Tensor:
    """The inverse maps.

    Args:
        affine: (B, 2, 3).

    Returns:
        (B, 2, 3).
    """
    linear = torch.linalg.inv(affine[:, :, :2])
    return torch.cat([linear, -linear @ affine[:, :, 2:]], dim=2)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The map that applies `inner` first, then `outer`; both (B, 2, 3)."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    return torch.cat([linear, outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]], dim=2)


def bounds(affine: Tensor) -> Tensor:
    """The box that a view covers in its image.

    Args:
        affine: (B, 2, 3), axis-aligned.

    Returns:
        (B, 4) as (x0, y0, x1, y1) in the image's [-1, 1] frame.
    """
    half = affine[:, :, :2].abs().sum(2)
    return torch.cat([affine[:, :, 2] - half, affine[:, :, 2] + half], dim=1)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """The box common to two views of an image, in the image's frame; x1 <= x0 or y1 <= y0 where there is none.

    Args:
        first: (B, 2, 3).
        second: (B, 2, 3).

    Returns:
        (B, 4) as (x0, y0, x1, y1) in [-1, 1].
    """
    a, b = bounds(first), bounds(second)
    return torch.cat([torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])], dim=1)


def interpolation_matrices(to_image: Tensor, box: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """How a box of the image, cut into h x w cells, is read bilinearly from a view's map of h x w cells.

    `rows @ map @ columns.T` is the box in the image's orientation, whatever the view's flip: what RoIAlign (aligned,
    one sample per cell) does with the box in the view, and a flip back.

    Args:
        to_image: (B, 2, 3), axis-aligned, from view to image.
        box: (B, 4) as (x0, y0, x1, y1) in the image's [-1, 1] frame, inside of what the view covers.
        size: (h, w).

    Returns:
        rows (B, h, h), columns (B, w, w), in the dtype of `to_image`; every row sums to 1.

    Example:
        >>> whole, left = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]), torch.tensor([[-1.0, -1, 0, 1]])
        >>> interpolation_matrices(whole, left, (1, 2))[1]
        tensor([[[1.0000, 0.0000],
                 [0.7500, 0.2500]]])
    """
    matrices = []
    for axis, cells in ((1, size[0]), (0, size[1])):
        scale, shift = to_image[:, axis, axis, None], to_image[:, axis, 2, None]  # (B, 1)
        low, high = box[:, axis, None], box[:, axis + 2, None]
        middle = (torch.arange(cells, device=box.device, dtype=box.dtype) + 0.5) / cells
        inside = (low + middle * (high - low) - shift) / scale  # (B, cells) in the view's [-1, 1]
        place = ((inside + 1) * (cells / 2) - 0.5).clamp(0, cells - 1)
        # A cell's weight falls linearly to 0 at its neighbours' middles.
        distance = place[:, :, None] - torch.arange(cells, device=box.device, dtype=box.dtype)
        matrices.append((1 - distance.abs()).clamp(min=0))
    return matrices[0], matrices[1]


def warp(image: Tensor, affine: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """What a view sees of an image.

    Args:
        image: (B, C, H, W) float.
        affine: (B, 2, 3), from view to image.
        size: (h, w) of the result.
        mode: "bilinear" or "nearest".

    Returns:
        (B, C, h, w); zero outside of the image.
    """
    grid = F.affine_grid(affine.to(image), [image.shape[0], 1, *size], align_corners=False)
    return F.grid_sample(image, grid, mode=mode, align_corners=False)


def sample_ids(ids: NDArray[np.int32], box: Box, size: tuple[int, int], flip: bool = False) -> NDArray[np.int32]:
    """The ids at the centres of the cells of a grid over a box.

    Args:
        ids: (H, W) int32.
        box: in the map's pixels; what lies outside of the map is -1.
        size: (rows, columns) of the grid.
        flip: whether the result is mirrored left to right.

    Returns:
        (rows, columns) int32.

    Example:
        >>> sample_ids(np.arange(6, dtype=np.int32).reshape(2, 3), (1, 0, 3, 2), (2, 4), flip=True)
        array([[2, 2, 1, 1],
               [5, 5, 4, 4]], dtype=int32)
    """
    x0, y0, x1, y1 = box
    # floor((j + 1/2) * side / cells) in whole numbers: no rounding can move a centre into the next pixel.
    rows = y0 + (2 * np.arange(size[0]) + 1) * (y1 - y0) // (2 * size[0])
    columns = x0 + (2 * np.arange(size[1]) + 1) * (x1 - x0) // (2 * size[1])
    if flip:
        columns = columns[::-1]
    height, width = ids.shape
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        found = np.full(size, -1, np.int32)
        (top, bottom), (left, right) = _between(rows, height), _between(columns, width)
        inside = np.take(np.take(ids, rows[top:bottom], axis=0), columns[left:right], axis=1)
        found[top:bottom, left:right] = inside
        return found
    # Rows, then columns: the same as one two-dimensional index, in a third of its time.
    return np.take(np.take(ids, rows, axis=0), columns, axis=1)


def _between(places: NDArray[np.int_], length: int) -> tuple[int, int]:
    """The range of those that lie in [0, length); they rise or fall."""
    inside = np.flatnonzero((places >= 0) & (places < length))
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
