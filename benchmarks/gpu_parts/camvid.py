"""With what is left of the time: `vice_scratch` on the CamVid images at hand, evaluated."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from gpu_parts import material
from gpu_parts.harness import Job
from selfseg.evaluation import Beside, Clusters, Linear, evaluate
from selfseg.training.log import read_log
from selfseg.training.loop import train

TITLE = "vice_scratch on CamVid"
STEPS = 6000


def run(job: Job) -> None:
    """A short run tells how many of the 6,000 steps fit; the evaluation keeps its share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options = {
        "images": job.images / "camvid" / "train" / "images",
        "precision": "32-true" if job.tiny else "bf16-mixed",
        "workers": 0 if job.tiny else max(1, min(8, cores - 1)),
        "batch_size": 2 if job.tiny else 8,
        "log_every": 1 if job.tiny else 50,
    }
    recipe = material.small("vice_scratch", job, job.work / "short", **options)
    probe = 2 if job.tiny else 200
    train(replace(recipe, steps=probe), progress=False)
    rate = read_log(job.work / "short")[-1]["images_per_second"] / recipe.batch_size
    spare = job.left() - (2 if job.tiny else 45)  # for the evaluation
    steps = 2 if job.tiny else min(STEPS, int(spare * 0.8 * rate) // 100 * 100)
    if steps < 1 or (steps < 500 and not job.tiny):
        job.note(
            "vice_scratch on CamVid", verdict="left out", why=f"{job.left():.0f} s left at {rate:.0f} steps a second"
        )
        return
    begin = time.perf_counter()
    run_folder = train(replace(recipe, out=job.work / "run", steps=steps), progress=False)
    seconds = time.perf_counter() - begin
    lines = read_log(run_folder)
    job.duration(f"{steps} steps of {recipe.batch_size} images", seconds, loss=lines[-1]["loss"], wanted=STEPS)
    results = evaluate(
        run_folder,
        job.images / "camvid",
        [Clusters(k=(3,))] if job.tiny else [Clusters(k=(11, 64)), Linear()],
        seeds=1 if job.tiny else 3,
        beside=Beside(baselines=not job.tiny),
        device=job.device.type,
    )
    for result in results:
        k = "" if result.k is None else f" {result.k}"
        job.note(
            f"{result.what}: {result.protocol}{k}",
            value=result.metrics["miou"],
            unit="mIoU",
            accuracy=result.metrics["accuracy"],
            deviation=result.metrics.get("miou_std"),
            images=result.counts["images"],
        )
