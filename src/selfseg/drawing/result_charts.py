"""Results side by side: what was measured on the same data, as rows, and each protocol as a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from selfseg.drawing.charts import Curve, confusion_chart, points_chart
from selfseg.drawing.trainings import OverTrainings, over_trainings
from selfseg.storage.files import read_json
from selfseg.storage.hashes import embedder_hash
from selfseg.types import EvalResult


def read_results(run: Path | str) -> list[EvalResult]:
    """What earlier evaluations left in RUN/results, by file name; without detections, which count no pixels.

    Results of weights that the run has no more say so, see `with_age`.
    """
    values = [read_json(path) for path in sorted((Path(run) / "results").glob("*.json"))]
    now = embedder_hash(run) if values else ""
    return [with_age(EvalResult.from_dict(value), now) for value in values if value.get("protocol") != "detection"]


def with_age(result: EvalResult, embedder: str) -> EvalResult:
    """A result that is called "of earlier weights" if it was measured with another embedder than the run has now.

    A run is measured, trained on and measured again, by another protocol: both numbers would stand in one row.

    Args:
        result: of the run; one that doesn't tell its embedder stays as it is.
        embedder: the run's `embedder_hash`; "" if that isn't known.
    """
    measured = result.options.get("embedder")
    if not embedder or not isinstance(measured, str) or measured == embedder:
        return result
    return replace(result, what=f"{result.what} of earlier weights")


@dataclass(frozen=True)
class Cell:
    """One number: mIoU with its deviation over seeds, and accuracy, as fractions; `best` of its column."""

    miou: float
    spread: float | None
    accuracy: float | None
    best: bool


@dataclass(frozen=True)
class Comparison:
    """All results on one split of one data set.

    Attributes:
        title: data set and split.
        columns: protocols, see `column_of`.
        rows: (what was measured, whether it is the run's embedder, a cell per column or None).
        fine_print: one sentence per column on how it was measured.
        class_names: C names.
        class_rows: (what, column, C fractions or None) of the rows that are the run's own.
        confusions: (column, and what where there are several, SVG, fine print) of the same rows.
        several: means over the trainings of each recipe that has some.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, bool, tuple[Cell | None, ...]], ...]
    fine_print: tuple[str, ...]
    class_names: tuple[str, ...]
    class_rows: tuple[tuple[str, str, tuple[float | None, ...]], ...]
    confusions: tuple[tuple[str, Markup, str], ...] = ()
    several: tuple[OverTrainings, ...] = ()

    def class_iou_of(self, column: str) -> list[tuple[str, tuple[float | None, ...]]]:
        """(what, C fractions or None) of the rows that have a result in a column."""
        return [(what, values) for what, other, values in self.class_rows if other == column]


def compare_results(run: Path | str) -> list[Comparison]:
    """The results of RUN/results, those on the same data together; the embedder first, then the best baselines.

    Raises:
        ValueError: if a file is no JSON.
        TypeError, KeyError, AttributeError: if a file is no `EvalResult`.
    """
    results = read_results(run)
    groups: dict[tuple[str, str, tuple[str, ...]], list[EvalResult]] = {}
    for result in results:
        groups.setdefault((result.dataset, result.split, result.class_names), []).append(result)
    return [comparison_of(group) for group in groups.values()]


@dataclass(frozen=True)
class FewLabels:
    """What was measured with few labels on one split of one data set, by one setting.

    Attributes:
        key: of the setting.
        title: data set and split.
        curves: mIoU over the share of the labels in percent; the run's embedder first.
        constant: mIoU of the most frequent class, or None.
        fine_print: how it was measured.
    """

    key: str
    title: str
    curves: tuple[Curve, ...]
    constant: float | None
    fine_print: str

    def svg(self) -> str:
        """The plot."""
        reference = None if self.constant is None else (self.constant, "most frequent class")
        return points_chart(self.curves, self.title, "labelled images, %", "mIoU", reference)


def few_label_curves(run: Path | str) -> list[FewLabels]:
    """The few-label curves of RUN/results.

    Raises:
        As `compare_results`.
    """
    return curves_of(read_results(run))


def curves_of(results: Sequence[EvalResult]) -> list[FewLabels]:
    """The few-label curves among results."""
    groups: dict[tuple[str, str, str], list[EvalResult]] = {}
    for result in results:
        if result.labels is not None:
            groups.setdefault((str(result.options.get("curve")), result.dataset, result.split), []).append(result)
    found = []
    for (key, dataset, split), group in groups.items():
        names = sorted({result.what for result in group}, key=lambda what: (what != "embedder", what))
        constants = [
            r.metrics["miou"] for r in results if (r.protocol, r.dataset, r.split) == ("constant", dataset, split)
        ]
        # The rates differ with the share; what is told is of the largest.
        last = max(group, key=lambda result: result.labels or 0.0)
        told = last.options
        found.append(
            FewLabels(
                key,
                f"{dataset}, {split}: mIoU by share of the labels",
                tuple(_curve(what, [r for r in group if r.what == what]) for what in names),
                constants[0] if constants else None,
                f"The whole network learns from the share of the {last.fit_split} split's labels, {told.get('steps')} "
                f"steps of {told.get('batch_size')} crops of {told.get('crop')} px; bars are the standard deviation "
                f"over splits ({', '.join(f'{r.labels:g} %: {len(r.seeds)}' for r in _one_each(group))}).",
            )
        )
    return found


