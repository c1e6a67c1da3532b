"""Giving each pixel of an image the best of some rows of scores: centroids, or the weights of a linear classifier.

Letters in shapes: H W pixels of an image, D embedding dimension, h w embedding cells, K rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.streaming import Fetched
from selfseg.ops.linear import linear
from selfseg.ops.resized_argmax import resized_argmax

_Taps = tuple[Tensor, Tensor]


def assign_pixels(
    embedding: Tensor, centroids: Tensor, size: tuple[int, int], groups: Tensor | None = None
) -> NDArray[Any]:
    """The best centroid of each pixel: scores upsampled bilinearly (align_corners=False), then the maximum.

    Exact, and cheap on large images. A bilinear mean of scores keeps an order that its four cells agree on: between
    four cells with one winner the winner is that one, and elsewhere only those centroids are compared that some of
    the four cells prefers to the winner at their middle.

    Args:
        embedding: (D, h, w) float.
        centroids: (K, D) unit vectors.
        size: (H, W) of the result.
        groups: (K,) int64, what each centroid stands for; None = itself.

    Returns:
        (H, W) array, uint8 if there are at most 256 clusters or groups, else uint16.

    Example:
        >>> embedding = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # two cells, side by side
        >>> assign_pixels(embedding, torch.eye(2), (1, 6)).tolist()
        [[0, 0, 0, 1, 1, 1]]
    """
    largest = len(centroids) - 1 if groups is None else int(groups.max())
    return assign_later(embedding, centroids, size, largest, groups).numpy()


def assign_later(
    embedding: Tensor,
    rows: Tensor,
    size: tuple[int, int],
    largest: int,
    values: Tensor | None = None,
    bias: Tensor | None = None,
    unit: bool = True,
) -> Fetched:
    """As `assign_pixels`, with a bias if there is one, and without waiting for a GPU.

    Args:
        embedding: (D, h, w) float.
        rows: (K, D) float, on the embedding's device: a cell's scores are its products with them, plus the bias.
        size: (H, W) of the result.
        largest: the largest value that there may be; up to 255 the result is uint8, else uint16.
        values: (K,) int64, what each row stands for, on the embedding's device; None = its number.
        bias: (K,) float, on the embedding's device; None = 0.
        unit: whether each cell is scaled to unit length first.

    Returns:
        (H, W) uint8 or uint16.
    """
    if embedding.is_cuda:  # the cleverness on a CPU asks for numbers that a GPU would be waited for
        best = _best_densely(embedding, rows, bias, size, unit)
        best = best if values is None else values[best]
        if largest < 256:
            return Fetched(best.to(torch.uint8))
        return Fetched(best.to(torch.int32), np.uint16)  # torch has no uint16 to speak of
    found = _best_cleverly(embedding, rows, bias, size, unit)
    kind = np.uint8 if largest < 256 else np.uint16
    if values is not None:
        found = np.take(values.numpy().astype(kind), found)
    return Fetched(torch.from_numpy(found.astype(kind, copy=False)))


def cell_scores(embedding: Tensor, rows: Tensor, bias: Tensor | None = None, unit: bool = True) -> Tensor:
    """How well each row fits each cell, scaled to unit length or as it is: (h, w, K) from (D, h, w), (K, D), (K,)."""
    h, w = embedding.shape[1:]
    cells = embedding.float().flatten(1).T
    cells = F.normalize(cells, dim=1) if unit else cells.contiguous()
    scores = linear(cells, rows.to(cells))
    return (scores if bias is None else scores + bias.to(scores)).reshape(h, w, -1)


def _best_cleverly(
    embedding: Tensor, rows: Tensor, bias: Tensor | None, size: tuple[int, int], unit: bool = True
) -> NDArray[Any]:
    """The best row of each pixel, on a CPU."""
    h, w = embedding.shape[1:]
    k = rows.shape[0]
    (top, weight_y), columns = _linear_taps(size[0], h), _linear_taps(size[1], w)
    result = np.empty(size, np.uint8 if k <= 256 else np.uint16)
    # Bands of cells that bound both the scores (cells * K) and the pixels held at a time.
    band = max(1, min((1 << 22) // (w * k), (1 << 20) * h // (size[0] * size[1])))
    for first in range(0, h, band):
        y = torch.nonzero((top >= first) & (top < first + band)).flatten()
        if not len(y):
            continue
        scores = cell_scores(embedding[:, first : first + band + 1], rows, bias, unit)
        found = _assign_band(scores, (top[y] - first, weight_y[y]), columns)
        result[int(y[0]) : int(y[-1]) + 1] = found.numpy()
    return result


def _best_densely(
    embedding: Tensor, rows: Tensor, bias: Tensor | None, size: tuple[int, int], unit: bool = True
) -> Tensor:
    """The best row of each pixel by resizing all scores, on the embedding's device: (H, W) int64."""
    return resized_argmax(cell_scores(embedding, rows, bias, unit), size)


