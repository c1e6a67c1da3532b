"""Counting pixels against labels and naming clusters: 1,000 images of VOC's size (500x375, 21 classes), 500 clusters.

Images are drawn as they come, one at a time: a few objects on a background with a void border of 5 px around each (as
in VOC), and clusters in blobs, with ragged borders; sixteen label maps and sixteen cluster maps, paired and rolled anew
for each image.

- Counting, in turns on the same images: ours (`cross_counts`), `np.bincount` of int64 places of the pixels that are not
  void (what most programs do), and torchmetrics' update of a `MulticlassConfusionMatrix`, which knows one
  number of classes and is therefore given clusters modulo 21; ours is measured with 21 clusters too. Tables have to be
  equal.
- Matching of the (500, 21) table: Hungarian (IoU and pixels) and majority vote, with the metrics of each.
- Memory: the peak of a process that counts 100, 500 and 1,000 images and matches.

Times are CPU seconds of one thread.

    python benchmarks/confusion.py
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.evaluation.measure.confusion import cross_counts
from selfseg.evaluation.protocols.clusters import name_clusters

HEIGHT, WIDTH, CLASSES, VOID = 375, 500, 21, 255
Label, Clusters = NDArray[np.uint8], NDArray[np.int64]


def draw_label(rng: np.random.Generator) -> Label:
    """Up to four ellipses of a class each on the background, each with a void border."""
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(rng.integers(1, 5)):
        centre = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
        axes, angle = tuple(int(a) for a in rng.integers(30, 150, 2)), float(rng.uniform(0, 180))
        cv2.ellipse(label, centre, axes, angle, 0, 360, int(rng.integers(1, CLASSES)), -1)
        cv2.ellipse(label, centre, axes, angle, 0, 360, VOID, 5)
    return label


def draw_clusters(rng: np.random.Generator, k: int, blob: int = 25) -> Clusters:
    """Blobs of about `blob` px, their borders ragged by noise in where a pixel looks."""
    coarse = rng.integers(0, k, (HEIGHT // blob + 2, WIDTH // blob + 2))
    wave = cv2.resize(rng.normal(0, 8, (2, HEIGHT // 8, WIDTH // 8)).transpose(1, 2, 0), (WIDTH, HEIGHT))
    wave += rng.normal(0, 1, wave.shape)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + wave.transpose(2, 0, 1) + blob / 2
    rows, columns = (v.clip(0, None).astype(int) // blob for v in (y, x))
    return coarse[rows.clip(max=len(coarse) - 1), columns.clip(max=coarse.shape[1] - 1)]


def stream(images: int, k: int) -> Iterator[tuple[Label, Clusters]]:
    """Each image's label and clusters; fresh arrays, so that nothing but what comes is in the cache."""
    rng = np.random.default_rng(0)
    labels, clusters = [draw_label(rng) for _ in range(16)], [draw_clusters(rng, k) for _ in range(16)]
    for index in range(images):
        shift = int(rng.integers(WIDTH))
        yield np.roll(labels[index % 16], shift, 1), np.roll(clusters[int(rng.integers(16))], shift // 2, 1)


def bincount(label: Label, clusters: Clusters, k: int) -> NDArray[np.int64]:
    """The usual way."""
    known = label != VOID
    return np.bincount(label[known].astype(np.int64) * k + clusters[known], minlength=CLASSES * k).reshape(CLASSES, k)


def time_counting(images: int, k: int) -> dict[str, Any]:
    """CPU milliseconds an image of each way, in turns; tables are compared at the end."""
    import torch
    from torchmetrics.classification import MulticlassConfusionMatrix

    torch.set_num_threads(1)
    metric = MulticlassConfusionMatrix(CLASSES, ignore_index=VOID, validate_args=False)
    tables = {"ours": np.zeros((CLASSES, k), np.int64), "bincount": np.zeros((CLASSES, k), np.int64)}
    tables["ours, 21 clusters"] = np.zeros((CLASSES, CLASSES), np.int64)
    seconds: dict[str, list[float]] = {name: [] for name in (*tables, "torchmetrics, 21 clusters")}

    def timed(name: str, count: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = count()
        seconds[name].append(time.process_time() - begin)
        return result

    for label, clusters in stream(images, k):
        few, small, truth = clusters % CLASSES, torch.from_numpy(clusters % CLASSES), torch.from_numpy(label).long()
        tables["bincount"] += timed("bincount", lambda: bincount(label, clusters, k))  # noqa: B023 (called at once)
        tables["ours"] += timed("ours", lambda: cross_counts(label, clusters, CLASSES, k)[0])  # noqa: B023
        tables["ours, 21 clusters"] += timed(
            "ours, 21 clusters",
            lambda: cross_counts(label, few, CLASSES, CLASSES)[0],  # noqa: B023
        )
        timed("torchmetrics, 21 clusters", lambda: metric.update(small, truth))  # noqa: B023
    theirs = metric.compute().numpy()
    if not np.array_equal(tables["ours"], tables["bincount"]) or not np.array_equal(
        tables["ours, 21 clusters"], theirs
    ):
        raise SystemExit("the ways of counting disagree")
    median = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    return {
        "median_cpu_ms_per_image": median,
        "all_images_cpu_s": {name: sum(values) for name, values in seconds.items()},
        "bincount_of_ours": median["bincount"] / median["ours"],
        "torchmetrics_of_ours": median["torchmetrics, 21 clusters"] / median["ours, 21 clusters"],
        "table": tables["ours"].T,
    }


def time_matching(counts: NDArray[np.int64], repeats: int = 21) -> dict[str, float]:
    """Median CPU milliseconds of each rule on the (k, classes) table, metrics in."""
    found = {}
    for name, matching, config in (
        ("hungarian, IoU", "hungarian", "iou"),
        ("hungarian, pixels", "hungarian", "pixels"),
        ("majority", "majority", "iou"),
    ):
        seconds = []
        for _ in range(repeats):
            begin = time.process_time()
            name_clusters(counts, matching, config)  # type: ignore[arg-type]
            seconds.append(time.process_time() - begin)
        found[name] = 1e3 * statistics.median(seconds)
    return {**found, "all": sum(found.values())}


def evaluate(images: int, k: int) -> float:
    """Count and match as an evaluation does; the peak of the process in MiB."""
    counts = np.zeros((k, CLASSES), np.int64)
    for label, clusters in stream(images, k):
        counts += cross_counts(label, clusters, CLASSES, k)[0].T
    for matching in ("hungarian", "majority"):
        name_clusters(counts, matching)  # type: ignore[arg-type]
    # Not getrusage's: that one begins with what the process was forked from.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def measure_memory(images: Sequence[int], k: int) -> dict[str, float]:
    """Peak MiB by number of images, each in a process of its own."""
    peaks = {}
    for count in images:
        command = [sys.executable, __file__, "--peak", "--images", str(count), "--k", str(k)]
        peaks[str(count)] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return peaks


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--k", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "confusion.json")
    parser.add_argument(
        "--peak", action="store_true", help="only count and match, and print this process's peak in MiB"
    )
    options = parser.parse_args(argv)
    if options.peak:
        print(evaluate(options.images, options.k))
        return 0
    cross_counts(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.int64), CLASSES, options.k)  # compiled once a machine
    counting = time_counting(options.images, options.k)
    matching = time_matching(counting.pop("table"))
    sizes = sorted({max(1, options.images // 10), max(1, options.images // 2), options.images})
    record = {
        "command": "python benchmarks/confusion.py",
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, 1 thread",
        "images": options.images,
        "k": options.k,
        "classes": CLASSES,
        "counting": counting,
        "matching_cpu_ms": matching,
        "peak_mib_by_images": measure_memory(sizes, options.k),
    }
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0 if matching["all"] < 1000 else 1


if __name__ == "__main__":
    sys.exit(main())
