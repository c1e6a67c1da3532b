"""Measured images beside photographs: the same pictures with more channels, more bits and less contrast.

    python benchmarks/measured_images.py draw CAMVID OUT
    python benchmarks/measured_images.py compare CAMVID OUT [--recipe vice_small] [--seed 0]

`draw` writes three labelled folders of uint16 TIFFs, with the photographs of a labelled folder (SPLIT/images and
SPLIT/labels) and its labels:

    five    5 channels: red, green, blue, and two that were made of them and tell nothing new; each scaled, with an
            offset, noise, and dead and hot pixels
    near    the same, but the fourth channel is as near infrared would be: plants reflect it and roads don't
    narrow  red, green and blue in 2 % of the range of 16 bits

`compare` trains the recipe on the photographs and on each of these, and evaluates all runs by clustering with as many
clusters as there are classes; `narrow` is also read as 8-bit photographs, as every image was before channels were
measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
KINDS = ("five", "near", "narrow")
PLANTS = 5  # CamVid's class Tree
SPLITS = ("train", "val")


def measure(kind: str, rgb: NDArray[np.uint8], label: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint16]:
    """An image as an instrument would have measured it: (H, W, C) uint16 of (H, W, 3) uint8."""
    if kind == "narrow":
        return (30_000 + rgb.astype(np.float32) * (0.02 * 65_535 / 255)).round().astype(np.uint16)
    light = cv2.GaussianBlur(rgb.mean(2), (0, 0), 2)
    reflected = np.where(label == PLANTS, 200.0, 90.0) if kind == "near" else 255 - light
    reflected = cv2.GaussianBlur(0.7 * reflected + 0.3 * light, (0, 0), 1)
    channels = np.dstack([rgb.astype(np.float64), reflected, np.abs(cv2.Laplacian(light, cv2.CV_64F)) * 8])
    gains, offsets = np.array([9.0, 7.5, 11.0, 5.0, 13.0]), np.array([400.0, 900.0, 250.0, 1500.0, 100.0])
    values = channels * gains + offsets + rng.normal(0, 2, channels.shape) * gains
    values[rng.random(channels.shape) < 2e-4] = 0  # dead
    values[rng.random(channels.shape) < 2e-4] = 65_535  # hot
    return values.clip(0, 65_535).round().astype(np.uint16)


def draw(source: Path, out: Path) -> None:
    """Write the three folders; what is there already is kept."""
    for kind in KINDS:
        for split in SPLITS:
            images, labels = (out / kind / split / name for name in ("images", "labels"))
            images.mkdir(parents=True, exist_ok=True)
            if not labels.exists():
                labels.symlink_to((source / split / "labels").resolve())
            for number, path in enumerate(sorted((source / split / "images").iterdir())):
                target = images / f"{path.stem}.{'tif' if kind == 'narrow' else 'ome.tif'}"
                if target.exists():
                    continue
                rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
                label = cv2.imread(str(source / split / "labels" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
                values = measure(kind, rgb, label, np.random.default_rng((18, number)))
                if kind == "narrow":
                    tifffile.imwrite(target, values, photometric="rgb")
                    continue
                names = ["red", "green", "blue", "near infrared" if kind == "near" else "inverse", "edges"]
                tifffile.imwrite(
                    target,
                    values.transpose(2, 0, 1),
                    ome=True,
                    metadata={"axes": "CYX", "Channel": {"Name": names}},
                )
        if not (out / kind / "classes.txt").exists():
            (out / kind / "classes.txt").write_text((source / "classes.txt").read_text())


def run(*words: str) -> str:
    """A command of selfseg."""
    sys.stdout.write(f"$ selfseg {' '.join(words)}\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "selfseg", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def figures(folder: Path) -> dict[str, Any]:
    """Of each result file what was measured, its protocol, mIoU and pixel accuracy."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        found[f"{result['what']}, {result['protocol']}"] = result["metrics"]
    return found


def compare(source: Path, out: Path, recipe: str, seed: int, extra: list[str]) -> dict[str, Any]:
    """Train and evaluate each; mIoU and accuracy by name."""
    sets = {"photographs": (source, []), **{kind: (out / kind, []) for kind in KINDS}}
    sets["narrow, 8 bits"] = (out / "narrow", ["--channels", "rgb"])
    results = {}
    for name, (folder, words) in sets.items():
        target = out / "runs" / f"{name.replace(', ', '_').replace(' ', '_')}_seed{seed}"
        if (target / "results" / "table.md").exists():  # of an earlier call
            results[name] = figures(target / "results")
            continue
        images = str(folder / "train" / "images")
        run("train", recipe, images, "--out", str(target), "--seed", str(seed), *words, *extra)
        classes = sum(1 for line in (folder / "classes.txt").read_text().splitlines() if not line.startswith("255"))
        words = ["--protocols", "clusters", "linear", "-k", str(classes), "--seeds", "3"]
        if name == "narrow, 8 bits":
            words.append("--no-baselines")
        run("evaluate", str(target), str(folder), *words)
        results[name] = figures(target / "results")
        sys.stdout.write(f"{name}: {json.dumps(results[name])}\n")
        sys.stdout.flush()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "compare"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="vice_small")
    parser.add_argument("--seed", type=int, default=0)
    arguments, extra = parser.parse_known_args()
    draw(arguments.source, arguments.out)
    if arguments.what == "compare":
        results = compare(arguments.source, arguments.out, arguments.recipe, arguments.seed, extra)
        record = {
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "command": " ".join(sys.argv[1:]),
            "results": results,
        }
        (HERE / "results" / "measured_images.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
