"""A collection's images as a stream: read ahead, embedded in batches where that pays, written behind.

Every verb that goes through a folder is such a stream. Decoding and encoding happen in threads (OpenCV, Pillow and
numpy let others run meanwhile), the network in the thread that asks; the order of the images is kept, and a stream that
is left early, by an error or Ctrl-C, leaves no thread behind and no file half-written. One that is kept in a variable
is to be closed (`contextlib.closing`): an error's traceback keeps the variable.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.batching.room import AUTO, Batching, once_more
from selfseg.collection.batching.together import embed_together
from selfseg.data.reading.ahead import Skips, Versions, in_threads, map_beside, pixels_of
from selfseg.data.reading.images import LONGEST, ImageCollection, is_thin
from selfseg.models.embedder import Embedder
from selfseg.telling import tell
from selfseg.threads import one_thread_each, usable_cores

T = TypeVar("T")
R = TypeVar("R")
Image = NDArray[np.uint8]

_BYTES_BEHIND = 1 << 27  # that wait to be written, for each thread
_BESIDE = 1 << 23  # pixels that a CPU looks at side by side: two GB or so within a ResNet


class Looked(NamedTuple):
    """An image, and as an embedder looks at it; see `Embedded`."""

    number: int
    image: Image
    seen: Image


class Embedded(NamedTuple):
    """An image with its embedding.

    Attributes:
        number: of the image in its collection.
        image: (H, W, 3) uint8 RGB.
        seen: (H, W, 3) uint8 RGB, as the embedder looked at it.
        embedding: (D, h, w) float32, on the embedder's device.
    """

    number: int
    image: Image
    seen: Image
    embedding: Tensor


def embed_images(
    embedder: Embedder,
    collection: ImageCollection,
    indices: Sequence[int],
    log: Skips,
    what: str,
    progress: bool = True,
    cut: Callable[[Image], Image] = lambda image: image,
    threads: int | None = None,
    look: Callable[[Tensor], Tensor] | None = None,
    batch: Batching = AUTO,
) -> Generator[Embedded, None, None]:
    """The images of a collection with their embeddings, in order; those that can't be read go to `log`.

    On a CPU several images are looked at side by side, each in one thread: equal to the bit to `embedder.embed(image)`
    with one thread, whatever the number of cores. On a GPU images of one size are embedded together, among the next
    128 (`selfseg.collection.batching`).

    Args:
        embedder: on its device.
        collection: the images.
        indices: of those that are wanted.
        log: where those go that can't be read.
        what: for the progress bar.
        progress: whether to show one on stderr.
        cut: what part of an image to embed, before it is resized; called in several threads at once.
        threads: that read; half of the cores if None, which leaves the other half to those that write.
        look: of a batch (B, 3, H, W) in [0, 1], instead of the embedder's own.
        batch: how many images a GPU looks at together.

    Raises:
        TooManyBadImages: see `SkipLog`.
    """
    return map_embedded(
        embedder,
        collection,
        indices,
        lambda one: one,
        lambda _, one: one,
        log,
        what,
        progress,
        cut,
        threads,
        look,
        batch,
    )


def map_embedded(
    embedder: Embedder,
    collection: ImageCollection,
    indices: Sequence[int],
    reduce: Callable[[Embedded], T],
    write: Callable[[Looked, T], R],
    log: Skips,
    what: str,
    progress: bool = True,
    cut: Callable[[Image], Image] = lambda image: image,
    threads: int | None = None,
    look: Callable[[Tensor], Tensor] | None = None,
    batch: Batching = AUTO,
    versions: Versions | None = None,
) -> Generator[R, None, None]:
    """As `embed_images`, with what is made of each embedding, and what is written of that, beside the network.

    Args:
        embedder: on its device.
        collection: the images.
        indices: of those that are wanted.
        reduce: what is wanted of an embedding, where it is; a GPU is best not waited for in it (`Fetched`). On a CPU
            it is called in several threads at once.
        write: of the image and what `reduce` gave; called in several threads at once.
        log: where those go that can't be read.
        what: for the progress bar.
        progress: whether to show one on stderr.
        cut: what part of an image to embed, before it is resized; called in several threads at once.
        threads: that read; half of the cores if None.
        look: of a batch (B, 3, H, W) in [0, 1], instead of the embedder's own.
        batch: how many images a GPU looks at together.
        versions: see `selfseg.data.reading.ahead.in_threads`; `write` takes out what is its image's.

    Yields:
        What `write` gave, in order.

    Raises:
        TooManyBadImages: see `SkipLog`.
    """
    embed = embedder.embed_prepared if look is None else partial(embedder.embed_prepared, look=look)
    read = in_threads(
        collection,
        indices,
        lambda i, image: _looked(i, image, embedder.prepare(cut(image)), collection, embedder.resolution),
        lambda one: pixels_of(one.image),
        log,
        what,
        progress,
        threads,
        versions,
    )
    with closing(read):
        prepared = (one for _, one in read)
        if not batch.applies(embedder.mean.device):

            def work(one: Looked) -> R:
                with torch.no_grad():
                    found = reduce(Embedded(*one, embed([one.seen])[0]))
                return write(one, found)

            with one_thread_each():
                yield from beside(work, prepared, lambda one: pixels_of(one.seen))
            return
        done: deque[R] = deque()
        writer: WriteBehind[R] = WriteBehind(done.append)
        room = batch.room(embedder.mean.device)
        with writer, torch.no_grad():
            for one, embedding in embed_together(
                embed, prepared, lambda one: one.seen, lambda one: pixels_of(one.image), room
            ):
                writer.call(write, one, once_more(reduce, Embedded(*one, embedding)))
                while done:
                    yield done.popleft()
        yield from done


def _looked(number: int, image: Image, seen: Image, collection: ImageCollection, resolution: int | None) -> Looked:
    height, width = image.shape[:2]
    if is_thin(height, width) and min(seen.shape[:2]) < (resolution or 0):
        tell(
            f"{collection.names[number]}: {width}x{height} px is more than {LONGEST} times as long as wide; it is "
            f"looked at as {seen.shape[1]}x{seen.shape[0]} px, to save memory"
        )
    return Looked(number, image, seen)


def beside(function: Callable[[T], R], items: Iterator[T], pixels: Callable[[T], int]) -> Generator[R, None, None]:
    """`function` of each item, in order: as many side by side as there are cores, each in one thread.

    To be used within `one_thread_each`. Of what a network looks at, large images are looked at alone.

    Args:
        function: called in several threads at once.
        items: that wait for it.
        pixels: that a network sees of an item.
    """
    return map_beside(function, items, usable_cores(), pixels, _BESIDE)


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor there; a GPU is not waited for."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Fetched:
    """A tensor on its way to the CPU: who asks for its values waits for a GPU, and not who sends for them.

    Args:
        values: on any device.
        kind: of the numpy array; the tensor's if None.

    Attributes:
        nbytes: on the way.

    Example:
        >>> Fetched(torch.arange(3)).numpy().tolist()
        [0, 1, 2]
    """

    def __init__(self, values: Tensor, kind: type[np.generic] | None = None) -> None:
        self._kind, self._arrived = kind, None
        if values.is_cuda:
            stream = torch.cuda.current_stream(values.device)
            values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # waits asleep
            self._arrived.record(stream)
        self._values = values
        self.nbytes = values.nbytes

    def numpy(self) -> NDArray[Any]:
        """The values; any thread may ask."""
        if self._arrived is not None:
            self._arrived.synchronize()
        array: NDArray[Any] = self._values.numpy()
        return array if self._kind is None else array.astype(self._kind, copy=False)

    def rows(self) -> list[Fetched]:
        """Each of (B, ...) for itself, which all travel together."""
        found = []
        for values in self._values:
            one = copy.copy(self)
            one._values, one.nbytes = values, values.nbytes
            found.append(one)
        return found


def _bytes_of(value: Any) -> int:
    """Of the arrays in a value, however deep in tuples."""
    if isinstance(value, tuple):
        return sum(map(_bytes_of, value))
    return value.nbytes if isinstance(value, np.ndarray | Fetched) else 0


class WriteBehind(Generic[T]):
    """Calls that write files, in threads, a few behind: not many, and not many bytes of arrays; a context manager.

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
        self._pending: deque[tuple[Future[T], int]] = deque()
        self._bytes = 0  # of the arrays that wait
        self._pool = ThreadPoolExecutor(self._threads)

    def call(self, function: Callable[..., T], *arguments: Any) -> None:
        """Let a thread call the function; waits while too many are behind."""
        size = _bytes_of(arguments)
        most = self._threads * _BYTES_BEHIND
        while self._pending and (
            len(self._pending) >= 2 * self._threads or self._bytes + size > most or self._pending[0][0].done()
        ):
            self._finish_first()
        self._pending.append((self._pool.submit(function, *arguments), size))
        self._bytes += size

    def _finish_first(self) -> None:
        future, size = self._pending.popleft()
        self._bytes -= size
        self._finished(future.result())

    def __enter__(self) -> WriteBehind[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what has begun; in peace, for everything."""
        try:
            while error is None and self._pending:
                self._finish_first()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
