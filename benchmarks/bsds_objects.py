"""Write the photographs of BSDS500 that show people or animals as a labelled folder, to measure masks with.

python benchmarks/bsds_objects.py BSDS500 OUT
selfseg masks OUT/people/images --out MASKS --labels OUT --split people

BSDS500 (P. Arbelaez et al., TPAMI 2011) has regions that people drew, without names. `bsds_objects.json` lists for
78 images which of the regions are the people (52 images) or the animals (26) in it; we picked them by eye. The images
and regions themselves are not part of this project. BSDS500 is a folder with SPLIT/images/NAME.jpg and
SPLIT/regions/NAME.png, the regions of one annotator as ids.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import cv2
import numpy as np

LISTED = Path(__file__).with_name("bsds_objects.json")


def write_objects(root: Path, out: Path) -> dict[str, int]:
    """Write OUT/{people,animals}/{images,labels}; returns how many images each has."""
    counts = {}
    for kind, images in json.loads(LISTED.read_text()).items():
        for folder in ("images", "labels"):
            (out / kind / folder).mkdir(parents=True, exist_ok=True)
        for name, ids in images.items():
            (split,) = (each for each in root.iterdir() if (each / "images" / f"{name}.jpg").is_file())
            regions = cv2.imread(str(split / "regions" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            assert regions is not None, f"no regions of {name} in {split}"
            cv2.imwrite(str(out / kind / "labels" / f"{name}.png"), np.isin(regions, ids).astype(np.uint8))
            shutil.copyfile(split / "images" / f"{name}.jpg", out / kind / "images" / f"{name}.jpg")
        counts[kind] = len(images)
    (out / "classes.txt").write_text("background\nobject\n")
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    print(write_objects(given.root, given.out))
