"""SLIC: images a second by size and batch, beside the CPU path of the same machine."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from gpu_parts.harness import Job
from selfseg.data.reading.images import read_image, resize_short_side
from selfseg.ops.regions.slic import slic, slic_batched

TITLE = "superpixels: speed"
AIM = 2000.0  # images a second
SIZE = 10


def run(job: Job) -> None:
    """480x360 and 640x480, batches of 1 to 256; then the CPU's kernel in one thread and in all."""
    photographs = [read_image(path) for path in job.pictures("photographs")]
    shapes = ((48, 64),) if job.tiny else ((360, 480), (480, 640))
    for height, width in shapes:
        images = [_fit(image, height, width) for image in photographs]
        kernel = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        for count in (1, 4) if job.tiny else (1, 8, 32, 64, 128, 256):
            what = f"SLIC {width}x{height}, {SIZE} px, batch {count}"
            if not job.enough(3, what):
                continue
            with job.attempt(what):
                batch = kernel[torch.arange(count) % len(images)].to(job.device).float() / 255
                seconds, memory = job.seconds_of(lambda batch=batch: slic_batched(batch, SIZE), most=3)
                aim = AIM if count >= 32 else None
                job.speed(what, seconds, count, "images", aim, gib=memory)
                seconds, _ = job.seconds_of(lambda batch=batch: slic_batched(batch, SIZE, connectivity=False), most=2)
                job.speed(f"{what}, without connectivity", seconds, count, "images")
        if job.enough(4, "the CPU's kernel"):
            with job.attempt(f"the CPU's kernel, {width}x{height}"):
                _cpu(job, images, f"{width}x{height}")


def _cpu(job: Job, images: list[np.ndarray], size: str) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = images[:4] if job.tiny else images

    def in_all() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda image: slic(image, SIZE), rows))

    cpu = torch.device("cpu")
    few = rows[:8]
    seconds, _ = job.seconds_of(lambda: [slic(image, SIZE) for image in few], 5, most=4, device=cpu)
    job.speed(f"the CPU's kernel, {size}, one thread", seconds, len(few), "images")
    seconds, _ = job.seconds_of(in_all, 5, most=4, device=cpu)
    job.speed(f"the CPU's kernel, {size}, {cores} threads", seconds, len(rows), "images")


def _fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image's middle at this size."""
    scaled = resize_short_side(image, round(max(height, width * min(image.shape[:2]) / image.shape[1], height)))
    while scaled.shape[0] < height or scaled.shape[1] < width:
        scaled = np.concatenate([scaled, scaled[:, ::-1]], 1) if scaled.shape[1] < width else scaled
        scaled = np.concatenate([scaled, scaled[::-1]], 0) if scaled.shape[0] < height else scaled
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
