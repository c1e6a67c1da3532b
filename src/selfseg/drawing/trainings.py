"""Several trainings of one recipe: a method's number is their mean, since one training says little about the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from selfseg.types import EvalResult


@dataclass(frozen=True)
class OverTrainings:
    """What several trainings of one recipe reached.

    Attributes:
        rows: what the table calls each training, in its order; two or more.
        cells: for each column that all of them have, (mean, standard deviation of a sample) of mIoU and of pixel
            accuracy, as fractions.
    """

    rows: tuple[str, ...]
    cells: Mapping[str, tuple[tuple[float, float], tuple[float, float]]]

    @property
    def name(self) -> str:
        """E.g. "3 trainings: vice0, vice1, vice2"."""
        return f"{len(self.rows)} trainings: {', '.join(self.rows)}"

    def cell(self, column: str) -> str:
        """Its mIoU and pixel accuracy, e.g. "0.374 ± 0.010 / 0.637 ± 0.004"; "" where not all were measured."""
        return " / ".join(f"{middle:.3f} ± {spread:.3f}" for middle, spread in self.cells.get(column, ()))


def over_trainings(results: Iterable[EvalResult]) -> list[OverTrainings]:
    """Means over the trainings of each recipe that has several, with different seeds.

    Args:
        results: on one split of one data set. Of two runs of one recipe with the same seed the first counts, since the
            other may be its copy.
    """
    groups: dict[tuple[str, str], dict[int, dict[str, EvalResult]]] = {}
    for result in results:
        match result.options.get("training"):
            case {"recipe": str(recipe), "seed": int(seed), "of": str(of)} if {"miou", "accuracy"} <= {*result.metrics}:
                trainings = groups.setdefault((recipe, of), {})
                own = trainings.setdefault(seed, {})
                if all(other.what == result.what for other in own.values()):
                    own[result.column] = result
    found = []
    for trainings in groups.values():
        if len(trainings) < 2:
            continue
        each = list(trainings.values())
        shared = [column for column in each[0] if all(column in own for own in each)]
        cells = {column: _summary([own[column] for own in each]) for column in shared}
        if cells:
            found.append(OverTrainings(tuple(next(iter(own.values())).what for own in each), cells))
    return found


def _summary(results: Sequence[EvalResult]) -> tuple[tuple[float, float], tuple[float, float]]:
    mious = [float(result.metrics["miou"]) for result in results]
    accuracies = [float(result.metrics["accuracy"]) for result in results]
    return (mean(mious), stdev(mious)), (mean(accuracies), stdev(accuracies))


def columns_of(several: Sequence[OverTrainings]) -> list[str]:
    """The columns of their table."""
    return list(dict.fromkeys(column for each in several for column in each.cells))
