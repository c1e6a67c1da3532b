"""How long reading an image takes, beside OpenCV and Pillow without the strictness.

python benchmarks/read_image.py --images FOLDER
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from selfseg.data.reading.images import ImageCollection, read_image
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog, scan

RESULTS = Path(__file__).parent / "results"


def _milliseconds(read: Callable[[Path], object], paths: Sequence[Path], repeats: int = 5) -> float:
    """The best of `repeats` passes over all files, in ms of processor time per file (others may use the machine)."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for path in paths:
            read(path)
        best = min(best, time.process_time() - start)
    return 1000 * best / len(paths)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid"
    parser.add_argument("--images", type=Path, default=default)
    parser.add_argument("--count", type=int, default=200, help="images to read")
    arguments = parser.parse_args(argv)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.images.exists() and arguments.images == default:
            _draw(Path(folder))
            arguments.images = Path(folder)
        result = _measure(list_images(arguments.images), arguments.count)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "read_image.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def _draw(folder: Path) -> None:
    """Noise at several scales, about as hard to compress as a photograph."""
    random = np.random.default_rng(0)
    for i in range(50):
        layers = [cv2.resize(random.normal(0, 20, (n * 3, n * 4, 3)), (480, 360)) for n in (2, 8, 30, 120)]
        pixels = np.clip(128 + np.sum(layers, axis=0), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95, subsampling=0)


def _measure(everything: ImageCollection, count: int) -> dict[str, object]:
    images = everything.subset(i for i in range(len(everything)) if everything.paths[i].suffix == ".jpg")
    images = images.subset(range(min(count, len(images))))
    for path in images.paths:  # into the page cache
        path.read_bytes()
    result: dict[str, object] = {
        "images": len(images),
        "size": list(images.read(0).shape[:2]),
        "read_image_ms": _milliseconds(read_image, images.paths),
        "opencv_imread_ms": _milliseconds(lambda path: cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), images.paths),
        "pillow_ms": _milliseconds(lambda path: np.array(Image.open(path).convert("RGB")), images.paths),
        "machine": f"{platform.machine()}, {platform.python_version()}, one thread",
        "date": time.strftime("%Y-%m-%d"),
    }
    start = time.process_time()
    scan(images, SkipLog(None, len(images), limit=1.0))
    result["scan_ms"] = 1000 * (time.process_time() - start) / len(images)
    return result


if __name__ == "__main__":
    main()
