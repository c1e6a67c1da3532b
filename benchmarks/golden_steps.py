"""The losses of the first steps of each method, to the bit: run it on two versions and compare what they print.

    python benchmarks/golden_steps.py [METHOD ...]

Trains the tests' tiny run of each method (one image size, one thread, CPU, 32 bits) for five steps on six drawn
photographs, and prints for each the five losses, in hexadecimal digits of which none is rounded off, and a hash of all
that the checkpoint holds: weights, buffers, the optimiser's state. The drawn photographs have a hash of their own, so
that other pictures (another OpenCV) are not taken for another training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
STEPS = 5


def draw(folder: Path, masks: Path) -> str:
    """Six photographs of 120 x 90 px with an object each, and their masks; returns a hash of the photographs."""
    folder.mkdir()
    masks.mkdir()
    digest = hashlib.sha256()
    for number in range(6):
        rng = np.random.default_rng([18, number])
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        image = cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        x, y, radius = 40 + 7 * number, 40 + number, 16 + number
        mask = np.zeros((90, 120), np.uint8)
        cv2.circle(mask, (x, y), radius, 1, -1)
        image[mask > 0] = rng.integers(0, 256, 3)
        image += rng.integers(-10, 11, image.shape, np.int16)
        image[:12, :20] = 0  # black is a colour of photographs
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        digest.update(pixels.tobytes())
        cv2.imwrite(str(folder / f"photo{number}.png"), pixels)
        cv2.imwrite(str(masks / f"photo{number}.png"), mask)
    return digest.hexdigest()[:16]


def five_steps(name: str, images: Path, out: Path) -> dict[str, Any]:
    """The losses of a method's tiny run, and a hash of its last state."""
    from selfseg.training.loop import train
    from tiny import RUNS, state_of

    train(RUNS[name](images, out, steps=STEPS, seed=0, accelerator="cpu", devices=1), progress=False)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [float(line["loss"]) for line in lines if "loss" in line]
    digest = hashlib.sha256()
    for key, value in sorted(state_of(out).items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return {"losses": [loss.hex() for loss in losses], "state": digest.hexdigest()[:16]}


def main() -> None:
    """Print the losses of the methods that are asked for, or of all."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny import RUNS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(RUNS)}; all if none is given")
    names = parser.parse_args().methods or list(RUNS)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "photos"
        print(f"photographs {draw(images, images.parent / 'photos_masks')}")
        for name in names:
            found = five_steps(name, images, Path(folder) / name)
            print(f"{name} {found['state']} {' '.join(found['losses'])}", flush=True)


if __name__ == "__main__":
    main()
