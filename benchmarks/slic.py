"""SLIC against scikit-image's and OpenCV's (where cv2.ximgproc is there: opencv-contrib-python): speed and quality.

Speed: 480 x 360, one thread, five iterations each, colour conversion and connectivity included, in turns within one
run; the best and the median of CPU time, which other work on the machine disturbs least.
Quality: at equal numbers of superpixels, interpolated over log(number) from five sizes each; the others get ten
iterations, their default.

python benchmarks/slic.py                                # speed, on scikit-image's photographs
python benchmarks/slic.py BSDS500/val --out benchmarks/results/slic.json
    the folder holds images/*.jpg and regions/*.png, ids of a person's segments
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

# ruff: noqa: E402
import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np
import skimage
from numpy.typing import NDArray
from skimage import segmentation

from selfseg.ops.regions import superpixel_quality as quality
from selfseg.ops.regions.slic import slic
from selfseg.storage.files import write_json

Image = NDArray[np.uint8]
Algorithm = Callable[[Image, int, float, int], NDArray[Any]]
NUMBERS = (150, 300, 600)
SIZES = (44, 32, 23, 16, 11)
MEASURES = ("boundary_recall", "undersegmentation_error", "explained_variation", "achievable_accuracy")


def scikit_image(image: Image, size: int, ruler: float, iterations: int) -> NDArray[Any]:
    number = max(1, round(image.shape[0] * image.shape[1] / size**2))
    found: NDArray[Any] = segmentation.slic(
        image, n_segments=number, compactness=ruler, max_num_iter=iterations, start_label=0
    )
    return found


def opencv(image: Image, size: int, ruler: float, iterations: int) -> NDArray[Any]:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    superpixels = cv2.ximgproc.createSuperpixelSLIC(lab, cv2.ximgproc.SLIC, size, ruler)
    superpixels.iterate(iterations)
    superpixels.enforceLabelConnectivity(25)  # the default: a quarter of the mean area
    found: NDArray[Any] = superpixels.getLabels()
    return found


def algorithms() -> dict[str, Algorithm]:
    found: dict[str, Algorithm] = {"selfseg": slic, "scikit-image": scikit_image}
    if hasattr(cv2, "ximgproc"):
        found["opencv"] = opencv
    return found


def photographs(data: Path | None, limit: int) -> list[Image]:
    if data is None:
        images = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    else:
        images = [read(path) for path in sorted((data / "images").glob("*.jpg"))[:limit]]
    return [cv2.resize(image, (480, 360), interpolation=cv2.INTER_AREA) for image in images]


def read(path: Path) -> Image:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def measure_speed(images: Sequence[Image], repeats: int) -> list[dict[str, Any]]:
    rows = []
    print(f"{'speed':14} {'size':>4} {'best ms':>8} {'median':>8} {'times selfseg':>14}")
    for size in (20, 10):
        seconds: dict[str, list[float]] = {name: [] for name in algorithms()}
        for repeat in range(repeats + 1):
            for image in images:
                for name, algorithm in algorithms().items():
                    begin = time.process_time()
                    algorithm(image, size, 10.0, 5)
                    if repeat:
                        seconds[name].append(time.process_time() - begin)
        reference = float(np.median(seconds["selfseg"]))
        for name, values in seconds.items():
            best, median = min(values) * 1e3, float(np.median(values)) * 1e3
            rows.append({"name": name, "size": size, "best_ms": round(best, 2), "median_ms": round(median, 2)})
            rows[-1]["times_selfseg"] = round(median / reference / 1e3, 2)
            print(f"{name:14} {size:4} {best:8.2f} {median:8.2f} {rows[-1]['times_selfseg']:14.2f}", flush=True)
    return rows


def measure_quality(data: Path, every: int) -> list[dict[str, Any]]:
    paths = sorted((data / "images").glob("*.jpg"))[::every]
    pairs = [(read(p), cv2.imread(str(data / "regions" / f"{p.stem}.png"), cv2.IMREAD_UNCHANGED)) for p in paths]
    rows = []
    print(f"\nquality over {len(pairs)} images (recall, explained, achievable: higher is better; error: lower)")
    print(f"{'':14} {'ruler':>5} {'number':>6} {'recall':>8} {'error':>8} {'explained':>10} {'achievable':>10}")
    for name, algorithm in algorithms().items():
        for ruler in (10.0, 20.0, 40.0):
            curve = []
            for size in SIZES:
                values = []
                for image, truth in pairs:
                    found = algorithm(image, size, ruler, 5 if name == "selfseg" else 10)
                    values.append(
                        (
                            len(np.unique(found)),
                            quality.boundary_recall(found, truth),
                            quality.undersegmentation_error(found, truth),
                            quality.explained_variation(found, image),
                            quality.achievable_segmentation_accuracy(found, truth),
                        )
                    )
                curve.append(np.mean(values, 0))
            table = np.array(curve)
            for number in NUMBERS:
                if not table[:, 0].min() <= number <= table[:, 0].max():
                    continue
                at = [float(np.interp(np.log(number), np.log(table[:, 0]), column)) for column in table[:, 1:].T]
                row = dict(zip(MEASURES, (round(value, 4) for value in at), strict=True))
                rows.append({"name": name, "ruler": ruler, "superpixels": number, **row})
                numbers = " ".join(f"{value:{width}.4f}" for value, width in zip(at, (8, 8, 10, 10), strict=True))
                print(f"{name:14} {ruler:5.0f} {number:6} {numbers}", flush=True)
    return rows


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with images/ and regions/; without it, speed only")
    parser.add_argument("--every", type=int, default=1, help="quality on every n-th image")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="where to write the numbers as JSON")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    speed = measure_speed(photographs(options.data, 6), options.repeats)
    measured = measure_quality(options.data, options.every) if options.data else []
    if options.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout
        data = "" if options.data is None else f" {'/'.join(options.data.resolve().parts[-2:])}"
        write_json(
            options.out,
            {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": f"python benchmarks/slic.py{data} --every {options.every} --repeats {options.repeats}",
                "commit": commit.strip(),
                "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()},
                "versions": {
                    "python": platform.python_version(),
                    "numpy": np.__version__,
                    "numba": numba.__version__,
                    "scikit-image": skimage.__version__,
                    "opencv": cv2.__version__,
                },
                "speed": speed,
                "quality": measured,
            },
        )
        print(f"\nwrote {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
