"""A collection's images as a stream: read ahead, embedded in batches where that pays, written behind.

Every verb that goes through a folder is such a stream. Decoding and encoding happen in threads (OpenCV, Pillow and
numpy let others run meanwhile), the network in the thread that asks; the order of the images is kept, and a stream that
is left early, by an error or Ctrl-C, leaves no thread behind and no file half-written.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits
from torch import Tensor

from selfseg.data.images import ImageCollection, SkipLog
from selfseg.errors import BadImage
from selfseg.nn.embedder import Embedder

T = TypeVar("T")
Image = NDArray[np.uint8]

_PIXELS_AHEAD = 1 << 27  # of images that wait, decoded: 400 MB
_WINDOW = 128  # images among which a GPU's batches are put together
_BATCH = 32  # images, and
_BATCH_PIXELS = 1 << 23  # pixels that a GPU embeds at once: two GB or so within a ResNet


def usable_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on a Mac
        return os.cpu_count() or 1


def map_ahead(function: Callable[[int], T], count: int, threads: int, weight: Callable[[T], int]) -> Iterator[T]:
    """`function` of 0, 1, ... in threads, a little ahead of who takes the results; in order.

    Args:
        function: is called in one of the threads. What it raises is raised when its turn comes.
        count: of calls.
        threads: that call it.
        weight: of a result, in pixels: what waits is kept below 2^27 of them.

    Yields:
        The results.
    """
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads)
    heaviest, started = 1, 0
    try:
        for _ in range(count):
            most = max(threads, min(4 * threads, _PIXELS_AHEAD // heaviest))
            while started < count and len(pending) < most:
                pending.append(pool.submit(function, started))
                started += 1
            result = pending.popleft().result()
            heaviest = max(weight(result), heaviest // 2)  # forgets a single large one after a while
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def track_images(
    collection: ImageCollection,
    indices: Sequence[int],
    log: SkipLog,
    what: str,
    progress: bool = True,
) -> Iterator[tuple[int, Image]]:
    """Read images ahead in threads and yield them in order; those that can't be read go to `log`.

    Yields:
        (index, image): image (H, W, 3) uint8 RGB.

    Raises:
        TooManyBadImages: see `SkipLog`.
    """
    return _track(collection, indices, lambda image: image, _pixels, log, what, progress)


def map_images(
    collection: ImageCollection,
    indices: Sequence[int],
    function: Callable[[Image], T],
    log: SkipLog,
    what: str,
    progress: bool = True,
    threads: int | None = None,
) -> Iterator[tuple[int, T]]:
    """`track_images` with a function of the image that is worked out in the threads, too.

    Args:
        collection: the images.
        indices: of those that are wanted.
        function: of an image (H, W, 3) uint8 RGB; called in several threads at once.
        log: where those go that can't be read, or for which the function raises BadImage.
        what: for the progress bar.
        progress: whether to show one on stderr.
        threads: that read and call the function; one for each core if None.

    Yields:
        (index, what the function gave).

    Raises:
        TooManyBadImages: see `SkipLog`.
    """
    threads = threads or usable_cores()
    sized = _track(
        collection,
        indices,
        lambda image: (_pixels(image), function(image)),
        lambda both: both[0],
        log,
        what,
        progress,
        threads,
    )
    # BLAS would start threads of its own in each of ours, which then wait for each other at full speed: with two cores
    # masks took 1.75 times as long.
    with threadpool_limits(1, user_api="blas") if threads > 1 else nullcontext():
        for i, (_, result) in sized:
            yield i, result


class Embedded(NamedTuple):
    """An image with its embedding.

    Attributes:
        number: of the image in its collection.
        image: (H, W, 3) uint8 RGB.
        embedding: (D, h, w) float32, on the embedder's device.
        resized: (H, W) of the image as the embedder looked at it.
    """

    number: int
    image: Image
    embedding: Tensor
    resized: tuple[int, int]


class _Prepared(NamedTuple):
    """An image, and at the size that the embedder looks at."""

    image: Image
    small: Image


def embed_images(
    embedder: Embedder,
    collection: ImageCollection,
    indices: Sequence[int],
    log: SkipLog,
    what: str,
    progress: bool = True,
) -> Iterator[Embedded]:
    """The images of a collection with their embeddings, in order; those that can't be read go to `log`.

    On a CPU one image after the other, equal to `embedder.embed(image)` to the bit: larger batches are not faster
    there. On a GPU images of one size are embedded together, among the next 128.

    Raises:
        TooManyBadImages: see `SkipLog`.
    """
    prepared = _track(
        collection,
        indices,
        lambda image: _Prepared(image, embedder.prepare(image)),
        lambda both: _pixels(both.image),
        log,
        what,
        progress,
    )
    if embedder.mean.device.type == "cpu":
        for i, (image, small) in prepared:
            yield Embedded(i, image, embedder.embed_prepared([small])[0], (small.shape[0], small.shape[1]))
        return
    yield from _in_batches(embedder.embed_prepared, prepared)


@dataclass
class _Waiting:
    """An image of the window; its embedding, once it has one."""

    index: int
    image: Image
    small: Image
    embedding: Tensor | None = None


def _in_batches(
    embed: Callable[[Sequence[Image]], Tensor],
    prepared: Iterator[tuple[int, _Prepared]],
    window: int = _WINDOW,
    most: int = _BATCH,
) -> Iterator[Embedded]:
    """Images of one shape are embedded together; the oldest of the window decides which shape is next."""
    waiting: deque[_Waiting] = deque()
    for i, (image, small) in prepared:
        waiting.append(_Waiting(i, image, small))
        # As many as a batch takes of the newest one's shape, or all that may wait: either is a reason to work.
        same = [one for one in waiting if one.embedding is None and one.small.shape == small.shape]
        room = max(1, min(most, _BATCH_PIXELS // _pixels(small)))
        if len(same) >= room:
            _embed_together(embed, same)
        elif len(waiting) >= window or sum(_pixels(one.image) for one in waiting) > _PIXELS_AHEAD:
            _embed_oldest(embed, waiting, most)
        yield from _ready(waiting)
    while waiting:
        _embed_oldest(embed, waiting, most)
        yield from _ready(waiting)


def _ready(waiting: deque[_Waiting]) -> Iterator[Embedded]:
    """Those at the front that have their embedding, taken out."""
    while waiting and waiting[0].embedding is not None:
        done = waiting.popleft()
        assert done.embedding is not None
        yield Embedded(done.index, done.image, done.embedding, (done.small.shape[0], done.small.shape[1]))


def _embed_oldest(embed: Callable[[Sequence[Image]], Tensor], waiting: deque[_Waiting], most: int) -> None:
    """The oldest that has no embedding, with those of its shape."""
    first = next(one for one in waiting if one.embedding is None)
    same = [one for one in waiting if one.embedding is None and one.small.shape == first.small.shape]
    _embed_together(embed, same[: max(1, min(most, _BATCH_PIXELS // _pixels(first.small)))])


def _embed_together(embed: Callable[[Sequence[Image]], Tensor], group: Sequence[_Waiting]) -> None:
    """One pass for all; in two halves where the card's memory is too small for that."""
    try:
        embeddings = embed([one.small for one in group])
    except torch.cuda.OutOfMemoryError:
        if len(group) == 1:
            raise
        torch.cuda.empty_cache()
        middle = len(group) // 2
        _embed_together(embed, group[:middle])
        _embed_together(embed, group[middle:])
        return
    for one, embedding in zip(group, embeddings, strict=True):
        one.embedding = embedding


