"""How sure is a comparison? `python examples/worked/intervals.py COMPARISON DATA ROW`.

COMPARISON is a folder that `selfseg compare` wrote with all measured images shown (--count), DATA the labelled folder
that it measured on. Each row's mIoU gets an interval of 95 %, and so does its difference to ROW. For that, the measured
photographs are drawn again 2,000 times, with replacement (bootstrap). Pieces of one photograph are drawn together: they
are not independent of each other. What stands after the "_" in a name tells the photograph.

The clusters and their names stay as they are, those of the first seed. So the interval says how much depends on which
photographs were measured on, and nothing about other trainings or clusterings. From few photographs such intervals
come out too narrow.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfseg.evaluation.measure.confusion import ConfusionMatrix, metrics_of

DRAWS = 2_000


def confusions(predictions: list[Path], labels: list[Path], classes: int) -> NDArray[np.int64]:
    """(N, C, C + 1) counts of each image."""
    found = []
    for prediction, label in zip(predictions, labels, strict=True):
        matrix, values = ConfusionMatrix(classes), np.asarray(Image.open(prediction)).astype(np.int64)
        matrix.add(np.asarray(Image.open(label)), np.where(values < classes, values, -1))
        found.append(matrix.counts)
    return np.stack(found)


def miou(counts: NDArray[np.int64]) -> float:
    """Mean IoU over the classes that are in the labels.

    A class that no drawn photograph shows would count as 0 wherever another photograph has a pixel of it by mistake.
    """
    there = counts.sum(1) > 0
    return float(np.mean([iou for iou, known in zip(metrics_of(counts).class_iou, there, strict=True) if known]))


def drawn(of_groups: NDArray[np.int64], seed: int = 0) -> NDArray[np.float64]:
    """(DRAWS,) mIoU of groups drawn with replacement, the same draws in each call."""
    generator, groups = np.random.default_rng(seed), len(of_groups)
    chosen = generator.integers(groups, size=(DRAWS, groups))
    return np.array([miou(of_groups[one].sum(0)) for one in chosen])


def interval(values: NDArray[np.float64]) -> str:
    """From the 2.5th percentile to the 97.5th."""
    low, high = np.percentile(values, (2.5, 97.5))
    return f"{low:6.3f} to {high:.3f}"


def rows_of(comparison: Path, data: Path) -> tuple[dict[str, NDArray[np.int64]], int]:
    """By row, (G, C, C + 1) counts of each photograph; and how many images there are."""
    rows: dict[str, NDArray[np.int64]] = {}
    labels: list[Path] = []
    for file in sorted((comparison / "rows").glob("*/row.json")):
        row = json.loads(file.read_text("utf-8"))
        shown, folder = row["settings"]["shown"], data / row["settings"]["splits"][1] / "labels"
        labels, there = [folder / f"{name}.png" for name in shown], len(list(folder.iterdir()))
        if len(labels) < there:
            raise SystemExit(f"only {len(labels)} images are shown; run selfseg compare with --count {there}")
        photographs = np.array([name.partition("_")[2] for name in shown])
        for drawing in row["drawings"]:
            if drawing["kind"] != "embedding":
                files = [comparison / name for name in drawing["files"]]
                each = confusions(files, labels, len(row["settings"]["classes"]))
                together = [each[photographs == one].sum(0) for one in np.unique(photographs)]
                rows[drawing["what"]] = np.stack(together)
    return rows, len(labels)


def main() -> None:
    """Read the command, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="folder that `selfseg compare` wrote, of one protocol")
    parser.add_argument("data", type=Path, help="labelled folder that it measured on")
    parser.add_argument("row", help="what the others are compared with")
    options = parser.parse_args()
    rows, images = rows_of(options.comparison, options.data)
    if options.row not in rows:
        raise SystemExit(f"there is no row {options.row!r}; there are {', '.join(rows)}")
    basis = drawn(rows[options.row])
    print(f"{'embedding':20}  mIoU   95 % interval    minus {options.row}")
    for name in sorted(rows, key=lambda name: -miou(rows[name].sum(0))):
        values = drawn(rows[name])
        difference = "" if name == options.row else interval(values - basis)
        print(f"{name:20}  {miou(rows[name].sum(0)):.3f}  {interval(values)}  {difference}")
    print(f"{len(rows[options.row])} photographs, {images} images of them, {DRAWS:,} draws")


if __name__ == "__main__":
    main()
