"""What SlotCon's two views of an image cost on one core, beside the usual torchvision and Pillow pipeline.

python benchmarks/crops.py --images FOLDER --out results.json

Images are decoded before; both sides take them from memory, on one thread, in turns on the same images. Without a
folder they are drawn.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms

from selfseg.data.reading.listing import list_images
from selfseg.data.views import augment
from selfseg.data.views.overlapping_crops import OverlappingCrops, resize_crop
from selfseg.storage.files import write_json
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD

RESULTS = Path(__file__).parent / "results"
Picture = np.ndarray


class _Blur:
    """Pillow's Gaussian blur with a random radius."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(random.uniform(self.low, self.high)))


def reference(plan: OverlappingCrops) -> tuple[transforms.Compose, transforms.Compose]:
    """The same two views as one writes them down with torchvision: from a Pillow image to a normalised tensor.

    Without the condition that they overlap, which costs next to nothing.
    """
    first, second = (
        transforms.Compose(
            [
                transforms.RandomResizedCrop(
                    plan.size, plan.scale, plan.ratio, interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.RandomHorizontalFlip(plan.flip_probability),
                transforms.RandomApply([transforms.ColorJitter(*plan.jitter)], plan.jitter_probability),
                transforms.RandomGrayscale(plan.gray_probability),
                transforms.RandomApply([_Blur(*plan.blur_sigma)], plan.blur_probability[which]),
                transforms.RandomApply(
                    [transforms.Lambda(lambda picture: ImageOps.solarize(picture, plan.solarise_threshold))],
                    plan.solarise_probability[which],
                ),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )
        for which in (0, 1)
    )
    return first, second


def draw_images(count: int) -> list[Picture]:
    """Smooth noise with edges, 500 x 375 pixels."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        coarse = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (500, 375), interpolation=cv2.INTER_CUBIC)
        fine = cv2.resize(rng.integers(0, 64, (94, 125, 3), np.uint8), (500, 375), interpolation=cv2.INTER_NEAREST)
        pictures.append(cv2.add(coarse, fine))
    return pictures


def _time(work: Callable[[int], object], count: int) -> float:
    """CPU seconds per image; all of it is on one thread."""
    start = time.process_time()
    for i in range(count):
        work(i)
    return (time.process_time() - start) / count


def _parts(plan: OverlappingCrops, pictures: Sequence[Picture]) -> dict[str, float]:
    """Ms per image of each part of `make`, and of each change of one view's appearance whenever it happens."""
    rng = np.random.default_rng
    boxes = [plan.place(picture.shape[:2], rng(i)) for i, picture in enumerate(pictures)]

    def crops(i: int) -> list[Picture]:
        return [resize_crop(pictures[i][y0:y1, x0:x1], plan.size, plan.size) for x0, y0, x1, y1 in boxes[i]]

    views = [crops(i) for i in range(len(pictures))]

    def appearance(i: int) -> None:
        chance = rng(i)
        for which in (0, 1):
            plan.change_appearance(views[i][which], which, chance)

    parts: dict[str, Callable[[int], object]] = {
        "place": lambda i: plan.place(pictures[i].shape[:2], rng(i)),
        "crop_and_resize": crops,
        "appearance": appearance,
        "one_brightness": lambda i: augment.adjust_brightness(views[i][0], 1.2),
        "one_contrast": lambda i: augment.adjust_contrast(views[i][0], 1.2),
        "one_saturation": lambda i: augment.adjust_saturation(views[i][0], 1.1),
        "one_hue": lambda i: augment.adjust_hue(views[i][0], 0.05),
        "one_blur_sigma_1": lambda i: augment.blur(views[i][0], 1.0),
        "one_solarisation": lambda i: augment.solarise(views[i][0]),
    }
    return {name: round(1000 * min(_time(work, len(pictures)) for _ in range(3)), 3) for name, work in parts.items()}


def _distance(plan: OverlappingCrops, pictures: Sequence[Picture]) -> dict[str, float]:
    """Root mean square distance of `resize_crop` to Pillow's antialiased bicubic, in levels of 255."""
    found = []
    for i, picture in enumerate(pictures):
        for x0, y0, x1, y1 in plan.place(picture.shape[:2], np.random.default_rng(i)):
            crop = np.ascontiguousarray(picture[y0:y1, x0:x1])
            wanted = np.asarray(Image.fromarray(crop).resize((plan.size, plan.size), Image.Resampling.BICUBIC))
            difference = wanted.astype(np.float64) - resize_crop(crop, plan.size, plan.size)
            found.append(float(np.sqrt(np.square(difference).mean())))
    return {"mean": round(float(np.mean(found)), 2), "largest": round(max(found), 2)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images; drawn ones if left out")
    parser.add_argument("--count", type=int, default=64, help="images to use, spread over the folder")
    parser.add_argument("--rounds", type=int, default=5, help="passes over the images of each side, in turns")
    parser.add_argument("--out", type=Path, default=RESULTS / "crops.json")
    arguments = parser.parse_args(argv)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    plan = OverlappingCrops()
    source = "/".join(arguments.images.resolve().parts[-2:]) if arguments.images else "drawn ones"
    if arguments.images is None:
        originals = draw_images(arguments.count)
    else:
        images = list_images(arguments.images)
        step = max(1, len(images) // arguments.count)
        originals = [images.read(i) for i in range(0, len(images), step)][: arguments.count]
    pictures = [plan.prepare(original) for original in originals]
    no_ids = plan.regions.compute(pictures[0])
    theirs = [Image.fromarray(picture) for picture in pictures]
    transform = reference(plan)
    to_bytes = [transforms.Compose(view.transforms[:-2]) for view in transform]  # as far as ours goes

    ours, other, bare = [], [], []
    for turn in range(arguments.rounds):

        def views(i: int, turn: int = turn) -> None:
            plan.make(pictures[i], no_ids, np.random.default_rng([turn, i]))

        ours.append(_time(views, len(pictures)))
        other.append(_time(lambda i: [view(theirs[i]) for view in transform], len(pictures)))
        bare.append(_time(lambda i: [view(theirs[i]) for view in to_bytes], len(pictures)))
    width, height = (np.mean([picture.shape[axis] for picture in pictures]) for axis in (1, 0))
    result = {
        "what": "two views of 224 px, ms of CPU time per image, one thread, from decoded images; ours ends in uint8 "
        "(the device divides), the other in a normalised tensor; medians of turns",
        "ours_ms": round(1000 * float(np.median(ours)), 3),
        "reference_ms": round(1000 * float(np.median(other)), 3),
        "reference_to_uint8_ms": round(1000 * float(np.median(bare)), 3),
        "ours_ms_each_turn": [round(1000 * value, 3) for value in ours],
        "reference_ms_each_turn": [round(1000 * value, 3) for value in other],
        "ours_images_a_second": round(1 / float(np.median(ours))),
        "reference_images_a_second": round(1 / float(np.median(other))),
        "times_as_fast_as_reference": round(float(np.median(other) / np.median(ours)), 1),
        "times_as_fast_as_reference_to_uint8": round(float(np.median(bare) / np.median(ours)), 1),
        "resize_rms_to_pillow": _distance(plan, pictures),
        "parts_ms": _parts(plan, pictures),
        "images": f"{len(pictures)} of {source}, mean {width:.0f} x {height:.0f}",
        "machine": f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}, "
        f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}",
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(arguments.out, result)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
