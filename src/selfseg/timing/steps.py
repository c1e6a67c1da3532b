"""`selfseg time`: what a recipe's training step costs by phase, and what an image costs by clusters and linear models.

ViCE's tables 12 and 13 (preprint 2021; 7 and 8 of BMVC 2022) and SlotCon's table 8 have such figures. The steps are
those of the training (`selfseg.training.loop.take_step`), with its loader, on one device, in a folder that is gone
afterwards.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric

from selfseg.data.loader import StepSampler, ViewDataset, iterate, make_loader
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.data.regions import RegionCache, Superpixels
from selfseg.errors import BadImage, ConfigError, EmptyCollection
from selfseg.fitting.memory import kept_memory
from selfseg.methods import Method
from selfseg.ops.phases import phase
from selfseg.timing.inference import Inference, time_inference
from selfseg.timing.recorder import Recorder, process_peak, wait
from selfseg.timing.tables import Timing
from selfseg.training.image_list import settle
from selfseg.training.loop import TrainingStep, take_step
from selfseg.training.machines.launching import make_fabric
from selfseg.training.optimizer import make_optimizer
from selfseg.training.recipe import Recipe
from selfseg.training.start import draw_stages
from selfseg.types import Batch
from selfseg.version import __version__

_MEMORY_STEPS = 2
_FITTED = 4  # images that a pyramid is fitted on: enough for numbers that are finite


@dataclass(frozen=True)
class TimingConfig:
    """How a recipe is timed.

    Attributes:
        measured: how many steps are measured phase by phase; as many again are timed as a whole.
        warm_up: how many steps, and images of the inference, go by before anything is measured.
        rows: number of clusters, and of filters of the linear model; the papers have 256.
        looks: how many images are segmented.
    """

    measured: int = 20
    warm_up: int = 5
    rows: int = 256
    looks: int = 20

    def __post_init__(self) -> None:
        for name in ("measured", "warm_up", "looks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.rows < 2:
            raise ConfigError(f"rows must be at least 2, not {self.rows}")


def time_recipe(recipe: Recipe[Any], config: TimingConfig | None = None) -> Timing:
    """Measure a recipe's training step and its inference on this machine; nothing is left behind.

    The weights are random, because what a step costs doesn't depend on what the network knows. The schedule stands at
    half of the training. One process on one device is measured. For a run on several, set `batch_size` to what one of
    them has.

    Args:
        recipe: the recipe; its `out` is not used.
        config: how it is measured.

    Returns:
        Times and memory.

    Raises:
        ConfigError: if the recipe wants several processes, or can't be built.
        DataError: if the images can't be read, or are fewer than one.
        NonFiniteLoss: if the loss stops being a number.
    """
    config = config or TimingConfig()
    if recipe.devices > 1 or recipe.nodes > 1:
        raise ConfigError(
            f"one process is timed, not {recipe.devices} on each of {recipe.nodes} machines; leave them out, and give "
            "the images that one of them has in a step as --batch-size"
        )
    if recipe.precision == "auto":
        raise ConfigError("precision auto is chosen by time; give 32-true or bf16-mixed to measure one of them")
    with tempfile.TemporaryDirectory(prefix="selfseg-time-") as folder:
        return _time(replace(recipe, out=Path(folder), devices=1), config)


def _time(recipe: Recipe[Any], config: TimingConfig) -> Timing:
    recipe, images, _, _ = settle(recipe, writes=True)
    fabric = make_fabric(recipe)
    torch.manual_seed(recipe.seed)
    method = recipe.build_method(len(images)).to(fabric.device).to(memory_format=torch.channels_last)
    if not any(parameter.requires_grad for parameter in method.parameters()):
        raise ConfigError(f"{recipe.name} learns nothing, so it has no steps to measure; take another recipe")
    if method.embedder.config.decoder == "pyramid":
        few = images.subset(range(min(_FITTED, len(images))))
        method.fit_start(draw_stages(method.embedder, few, SkipLog(None, len(few), 1.0), recipe.seed))
    loading = _time_loading(recipe, method, images, config)
    steps, peaks, unmarked, peak, reserved = _time_steps(fabric, recipe, method, images, config)
    parts, sizes = _time_inference(method, images, config)
    settings = {
        "batch_size": recipe.batch_size,
        "precision": recipe.precision,
        "workers": recipe.workers,
        "warm_up": config.warm_up,
        "measured": config.measured,
        "rows": config.rows,
        "backbone": method.embedder.config.backbone,
        "dim": method.embedder.dim,
        "stride": method.embedder.stride,
        "images": str(recipe.images),
        "regions_are_kept": recipe.cache and isinstance(method.views().regions, Superpixels),
    }
    return Timing(
        recipe=recipe.name,
        machine=_machine(fabric),
        settings=settings,
        steps=tuple(steps),
        peaks=tuple(peaks),
        unmarked=tuple(unmarked),
        peak=peak,
        reserved=reserved,
        loading=loading,
        inference=tuple(parts),
        sizes=tuple(sizes),
    )


def _time_steps(
    fabric: Fabric, recipe: Recipe[Any], method: Method, images: ImageCollection, config: TimingConfig
) -> tuple[list[dict[str, float]], list[dict[str, int]], list[float], int, int | None]:
    """Seconds by phase, peak bytes by phase, seconds without marks, the peak, and what a GPU's allocator held."""
    device = fabric.device
    wrapped, optimizer = fabric.setup(TrainingStep(method), make_optimizer(method, recipe.optimizer))
    method.train()
    count = config.warm_up + 2 * config.measured + _MEMORY_STEPS
    first = recipe.total_steps(len(images)) // 2
    total = max(recipe.total_steps(len(images)), first + count)
    sampler = StepSampler(len(images), recipe.batch_size, first, first + count, recipe.seed, blocks=images.blocks)
    plan = method.views()
    dataset = ViewDataset(images, plan, recipe.seed, RegionCache(None, plan.regions, images.rgb))  # as in a first epoch
    batches: Generator[Batch, None, None] = iterate(
        make_loader(dataset, sampler, recipe.workers, device.type == "cuda")
    )
    step = first

    def one() -> None:
        nonlocal step
        with phase("data"):
            batch = next(batches)
        take_step(fabric, recipe, wrapped, optimizer, batch, step, total, images)
        step += 1

    timed, remembered = Recorder(device, "time"), Recorder(device, "memory")
    unmarked = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with closing(batches):
        with kept_memory(device):
            for _ in range(config.warm_up):
                one()
            for _ in range(config.measured):  # in turns, so that a busy moment falls on both
                with timed.step():
                    one()
                begin = time.perf_counter()
                one()
                wait(device)
                unmarked.append(time.perf_counter() - begin)
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process_peak()
            reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
        for _ in range(_MEMORY_STEPS):
            with remembered.step():
                one()
    return timed.seconds, remembered.bytes, unmarked, peak, reserved