def _assign_band(scores: Tensor, rows: _Taps, columns: _Taps) -> Tensor:
    """The best of K at each pixel; scores (h, w, K), taps of H rows and W columns, result (H, W) int64."""
    h, w, k = scores.shape
    (top, weight_y), (left, weight_x) = rows, columns
    # The square (i, j) has the corners (i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1), cut at the edges.
    cell = torch.arange(h * w).reshape(h, w)
    below = torch.cat([cell[1:], cell[-1:]])
    after = torch.cat([torch.arange(1, w), torch.tensor([w - 1])])
    corners = torch.stack([cell, cell[:, after], below, below[:, after]])  # (4, h, w)
    scores = scores.reshape(h * w, k)
    winner = scores.max(1).indices
    uniform = (winner[corners] == winner[cell]).all(0)  # (h, w)
    result = winner.reshape(h, w)[top][:, left]
    y, x = torch.nonzero(~uniform[top][:, left], as_tuple=True)
    if not len(y):
        return result
    contested = corners[:, ~uniform].T  # (n, 4)
    at_corner = scores[contested]  # (n, 4, K)
    middle = at_corner.mean(1).max(1).indices
    rival = (at_corner > at_corner.gather(2, middle[:, None, None].expand(-1, 4, 1))).any(1)  # (n, K)
    rival[torch.arange(len(middle)), middle] = True
    count = rival.sum(1)
    place = torch.zeros(h, w, dtype=torch.int64)
    place[~uniform] = torch.arange(len(middle))
    square = place[top[y], left[x]]  # the contested square of each contested pixel
    fy, fx = weight_y[y], weight_x[x]
    weights = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], dim=1)[:, None]  # (m, 1, 4)
    most, fewest = 2, 0
    while fewest < int(count.max()):  # groups of squares with similarly many rivals
        most = min(most, k)
        candidates = rival.to(torch.uint8).topk(most, dim=1).indices  # (n, most): rivals first
        values = at_corner.gather(2, candidates[:, None].expand(-1, 4, -1))  # (n, 4, most)
        members = torch.nonzero((count[square] > fewest) & (count[square] <= most)).flatten()
        for chunk in torch.split(members, max(1, (1 << 22) // most)):
            best = torch.bmm(weights[chunk], values[square[chunk]])[:, 0].max(1).indices
            result[y[chunk], x[chunk]] = candidates[square[chunk], best]
        fewest, most = most, most * 2
    return result


def assign_rows(scores: Tensor, rows: _Taps, width: int, values: NDArray[Any]) -> NDArray[Any]:
    """The value of the best row of scores at some rows of pixels, on a CPU; exactly what `assign_pixels` does.

    Args:
        scores: (h, w, K) float32 of cells.
        rows: for each of R rows of pixels the row of cells above it (int64), and how far below that it lies, in [0, 1).
        width: W of the result.
        values: (K,) what each row of scores stands for.

    Returns:
        (R, W) of the values' type.
    """
    columns = _linear_taps(width, scores.shape[1])
    step = max(1, (1 << 20) // width)
    result = np.empty((len(rows[0]), width), values.dtype)
    for first in range(0, len(rows[0]), step):  # a few at a time: numbers of rows take 8 bytes each
        some = slice(first, first + step)
        result[some] = values[_assign_band(scores, (rows[0][some], rows[1][some]), columns).numpy()]
    return result


def _linear_taps(size: int, cells: int) -> _Taps:
    """For each of `size` pixels: the cell before it, and the weight of the cell after (bilinear)."""
    place = ((torch.arange(size) + 0.5) * (cells / size) - 0.5).clamp(0, cells - 1)
    before = place.floor().long()
    return before, place - before
