"""Results: made of confusions, on disk and in a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from selfseg.data.labelled.catalog import LabelledImages
from selfseg.drawing.result_charts import column_of as column_of
from selfseg.drawing.result_charts import comparison_of, fine_print, with_age
from selfseg.drawing.result_charts import read_results as read_results
from selfseg.errors import ConfigError, LabelError
from selfseg.evaluation.measure.confusion import Metrics, mean_class_iou, metrics_of
from selfseg.evaluation.measure.reading import Tally
from selfseg.evaluation.protocols.coco import DetectionResult
from selfseg.showing import card, folded, listed, strong, table
from selfseg.storage.files import read_json, write_text
from selfseg.storage.hashes import embedder_hash
from selfseg.types import EvalResult


def package_version() -> str:
    """selfseg's, or "" when it runs from a source tree that was not installed."""
    try:
        return version("selfseg")
    except PackageNotFoundError:
        return ""


def summary(metrics: Sequence[Metrics], prefix: str = "") -> dict[str, float]:
    """Means over seeds, and standard deviations (of a sample; 0 for one seed).

    Example:
        >>> summary([Metrics(0.25, 0.5, ()), Metrics(0.75, 0.5, ())])["miou"]
        0.5
    """
    result = {}
    for name, values in (("miou", [m.miou for m in metrics]), ("accuracy", [m.accuracy for m in metrics])):
        result[f"{prefix}{name}"] = float(np.mean(values))
        result[f"{prefix}{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return result


@dataclass(frozen=True)
class Question:
    """What a result answers: the fields of an `EvalResult` that are known before anything is measured.

    Attributes:
        protocol: its name.
        protocol_version: of the protocol.
        what: is measured.
        fit_split: that is learned from.
        resolution: of the images.
        seeds: of the confusions.
        matching: of clusters.
        k: clusters.
        crf: whether one refines the prediction.
        labels: percentage of labels.
        recipe_hash: of the run.
    """

    protocol: str
    protocol_version: int
    what: str
    fit_split: str
    resolution: int | str
    seeds: tuple[int, ...] = ()
    matching: str = "none"
    k: int | None = None
    crf: bool = False
    labels: float | None = None
    recipe_hash: str = ""


def result_of(
    question: Question,
    confusions: Sequence[NDArray[np.int64]],
    tally: Tally,
    measured: LabelledImages,
    options: Mapping[str, Any],
    further: Mapping[str, float] | None = None,
    counts: Mapping[str, int] | None = None,
) -> EvalResult:
    """The result that the confusions of some seeds make.

    Args:
        question: what was asked.
        confusions: one per seed, (C, C) or (C, C + 1) with "none" as the last column; rows = truth.
        tally: what the pass over the measured split met.
        measured: the split.
        options: to which the absent classes are added.
        further: metrics beside mIoU and accuracy.
        counts: beside the tally's.
    """
    if not tally.pixels:
        raise LabelError(
            f"no pixel of the {tally.images} labels of the split {measured.split!r} of {measured.name} is of a class: "
            "all are void, so there is nothing to measure; are they the right labels, and does classes.txt say what "
            f"their values mean? `selfseg data {measured.root}` tells what they hold"
        )
    metrics = [metrics_of(confusion) for confusion in confusions]
    class_iou = mean_class_iou(metrics)
    names = measured.class_names
    absent = [name for name, value in zip(names, class_iou, strict=True) if value is None]
    return EvalResult(
        **asdict(question),
        dataset=measured.name,
        split=measured.split,
        crop="none" if measured.crop is None else str(measured.crop),
        metrics={**summary(metrics), **(further or {})},
        class_names=names,
        class_iou=class_iou,
        confusion=tuple(tuple(int(value) for value in row) for row in confusions[0][:, : len(names)]),
        counts={
            "images": tally.images,
            "pixels": tally.pixels,
            "void": tally.void,
            "skipped": tally.skipped,
            **(counts or {}),
        },
        options={**options, "absent_classes": absent},
        package_version=package_version(),
    )


def split_name(fit: LabelledImages, measured: LabelledImages) -> str:
    """What a result calls the split that was learned from: with its data set, if that is another than the measured."""
    return fit.split if fit.root == measured.root else f"{fit.name}/{fit.split}"


def result_name(result: EvalResult | DetectionResult) -> str:
    """The file name of a result: the same question gives the same name, so that a new answer takes the old one's place.

    Example: "camvid-val-clusters-k64-embedder.json".
    """
    asked = []
    if isinstance(result, EvalResult):
        asked = [f"k{result.k}" if result.k is not None else ""]
        asked += [f"filters{result.options['hidden']}" if result.options.get("hidden") else ""]
        asked += [f"merged{result.options['merge']}" if result.options.get("merge") else ""]
        asked += [f"crop{result.crop}" if result.crop != "none" else ""]
        asked += ["by-pixels" if result.by_pixels else ""]
        asked += ["largest-iou" if result.matching == "largest_iou" else ""]
        asked += [str(result.options.get("looks", "")).strip("-")]
        asked += ["crf" if result.crf else ""]
        asked += [f"labels{result.labels:g}" if result.labels is not None else ""]
        asked += [f"{len(result.class_names)}classes" if result.options.get("classes") else ""]
        asked += [f"fit-{result.fit_split}" if result.fitted_elsewhere else ""]
    parts = [result.dataset, result.split, result.protocol, *asked, result.what]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-") for part in parts if part) + ".json"


TRIVIAL = ("most frequent class", "colour", "colour + position", "untrained")
"""What baselines that learned nothing are called, see `selfseg.evaluation.baselines`."""


def write_table(folder: Path, run: Path | None = None) -> Path:
    """Write FOLDER/table.md, the `markdown_table` of all results that lie in the folder, and return its path.

    Those of `run`, if one is given, that were measured with earlier weights of it say so (`with_age`).

    Other JSON files may lie there too, and are left out: an evaluation that is done must not fail for them.

    Raises:
        StorageError: if it can't be written.
    """
    found = []
    now = embedder_hash(run) if run is not None else ""
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            result = with_age(EvalResult.from_dict(read_json(path)), now)
            markdown_table([result])  # a file that was edited may lack what a row needs
            found.append(result)
    write_text(folder / "table.md", markdown_table(found))
    return folder / "table.md"


def check_same_data(folder: Path, measured: LabelledImages, fingerprint: Mapping[str, str]) -> None:
    """Refuse to put results among those of other data of the same name: they would take their files and their rows.

    Args:
        folder: where results are to be written.
        measured: the split.
        fingerprint: of it, as results carry it in `options["data"]`; results without one are passed over.

    Raises:
        ConfigError: if results lie there that differ in both the folder of the data and the images.
    """
    for path in sorted(folder.glob("*.json")):
        known: object = None
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            result = EvalResult.from_dict(read_json(path))
            if (result.dataset, result.split) == (measured.name, measured.split):
                known = result.options.get("data")
        if isinstance(known, dict) and all(known.get(key) != value for key, value in fingerprint.items()):
            raise ConfigError(
                f"{path} is of other images, whose folder is called {measured.name} too: their results would be "
                f"replaced by those of {measured.root}. Give --out with a folder for them, or give the data's folder "
                "another name"
            )


class Results(list[EvalResult]):
    """A list of results, which a notebook shows as a table for each split of a data set."""

    def __repr__(self) -> str:
        """A line for each result."""
        return "\n".join([f"{len(self)} results", *(f"  {result!r}" for result in self)])

    def _repr_html_(self) -> str:
        groups: dict[tuple[str, str, tuple[str, ...]], list[EvalResult]] = {}
        for result in self:
            groups.setdefault((result.dataset, result.split, result.class_names), []).append(result)
        if not groups:
            return card("No result")
        return "".join(_card_of(group) for group in groups.values())


def _card_of(results: Sequence[EvalResult]) -> str:
    """Results on the same data: what is to be known first, a row for each thing measured, and the IoU of classes."""
    compared = comparison_of(results)
    first = results[0]
    rows = []
    for what, _, cells in compared.rows:
        texts = ["–" if cell is None else f"{cell.miou:.3f}{_spread(cell.spread)}" for cell in cells]
        best = [cell is not None and cell.best for cell in cells]
        rows.append([what, *(strong(text) if top else text for text, top in zip(texts, best, strict=True))])
    own = [result for result in results if result.what not in TRIVIAL and result.protocol != "constant"]
    classes = [
        [name, *("–" if r.class_iou[i] is None else f"{r.class_iou[i]:.3f}" for r in own)]
        for i, name in enumerate(first.class_names)
    ]
    several = len({result.what for result in own}) > 1
    heads = [f"{result.what}, {result.column}" if several else result.column for result in own]
    doubts = dict.fromkeys(result.doubt for result in results if result.doubt)
    told = dict.fromkeys(result.meaning for result in own or results)
    numbers = range(1, len(compared.columns) + 1)
    return card(
        f"{first.dataset} {first.split}, {len(first.class_names)} classes: mIoU",
        table(["measured", *compared.columns], rows, right=numbers),
        folded("IoU of each class", table(["class", *heads], classes, range(1, len(heads) + 1), "classes")),
        folded("How it was measured", listed([*told, *compared.fine_print])),
        warnings=list(doubts),
        headline=f"{own[0].what}, {own[0].column}: {own[0].headline}" if own else "",
    )


def _spread(value: float | None) -> str:
    return "" if value is None else f" ± {value:.3f}"


def format_table(results: Iterable[EvalResult]) -> Table:
    """Results as a table: a row for each thing measured, a column for each protocol and k.

    A cell is mIoU (± its standard deviation over seeds) / pixel accuracy, as fractions.
    """
    results = list(results)
    columns = list(dict.fromkeys(column_of(r) for r in results if r.protocol != "constant"))
    sets = dict.fromkeys(f"{r.dataset} {r.split}, {len(r.class_names)} classes" for r in results)
    doubts = [f"note: {doubt}" for doubt in dict.fromkeys(filter(None, (r.doubt for r in results)))]
    table = Table(
        title="\n".join([*map(escape, doubts), "; ".join(sets)]),
        caption="mIoU ± std over seeds / pixel accuracy, fractions",
    )
    table.add_column("embedding")
    for column in columns:
        table.add_column(column, justify="right")
    for row in _rows(results, columns):
        table.add_row(*row)
    return table


def _rows(results: Sequence[EvalResult], columns: Sequence[str]) -> list[list[str]]:
    """For each thing measured its name and a cell per column; a constant stands in all columns of its crop."""
    crops = {column_of(r): r.crop for r in results if r.protocol != "constant"}
    rows = []
    for what in dict.fromkeys(r.what for r in results):
        own = {column_of(r): _cell(r) for r in results if r.what == what}
        constant = {r.crop: _cell(r) for r in results if r.what == what and r.protocol == "constant"}
        rows.append([what, *(own.get(column) or constant.get(crops.get(column, ""), "") for column in columns)])
    return rows


def markdown_table(results: Iterable[EvalResult]) -> str:
    """Results as Markdown: for each split of a data set the table of `format_table`, and the IoU of each class.

    Args:
        results: any; those on other data, or of other classes, get tables of their own.

    Returns:
        Text that ends with a line break; "" without results. The tables of classes are of the embedder's rows, or of
        all but the trivial baselines' where there is none; "-" is a class with neither truth nor prediction. Below
        stands how each column was measured.

    Example:
        >>> markdown_table([])
        ''
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[EvalResult]] = {}
    for result in results:
        groups.setdefault((result.dataset, result.split, result.class_names), []).append(result)
    return "\n".join(_markdown_group(group) for group in groups.values())


def _markdown_group(results: Sequence[EvalResult]) -> str:
    first = results[0]
    columns = list(dict.fromkeys(column_of(r) for r in results if r.protocol != "constant"))
    lines = [f"## {_escaped(f'{first.dataset} {first.split}, {len(first.class_names)} classes')}", ""]
    for doubt in dict.fromkeys(filter(None, (r.doubt for r in results))):
        lines += [f"**Note:** {_escaped(doubt)}", ""]
    if columns:
        lines += ["mIoU ± standard deviation over seeds / pixel accuracy, fractions.", ""]
    else:
        columns = list(dict.fromkeys(map(column_of, results)))
    lines += markdown_rows(["embedding", *columns], _rows(results, columns))
    told = [r for r in results if r.what == "embedder"] or [r for r in results if r.what not in TRIVIAL]
    if len({r.what for r in told}) == 1:
        lines += _markdown_classes(f"IoU of each class, {told[0].what}:", first, {column_of(r): r for r in told})
    else:  # a table for each column: beside each other the things measured, which are what is compared
        for column in dict.fromkeys(map(column_of, told)):
            rows = {r.what: r for r in told if column_of(r) == column}
            lines += _markdown_classes(f"IoU of each class, {column}:", first, rows)
    how = dict.fromkeys(fine_print(r) for r in results if r.protocol != "constant")
    if how:  # more than one line of a column: its rows can't be compared as they stand
        lines += ["", "How it was measured:", "", *(f"- {_escaped(line)}" for line in how)]
    return "\n".join(lines) + "\n"


def _markdown_classes(title: str, first: EvalResult, columns: Mapping[str, EvalResult]) -> list[str]:
    rows = [
        [name, *("-" if r.class_iou[i] is None else f"{r.class_iou[i]:.3f}" for r in columns.values())]
        for i, name in enumerate(first.class_names)
    ]
    return ["", title, "", *markdown_rows(["class", *columns], rows)]


def _escaped(cell: str) -> str:
    """Without what would end a cell (a pipe), a row (a line break), or begin a tag, a link, a picture or code."""
    return re.sub(r"([|<\[\]`\\])", r"\\\1", " ".join(cell.split()))


def markdown_rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, whose cells are escaped; the first column stands at the left, the others at the right."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(_escaped(cell) for cell in cells)} |"

    return [line(head), f"|---|{'---:|' * (len(head) - 1)}", *map(line, rows)]


def _cell(result: EvalResult) -> str:
    metrics = result.metrics
    spread = f" ± {metrics['miou_std']:.3f}" if len(result.seeds) > 1 else ""
    return f"{metrics['miou']:.3f}{spread} / {metrics['accuracy']:.3f}"