def _curve(what: str, results: Sequence[EvalResult]) -> Curve:
    ordered = sorted(results, key=lambda result: result.labels or 0.0)
    name = "this run's weights" if what == "embedder" else f"{what}, the weights it began from"
    return Curve(
        "random weights" if what == "random" else name,
        tuple(result.labels or 0.0 for result in ordered),
        tuple(float(result.metrics["miou"]) for result in ordered),
        tuple(float(result.metrics.get("miou_std", 0.0)) for result in ordered),
    )


def _one_each(results: Sequence[EvalResult]) -> list[EvalResult]:
    by_share = {result.labels or 0.0: result for result in results}
    return [by_share[share] for share in sorted(by_share)]


def comparison_of(results: Sequence[EvalResult], own: Sequence[str] = ("embedder",)) -> Comparison:
    """Results on one split of one data set as a table.

    Args:
        results: at least one.
        own: what is measured for its own sake, in the order of the rows; the others follow, the best first.
    """
    # A constant prediction has no protocol of its own: it stands in every column.
    measured = [result for result in results if result.protocol != "constant"] or list(results)
    measured.sort(key=lambda result: result.labels or 0.0)  # file names have 100 before 25
    constants = [result for result in results if result.protocol == "constant"]
    crops = {column_of(result): result.crop for result in measured}
    columns = list(dict.fromkeys(column_of(result) for result in measured))
    by_place = {(result.what, column_of(result)): result for result in measured}
    for result in constants:
        for column in columns:
            if crops[column] == result.crop:
                by_place.setdefault((result.what, column), result)
    best = {
        column: max(result.metrics["miou"] for (_, other), result in by_place.items() if other == column)
        for column in columns
    }
    names = dict.fromkeys(result.what for result in results)
    ranked = sorted(
        names,
        key=lambda what: (
            own.index(what) if what in own else len(own),
            -max((r.metrics["miou"] for (w, _), r in by_place.items() if w == what), default=0.0),
        ),
    )
    rows = []
    for what in ranked:
        cells = []
        for column in columns:
            found = by_place.get((what, column))
            cells.append(_cell(found, best[column]) if found is not None else None)
        rows.append((what, what in own, tuple(cells)))
    first = results[0]
    return Comparison(
        title=f"{first.dataset}, {first.split}",
        columns=tuple(columns),
        rows=tuple(rows),
        fine_print=tuple(dict.fromkeys(map(fine_print, measured))),
        class_names=first.class_names,
        class_rows=tuple((r.what, column_of(r), r.class_iou) for r in measured if r.what in own),
        confusions=tuple(_confusion(r, len(own) > 1) for r in measured if r.what in own),
        several=tuple(over_trainings(measured)),
    )


def _confusion(result: EvalResult, several: bool) -> tuple[str, Markup, str]:
    """The heading, the picture and what to know of it."""
    heading = f"{result.what}, {column_of(result)}" if several else column_of(result)
    title = f"{heading}: {result.dataset}, {result.split}"
    notes = [f"Seed {result.seeds[0]}, the first of {len(result.seeds)}."] if len(result.seeds) > 1 else []
    if left_out := result.counts.get("unassigned", 0):
        notes.append(f"{left_out:,} pixels of clusters without a class are left out.")
    missing = [name for name, row in zip(result.class_names, result.confusion, strict=True) if not sum(row)]
    if missing:
        notes.append(f"Without a pixel: {', '.join(missing)}.")
    # Made by us of numbers and escaped names.
    return heading, Markup(confusion_chart(result.confusion, result.class_names, title)), " ".join(notes)


def _cell(result: EvalResult, best: float) -> Cell:
    miou = float(result.metrics["miou"])
    spread = result.metrics.get("miou_std") if len(result.seeds) > 1 else None
    return Cell(miou, spread, result.metrics.get("accuracy"), miou >= best)


def column_of(result: EvalResult) -> str:
    """As `EvalResult.column`."""
    return result.column


def fine_print(result: EvalResult) -> str:
    """How a number was measured, as a sentence that begins with its column."""
    seeds = f"{len(result.seeds)} seeds" if len(result.seeds) != 1 else "1 seed"
    resolution = "native size" if result.resolution == "native" else f"short side {result.resolution} px"
    fitted = f"fitted on {result.fit_split}" if result.fit_split != "none" else "nothing fitted"
    solver = result.options.get("solver", result.options.get("optimizer"))  # what 0.1.0 called it
    fitted += f" by {solver}" if solver else ""
    counts = ", ".join(f"{value:,} {name}" for name, value in result.counts.items())
    return (
        f"{column_of(result)}: {fitted}, measured on {result.split} at {resolution}, "
        f"crop {result.crop}, {'with' if result.crf else 'no'} CRF, {seeds}; {counts}; protocol version "
        f"{result.protocol_version}, selfseg {result.package_version}."
    )
