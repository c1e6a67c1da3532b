"""How many instructions of the processor reading and views take; equal on a busy machine, unlike times.

python benchmarks/instructions.py --images FOLDER --beside OTHER/.venv/bin/python

Needs valgrind, which runs a part with many images and with none; the difference is the part's. `--beside` is the Python
of another version's environment, which is measured in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from shipped import photographs

_PARTS = """
import sys
import cv2
import numpy as np
from pathlib import Path
from selfseg.data.reading.images import check_image, read_image
cv2.setNumThreads(1)
paths = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.suffix in (".jpg", ".png"))[:8]
part, count = sys.argv[2], int(sys.argv[3])
if part == "views":
    from selfseg.data.regions import Grid
    from selfseg.data.views.content_centred import ContentCentredViews
    plan = ContentCentredViews(regions=Grid(10))
    images = [plan.prepare(read_image(path)) for path in paths]
    regions = [plan.regions.compute(image) for image in images]
    def work(i):
        return plan.make(images[i % len(paths)], regions[i % len(paths)], np.random.default_rng(i))
else:
    def work(i):
        return {"read_image": read_image, "check_image": check_image}[part](paths[i % len(paths)])
work(0)
for i in range(count):
    work(i)
"""
_VALGRIND = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]


def instructions(python: str, images: Path, part: str, count: int) -> int:
    """Of a whole process that does a part `count` times."""
    alone = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    words = [*_VALGRIND, python, "-c", _PARTS, str(images), part, str(count)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=alone)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert found is not None, done.stderr[-500:]
    return int(found[1].replace(",", ""))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print millions of instructions for each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images; see benchmarks/shipped.py if left out")
    parser.add_argument("--beside", help="Python of another environment")
    parser.add_argument("--count", type=int, default=24, help="how often each part is done")
    arguments = parser.parse_args(argv)
    images = arguments.images or photographs()
    result: dict[str, object] = {"date": time.strftime("%Y-%m-%d"), "count": arguments.count}
    for name, python in {"this": sys.executable, "beside": arguments.beside}.items():
        for part in ("read_image", "check_image", "views") if python else ():
            many, none = (instructions(python, images, part, count) for count in (arguments.count, 0))
            result[f"{name}_{part}_millions"] = round((many - none) / arguments.count / 1e6, 3)
            result[f"{name}_{part}_start_millions"] = round(none / 1e6)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
