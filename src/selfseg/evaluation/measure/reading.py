"""A labelled split's images, read ahead in threads, with their embeddings.

Letters: D dimensions, C classes, H W pixels of an image and its label, h w embedding cells.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.batching.room import AUTO
from selfseg.collection.batching.together import embed_together
from selfseg.collection.streaming import beside
from selfseg.data.labelled.catalog import LabelledImages
from selfseg.data.reading.ahead import Skips, map_ahead, pixels_of
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import BadImage, RunError
from selfseg.evaluation.measure.confusion import VOID
from selfseg.evaluation.measure.features import Extractor
from selfseg.threads import one_thread_each, usable_cores

Progress = Callable[[str, int, int], None]
"""Called after each image as (what is being done, images done, images in all)."""


@dataclass
class Tally:
    """What a pass met.

    Attributes:
        images: images read.
        pixels: labelled pixels.
        void: pixels left out.
        skipped: images that could not be read.
        labels: (C,) labelled pixels of each class.
    """

    images: int = 0
    pixels: int = 0
    void: int = 0
    skipped: int = 0
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, present: NDArray[np.int64]) -> None:
        """Add an image by how often each value of a label occurs in its own, (256,)."""
        self.images += 1
        self.pixels += int(present[:VOID].sum())
        self.void += int(present[VOID])
        self.labels += present[: len(self.labels)]

    def join(self, other: Tally) -> None:
        """Add what another pass met, over other images of the same split."""
        self.images += other.images
        self.pixels += other.pixels
        self.void += other.void
        self.skipped += other.skipped
        self.labels += other.labels


def embeddings(
    extractor: Extractor,
    data: LabelledImages,
    tally: Tally,
    what: str,
    progress: Progress | None,
    skips: Skips | None = None,
) -> Generator[tuple[int, NDArray[np.uint8], Tensor, NDArray[np.uint8]], None, None]:
    """Each readable image's index, pixels (H, W, 3), embedding (D, h, w) and label (H, W), counted in `tally`.

    With `skips` an image that can't be read goes there; who gave it judges how many may.

    Raises:
        TooManyBadImages, LabelError: as `readable`.
        RunError: for an embedding that is not finite; on a GPU after the last image.
    """
    batched = extractor.batched
    on_gpu = batched is not None and batched.device.type == "cuda"
    finite: list[tuple[int, Tensor]] = []  # answers by index; to look at one, a GPU is waited for
    prepare = None if batched is None else batched.prepare
    with closing(_pairs(data, tally, prepare, skips)) as pairs, ExitStack() as held:
        stream: Iterator[tuple[_Pair, Tensor]]
        if batched is not None and on_gpu:
            room = AUTO.room(batched.device)
            stream = embed_together(batched.extract, pairs, lambda pair: pair.seen, lambda pair: pair.label.size, room)
        else:
            held.enter_context(one_thread_each())
            extract = partial(_extract, extractor)
            stream = held.enter_context(closing(beside(extract, pairs, lambda pair: pixels_of(pair.seen))))
        for pair, embedding in stream:
            finite.append((pair.number, torch.isfinite(embedding).all()))
            if not on_gpu:
                _check_finite(extractor, data, finite)
                finite.clear()
            tally.add(pair.present)
            yield pair.number, pair.image, embedding, pair.label
            if progress is not None:
                progress(what, pair.number + 1, len(data))
    _check_finite(extractor, data, finite)


@torch.no_grad()
def _extract(extractor: Extractor, pair: _Pair) -> tuple[_Pair, Tensor]:
    """One image, on a CPU."""
    batched = extractor.batched
    return pair, extractor.extract(pair.seen) if batched is None else batched.extract([pair.seen])[0]


def _check_finite(extractor: Extractor, data: LabelledImages, finite: Sequence[tuple[int, Tensor]]) -> None:
    answers = torch.stack([answer for _, answer in finite]).tolist() if finite else []
    for (index, _), answer in zip(finite, answers, strict=True):
        if not answer:
            name = data.images.names[index]
            raise RunError(f"{extractor.name} gives values that are not finite for {name}; its weights are damaged")


def readable(
    data: LabelledImages, tally: Tally, what: str, progress: Progress | None, skips: Skips | None = None
) -> Generator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]], None, None]:
    """Each readable image's index, pixels (H, W, 3) and label (H, W), counted in `tally`.

    With `skips` an image that can't be read goes there; who gave it judges how many may.

    Raises:
        TooManyBadImages: if more than 5 % of the images can't be read.
        LabelError: as `LabelledImages.read_label`.
    """
    with closing(_pairs(data, tally, None, skips)) as pairs:
        for pair in pairs:
            tally.add(pair.present)
            yield pair.number, pair.image, pair.label
            if progress is not None:
                progress(what, pair.number + 1, len(data))


class _Pair(NamedTuple):
    """A labelled image.

    Attributes:
        number: its index.
        image: (H, W, 3) uint8 RGB.
        seen: the same as an extractor looks at it.
        label: (H, W) uint8.
        present: (256,) int64, how often each value occurs in the label.
    """

    number: int
    image: NDArray[np.uint8]
    seen: NDArray[np.uint8]
    label: NDArray[np.uint8]
    present: NDArray[np.int64]


def _pairs(
    data: LabelledImages,
    tally: Tally,
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None,
    skips: Skips | None,
) -> Generator[_Pair, None, None]:
    """The readable images of a split, read ahead in threads; those that can't be read are counted in `tally`."""
    skips = SkipLog(None, len(data), fixed=True) if skips is None else skips

    def read(index: int) -> _Pair | BadImage:
        try:
            image = data.images.read(index)
        except BadImage as error:
            return error
        label = data.read_label(index)
        present = np.bincount(label.reshape(-1), minlength=VOID + 1)
        return _Pair(index, image, image if prepare is None else prepare(image), label, present)

    def pixels(pair: _Pair | BadImage) -> int:
        return 1 if isinstance(pair, BadImage) else max(1, pair.label.size)

    with closing(map_ahead(read, len(data), max(2, usable_cores()), pixels)) as pairs:
        for index, pair in enumerate(pairs):
            if isinstance(pair, BadImage):
                skips.add(data.images.names[index], pair.reason, pair.detail)
                tally.skipped += 1
            else:
                yield pair
