"""What five ViCE views of an image cost on one core, beside a plain torchvision pipeline in the paper's order.

python benchmarks/views.py --images FOLDER --out results.json
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from selfseg.data.reading.listing import list_images
from selfseg.data.regions import Grid, Pixels, Superpixels
from selfseg.data.views import augment
from selfseg.data.views import content_centred as views
from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.ops.geometry import sample_ids
from selfseg.storage.files import write_json
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD
from shipped import photographs

RESULTS = Path(__file__).parent / "results"
Job = tuple[np.ndarray, np.ndarray, int]  # image, regions, seed


def reference_views(image: np.ndarray, regions: np.ndarray, seed: int) -> list[tuple[torch.Tensor, np.ndarray]]:
    """The same views as one would write them down with Pillow and torchvision."""
    plan = ContentCentredViews(short_side=None, centre_square=False)
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    content = views.content_map(image).astype(np.float64)
    place = rng.choice(height * width, p=(content / content.sum()).ravel())
    boxes = plan.place((int(place % width), int(place // width)), (height, width), rng)
    appearance = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(*plan.jitter)], plan.jitter_probability),
            v2.RandomGrayscale(plan.gray_probability),
            v2.RandomApply([v2.GaussianBlur(23, plan.blur_sigma)], plan.blur_probability),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    picture, ids = Image.fromarray(image), Image.fromarray(regions)
    crops, maps = [], []
    for box in boxes:
        crop = picture.crop(box).resize((plan.size, plan.size), Image.Resampling.BILINEAR)
        crop_ids = ids.crop(box).resize((plan.size, plan.size), Image.Resampling.NEAREST)
        if rng.random() < plan.flip_probability:
            crop, crop_ids = F.horizontal_flip(crop), F.horizontal_flip(crop_ids)
        crops.append(appearance(crop))
        maps.append(np.array(crop_ids))
    common = set.intersection(*(set(np.unique(ids).tolist()) for ids in maps))
    order = rng.permutation(sorted(common))
    protected = order[: int(np.ceil(plan.protect * len(order)))]
    for crop, ids in zip(crops, maps, strict=True):
        free = rng.permutation(np.setdiff1d(np.unique(ids), protected))
        noise, budget = np.zeros(ids.shape, bool), rng.random() * plan.mask_area * ids.size
        for region in free:
            where = ids == region
            if noise.sum() + where.sum() > budget:
                break
            noise |= where
            common.discard(int(region))
        crop[:, torch.from_numpy(noise)] = torch.rand(3, int(noise.sum())) * 2 - 1
    kept = np.array(sorted(common))
    return [(crop, np.where(np.isin(ids, kept), ids, -1)) for crop, ids in zip(crops, maps, strict=True)]


def _milliseconds(work: Callable[[Job], object], jobs: Sequence[Job], repeats: int = 3) -> float:
    """The best of `repeats` passes over all images, in ms of CPU time per image: all of it is on one thread."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for job in jobs:
            work(job)
        best = min(best, time.process_time() - start)
    return 1000 * best / len(jobs)


def _parts(plan: ContentCentredViews, jobs: Sequence[Job]) -> dict[str, float]:
    """Ms per image of each part of `make`, each alone on the same data; their sum is near the whole."""
    size = plan.size
    boxes, ids, crops, masks = {}, {}, {}, {}
    for image, regions, seed in jobs:
        rng = np.random.default_rng(seed)
        boxes[seed] = plan.place(views.draw_centre(views.content_map(image), rng), image.shape[:2], rng)
        ids[seed] = [sample_ids(regions, box, (size, size)) for box in boxes[seed]]
        crops[seed] = [views._resize(views.cut(image, box), size, size) for box in boxes[seed]]
        masks[seed] = [crop.noise for crop in plan.make(image, regions, rng)]

    def colour(job: Job) -> None:
        rng = np.random.default_rng(job[2])
        for crop in crops[job[2]]:
            plan.change_appearance(crop, rng)

    def paint(job: Job) -> None:
        rng = np.random.default_rng(job[2])
        for crop, mask in zip(crops[job[2]], masks[job[2]], strict=True):
            augment.paint_noise(crop, mask, rng)

    parts: dict[str, Callable[[Job], object]] = {
        "content_map_and_centre": lambda job: views.draw_centre(
            views.content_map(job[0]), np.random.default_rng(job[2])
        ),
        "crop_and_resize_images": lambda job: [
            views._resize(views.cut(job[0], box), size, size) for box in boxes[job[2]]
        ],
        "crop_and_resize_regions": lambda job: [sample_ids(job[1], box, (size, size)) for box in boxes[job[2]]],
        "common_regions_and_masks": lambda job: plan.choose_masks(
            ids[job[2]], ids[job[2]], np.random.default_rng(job[2])
        ),
        "colour_gray_blur": colour,
        "noise": paint,
    }
    return {name: round(_milliseconds(work, jobs), 3) for name, work in parts.items()}


