"""Count what masks show: `python examples/worked/count.py MASKS CLASS`.

MASKS is the folder that `selfseg apply` wrote. Of each image you get the number of pieces of the class, and their
share of the image. A piece is what hangs together, corners included; --at-least leaves out smaller ones. Two things
that touch are one piece. The same numbers are written to MASKS/CLASS.csv. --labels counts in a folder of labels, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.labelled.classes_file import parse_classes


def pieces(values: NDArray[np.integer], value: int, at_least: int) -> tuple[int, float]:
    """The number of pieces that have a value, and their share of (H, W) values."""
    shown = (values == value).astype(np.uint8)
    _, _, about, _ = cv2.connectedComponentsWithStats(shown, connectivity=8)
    areas = about[1:, cv2.CC_STAT_AREA]  # the first is everything else
    areas = areas[areas >= at_least]
    return len(areas), float(areas.sum() / shown.size)


def value_in_labels(labels: Path, name: str) -> int:
    """The value of a class in a folder of labels."""
    return parse_classes((labels / "classes.txt").read_text("utf-8"), "classes.txt").names.index(name)


def main() -> None:
    """Read the command, and print and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", type=Path, help="folder that `selfseg apply` wrote")
    parser.add_argument("name", help="the class that is counted")
    parser.add_argument("--at-least", type=int, default=1, help="pixels of the smallest piece that counts")
    parser.add_argument("--labels", type=Path, help="folder of labels with the same names, and a classes.txt")
    options = parser.parse_args()
    legend = json.loads((options.masks / "legend.json").read_text("utf-8"))
    values = {one["name"]: one["value"] for one in legend["classes"]}
    if options.name not in values:
        raise SystemExit(f"there is no class {options.name!r}; there are {', '.join(values)}")
    head, rows = ["image", "pieces", "share"], []
    if options.labels:
        head += ["in the labels", "share there"]
    for file in sorted((options.masks / "masks").rglob("*.png")):
        name = file.relative_to(options.masks / "masks").with_suffix("").as_posix()
        rows.append([name, *pieces(np.asarray(Image.open(file)), values[options.name], options.at_least)])
        if options.labels:
            label = np.asarray(Image.open(options.labels / f"{name}.png"))
            rows[-1] += pieces(label, value_in_labels(options.labels, options.name), options.at_least)
    file = options.masks / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', options.name)}.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([head, *rows])
    print("  ".join([f"{head[0]:12}", *head[1:]]))
    for name, *counted in rows:
        shown = (f"{one:{len(title)}.1%}" if title.startswith("share") else f"{one:{len(title)}}"
                 for title, one in zip(head[1:], counted, strict=True))  # fmt: skip
        print("  ".join([f"{name:12}", *shown]))
    totals = [str(sum(row[column] for row in rows)) for column in range(1, len(head), 2)]
    print(f"{' and '.join(totals)} pieces in {len(rows)} images; written: {file}")


if __name__ == "__main__":
    main()
