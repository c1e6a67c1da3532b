"""What is done with the images of a collection, and where.

A `Job` is a plain value that any process can open; a `Shard` is a part of the collection. Values come back shard by
shard, in any order. A worker that dies is replaced and its shard done again; so what is done with a shard must come to
the same when it is done twice, as it does where files are written under a temporary name and renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from selfseg.errors import ConfigError

T = TypeVar("T")
Made = TypeVar("Made", covariant=True)

MOST = 32
"""Images of a shard, at most: what is lost when a worker dies, and what is waited for at the end."""

STRIKES = 3
"""A shard in whose hands so many workers died is set aside."""


@dataclass(frozen=True)
class Where:
    """Where the work is done.

    Attributes:
        processes: that share it; 1 = this process does it itself. On Ray: workers, 0 = as many as the cluster has room
            for.
        ray: address of a Ray cluster, "auto" for the one that RAY_ADDRESS or this machine's files name, "local" for
            one that is started here; None = no Ray.

    Raises:
        ConfigError: for a number of processes that can't be.
    """

    processes: int = 1
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.processes < (0 if self.ray is not None else 1):
            raise ConfigError(f"--processes must be 1 or more, not {self.processes}")

    @property
    def here(self) -> bool:
        """Whether this process does the work itself."""
        return self.ray is None and self.processes == 1


HERE = Where()
"""In this process."""


class Images(Protocol):
    """A collection of images, or of images with labels."""

    def __len__(self) -> int: ...

    def subset(self, indices: Sequence[int], /) -> Self:
        """Those at `indices`, under the names that they have here."""
        ...


Some = TypeVar("Some", bound=Images)


@dataclass(frozen=True)
class Shard(Generic[Some]):
    """A part of a collection.

    Attributes:
        images: of the part, under the names that they have in the whole.
        indices: of these in the whole.
        label: how messages call it.
        alone: whether it is all that there is to do, in this process: it shows a bar of its own.
    """

    images: Some
    indices: tuple[int, ...]
    label: str = ""
    alone: bool = field(default=False, compare=False)

    def __len__(self) -> int:
        return len(self.indices)

    def singles(self) -> list[Shard[Some]]:
        """Each image for itself; none where there is only one."""
        if len(self) < 2:
            return []
        return [
            replace(self, images=self.images.subset([place]), indices=(index,), label=_label(self.images, [place]))
            for place, index in enumerate(self.indices)
        ]


def cut(images: Some, indices: Sequence[int], where: Where, alone: Sequence[int] = ()) -> list[Shard[Some]]:
    """The shards of some images; a single one where this process does all of it.

    Args:
        images: the whole collection.
        indices: of those that are wanted.
        where: the work is done. How shards are cut changes nothing in what comes out.
        alone: of `indices`, those that are a shard each, such as large images.
    """
    if where.here:
        return [Shard(images.subset(indices), tuple(indices), "all images", alone=True)] if len(indices) else []
    large = set(alone)
    small = [index for index in indices if index not in large]
    workers = where.processes or 8
    size = max(1, min(MOST, len(small) // (4 * workers)))
    parts = [[index] for index in indices if index in large]  # first: they take longest
    parts += [small[first : first + size] for first in range(0, len(small), size)]
    return [Shard(images.subset(part), tuple(part), _label(images, part)) for part in parts]


def cut_evenly(images: Some, indices: Sequence[int], size: int) -> list[Shard[Some]]:
    """Shards of so many images, wherever the work is done: where what comes out depends on how they are cut."""
    parts = [list(indices[first : first + size]) for first in range(0, len(indices), size)]
    return [Shard(images.subset(part), tuple(part), _label(images, part)) for part in parts]


def _label(images: Images, part: Sequence[int]) -> str:
    names: Any = getattr(images, "names", None) or getattr(getattr(images, "images", None), "names", ())
    if not names:
        return f"images {part[0]} to {part[-1]}"
    return str(names[part[0]]) if len(part) == 1 else f"{names[part[0]]} to {names[part[-1]]}"


class Job(Protocol[Made]):
    """What a verb does with shards: a value that can be pickled, of a class of an installed package."""

    def open(self) -> Callable[[Any], Iterator[Made]]:
        """Load what is needed, once in each process that works; what comes back makes a shard's values."""
        ...


class Lost(NamedTuple):
    """An image that is set aside, as the worker that had it died each time.

    Attributes:
        image: its number in the collection.
        reason: what happened.
    """

    image: int
    reason: str


class Pace(NamedTuple):
    """What a worker has done.

    Attributes:
        name: of the worker.
        images: that it has finished.
        seconds: that it worked on them.
    """

    name: str
    images: int
    seconds: float


class Workers(Protocol):
    """Those who do the work; a context manager."""

    def map(
        self,
        job: Job[T],
        shards: Iterable[Shard[Any]],
        opened: Callable[[Any], Iterator[T]] | None = None,
        quiet: bool = False,
        images: int | None = None,
    ) -> Generator[T | Lost, None, None]:
        """What a job makes of shards, in any order.

        Args:
            job: what is done.
            shards: with what; taken when somebody is free for them.
            opened: what `job.open()` gave in this process, if it was called already.
            quiet: without a bar and a summary, as one of many steps.
            images: in all shards, for the bar, where they can't be counted; about.

        Yields:
            The values, and `Lost` for each image that can't be worked on.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Here:
    """This process."""

    def map(
        self,
        job: Job[T],
        shards: Iterable[Shard[Any]],
        opened: Callable[[Any], Iterator[T]] | None = None,
        quiet: bool = False,
        images: int | None = None,
    ) -> Generator[T | Lost, None, None]:
        """As of `Workers`; in order."""
        del quiet, images
        work = opened
        for shard in shards:
            work = work or job.open()
            yield from work(shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return
