"""Outlines and run lengths of objects, turned into masks.

Points are (x, y) in pixels; the image's top left corner is (0, 0) and the first pixel's centre (0.5, 0.5). A pixel is
inside of an outline if its centre is, so that an outline along the pixels' edges gives exactly those pixels back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
_AT_ONCE = 1 << 22


class BadOutline(ValueError):
    """What is wrong with an outline or with run lengths; readers of files say which file and object it is."""


def points(value: Any, size: Size) -> NDArray[np.float64]:
    """A polygon's points, checked.

    Args:
        value: x0, y0, x1, y1, ... of three points at least.
        size: (H, W) of the image.

    Returns:
        (P, 2) x and y.

    Raises:
        BadOutline: for what encloses nothing, holds something else than finite numbers, or goes farther out of the
            image than the image is large: then the numbers are of something else.
    """
    numbers = as_array(value)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        raise BadOutline(f"a polygon is a list of numbers x, y, x, y, ..., not {shorten(value)}")
    if numbers.size % 2:
        raise BadOutline(f"a polygon has an x and a y for each point, but here are {numbers.size} numbers")
    if numbers.size < 6:
        raise BadOutline(
            f"the polygon {shorten(value)} has {numbers.size // 2} points, which enclose nothing; it needs three"
            + (" (a box is written by its four corners)" if numbers.size == 4 else "")
        )
    pairs = numbers.astype(np.float64).reshape(-1, 2)
    if not np.isfinite(pairs).all():
        raise BadOutline(f"the polygon {shorten(value)} holds a coordinate that is not a finite number")
    height, width = size
    extent = np.array([width, height])
    far = (pairs < -extent) | (pairs > 2 * extent)
    if far.any():
        x, y = pairs[far.any(axis=1)][0]
        raise BadOutline(f"the point ({x:g}, {y:g}) lies far outside of the image of {width}x{height} pixels")
    return pairs


def as_array(value: Any) -> NDArray[Any]:
    """A list of numbers as an array; of something else one without dimensions."""
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list | tuple):
        return np.array(None)
    try:
        return np.array(value)
    except (ValueError, OverflowError, RecursionError):  # lists of unequal lengths
        return np.array(None)


def shorten(value: Any) -> str:
    """A value for a message, at most 60 characters of it."""
    text = str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."
    return " ".join(text.split())


def touches(rings: Sequence[NDArray[np.float64]], size: Size) -> bool:
    """Whether the box of any ring reaches into the image."""
    extent = np.array(size[::-1])
    return any(bool((ring.max(0) > 0).all() and (ring.min(0) < extent).all()) for ring in rings)


def fill(rings: Sequence[NDArray[np.float64]], size: Size) -> NDArray[np.bool_]:
    """The pixels inside of an odd number of rings: an outline and its holes.

    Args:
        rings: (P, 2) points each; closed by themselves.
        size: (H, W); what lies outside is cut off.

    Returns:
        (H, W) bool.

    Example:
        >>> square = np.array([[1, 0], [3, 0], [3, 2], [1, 2]], float)
        >>> fill([square], (3, 4)).astype(int).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    mask = np.zeros(size, bool)
    window, inside = fill_window(rings, size)
    mask[window] = inside
    return mask


def fill_window(rings: Sequence[NDArray[np.float64]], size: Size) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """`fill`, but only the part of the image around the rings: (rows, columns), and (h, w) bool."""
    limits = np.array(size[::-1])
    corners = [np.clip(f([f(ring, axis=0) for ring in rings], axis=0), 0, limits) for f in (np.min, np.max)]
    (left, top), (right, bottom) = np.floor(corners[0]).astype(int), np.ceil(corners[1]).astype(int)
    height, width = int(bottom - top), int(right - left)
    crossings = np.zeros((height, width + 1), np.uint8)
    for ring in rings:
        start = ring - (left, top)
        end = np.roll(start, -1, axis=0)
        for rows, columns in _crossed(start, end, height, width):
            np.bitwise_xor.at(crossings, (rows, columns), 1)
    np.bitwise_xor.accumulate(crossings, axis=1, out=crossings)
    return (slice(int(top), int(bottom)), slice(int(left), int(right))), crossings[:, :width].astype(bool)


