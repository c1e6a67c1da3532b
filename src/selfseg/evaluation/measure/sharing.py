"""The passes of an evaluation over a split: in this process, or shared between workers with the same result.

Every part of a pass is put together exactly: samples are sorted by the image's number in the split, which also keys
their draw; counts are whole numbers. How many images can't be read is judged of the whole split.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.data.labelled.catalog import LabelledImages
from selfseg.data.reading.skipping import SkipLog
from selfseg.evaluation.measure.features import Extractor
from selfseg.evaluation.measure.passes import AffineHead, Draw, Drawings, Drawn, RefinedHead, Samples, count, sample
from selfseg.evaluation.measure.reading import Progress, Tally, embeddings
from selfseg.workers.gathering import SkipList, Skipped, gather
from selfseg.workers.plan import Job, Shard, Where, Workers, cut

T = TypeVar("T")
Heads = Sequence[AffineHead | RefinedHead]
Counts = list[NDArray[np.int64]]


class Passes(Protocol):
    """The two passes of one extractor; see `sample` and `count`."""

    def sample(self, data: LabelledImages, draw: Draw, progress: Progress | None) -> Samples:
        """Draw vectors from a split."""
        ...

    def count(self, data: LabelledImages, heads: Heads, progress: Progress | None) -> tuple[Counts, Tally]:
        """Apply heads to a split and count their outputs against the labels."""
        ...


@dataclass(frozen=True)
class Alone:
    """`Passes` in this process."""

    extractor: Extractor

    def sample(self, data: LabelledImages, draw: Draw, progress: Progress | None) -> Samples:
        """As of `Passes`."""
        return sample(self.extractor, data, draw.cells, draw.pixels, draw.seed, progress)

    def count(self, data: LabelledImages, heads: Heads, progress: Progress | None) -> tuple[Counts, Tally]:
        """As of `Passes`."""
        return count(self.extractor, data, heads, progress)


class Maker(Protocol):
    """What is measured, as a value that can be pickled; `selfseg.evaluation.subjects.Subjects` is one."""

    def open(self) -> Any:
        """Load it."""
        ...

    def extractors(self, source: Any, /) -> Sequence[Extractor]:
        """What is measured of it by protocols of pixels."""
        ...

    def finder(self, source: Any, /) -> tuple[Any, int | str]:
        """What finds objects, and the resolution."""
        ...


@dataclass(frozen=True)
class Order:
    """What every job of an evaluation says: what is measured, and a word by which a worker knows it again.

    Attributes:
        subjects: what is measured.
        key: of this evaluation; the next one may find other weights in the same folder.
    """

    subjects: Maker
    key: str = field(default_factory=lambda: os.urandom(8).hex())

    def open(self) -> Any:
        """What `subjects.open` gives, which a worker keeps until it gets another order."""
        if self.key not in _opened:
            _opened.clear()
            _opened[self.key] = self.subjects.open()
        return _opened[self.key]

    def extractor(self, number: int) -> Extractor:
        """One of those that are measured."""
        return self.subjects.extractors(self.open())[number]


_opened: dict[str, Any] = {}


class Shared:
    """The passes of an evaluation, shared between workers.

    Args:
        workers: who do them.
        where: they are.
        subjects: what is measured.
    """

    def __init__(self, workers: Workers, where: Where, subjects: Maker) -> None:
        self.workers, self.where, self.order = workers, where, Order(subjects)

    def passes(self, number: int, extractor: Extractor) -> Passes:
        """Those of one extractor: the one of that number among the subjects'."""
        return _SharedPasses(self, number, extractor)

    def over(self, job: Job[T | Skipped], data: LabelledImages, tally: Tally) -> Generator[T, None, None]:
        """What a job gives for a split, in any order; what is skipped is counted in `tally`.

        Raises:
            TooManyBadImages: if more than 5 % of the images can't be read.
        """
        log = SkipLog(None, len(data), fixed=True)
        shards = cut(data, range(len(data)), self.where)
        with closing(gather(self.workers, job, shards, data.images.names, log)) as values:
            yield from values
        tally.skipped = len(log.skipped)


@dataclass(frozen=True)
class _SharedPasses:
    shared: Shared
    number: int
    extractor: Extractor

    def sample(self, data: LabelledImages, draw: Draw, progress: Progress | None) -> Samples:
        tally = Tally(labels=np.zeros(len(data.class_names), np.int64))
        drawings, batched = Drawings(draw), self.extractor.batched
        device = torch.device("cpu") if batched is None or draw.cells == "all" else batched.device
        job: Job[Drawn | Tally | Skipped] = _Sampling(self.shared.order, self.number, draw)
        values: Generator[Drawn | Tally, None, None] = self.shared.over(job, data, tally)
        with closing(values):
            for value in values:
                if isinstance(value, Drawn):
                    drawings.add(value._replace(cells=value.cells.to(device)))
                    continue
                tally.join(value)
                if progress is not None:
                    progress(f"sample {self.extractor.name}", tally.images, len(data))
        return drawings.joined(tally)

    def count(self, data: LabelledImages, heads: Heads, progress: Progress | None) -> tuple[Counts, Tally]:
        classes = len(data.class_names)
        tally = Tally(labels=np.zeros(classes, np.int64))
        totals = [np.zeros((head.outputs, classes), np.int64) for head in heads]
        cpu = torch.device("cpu")
        job = _Counting(self.shared.order, self.number, tuple(head.to(cpu) for head in heads))
        with closing(self.shared.over(job, data, tally)) as values:
            for part in values:
                tally.join(part.tally)
                for total, counts in zip(totals, part.counts, strict=True):
                    total += counts
                if progress is not None:
                    progress(f"measure {self.extractor.name}", tally.images, len(data))
        return totals, tally


@dataclass(frozen=True)
class _Sampling:
    """The job of `sample`: what was drawn from each image of a shard, then what was met in it."""

    order: Order
    number: int
    draw: Draw

    def open(self) -> Callable[[Shard[LabelledImages]], Iterator[Drawn | Tally | Skipped]]:
        """Load what is measured."""
        return partial(self._sample, self.order.extractor(self.number))

    def _sample(self, extractor: Extractor, shard: Shard[LabelledImages]) -> Iterator[Drawn | Tally | Skipped]:
        data, skips = shard.images, SkipList()
        tally = Tally(labels=np.zeros(len(data.class_names), np.int64))
        for one in skips.among(embeddings(extractor, data, tally, "", None, skips)):
            if isinstance(one, Skipped):
                yield one
            else:
                index, _, embedding, label = one
                yield self.draw.of(shard.indices[index], embedding, label).to_cpu()
        yield tally


class _Counted(NamedTuple):
    """What `count` gives."""

    counts: Counts
    tally: Tally


@dataclass(frozen=True)
class _Counting:
    """The job of `count`, over a shard."""

    order: Order
    number: int
    heads: tuple[AffineHead | RefinedHead, ...]

    def open(self) -> Callable[[Shard[LabelledImages]], Iterator[_Counted | Skipped]]:
        """Load what is measured."""
        return partial(self._count, self.order.extractor(self.number))

    def _count(self, extractor: Extractor, shard: Shard[LabelledImages]) -> Iterator[_Counted | Skipped]:
        skips = SkipList()
        yield _Counted(*count(extractor, shard.images, self.heads, None, skips))
        yield from skips.taken()
