"""Count what masks show: `python examples/worked/count.py MASKS CLASS`.

MASKS is the folder that `selfseg apply` wrote. Of each image you get the number of pieces of the class, and their
share of the image. A piece is what hangs together, corners included; --at-least leaves out smaller ones. Two things
that touch are one piece. The same numbers are written to MASKS/CLASS.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def counts(masks: Path, value: int, at_least: int) -> Iterator[tuple[str, int, float]]:
    """(image, pieces, their share of its pixels) of each mask."""
    for file in sorted((masks / "masks").rglob("*.png")):
        shown = (np.asarray(Image.open(file)) == value).astype(np.uint8)
        _, _, about, _ = cv2.connectedComponentsWithStats(shown, connectivity=8)
        areas = about[1:, cv2.CC_STAT_AREA]  # the first is everything else
        areas = areas[areas >= at_least]
        yield file.relative_to(masks / "masks").with_suffix("").as_posix(), len(areas), float(areas.sum() / shown.size)


def main() -> None:
    """Read the command, and print and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", type=Path, help="folder that `selfseg apply` wrote")
    parser.add_argument("name", help="the class that is counted")
    parser.add_argument("--at-least", type=int, default=1, help="pixels of the smallest piece that counts")
    options = parser.parse_args()
    legend = json.loads((options.masks / "legend.json").read_text("utf-8"))
    values = {one["name"]: one["value"] for one in legend["classes"]}
    if options.name not in values:
        raise SystemExit(f"there is no class {options.name!r}; there are {', '.join(values)}")
    rows = list(counts(options.masks, values[options.name], options.at_least))
    file = options.masks / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', options.name)}.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("image", "pieces", "share"))
        writer.writerows((name, pieces, f"{share:.4f}") for name, pieces, share in rows)
    print(f"{'image':24}  pieces  share")
    for name, pieces, share in rows:
        print(f"{name:24}  {pieces:6}  {share:5.1%}")
    print(f"{sum(pieces for _, pieces, _ in rows)} pieces in {len(rows)} images; written: {file}")


if __name__ == "__main__":
    main()