def _crossed(
    start: NDArray[np.float64], end: NDArray[np.float64], height: int, width: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows whose centres an edge crosses, and the first column to its right; some millions at a time."""
    (x0, y0), (x1, y1) = start.T, end.T
    # A point that lies on a centre belongs to the edge below it.
    low = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    counts = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64) - low
    parts = np.flatnonzero(np.diff(counts.cumsum() // _AT_ONCE)) + 1
    for edges in np.split(np.arange(counts.size), parts):
        some = counts[edges]
        edge = np.repeat(edges, some)
        rows = np.arange(edge.size) - np.repeat(np.cumsum(some) - some, some) + low[edge]
        along = (rows + 0.5 - y0[edge]) / (y1 - y0)[edge]
        columns = np.ceil(x0[edge] + along * (x1 - x0)[edge] - 0.5)
        yield rows, np.clip(columns, 0, width).astype(np.int64)


def area_of(ring: NDArray[np.float64]) -> float:
    """The area that (P, 2) points enclose, in square pixels."""
    x, y = (ring - ring[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def unpack_counts(text: str | bytes) -> NDArray[np.int64]:
    """The run lengths in COCO's compressed text.

    Each number is in characters from "0" on, five bits each, the lowest first, 32 in all but the last, with its sign in
    that one's bit 16; from the fourth number on it is the difference to the one two before.

    Raises:
        BadOutline: if it is no such text.

    Example:
        >>> unpack_counts("52203").tolist()
        [5, 2, 2, 2, 5]
    """
    try:
        data = np.frombuffer(text if isinstance(text, bytes) else text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError as error:
        raise BadOutline("the compressed run lengths hold a character that they can't hold") from error
    if not data.size:
        return np.zeros(0, np.int64)
    if data.min() < 0 or data.max() > 63:
        raise BadOutline("the compressed run lengths hold a character that they can't hold")
    last = (data & 32) == 0
    if not last[-1]:
        raise BadOutline("the compressed run lengths end in the middle of a number")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise BadOutline("the compressed run lengths hold a number beyond 32 bits")
    place = np.arange(data.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((data & 31) << (5 * place), starts)
    numbers -= np.where(data[ends] & 16, np.int64(1) << (5 * lengths), 0)
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return np.asarray(numbers)


def runs(counts: Any, pixels: int) -> NDArray[np.int64]:
    """Run lengths, checked: of pixels outside and inside in turn.

    Args:
        counts: a list of numbers, or COCO's compressed text.
        pixels: what they must sum up to.

    Raises:
        BadOutline: if they don't, or are no such numbers.
    """
    lengths = unpack_counts(counts) if isinstance(counts, str | bytes) else as_array(counts)
    if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu"):
        raise BadOutline(f"run lengths are a list of whole numbers or COCO's text, not {shorten(counts)}")
    if lengths.size and (int(lengths.min()) < 0 or int(lengths.max()) > pixels):
        raise BadOutline(f"a run of {int(lengths.min()) if lengths.min() < 0 else int(lengths.max())} pixels can't be")
    total = int(lengths.sum())
    if total != pixels:
        raise BadOutline(f"the runs are of {total} pixels in all, but the mask has {pixels}")
    return lengths.astype(np.int64)


def spread(lengths: NDArray[np.int64], size: Size, by_rows: bool = False) -> NDArray[np.bool_]:
    """The mask of run lengths.

    Args:
        lengths: of `runs`.
        size: (H, W).
        by_rows: whether they go along rows, as CVAT's do; COCO's go down the columns.

    Returns:
        (H, W) bool.
    """
    flat = np.repeat(np.arange(lengths.size) % 2 == 1, lengths)
    return flat.reshape(size) if by_rows else np.ascontiguousarray(flat.reshape(size[::-1]).T)


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) around a mask's pixels, the ends exclusive; None if it has none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