def _make(plan: ContentCentredViews, job: Job) -> object:
    return plan.make(job[0], job[1], np.random.default_rng(job[2]))


def _filled_and_clipped(pictures: Sequence[np.ndarray], rounds: int = 5) -> dict[str, float]:
    """The time of views that reach beyond the image as a multiple of that of views inside of it, in turns."""
    ratios = {}
    for name, plan in {
        "whole_image": ContentCentredViews(short_side=None, centre_square=False, regions=Superpixels(10)),
        "low_resolution_320": ContentCentredViews(regions=Superpixels(10)),
    }.items():
        sources = [plan.prepare(picture) for picture in pictures]
        jobs = [(source, plan.regions.compute(source), seed) for seed, source in enumerate(sources)]
        plans = [replace(plan, outside="fill"), replace(plan, outside="clip")]
        found = []
        for _ in range(rounds):
            filled, clipped = (_milliseconds(partial(_make, each), jobs, repeats=1) for each in plans)
            found.append(filled / clipped)
        ratios[name] = round(float(np.median(found)), 3)
    return ratios


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of images; see benchmarks/shipped.py if left out")
    parser.add_argument("--count", type=int, default=24, help="images to use")
    parser.add_argument("--out", type=Path, default=RESULTS / "views.json")
    arguments = parser.parse_args(argv)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    images = list_images(arguments.images or photographs())
    pictures = [
        cv2.resize(images.read(i), (640, 480), interpolation=cv2.INTER_LINEAR)
        for i in range(min(arguments.count, len(images)))
    ]

    def measure(plan: ContentCentredViews) -> tuple[dict[str, float], list[Job]]:
        sources = [plan.prepare(picture) for picture in pictures]
        jobs = [(source, plan.regions.compute(source), seed) for seed, source in enumerate(sources)]
        times = {
            "regions_ms": _milliseconds(lambda job: plan.regions.compute(job[0]), jobs),
            "views_ms": _milliseconds(lambda job: plan.make(job[0], job[1], np.random.default_rng(job[2])), jobs),
        }
        return {name: round(value, 2) for name, value in times.items()}, jobs

    whole = ContentCentredViews(short_side=None, centre_square=False, regions=Superpixels(10))
    full, jobs = measure(whole)
    filled_and_clipped = _filled_and_clipped(pictures)
    torch.manual_seed(0)
    reference = _milliseconds(lambda job: reference_views(*job), jobs[:8], repeats=2)
    result = {
        "what": "5 views of 256 px of a 640 x 480 image, ms of CPU time per image, one thread; decoding is not in",
        "superpixels_10": full,
        "parts_ms": _parts(whole, jobs),
        "grid_10": measure(ContentCentredViews(short_side=None, centre_square=False, regions=Grid(10)))[0],
        "pixels": measure(ContentCentredViews(short_side=None, centre_square=False, regions=Pixels()))[0],
        "low_resolution_320_superpixels_10": measure(ContentCentredViews(regions=Superpixels(10)))[0],
        "low_resolution_320_pixels": measure(ContentCentredViews(regions=Pixels()))[0],
        "filled_times_clipped": filled_and_clipped,
        "stride_8": measure(
            ContentCentredViews(short_side=None, centre_square=False, regions=Grid(10), region_stride=8)
        )[0],
        "torchvision_reference_ms": round(reference, 2),
        "times_as_fast_as_reference": round(reference / full["views_ms"], 1),
        "images": len(pictures),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}, one thread",
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(arguments.out, result)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
