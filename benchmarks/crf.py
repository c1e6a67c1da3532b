"""The dense CRF against pydensecrf (where it is installed) and against sums over all pairs of pixels at a small size.

Seconds are CPU time of the process, the best of some repeats: with one thread (OMP_NUM_THREADS=1) that is what an idle
core would take. The probabilities are smooth noise, the images photographs from a folder, or scikit-image's own.

python benchmarks/crf.py [--images FOLDER]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.data.reading.listing import list_images
from selfseg.ops import crf
from selfseg.ops.crf import CRFConfig, refine

RESULTS = Path(__file__).parent / "results"


def probabilities(classes: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth noise, (classes, height, width), adding up to 1."""
    noise = torch.randn(1, classes, height // 12 + 1, width // 12 + 1, generator=torch.Generator().manual_seed(seed))
    return torch.softmax(2 * torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")[0], 0)


def photographs(folder: Path | None, count: int) -> list[NDArray[np.uint8]]:
    if folder is None:
        import skimage.data

        return [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()][:count]
    found = list_images(folder)
    return [found.read(index) for index in range(0, len(found), max(1, len(found) // count))][:count]


def all_pairs(values: torch.Tensor, image: NDArray[np.uint8], config: CRFConfig) -> torch.Tensor:
    """The definition: both kernels as (N, N) matrices, float32 as ours."""
    classes, height, width = values.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([x, y], 2).reshape(-1, 2).float()
    colour = torch.from_numpy(image).reshape(-1, 3).float() / config.appearance_rgb
    pairwise = torch.zeros(len(place), len(place))
    for features, weight in (
        (place / config.smooth_xy, config.smooth_weight),
        (torch.cat([place / config.appearance_xy, colour], 1), config.appearance_weight),
    ):
        kernel = torch.cdist(features, features).square_().mul_(-0.5).exp_()
        root = kernel.sum(1).rsqrt()
        pairwise += weight * root * root[:, None] * kernel
    unary = values.flatten(1).T.clamp(min=config.floor).log()
    found = torch.softmax(unary, 1)
    for _ in range(config.iterations):
        found = torch.softmax(unary + pairwise @ found, 1)
    return found.T.reshape(classes, height, width)


def pydensecrf(values: torch.Tensor, image: NDArray[np.uint8], config: CRFConfig) -> torch.Tensor:
    """Kraehenbuehl's program; raises ImportError where its wrapper is not installed."""
    from pydensecrf.densecrf import DenseCRF2D

    classes, height, width = values.shape
    field = DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(-values.flatten(1).clamp(min=config.floor).log().numpy())
    field.addPairwiseGaussian(sxy=config.smooth_xy, compat=config.smooth_weight)
    field.addPairwiseBilateral(
        sxy=config.appearance_xy, srgb=config.appearance_rgb, rgbim=image, compat=config.appearance_weight
    )
    return torch.from_numpy(np.array(field.inference(config.iterations))).reshape(classes, height, width)


def torch_path(values: torch.Tensor, image: NDArray[np.uint8], config: CRFConfig) -> torch.Tensor:
    """What runs on a GPU, here on the CPU."""
    from selfseg.ops.kernels import crf_torch as _crf_torch

    return crf._mean_field(values.clamp(min=config.floor).log(), torch.from_numpy(image), config, _crf_torch)


Program = Callable[[torch.Tensor, NDArray[np.uint8], CRFConfig], torch.Tensor]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photographs")
    parser.add_argument("--count", type=int, default=3, help="photographs")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "crf.json")
    arguments = parser.parse_args(argv)
    pictures = photographs(arguments.images, arguments.count)
    config, rows = CRFConfig(), []
    sizes: list[tuple[int, int, int, dict[str, Program]]] = [
        (375, 500, 21, {"selfseg": refine, "pydensecrf": pydensecrf}),
        (375, 500, 2, {"selfseg": refine, "pydensecrf": pydensecrf}),
        (
            60,
            80,
            21,
            {"selfseg": refine, "pydensecrf": pydensecrf, "selfseg, torch path": torch_path, "all pairs": all_pairs},
        ),
    ]
    for height, width, classes, programs in sizes:
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        others: dict[str, list[float]] = {name: [] for name in programs}
        for picture in pictures:
            values = probabilities(classes, height, width)
            image = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            ours = refine(values, image, config)  # compiles, too
            for name, program in programs.items():
                best = np.inf
                for _ in range(arguments.repeats):
                    begin = time.process_time()
                    try:
                        result = program(values, image, config)
                    except ImportError:
                        break
                    best = min(best, time.process_time() - begin)
                if np.isfinite(best):
                    seconds[name].append(best)
                    others[name].append(float((result.argmax(0) != ours.argmax(0)).float().mean()))
        for name in programs:
            if not seconds[name]:
                print(f"{name} is not installed: left out", file=sys.stderr)
                continue
            row: dict[str, Any] = {"name": name, "height": height, "width": width, "classes": classes}
            row["cpu_seconds"] = round(float(np.mean(seconds[name])), 4)
            row["ratio"] = round(row["cpu_seconds"] / float(np.mean(seconds["selfseg"])), 2)
            row["other_class_than_ours"] = round(float(np.mean(others[name])), 4)
            rows.append(row)
            print(
                f"{width}x{height}, {classes:2} classes: {name:20} {row['cpu_seconds']:8.3f} s ({row['ratio']:.2f} of "
                f"ours), {row['other_class_than_ours']:.2%} of pixels of another class than ours",
                flush=True,
            )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {"photographs": len(pictures), "repeats": arguments.repeats, "iterations": config.iterations}
    settings |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.processor()}
    arguments.out.write_text(json.dumps({**settings, "runs": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
