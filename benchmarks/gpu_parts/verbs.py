"""The verbs on a folder of 2,000 photographs, end to end: decoding, the network, writing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

from gpu_parts import material
from gpu_parts.harness import Job, synchronise
from selfseg.collection.clustering import cluster
from selfseg.collection.embedding import embed
from selfseg.collection.segmenting import segment
from selfseg.masks.mining import mine_masks
from selfseg.training.loop import train

TITLE = "verbs: images a second, end to end"


def run(job: Job) -> None:
    """A run of a few steps first; what it learned doesn't matter to the time."""
    count = 3 if job.tiny else 2000
    images = material.copies(job.images / "photographs", job.work / "many", count)
    steps = 2 if job.tiny else 20
    trained = train(material.small("vice_scratch", job, job.work / "run", steps=steps, batch_size=2), progress=False)
    device, points = job.device.type, 500 if job.tiny else 200_000
    verbs: list[tuple[str, float, Callable[[Any], Any]]] = [
        (
            "cluster",
            15,
            lambda out: cluster(trained, images, k=(27,), points=points, device=device),
        ),
        ("segment", 25, lambda out: segment(trained, images, out, device=device)),
        ("embed", 25, lambda out: embed(trained, images, out, device=device)),
        ("masks", 25, lambda out: mine_masks(images, out)),
    ]
    # What compiles or starts once is not to be in the first verb's time.
    warm = material.copies(job.images / "photographs", job.work / "warm", 2 if job.tiny else 32)
    with job.attempt("warming up"):
        begin = time.perf_counter()
        cluster(trained, warm, k=(4,), points=500, device=device, progress=False)
        segment(trained, warm, job.work / "warm_segments", device=device, progress=False)
        job.duration("the first images, with everything that starts once", time.perf_counter() - begin)
    for name, needs, verb in verbs:
        if job.enough(1 if job.tiny else needs, name):
            with job.attempt(name):
                begin = time.perf_counter()
                verb(job.work / name)
                synchronise(job.device)
                job.speed(f"{name}, {count} photographs", time.perf_counter() - begin, count, "images")
        shutil.rmtree(job.work / name, ignore_errors=True)
