"""What saliency priors and proposals cost on one core, and how good they are beside labels.

python benchmarks/masks.py                          # speed on a drawn image
python benchmarks/masks.py DATA --split train       # and quality on a labelled folder, class 0 being background
python benchmarks/masks.py DATA --networks OUT      # priors and networks on every second image, trained in OUT

Networks learn from all images of the split without labels; the supervised one from the labels of the other half. The
same command goes on with a stopped one.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from selfseg.data.labelled.catalog import LabelledImages, open_labelled
from selfseg.masks.cleaning import Cleaning
from selfseg.masks.mining import Method, find_objects, mine_masks
from selfseg.masks.networks.learning import PRIORS, NetworkConfig
from selfseg.masks.priors.by_name import Prior, all_priors
from selfseg.masks.quality import MaskQuality, labelled_objects, measure_maps
from selfseg.masks.sources import Training
from selfseg.masks.writing import SOFT_FOLDER
from selfseg.storage.files import write_json, write_text

RESULTS = Path(__file__).parent / "results"
METHODS: tuple[Method, ...] = (*get_args(Prior), "hierarchy")


def drawn(height: int, width: int) -> np.ndarray:
    """An object on a textured ground."""
    random = np.random.default_rng(0)
    image = cv2.resize(random.integers(60, 160, (height // 20, width // 20, 3), np.uint8), (width, height))
    cv2.circle(image, (width // 2, height // 2), height // 4, (210, 60, 40), -1)
    return np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def measure_speed(repeats: int) -> list[dict[str, object]]:
    """Milliseconds of processor time at 400x300, with the cut; the first call compiles and is left out."""
    image, rows = drawn(300, 400), []
    for method in METHODS:
        times = []
        for _ in range(repeats + 1):
            start = time.process_time()
            find_objects(image, method, Cleaning())
            times.append(1000 * (time.process_time() - start))
        rows.append({"name": method, "best_ms": round(min(times[1:]), 2), "median_ms": round(np.median(times[1:]), 2)})
    return rows


def measure_quality(data: LabelledImages, every: int) -> list[dict[str, object]]:
    """Every prior, their mean, and all proposals together over the images of a split, in one pass."""
    index = {name: i for i, name in enumerate(data.images.names)}
    measures = {method: MaskQuality() for method in METHODS}
    for n, (name, truth, valid) in enumerate(labelled_objects(data)):
        if n % every:
            continue
        image = data.images.read(index[name])
        maps = dict(all_priors(image, get_args(Prior)))
        for method, measure in measures.items():
            values = maps[method] if method in maps else find_objects(image, method, Cleaning())[0]
            measure.add(values, truth, valid)
    return [{"name": method} | measure.scores().as_dict() for method, measure in measures.items()]


def scaled(config: NetworkConfig, factor: float) -> NetworkConfig:
    """With more or fewer training steps."""
    steps = {name: max(1, round(factor * getattr(config, name))) for name in ("round_steps", "steps", "boundary_steps")}
    return replace(config, **steps)


def half(data: LabelledImages, odd: bool) -> LabelledImages:
    """Every second image of a split."""
    rows = range(int(odd), len(data), 2)
    return replace(data, images=data.images.subset(rows), labels=tuple(data.labels[i] for i in rows))


def measure_networks(data: LabelledImages, out: Path, network: NetworkConfig, device: str) -> list[dict[str, object]]:
    """The networks on the second half; OUT keeps their weights, and the page of each."""
    taught, measured = half(data, False), half(data, True)
    listed = out / "taught.txt"
    write_text(listed, "".join(f"{path}\n" for path in taught.images.paths))
    without = Training(network, device=device)
    trainings: dict[Method, Training] = {
        "network": without,
        "bootstrapped": without,
        "supervised": Training(network, listed, data.root / data.split / "labels", device),
    }
    rows = []
    for method, training in trainings.items():
        start = time.process_time()
        page = mine_masks(data.images, out / "masks", method, training=training)
        seconds = time.process_time() - start  # of what was not there yet
        scores = measure_maps(out / "masks" / SOFT_FOLDER, measured)
        rows.append({"name": method} | scores.as_dict() | {"cpu_seconds": round(seconds)})
        page.rename(page.with_name(f"{method}.html"))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="a labelled folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--networks", type=Path, help="train networks in this folder")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of training steps")
    parser.add_argument("--priors", nargs="+", choices=get_args(Prior), default=PRIORS, help="what networks learn from")
    parser.add_argument("--device", default="auto", help="of networks")
    parser.add_argument("--out", type=Path, help="in benchmarks/results if not given")
    arguments = parser.parse_args(argv)
    cv2.setNumThreads(1)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    speed = [] if arguments.networks else measure_speed(arguments.repeats)
    for row in speed:
        sys.stdout.write(f"{row['name']:9} {row['best_ms']:7.2f} ms best {row['median_ms']:7.2f} ms median\n")
    quality: list[dict[str, object]] = []
    options = f"--every {arguments.every} --repeats {arguments.repeats}"
    name = "masks" if arguments.data else "masks_speed"
    if arguments.data and arguments.networks:
        data = open_labelled(arguments.data, arguments.split)
        network = scaled(NetworkConfig(priors=tuple(arguments.priors)), arguments.scale)
        quality = measure_networks(data, arguments.networks, network, arguments.device)
        quality = measure_quality(half(data, True), 1) + quality
        learned = " ".join(network.priors)
        options, name = f"--networks OUT --priors {learned} --scale {arguments.scale:g}", "masks_networks"
    elif arguments.data:
        quality = measure_quality(open_labelled(arguments.data, arguments.split), arguments.every)
    for row in quality:
        numbers = "  ".join(f"{key} {row[key]:.3f}" for key in ("f_max", "f_max_at", "f_adaptive", "mae", "iou"))
        sys.stdout.write(f"{row['name']:12} {numbers}  ({row['images']} images)\n")
    where = f" {'/'.join(arguments.data.resolve().parts[-1:])} --split {arguments.split}" if arguments.data else ""
    write_json(
        arguments.out or RESULTS / f"{name}.json",
        {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"python benchmarks/masks.py{where} {options}",
            "commit": commit,
            "machine": {"processor": platform.machine(), "system": platform.system()},
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__},
            "speed_400x300": speed,
            "quality": quality,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
