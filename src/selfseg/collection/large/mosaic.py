"""An image that is too large to be looked at whole: overlapping windows whose scores are blended, row by row.

Letters in shapes: H W pixels of an image, h w cells of its grid, K scores of a cell, C channels.

The grid has cells of a whole number of pixels, so that every window begins with a cell and all windows see the image at
one scale: that at which the run saw its own windows. Two neighbouring windows share half of their cells. A cell's
scores are the mean of what its windows (four of them, away from the edges) say, weighted by the third power of how far
it lies from each window's edge, where a network sees least around it. So the scores change smoothly from window to
window, and there is no seam.

Windows begin a whole number of the network's coarsest steps from each other, since a network says something else of an
image that is moved by a part of a step. The superpixels by which a run may smooth lie on one lattice in all windows.
docs/rasters.md has what that is worth.

Rows of cells are given out as soon as no further window reaches them: of the image only a strip of a window's height is
held, and of the scores as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.streaming import beside
from selfseg.data.reading.ahead import pixels_of
from selfseg.data.reading.formats.base import Window
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.windows import WINDOW
from selfseg.fitting.memory import return_memory
from selfseg.models.embedder import Embedder
from selfseg.ops.levels import among_measured, resize
from selfseg.ops.regions.smoothing import natural_spacing
from selfseg.threads import one_thread_each

Scores = Callable[[Tensor], Tensor]
"""What a cell is given: an embedding (D, h, w) to (h, w, K) float."""

_CHUNK = 1 << 22  # pixels of a strip that are read at once


@dataclass(frozen=True)
class Mosaic:
    """The grid of a large image and its windows.

    Attributes:
        size: (H, W) of the image.
        cell: px of a cell, in both directions.
        seen: px of a cell as the embedder looks at it.
        side: cells of a window.
        phase: windows begin at a multiple of so many cells.
        spacing: px, as the embedder looks at them, between the superpixels by which it smooths; 0 = it doesn't. The
            network's coarsest step is a multiple of it: so overlapping windows have the same superpixels.

    Example:
        >>> mosaic = Mosaic((1000, 450), cell=20, seen=8, side=20)
        >>> mosaic.grid, mosaic.rows
        ((50, 23), [0, 10, 20, 30])
    """

    size: tuple[int, int]
    cell: int
    seen: float
    side: int
    phase: int = 1
    spacing: int = 0

    @staticmethod
    def of(embedder: Embedder, size: tuple[int, int]) -> Mosaic:
        """As an embedder looks at an image: its windows are as near to `Embedder.window` px as cells allow."""
        window = embedder.window or WINDOW
        seen = embedder.looked_stride
        side = max(2, round((embedder.resolution or window) / seen))
        stride = embedder.config.output_stride
        phase = max(1, min(side // 2, round(stride / seen)))
        spacing = 0
        if embedder.config.smooth:
            natural = natural_spacing(round(side * seen), round(side * seen))
            spacing = min((stride // parts for parts in (1, 2, 4, 8)), key=lambda size: abs(math.log(size / natural)))
        return Mosaic(size, max(1, round(window / side)), seen, side, phase, spacing)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): cells that cover the image; the last ones may reach beyond it."""
        return -(-self.size[0] // self.cell), -(-self.size[1] // self.cell)

    @property
    def rows(self) -> list[int]:
        """The first rows of the windows, in cells."""
        return self._starts(self.grid[0])

    @property
    def columns(self) -> list[int]:
        """Their first columns."""
        return self._starts(self.grid[1])

    @property
    def step(self) -> int:
        """Cells from a window to the next: half a window."""
        return max(1, self.side // 2 // self.phase) * self.phase

    def _starts(self, cells: int) -> list[int]:
        """Where windows begin; the last one reaches to the end, and is longer than the others by less than a phase."""
        last = max(0, cells - self.side) // self.phase * self.phase
        return [*range(0, last, self.step), last]

    def end(self, start: int, cells: int) -> int:
        """Where the window that begins at `start` ends, of a grid of so many cells."""
        return cells if start == self._starts(cells)[-1] else start + self.side


class Rows(NamedTuple):
    """Finished rows of a mosaic.

    Attributes:
        first: of the rows, in cells.
        scores: (r, w, K) float32.
        image: (R, W, C) uint8, the pixels of these rows; the image's last row of cells may have fewer.
    """

    first: int
    scores: Tensor
    image: NDArray[np.uint8]


@torch.no_grad()
def blended_rows(
    embedder: Embedder,
    collection: ImageCollection,
    index: int,
    mosaic: Mosaic,
    scores: Scores,
    first: int = 0,
    look: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Rows]:
    """The scores of all cells of one large image, a few rows at a time, from the top.

    Args:
        embedder: on its device.
        collection: the images.
        index: of the image.
        mosaic: of it.
        scores: of the cells of one window.
        first: the row of cells to begin with, one of those that an earlier call's pieces began with: the pieces from
            there on are then the same to the bit.
        look: of a batch (1, C, h, w) in [0, 1], instead of the embedder's own.

    Yields:
        Rows, each beginning where the one before ended.

    Raises:
        BadImage: if a part of the image can't be read.
    """
    height, width = mosaic.grid
    starts = mosaic.rows
    total: Tensor | None = None  # of the rows from `done` on, weighted sums
    weights = torch.zeros(0, width)
    done = first

    def look_at(window: tuple[int, NDArray[np.uint8]]) -> Tensor:
        with torch.no_grad():
            return scores(embedder.embed_prepared([window[1]], look)[0]).float().cpu()

    @contextmanager
    def on_one_lattice() -> Iterator[None]:
        embedder.superpixels = mosaic.spacing or None
        try:
            yield
        finally:
            embedder.superpixels = None

    with _Strip(collection, index, mosaic) as strip, one_thread_each(), on_one_lattice():
        for number, top in enumerate(starts):
            rows = mosaic.end(top, height) - top
            if top + rows <= first:  # an earlier call gave all that this one reaches
                continue
            pixels = strip.rows(top, rows)
            windows = (
                (left, _look(pixels, mosaic, left, rows, mosaic.end(left, width) - left, embedder))
                for left in mosaic.columns
            )
            on_gpu = embedder.mean.is_cuda
            found_in = map(look_at, windows) if on_gpu else beside(look_at, windows, lambda one: pixels_of(one[1]))
            for left, found in zip(mosaic.columns, found_in, strict=True):
                columns = mosaic.end(left, width) - left
                if found.shape[:2] != (rows, columns):  # of several looks, or where a window's side is odd
                    wide = found.permute(2, 0, 1)[None]
                    wide = F.interpolate(wide, (rows, columns), mode="bilinear", align_corners=False)
                    found = wide[0].permute(1, 2, 0)
                here = _weights(rows)[:, None] * _weights(columns)
                cut = max(0, done - top)  # rows of this window that are finished already
                if total is None:
                    total = torch.zeros(0, width, found.shape[2])
                missing = top + rows - done - len(total)
                if missing > 0:
                    total = torch.cat([total, torch.zeros(missing, width, found.shape[2])])
                    weights = torch.cat([weights, torch.zeros(missing, width)])
                place = slice(top + cut - done, top + rows - done), slice(left, left + columns)
                total[place] += (found * here[..., None])[cut:]
                weights[place] += here[cut:]
            assert total is not None
            end = starts[number + 1] if number + 1 < len(starts) else height
            ready = end - done
            return_memory()  # of the windows: what follows holds copies of a strip
            if ready > 0:
                yield Rows(done, total[:ready] / weights[:ready, :, None], strip.pixels(done, ready))
                total, weights, done = total[ready:].clone(), weights[ready:].clone(), end


def _weights(cells: int) -> Tensor:
    """How much each cell of a window counts: the third power of a triangle, next to nothing at the edges."""
    place = torch.arange(cells) + 0.5
    return (torch.minimum(place, cells - place) / cells * 2) ** 3


def _look(
    pixels: NDArray[np.uint8], mosaic: Mosaic, left: int, rows: int, columns: int, embedder: Embedder
) -> NDArray[np.uint8]:
    """A window as the embedder looks at it: (h, w, C) uint8 with `mosaic.seen` px a cell."""
    window = pixels[:, left * mosaic.cell : (left + columns) * mosaic.cell]
    size = math.ceil(columns * mosaic.seen), math.ceil(rows * mosaic.seen)
    if (window.shape[1], window.shape[0]) == size:
        return np.ascontiguousarray(window)
    rule = cv2.INTER_AREA if mosaic.seen < mosaic.cell else cv2.INTER_LINEAR
    if embedder.config.channels is not None:
        return np.ascontiguousarray(among_measured(window, lambda part: resize(part, size, rule)))
    return np.asarray(cv2.resize(window, size, interpolation=rule), np.uint8)


class _Strip:
    """Rows of a large image, of which the next are read while a network looks at these.

    Args:
        collection: the images.
        index: of the image.
        mosaic: of it.
    """

    def __init__(self, collection: ImageCollection, index: int, mosaic: Mosaic) -> None:
        self._collection, self._index, self._mosaic = collection, index, mosaic
        self._pool = ThreadPoolExecutor(1)
        self._held: NDArray[np.uint8] | None = None  # memory for the tallest strip, whose first rows are filled
        self._top, self._filled = 0, 0  # in px
        self._next: tuple[int, int, Future[list[NDArray[np.uint8]]]] | None = None

    def __enter__(self) -> _Strip:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def rows(self, top: int, rows: int) -> NDArray[np.uint8]:
        """Some rows of cells in pixels, all columns of cells; beyond the image the last pixels are repeated.

        Args:
            top: the first, in cells; never above that of the call before.
            rows: how many.

        Returns:
            (rows * cell, w * cell, C) uint8, which the next call overwrites.
        """
        cell, (height, width) = self._mosaic.cell, self._mosaic.size
        first, last = top * cell, min((top + rows) * cell, height)
        end = self._top + self._filled
        kept = max(0, end - first)
        if self._held is not None and kept:
            self._held[:kept] = self._held[first - self._top : first - self._top + kept]  # numpy minds the overlap
        self._top, self._filled = first, kept
        for part in self._read(first + kept, last):
            self._fill(part, rows * cell)
        following = min(last + self._mosaic.step * cell, height)
        if last < height and self._next is None:
            self._next = (last, following, self._pool.submit(self._from_file, last, following))
        assert self._held is not None
        self._held[self._filled : rows * cell] = self._held[self._filled - 1]
        self._held[: rows * cell, width:] = self._held[: rows * cell, width - 1 : width]
        return self._held[: rows * cell]

    def pixels(self, top: int, rows: int) -> NDArray[np.uint8]:
        """A copy of rows of cells that the last call of `rows` held, without what is beyond the image."""
        assert self._held is not None
        first = max(0, top * self._mosaic.cell - self._top)
        last = min(first + rows * self._mosaic.cell, self._filled)
        return self._held[first:last, : self._mosaic.size[1]].copy()

    def _fill(self, part: NDArray[np.uint8], tallest: int) -> None:
        """Put rows of pixels below those that are there."""
        width, channels = self._mosaic.grid[1] * self._mosaic.cell, part.shape[2]
        if self._held is None or len(self._held) < tallest:
            grown = np.empty((tallest, width, channels), np.uint8)
            if self._held is not None:
                grown[: self._filled] = self._held[: self._filled]
            self._held = grown
        self._held[self._filled : self._filled + len(part), : self._mosaic.size[1]] = part
        self._filled += len(part)

    def _read(self, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
        """Rows of pixels, in a few parts."""
        if self._next is not None and self._next[0] == first:
            _, end, future = self._next
            self._next = None
            taken = 0
            for part in future.result():
                yield part[: last - first - taken]
                taken += len(part)
            first = min(end, last)
        if first < last:
            yield from self._from_file(first, last)

    def _from_file(self, first: int, last: int) -> list[NDArray[np.uint8]]:
        width = self._mosaic.size[1]
        step = max(256, _CHUNK // max(1, last - first))
        parts = [
            self._collection.read_window(self._index, Window(first, x, last - first, min(step, width - x)))
            for x in range(0, width, step)
        ]
        return [parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)]
