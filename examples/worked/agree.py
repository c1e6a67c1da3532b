"""Hold masks against labels: `python examples/worked/agree.py MASKS LABELS`.

MASKS is the folder that `selfseg apply` wrote. LABELS is a folder with a classes.txt and, at any depth, a PNG of each
mask's name. Classes are told by their names. Of each class you get the IoU: the area that mask and label share, divided
by the area that either covers. Pixels whose label is void count for nothing. A pixel without a class in the mask is a
miss of what its label says.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from selfseg.data.labelled.classes_file import parse_classes
from selfseg.evaluation.measure.confusion import VOID, ConfusionMatrix


def main() -> None:
    """Read the command, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", type=Path, help="folder that `selfseg apply` wrote")
    parser.add_argument("labels", type=Path, help="folder of labels, with a classes.txt")
    options = parser.parse_args()
    names = parse_classes((options.labels / "classes.txt").read_text("utf-8"), "classes.txt").names
    legend = json.loads((options.masks / "legend.json").read_text("utf-8"))
    table = np.full(256, -1, np.int64)  # from a mask's value to a label's; -1 is no class
    for one in legend["classes"]:
        if one["name"] not in names:
            raise SystemExit(f"the labels have no class {one['name']!r}; they have {', '.join(names)}")
        table[one["value"]] = names.index(one["name"])
    labels = {file.stem: file for file in options.labels.rglob("*.png") if file.parent.name != "images"}
    matrix, found = ConfusionMatrix(len(names)), 0
    for file in sorted((options.masks / "masks").rglob("*.png")):
        if file.stem not in labels:
            continue
        found += 1
        matrix.add(np.asarray(Image.open(labels[file.stem])), table[np.asarray(Image.open(file))])
    total, metrics = matrix.counts.sum(), matrix.metrics
    print(f"{'class':12}  share    IoU")
    for value, (name, iou) in enumerate(zip(names, metrics.class_iou, strict=True)):
        print(f"{name:12}  {matrix.counts[value].sum() / max(total, 1):5.1%}  {'' if iou is None else f'{iou:5.3f}'}")
    print(f"mean IoU {metrics.miou:.3f}, right pixels {metrics.accuracy:.3f}, in {found} masks; void is {VOID}")


if __name__ == "__main__":
    main()
