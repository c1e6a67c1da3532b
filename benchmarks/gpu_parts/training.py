"""Training: images a second, the share of the time that the step waits for data, memory, and where the time goes."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gpu_parts import material
from gpu_parts.harness import Job, plain, synchronise
from selfseg.data.loader import ViewDataset, collate
from selfseg.data.reading.listing import list_images
from selfseg.data.regions import RegionCache
from selfseg.training.log import read_log
from selfseg.training.loop import train
from selfseg.training.optimizer import make_optimizer
from selfseg.training.recipe import Recipe, recipes

TITLE = "training: speed"


def run(job: Job) -> None:
    """Runs of a few dozen steps, by their own logs; then one step taken apart."""
    count = 8 if job.tiny else 2048
    photographs = material.copies(job.images / "photographs", job.work / "many", count)
    masks = material.ellipses(job.images / "photographs", job.work / "masks")
    masks = material.copies(masks, job.work / "many_masks", count, ".png")
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name, batch, workers, steps in _plan(job.tiny):
        what = f"{name}, {batch} images a step, {workers} workers"
        if workers > most:
            job.note(what, verdict="left out", why=f"there are {most} cores")
        elif job.enough(2 if job.tiny else 15, what):
            with job.attempt(what):
                recipe = _recipe(job, name, photographs, masks)
                _train(job, replace(recipe, batch_size=batch, workers=workers, steps=steps), what)
    for name, batch in (("vice_scratch", 2),) if job.tiny else (("vice_scratch", 64), ("slotcon_coco", 256)):
        what = f"where a step of {name} with {batch} images spends its time"
        if job.enough(1 if job.tiny else 15, what):
            with job.attempt(what):
                _dissect(job, replace(_recipe(job, name, photographs, masks), batch_size=batch), what)


def _plan(tiny: bool) -> list[tuple[str, int, int, int]]:
    """(recipe, images a step, workers, steps), the most telling first."""
    if tiny:
        return [("vice_scratch", 2, 0, 2)]
    return [
        ("vice_scratch", 8, 2, 120),
        ("vice_scratch", 8, 8, 120),
        ("vice_scratch", 64, 15, 60),
        ("slotcon_coco", 256, 15, 20),
        ("vice_coco_lowres", 64, 15, 20),
        ("maskcontrast_voc", 64, 15, 20),
        ("slotcon_coco", 512, 15, 16),
        ("slotcon_coco", 256, 8, 16),
        ("vice_coco_lowres", 128, 15, 12),
        ("vice_scratch", 8, 15, 120),
        ("slotcon_coco", 256, 2, 8),
    ]


def _recipe(job: Job, name: str, images: Path, masks: Path) -> Recipe[Any]:
    extra = {"masks": masks} if name.startswith("maskcontrast") else {}
    recipe = recipes()[name](images, job.work / f"{name}_{time.monotonic_ns()}", **extra)
    if job.tiny:
        recipe = replace(recipe, method=material.shrink(recipe.method))
    return replace(
        recipe,
        precision="32-true" if job.tiny else "bf16-mixed",
        accelerator=job.device.type,
        devices=1,
        log_every=1,
        checkpoint_every=100_000,
        epochs=None,
        steps=recipe.steps or 1000,
    )


def _train(job: Job, recipe: Recipe[Any], what: str) -> None:
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
    begin = time.perf_counter()
    try:
        run = train(recipe, progress=False)
    except torch.cuda.OutOfMemoryError as error:
        job.note(what, verdict="does not fit", why=str(error).split(". ")[0])
        return
    whole = time.perf_counter() - begin
    # The first steps wait for workers to start and for cuDNN to choose; the last third is how it goes on.
    lines = read_log(run)
    steady = lines[len(lines) // 3 :]
    seconds = [recipe.batch_size / line["images_per_second"] for line in steady]
    waited = sum(s * line["data_wait"] for s, line in zip(seconds, steady, strict=True)) / sum(seconds)
    job.speed(
        what,
        sum(seconds) / len(seconds),
        recipe.batch_size,
        "images",
        median_step_ms=1e3 * statistics.median(seconds),
        waiting_for_data=f"{waited:.0%}",
        gib=torch.cuda.max_memory_allocated(job.device) / 2**30 if job.device.type == "cuda" else None,
        precision=recipe.precision,
        first_loss=lines[0]["loss"],
        last_loss=lines[-1]["loss"],
        with_start=f"{whole:.1f} s for {recipe.steps} steps",
    )


def _dissect(job: Job, recipe: Recipe[Any], what: str) -> None:
    """Each part of a step on its own, then the kernels that take the most by torch's profiler."""
    device, steps = job.device, 2 if job.tiny else 6
    torch.manual_seed(0)
    images = list_images(recipe.images)
    method = recipe.build_method(len(images)).train().to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(method, recipe.optimizer)
    plan = method.views()
    cache = RegionCache(job.work / "regions", plan.regions)
    spent: dict[str, list[float]] = {}

    def clocked(name: str, function: Callable[[], Any]) -> Any:
        synchronise(device)
        begin = time.perf_counter()
        result = function()
        synchronise(device)
        spent.setdefault(name, []).append(1e3 * (time.perf_counter() - begin))
        return result

    few = list(range(min(8, len(images))))
    decoded = clocked("decode", lambda: [images.read(i) for i in few])
    prepared = clocked("resize", lambda: [plan.prepare(image) for image in decoded])
    regions = clocked("regions, first time", lambda: [cache.get(p, images.names[i]) for i, p in enumerate(prepared)])
    clocked("regions, kept on disk", lambda: [cache.get(p, images.names[i]) for i, p in enumerate(prepared)])

    clocked(
        "views", lambda: [plan.make(p, r, np.random.default_rng(0)) for p, r in zip(prepared, regions, strict=True)]
    )
    per_image = {name: values[0] / len(few) for name, values in spent.items()}
    job.note(f"{what}: per image, one CPU thread", verdict="ms", **{k: f"{v:.2f}" for k, v in per_image.items()})

    spent.clear()
    dataset = ViewDataset(images, plan, 0, cache)
    samples = [dataset[0, i] for i in few]
    batch = collate([samples[i % len(samples)] for i in range(recipe.batch_size)])
    batch = batch.pin_memory() if device.type == "cuda" else batch
    network = _NetworkClock(method, device)

    def step() -> None:
        on_device = clocked("copy", lambda: batch.to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            output = clocked("forward", lambda: method(on_device, 0.5))
        clocked("backward", lambda: output.loss.backward())
        clocked("optimiser", optimizer.step)
        optimizer.zero_grad(set_to_none=True)
        clocked("after the step", lambda: method.after_step(0.5))
        spent.setdefault("of forward: network", []).append(network.take())

    for _ in range(2):
        step()
    spent.clear()
    for _ in range(steps):
        step()
    network.remove()
    parts = {name: statistics.median(values) for name, values in spent.items()}
    parts["of forward: loss and logs"] = parts["forward"] - parts["of forward: network"]
    whole = sum(value for name, value in parts.items() if not name.startswith("of"))
    job.note(
        what,
        value=whole,
        unit="ms",
        share={name: f"{value:.2f} ms ({value / whole:.0%})" for name, value in parts.items()},
    )
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step()
        synchronise(device)
    table = profile.key_averages()
    on_card = device.type == "cuda"

    def cost(entry: Any) -> float:
        return float(entry.self_device_time_total if on_card else entry.self_cpu_time_total)

    top = sorted(table, key=cost, reverse=True)[:15]
    total = sum(cost(entry) for entry in table) or 1.0
    kernels = [{"name": e.key[:90], "ms": plain(cost(e) / 1e3), "share": plain(cost(e) / total)} for e in top]
    job.note(
        f"{what}: what takes the most",
        verdict="; ".join(f"{one['name'][:40]} {one['share']:.0%}" for one in kernels[:4]),
        kernels=kernels,
    )


class _NetworkClock:
    """How long backbones and decoders take within a forward, by events on the device."""

    def __init__(self, method: nn.Module, device: torch.device) -> None:
        self.device = device
        self.total = 0.0
        self.begun: list[float] = []
        self.handles = []
        for module in method.modules():
            for name in ("backbone", "decoder"):
                part = getattr(module, name, None)
                if isinstance(part, nn.Module):
                    self.handles.append(part.register_forward_pre_hook(self._enter))
                    self.handles.append(part.register_forward_hook(self._leave))

    def _enter(self, *_: Any) -> None:
        synchronise(self.device)
        self.begun.append(time.perf_counter())

    def _leave(self, *_: Any) -> None:
        synchronise(self.device)
        spent = time.perf_counter() - self.begun.pop()
        if not self.begun:  # a network inside of a network is in the outer one's time
            self.total += spent

    def take(self) -> float:
        """Milliseconds since the last call."""
        spent, self.total = 1e3 * self.total, 0.0
        return spent

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
