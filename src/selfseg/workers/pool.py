"""What local processes and Ray have in common: who works on what, who died, and what becomes of their shards."""

from __future__ import annotations

import abc
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Self, TypeVar

from rich.progress import TaskID

from selfseg import errors
from selfseg.errors import RunError, SelfsegError
from selfseg.telling import tell
from selfseg.telling.bars import Bars
from selfseg.workers.plan import STRIKES, Job, Lost, Pace, Shard

T = TypeVar("T")
Member = TypeVar("Member")

_STARTS = 3  # workers in a row that end before they have begun


class Failure(NamedTuple):
    """An error of a worker, as plain values: not every error can be pickled.

    Attributes:
        kinds: its class and those that it is derived from, nearest first.
        message: of it.
        details: its attributes, as far as they are plain.
        trace: where it was raised.
    """

    kinds: tuple[str, ...]
    message: str
    details: dict[str, str | int | float | None]
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """An error that is being handled."""
        kinds = tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
        details = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | None)}
        return cls(kinds, str(error), details, traceback.format_exc())

    def raised(self) -> Exception:
        """The error, of the same class if it is one of ours, or of the nearest of ours that it is derived from."""
        for module, _, name in (kind.rpartition(".") for kind in self.kinds):
            kind = getattr(errors, name, None) if module == errors.__name__ else None
            if isinstance(kind, type) and issubclass(kind, SelfsegError):
                error = kind.__new__(kind, self.message)  # not by its own __init__, which may want other arguments
                vars(error).update(self.details)
                error.add_note(f"In a worker:\n{self.trace}")
                return error
        name = self.kinds[0].removeprefix("builtins.")
        return RunError(f"a worker failed: {name}: {self.message}\n{self.trace}")


class Ready(NamedTuple):
    """A worker has started."""


class Finished(NamedTuple):
    """A worker's answer.

    Attributes:
        values: that the job made of the shard; or what went wrong.
        seconds: it took.
    """

    values: list[Any] | Failure
    seconds: float


class Died(NamedTuple):
    """A worker is no more.

    Attributes:
        how: for messages.
    """

    how: str


@dataclass
class _Work:
    """A shard that is to be done.

    Attributes:
        shard: it.
        strikes: workers that died with it.
    """

    shard: Shard[Any]
    strikes: int = 0


class _Todo:
    """Shards that wait for a worker: those that come back first, then the next ones of all, which are not held."""

    def __init__(self, shards: Iterable[Shard[Any]]) -> None:
        self._shards, self._waiting = iter(shards), deque[_Work]()

    def waiting(self, most: int) -> int:
        """How many wait, counted up to `most`."""
        while len(self._waiting) < most and (shard := next(self._shards, None)) is not None:
            self._waiting.append(_Work(shard))
        return len(self._waiting)

    def take(self) -> _Work | None:
        """The next one; None where there is none."""
        return self._waiting.popleft() if self.waiting(1) else None

    def give_back(self, some: Sequence[_Work]) -> None:
        """Put some before all others."""
        self._waiting.extendleft(reversed(some))


@dataclass
class _Place(Generic[Member]):
    """A worker's place, which the next one takes when it dies."""

    name: str
    member: Member | None = None
    ready: bool = False
    work: _Work | None = None
    images: int = 0
    seconds: float = 0.0