def _track(
    collection: ImageCollection,
    indices: Sequence[int],
    prepare: Callable[[Image], T],
    weight: Callable[[T], int],
    log: SkipLog,
    what: str,
    progress: bool,
    threads: int | None = None,
) -> Iterator[tuple[int, T]]:
    """What `prepare` makes of each image in the threads that read, with the image's index."""

    def read(position: int) -> T | BadImage:
        try:
            return prepare(collection.read(indices[position]))
        except BadImage as error:
            return error

    def size(result: T | BadImage) -> int:
        return 1 if isinstance(result, BadImage) else weight(result)

    # Half of the cores read and the other half writes; two hide the disk's latency where there are few.
    threads = max(2, usable_cores() // 2) if threads is None else threads
    console = Console(stderr=True)
    results = map_ahead(read, len(indices), threads, size)
    try:
        shown = track(range(len(indices)), what, console=console, disable=not (progress and console.is_terminal))
        for position, result in zip(shown, results, strict=True):
            i = indices[position]
            if isinstance(result, BadImage):
                log.add(collection.names[i], result.reason, result.detail)
                continue
            yield i, result
    finally:
        results.close()  # type: ignore[attr-defined]


def _pixels(image: Image) -> int:
    return max(1, int(image.shape[0]) * int(image.shape[1]))


class WriteBehind(Generic[T]):
    """Calls that write files, in threads, a few behind; a context manager.

    What a call raises is raised at a later `call`, or at the end. After an error of the body no further call begins.

    Args:
        finished: is given what each call returned, in order, in the thread that uses this.

    Example:
        >>> done = []
        >>> with WriteBehind(done.append) as writer:
        ...     for number in range(3):
        ...         writer.call(lambda n: n * n, number)
        >>> done
        [0, 1, 4]
    """

    def __init__(self, finished: Callable[[T], object] = lambda _: None) -> None:
        self._finished = finished
        self._threads = max(2, usable_cores() // 2)
        self._pending: deque[Future[T]] = deque()
        self._pool = ThreadPoolExecutor(self._threads)

    def call(self, function: Callable[..., T], *arguments: Any) -> None:
        """Let a thread call the function; waits while too many are behind."""
        while len(self._pending) >= 2 * self._threads or (self._pending and self._pending[0].done()):
            self._finished(self._pending.popleft().result())
        self._pending.append(self._pool.submit(function, *arguments))

    def __enter__(self) -> WriteBehind[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what has begun; in peace, for everything."""
        try:
            while error is None and self._pending:
                self._finished(self._pending.popleft().result())
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
