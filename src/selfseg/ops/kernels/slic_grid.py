"""The grid that superpixels begin from, as every kernel is handed it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Grid(NamedTuple):
    """The grid of cells on a device, as of `selfseg.ops.regions.slic._grid`.

    Attributes:
        rows: of cells.
        columns: of cells.
        shift: from a pixel to its candidates in pixels.
        cell_y: (H,) int32.
        cell_x: (W + 2 shift,) int32.
        edge_y: (rows + 1,) int32, where each row of cells begins, and the height.
        edge_x: (columns + 1,) int32, where each column begins, and the width.
        weight: () float32, ruler / size.
    """

    rows: int
    columns: int
    shift: int
    cell_y: Tensor
    cell_x: Tensor
    edge_y: Tensor
    edge_x: Tensor
    weight: Tensor
