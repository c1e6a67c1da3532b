"""Results on disk and in a table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from rich.table import Table

from selfseg import identity
from selfseg.evaluation.coco import DetectionResult
from selfseg.files import read_json
from selfseg.types import EvalResult


def recipe_hash(run: Path) -> str:
    """What checkpoints of the run carry, see `selfseg.identity`; "" without a readable recipe."""
    try:
        values = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    return identity.recipe_hash(values) if isinstance(values, dict) else ""


def package_version() -> str:
    """selfseg's, or "" when it runs from a source tree that was not installed."""
    try:
        return version("selfseg")
    except PackageNotFoundError:
        return ""


def result_name(result: EvalResult | DetectionResult) -> str:
    """The file name of a result: the same question gives the same name, so that a new answer takes the old one's place.

    Example: "camvid-val-clusters-k64-embedder.json".
    """
    k, crf = (result.k, result.crf) if isinstance(result, EvalResult) else (None, False)
    kind = [result.protocol, f"k{k}" if k is not None else "", "crf" if crf else ""]
    parts = [result.dataset, result.split, *kind, result.what]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-") for part in parts if part) + ".json"


def read_results(run: Path | str) -> list[EvalResult]:
    """What earlier evaluations left in RUN/results, by file name; without detections, which count no pixels."""
    values = [read_json(path) for path in sorted((Path(run) / "results").glob("*.json"))]
    return [EvalResult.from_dict(value) for value in values if value.get("protocol") != "detection"]


def format_table(results: Iterable[EvalResult]) -> Table:
    """Results as a table: a row for each thing measured, a column for each protocol and k.

    A cell is mIoU (± its standard deviation over seeds) / pixel accuracy, as fractions.
    """
    results = list(results)
    columns = list(dict.fromkeys(_column(r) for r in results if r.protocol != "constant"))
    sets = dict.fromkeys(f"{r.dataset} {r.split}, {len(r.class_names)} classes" for r in results)
    table = Table(title="; ".join(sets), caption="mIoU ± std over seeds / pixel accuracy, fractions")
    table.add_column("embedding")
    for column in columns:
        table.add_column(column, justify="right")
    for what in dict.fromkeys(r.what for r in results):
        row = {_column(r): _cell(r) for r in results if r.what == what}
        constant = next((_cell(r) for r in results if r.what == what and r.protocol == "constant"), "")
        table.add_row(what, *(row.get(column, constant) for column in columns))
    return table


def _column(result: EvalResult) -> str:
    name = result.protocol if result.k is None else f"{result.protocol} k={result.k}, {result.matching}"
    return f"{name} + CRF" if result.crf else name


def _cell(result: EvalResult) -> str:
    metrics = result.metrics
    spread = f" ± {metrics['miou_std']:.3f}" if len(result.seeds) > 1 else ""
    return f"{metrics['miou']:.3f}{spread} / {metrics['accuracy']:.3f}"