@dataclass
class Pool(abc.ABC, Generic[Member]):
    """Workers that a subclass starts, gives work, and listens to.

    Attributes:
        what: for the progress bar.
        progress: whether to show one on stderr.
    """

    what: str
    progress: bool
    _places: list[_Place[Member]] = field(default_factory=list, init=False)
    _replaced: int = field(default=0, init=False)

    @abc.abstractmethod
    def names(self) -> list[str]:
        """A name for each worker that there shall be."""

    @abc.abstractmethod
    def start(self, name: str) -> Member:
        """Start a worker, which says `Ready` when it can be given work."""

    @abc.abstractmethod
    def send(self, member: Member, job: Job[Any], shard: Shard[Any]) -> None:
        """Give a worker that has nothing to do a shard; a dead one is no error, it says so itself."""

    @abc.abstractmethod
    def listen(self) -> tuple[Member, Ready | Finished | Died]:
        """Wait for what the next worker says."""

    @abc.abstractmethod
    def end(self, members: Sequence[Member]) -> None:
        """End workers, whatever they do, in a few seconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end(self._places)
        if not any(error):
            self._summarise()
        self._places.clear()

    def map(
        self,
        job: Job[T],
        shards: Iterable[Shard[Any]],
        opened: Callable[[Any], Iterator[T]] | None = None,
        quiet: bool = False,
        images: int | None = None,
    ) -> Generator[T | Lost, None, None]:
        """As of `selfseg.workers.plan.Workers`."""
        del opened  # it is of this process
        total = sum(len(shard) for shard in shards) if isinstance(shards, Sequence) else images
        todo = _Todo(shards)
        if not todo.waiting(1):
            return
        with Bars(shown=self.progress and not quiet) as bar:
            task = bar.add_task(self.what, total=total)
            with closing(self._work(job, todo, bar, task, quiet)) as values:
                yield from values

    def _work(self, job: Job[Any], todo: _Todo, bar: Bars, task: TaskID, quiet: bool) -> Generator[Any, None, None]:
        if not self._places:
            self._places = [_Place(name) for name in self.names()]
        failed_starts = 0
        try:
            while True:
                self._fill(todo.waiting(len(self._places)) if failed_starts < _STARTS else 0)
                for place in self._places:
                    if place.ready and place.work is None and (work := todo.take()) is not None:
                        place.work = work
                        assert place.member is not None
                        self.send(place.member, job, work.shard)
                if all(place.work is None for place in self._places) and not todo.waiting(1):
                    return
                member, said = self.listen()
                found = [place for place in self._places if place.member is member]
                if not found:
                    continue  # the last word of one that was ended
                place = found[0]
                if isinstance(said, Ready):
                    place.ready, failed_starts = True, 0
                elif isinstance(said, Finished):
                    done, place.work = place.work, None
                    assert done is not None
                    if isinstance(said.values, Failure):
                        raise said.values.raised()
                    if not quiet:  # shards of images
                        place.images += len(done.shard)
                        place.seconds += said.seconds
                    bar.advance(task, len(done.shard))
                    yield from said.values
                else:
                    failed_starts += not place.ready
                    yield from self._bury(place, said, todo, bar, task)
                    if failed_starts >= _STARTS and all(place.member is None for place in self._places):
                        raise RunError(
                            f"{failed_starts} workers in a row ended before they had begun ({said.how}); what they "
                            "wrote to stderr tells why"
                        )
        finally:  # after an error, or when nobody wants the rest: answers of this job must not reach the next one
            self._end([place for place in self._places if place.work is not None])

    def _fill(self, shards: int) -> None:
        """Start workers in empty places, as many as there are shards that nobody else will soon ask for."""
        free = sum(place.member is not None and place.work is None for place in self._places)
        for place in self._places:
            if place.member is None and free < shards:
                place.member = self.start(place.name)
                free += 1

    def _end(self, places: Sequence[_Place[Member]]) -> None:
        """End the workers of some places."""
        members = [place.member for place in places if place.member is not None]
        for place in places:
            place.member, place.ready, place.work = None, False, None
        if members:
            self.end(members)

    def _bury(self, place: _Place[Member], said: Died, todo: _Todo, bar: Bars, task: TaskID) -> Iterator[Lost]:
        """Decide what becomes of a dead worker's shard: again, image by image, or set aside."""
        work = place.work
        self._end([place])  # which frees what is kept of it here
        self._replaced += 1
        if work is None:
            return
        work.strikes += 1
        if work.strikes >= STRIKES:
            tell(f"{work.shard.label} is left out: {work.strikes} workers died while they worked on it ({said.how})")
            bar.advance(task, len(work.shard))
            for index in work.shard.indices:
                yield Lost(index, f"{work.strikes} workers died over it ({said.how})")
            return
        tell(f"a worker died ({said.how}) while it worked on {work.shard.label}; another one takes its place")
        singles = work.shard.singles() if work.strikes == STRIKES - 1 else []
        if singles:  # so that only the image is set aside that kills workers, which two must have died over alone
            todo.give_back([_Work(single, STRIKES - 2) for single in singles])
        else:
            todo.give_back([work])

    def paces(self) -> list[Pace]:
        """What each worker has done so far."""
        return [Pace(place.name, place.images, place.seconds) for place in self._places]

    def _summarise(self) -> None:
        rates = ", ".join(f"{one.images / one.seconds:.2f}" for one in self.paces() if one.seconds > 0)
        told = f"{self.what}: images per second of each worker: {rates}" if rates else ""
        if self._replaced:
            told += f"; {self._replaced} died and had to be replaced"
        if told:
            tell(told)


def perform(work: Callable[[Shard[Any]], Iterator[Any]], shard: Shard[Any]) -> Finished:
    """What a worker does with a shard."""
    started = time.perf_counter()
    try:
        values: list[Any] | Failure = list(work(shard))
    except Exception as error:
        values = Failure.of(error)
    return Finished(values, time.perf_counter() - started)
