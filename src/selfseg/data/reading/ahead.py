"""A collection's images, read ahead in threads: decoding lets others run meanwhile, and the order is kept.

A stream that is left early, by an error or Ctrl-C, leaves no thread behind. One that is kept in a variable is to be
closed (`contextlib.closing`): an error's traceback keeps the variable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, nullcontext
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from selfseg.data.reading.images import ImageCollection
from selfseg.errors import BadImage
from selfseg.telling.bars import passing
from selfseg.threads import usable_cores

T = TypeVar("T")
R = TypeVar("R")
Image = NDArray[np.uint8]
Versions = dict[int, dict[str, int | str] | None]
"""What the files of images were before they were read, by the images' indices."""

_PIXELS = 1 << 25  # of images that wait, decoded, for each thread: 100 MB


class Skips(Protocol):
    """Where images go that can't be used, such as a `SkipLog`."""

    def add(self, name: str, reason: str, detail: str = "") -> object:
        """Take one."""
        ...


def spread_points(images: int, points: int, seed: int) -> tuple[NDArray[np.int64], int]:
    """Which images of a collection points are drawn from, and how many of each.

    Args:
        images: in the collection, at least 1.
        points: about how many to draw in all.
        seed: of the draw.

    Returns:
        Indices, ascending: all of them, or points / 64 drawn ones where there are more; and the points of each image.

    Example:
        >>> spread_points(3, 300, seed=0)
        (array([0, 1, 2]), 100)
    """
    most = max(1, points // 64)
    drawn = images > most
    chosen = np.random.default_rng(seed).choice(images, most, replace=False) if drawn else np.arange(images)
    chosen.sort()
    return chosen, max(1, -(-points // len(chosen)))


def map_ahead(
    function: Callable[[int], T], count: int, threads: int, weight: Callable[[T], int]
) -> Generator[T, None, None]:
    """`function` of 0, 1, ... in threads, a little ahead of who takes the results; in order.

    Args:
        function: is called in one of the threads. What it raises is raised when its turn comes.
        count: of calls.
        threads: that call it.
        weight: of a result, in pixels: what waits is kept below 2^25 of them a thread, as far as earlier results tell.

    Yields:
        The results.
    """
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads)
    heaviest, started = _PIXELS, 0  # until the first one tells: not more than there are threads
    try:
        for _ in range(count):
            most = max(2, min(4 * threads, threads * _PIXELS // heaviest))
            while started < count and len(pending) < most:
                pending.append(pool.submit(function, started))
                started += 1
            result = pending.popleft().result()
            heaviest = max(weight(result), heaviest // 2)  # forgets a single large one after a while
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def map_beside(
    function: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    weight: Callable[[T], int] = lambda _: 1,
    most: int = _PIXELS,
) -> Generator[R, None, None]:
    """`function` of each item, several side by side in threads; in order.

    Args:
        function: is called in one of the threads. What it raises is raised when its turn comes.
        items: taken in the thread that asks, a few before their turn.
        threads: that call it.
        weight: of an item, in pixels.
        most: pixels that are worked on at once; a single item may have more.

    Yields:
        The results.
    """
    pending: deque[Future[R]] = deque()
    working: list[tuple[Future[R], int]] = []
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            size = weight(item)
            working = [(future, held) for future, held in working if not future.done()]
            while working and sum(held for _, held in working) + size > most:
                wait([future for future, _ in working], return_when=FIRST_COMPLETED)
                working = [(future, held) for future, held in working if not future.done()]
            future = pool.submit(function, item)
            working.append((future, size))
            pending.append(future)
            while len(pending) >= 2 * threads or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def track_images(
    collection: ImageCollection,
    indices: Sequence[int],
    log: Skips,
    what: str,
    progress: bool = True,
) -> Generator[tuple[int, Image], None, None]:
    """Read images ahead in threads and yield them in order; those that can't be read go to `log`.

    Yields:
        (index, image): image (H, W, 3) uint8 RGB.

    Raises:
        TooManyBadImages: see `SkipLog`.
    """
    return in_threads(collection, indices, lambda _, image: image, pixels_of, log, what, progress)


def map_images(
    collection: ImageCollection,
    indices: Sequence[int],
    function: Callable[[int, Image], T],
    log: Skips,
    what: str,
    progress: bool = True,
    threads: int | None = None,
    versions: Versions | None = None,
) -> Generator[tuple[int, T], None, None]:
    """`track_images` with a function of the image that is worked out in the threads, too.

    Args:
        collection: the images.
        indices: of those that are wanted.
        function: of an image's index and the image (H, W, 3) uint8 RGB; called in several threads at once.
        log: where those go that can't be read, or for which the function raises BadImage.
        what: for the progress bar.
        progress: whether to show one on stderr.
        threads: that read and call the function; one for each core if None.
        versions: see `in_threads`.

    Yields:
        (index, what the function gave).

    Raises:
        TooManyBadImages: see `SkipLog`.
    """
    threads = threads or usable_cores()
    sized = in_threads(
        collection,
        indices,
        lambda i, image: (pixels_of(image), function(i, image)),
        lambda both: both[0],
        log,
        what,
        progress,
        threads,
        versions,
    )
    # BLAS would start threads of its own in each of ours, which then wait for each other at full speed: with two cores
    # masks took 1.75 times as long.
    with threadpool_limits(1, user_api="blas") if threads > 1 else nullcontext():
        with closing(sized):
            for i, (_, result) in sized:
                yield i, result


def in_threads(
    collection: ImageCollection,
    indices: Sequence[int],
    prepare: Callable[[int, Image], T],
    weight: Callable[[T], int],
    log: Skips,
    what: str,
    progress: bool,
    threads: int | None = None,
    versions: Versions | None = None,
) -> Generator[tuple[int, T], None, None]:
    """What `prepare` makes of each image in the threads that read, with the image's index.

    Into `versions` goes what each image's file was before it was read (`ImageCollection.version`): asked later, a file
    that was replaced meanwhile would count as the one that was looked at. Who takes an image takes that out, too.
    """

    def read(position: int) -> T | BadImage:
        i = indices[position]
        try:
            if versions is not None:
                versions[i] = collection.version(i)
            return prepare(i, collection.read(i))
        except BadImage as error:
            if versions is not None:
                versions.pop(i, None)
            return error

    def size(result: T | BadImage) -> int:
        return 1 if isinstance(result, BadImage) else weight(result)

    # Half of the cores read and the other half writes; two hide the disk's latency where there are few.
    threads = max(2, usable_cores() // 2) if threads is None else threads
    with closing(map_ahead(read, len(indices), threads, size)) as results:
        shown = passing(range(len(indices)), what, progress)
        for position, result in zip(shown, results, strict=True):
            i = indices[position]
            if isinstance(result, BadImage):
                log.add(collection.names[i], result.reason, result.detail)
                continue
            yield i, result


def pixels_of(image: Image) -> int:
    """How many it has, at least 1."""
    return max(1, int(image.shape[0]) * int(image.shape[1]))