def _time_loading(
    recipe: Recipe[Any], method: Method, images: ImageCollection, config: TimingConfig
) -> dict[str, tuple[float, ...]]:
    """Seconds of each image for reading, regions and views, in this process with one thread of OpenCV."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    plan = method.views()
    found: dict[str, list[float]] = {"reading and resizing": [], "regions": [], "views": []}
    drawn = np.random.default_rng(recipe.seed).permutation(len(images))[: config.measured + 1].tolist()
    try:
        for place, index in enumerate(drawn if len(drawn) > 1 else 2 * drawn):
            begin = time.perf_counter()
            try:
                source = plan.prepare(images.read(index))
                read = time.perf_counter()
                regions = plan.regions.compute(source, images.names[index])
            except BadImage:
                continue
            made = time.perf_counter()
            plan.make(source, regions, np.random.Generator(np.random.PCG64([recipe.seed, place])))
            end = time.perf_counter()
            if place:  # the first compiles and imports
                for name, seconds in zip(found, (read - begin, made - read, end - made), strict=True):
                    found[name].append(seconds)
    finally:
        cv2.setNumThreads(threads)
    if not found["views"]:
        raise EmptyCollection(f"none of the images tried in {images.root} could be read, so none was timed")
    return {name: tuple(seconds) for name, seconds in found.items()}


def _time_inference(
    method: Method, images: ImageCollection, config: TimingConfig
) -> tuple[list[Inference], list[tuple[int, int]]]:
    chosen = np.linspace(0, len(images) - 1, min(config.looks, len(images))).astype(int).tolist()
    embedder = method.embedder.eval()
    return time_inference(embedder, images, chosen, config.rows, config.warm_up)


def _machine(fabric: Fabric) -> dict[str, str]:
    cuda = fabric.device.type == "cuda"
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    threads = torch.get_num_threads()
    here = f"{processor}, {threads} {'thread' if threads == 1 else 'threads'}"
    return {
        "device": torch.cuda.get_device_name(fabric.device) if cuda else here,
        "processor": here,
        "system": f"{platform.system()} {platform.release()}",
        "torch": torch.__version__,
        "selfseg": __version__,
    }
