"""Points in files, of which workers take one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfseg.errors import RunError
from selfseg.ops.parts.steps import Step
from selfseg.workers.plan import Lost, Shard, Workers


@dataclass(frozen=True)
class Files:
    """Files that are shared out, as images are."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int]) -> Files:
        """Those at `indices`."""
        return Files(tuple(self.paths[i] for i in indices))


@dataclass(frozen=True)
class _Doing:
    """The job of a step."""

    step: Step

    def open(self) -> Callable[[Shard[Files]], Iterator[tuple[int, Any]]]:
        """Nothing is to be loaded."""
        return self._do

    def _do(self, shard: Shard[Files]) -> Iterator[tuple[int, Any]]:
        for path, number in zip(shard.images.paths, shard.indices, strict=True):
            yield number, self.step.on(path, number)


class SharedParts:
    """Points in parts that workers go through (`selfseg.ops.parts.steps.Parts`).

    Args:
        workers: who do.
        paths: of the parts, (N_i, D) float16 or float32 each, which every worker can read and write beside.
    """

    def __init__(self, workers: Workers, paths: Sequence[Path]) -> None:
        self._workers, self._files = workers, Files(tuple(paths))

    def __len__(self) -> int:
        return len(self._files)

    def each(self, step: Step, some: Sequence[int] | None = None) -> list[Any]:
        """What a step gives for the parts, in their order.

        Raises:
            RunError: if workers die over one again and again.
        """
        numbers = range(len(self)) if some is None else some
        shards = [Shard(self._files.subset([i]), (i,), self._files.paths[i].name) for i in numbers]
        found: dict[int, Any] = {}
        for value in self._workers.map(_Doing(step), shards, quiet=True):
            if isinstance(value, Lost):
                raise RunError(f"{self._files.paths[value.image]} can't be worked on: {value.reason}")
            found[value[0]] = value[1]
        return [found[i] for i in numbers]
