"""A stream's items of one shape, worked on together; what comes of each comes in the order of the stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.batching.room import Room

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")

WINDOW = 128
"""Items among which batches are put together."""

WINDOW_PIXELS = 1 << 27
"""Pixels that these hold at the most: 400 MB."""


@dataclass
class _Waiting(Generic[T, S, R]):
    """One of the window; `found` holds what came of it, once there is something."""

    item: T
    seen: S
    shape: tuple[int, ...]
    pixels: int
    found: list[R]


def together(
    work: Callable[[Sequence[S]], Iterable[R]],
    items: Iterable[T],
    seen: Callable[[T], S],
    shape: Callable[[S], tuple[int, ...]],
    weight: Callable[[T], int],
    room: Room,
    window: int | None = None,
) -> Iterator[tuple[T, R]]:
    """Items with what comes of them, worked on in batches.

    Args:
        work: takes what is seen of several items of one shape, and gives something for each.
        items: anything.
        seen: what `work` takes of an item.
        shape: of what is seen, (H, W, ...): what has the same may be worked on together.
        weight: the pixels that an item holds while it waits.
        room: says how many are worked on together.
        window: items that wait for others of their shape; 128 if None, or two batches.

    Yields:
        (item, what came of it), in the order of the items. The oldest that waits decides which shape is next.
    """
    window = max(WINDOW, 2 * room.most) if window is None else window
    waiting: deque[_Waiting[T, S, R]] = deque()
    held = 0
    for item in items:
        part = seen(item)
        newest: _Waiting[T, S, R] = _Waiting(item, part, shape(part), weight(item), [])
        waiting.append(newest)
        held += newest.pixels
        # As many as a batch takes of the newest one's shape, or all that may wait: either is a reason to work.
        same = _alike(waiting, newest)
        if len(same) >= _fitting(room, newest):
            _work(work, same, room)
        elif len(waiting) >= window or held > WINDOW_PIXELS:
            _work_on_oldest(work, waiting, room)
        for one in _ready(waiting):
            held -= one.pixels
            yield one.item, one.found[0]
    while waiting:
        _work_on_oldest(work, waiting, room)
        for one in _ready(waiting):
            yield one.item, one.found[0]


def embed_together(
    embed: Callable[[Sequence[NDArray[np.uint8]]], Tensor],
    items: Iterable[T],
    seen: Callable[[T], NDArray[np.uint8]],
    weight: Callable[[T], int],
    room: Room,
    window: int | None = None,
) -> Iterator[tuple[T, Tensor]]:
    """`together` of items that have an image.

    Args:
        embed: takes images of one shape, (H, W, 3) uint8 RGB, and gives their embeddings (B, D, h, w).
        items: anything that has an image.
        seen: an item's image, as `embed` takes it.
        weight: as of `together`.
        room: as of `together`.
        window: as of `together`.

    Yields:
        (item, embedding): embedding (D, h, w).
    """
    return together(embed, items, seen, lambda image: image.shape, weight, room, window)


def _pixels(shape: tuple[int, ...]) -> int:
    return max(1, int(shape[0]) * int(shape[1]))


def _fitting(room: Room, one: _Waiting[T, S, R]) -> int:
    return room.fitting(_pixels(one.shape))


def _alike(waiting: Iterable[_Waiting[T, S, R]], one: _Waiting[T, S, R]) -> list[_Waiting[T, S, R]]:
    """Those of its shape that nothing has come of yet."""
    return [other for other in waiting if not other.found and other.shape == one.shape]


def _ready(waiting: deque[_Waiting[T, S, R]]) -> Iterator[_Waiting[T, S, R]]:
    """Those at the front that are done, taken out."""
    while waiting and waiting[0].found:
        yield waiting.popleft()


def _work_on_oldest(work: Callable[[Sequence[S]], Iterable[R]], waiting: deque[_Waiting[T, S, R]], room: Room) -> None:
    """On the oldest that waits for it, with those of its shape."""
    first = next(one for one in waiting if not one.found)
    _work(work, _alike(waiting, first)[: _fitting(room, first)], room)


def _work(work: Callable[[Sequence[S]], Iterable[R]], group: Sequence[_Waiting[T, S, R]], room: Room) -> None:
    found = room.run(work, [one.seen for one in group], _pixels(group[0].shape))
    for one, each in zip(group, found, strict=True):
        one.found.append(each)
