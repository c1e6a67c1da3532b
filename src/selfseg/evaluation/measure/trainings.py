"""What a result tells of its training, and the means over several trainings as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from selfseg.drawing.trainings import OverTrainings, columns_of
from selfseg.drawing.trainings import over_trainings as over_trainings
from selfseg.evaluation.measure.results import markdown_rows


def as_training(training: Mapping[str, Any], of: str) -> dict[str, Any]:
    """What options of a result tell of the training that was measured.

    Args:
        training: of `selfseg.storage.hashes.training_of`; may be empty.
        of: what of the run is measured, as `selfseg.evaluate` calls it.
    """
    return {"training": {**training, "of": of}} if training else {}


def trainings_table(several: Sequence[OverTrainings]) -> Table:
    """Them as a table for a terminal."""
    table = Table(title="Means over trainings", caption="mean ± std over trainings: mIoU / pixel accuracy, fractions")
    table.add_column("runs")
    for column in columns_of(several):
        table.add_column(column, justify="right")
    for each in several:
        table.add_row(escape(each.name), *map(each.cell, columns_of(several)))
    return table


def trainings_markdown(several: Sequence[OverTrainings]) -> str:
    """Them as Markdown, after a table of results; "" if there are none."""
    if not several:
        return ""
    columns = columns_of(several)
    rows = [[each.name, *map(each.cell, columns)] for each in several]
    told = (
        "Runs that differ in nothing but the seed of their training: mean ± standard deviation over the trainings. "
        "mIoU / pixel accuracy, fractions."
    )
    return "\n".join(["", "## Means over trainings", "", told, "", *markdown_rows(["runs", *columns], rows), ""])
