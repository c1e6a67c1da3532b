"""Images looked at together: `--batch` beside one at a time and beside what was there before.

With the packaged network and with a ViT-S; how long the GPU waits in `embed`; and k-means whose sums go over NCCL.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gpu_parts import material
from gpu_parts.harness import Job, random_state, synchronise
from selfseg.collection.batching.room import AUTO, Batching, Room
from selfseg.collection.clustering import cluster
from selfseg.collection.embedding import embed
from selfseg.collection.segmenting import segment
from selfseg.data.reading.images import read_image
from selfseg.masks.mining import mine_masks
from selfseg.masks.sources import Training
from selfseg.models import embedder as embedders
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops import kmeans as clustering
from selfseg.ops.regions.smoothing import smooth_batch
from selfseg.segmenter.applying import apply
from selfseg.segmenter.naming import renamed
from selfseg.training.loop import train
from selfseg.training.recipe import recipes

TITLE = "images together, the packaged network, ViT-S, k-means over NCCL"

Verb = Callable[[Path, Batching], Any]


@dataclass(frozen=True)
class _OneByOne(Batching):
    """As masks were made before: image by image, in threads that take turns at the GPU, and the CRF on the CPU."""

    def applies(self, device: torch.device) -> bool:
        del device
        return False


def run(job: Job) -> None:
    """The packaged network first, since everybody begins with it."""
    count = 2 if job.tiny else 500
    images = material.copies(job.images / "photographs", job.work / "many", count)
    few = material.copies(job.images / "photographs", job.work / "few", 3 if job.tiny else 64)
    packaged = None
    with job.attempt("the packaged network"):
        packaged = _packaged(job, few)
        begin = time.perf_counter()
        embed(packaged, few, job.work / "warm", device=job.device.type, progress=False, batch=_of(job, 2))
        job.duration("the first images, with everything that starts once", time.perf_counter() - begin)
    if packaged is not None:
        for what, verb, before in _verbs(job, packaged, images, few):
            if job.enough(1 if job.tiny else 8, what):
                with job.attempt(what):
                    _beside(job, what, verb, before, count)
        with job.attempt("how long the GPU waits"):
            _waiting(job, packaged, images)
    if job.enough(1 if job.tiny else 8, "ViT-S"):
        with job.attempt("ViT-S"):
            vit = _vit(job)
            name = "embed, ViT-S/16"
            _beside(job, name, _embedding(job, vit, images), None, count)
    if job.enough(1 if job.tiny else 4, "k-means over NCCL"):
        with job.attempt("k-means over NCCL"):
            _kmeans(job)


def _of(job: Job, images: Any) -> Batching:
    return Batching(images, on_cpu=job.tiny)


def _packaged(job: Job, images: Path) -> Path:
    """A run of the pyramid on the weights of the package, as `selfseg train pyramid` makes it, with named clusters."""
    recipe = recipes()["pyramid"](images, job.work / "pyramid")
    if job.tiny:
        recipe = replace(recipe, method=material.shrink(recipe.method))
    made = train(replace(recipe, accelerator=job.device.type), progress=False)
    points = 500 if job.tiny else 50_000
    cluster(made, images, k=(8,), points=points, device=job.device.type, progress=False, batch=_of(job, 2))
    renamed(made, {number: f"class {number}" for number in range(8)}, 8).save(made / "segmenter")
    return made


def _vit(job: Job) -> Path:
    """A ViT-S with random weights, which takes as long as one that has learned."""
    torch.manual_seed(0)
    side = 64 if job.tiny else 512
    config = EmbedderConfig("vit_small_patch16_224", output_stride=16, decoder="linear", dim=96, resolution=side)
    Embedder(config).save(job.work / "vit" / "embedder")
    return job.work / "vit"


def _embedding(job: Job, run: Path, images: Path) -> Verb:
    return lambda out, batch: embed(run, images, out, device=job.device.type, progress=False, batch=batch)


def _verbs(job: Job, run: Path, images: Path, few: Path) -> Iterator[tuple[str, Verb, tuple[Batching, Any]]]:
    """(name, verb, how it was before)."""
    device = job.device.type
    of_32 = (_of(job, 32), _smoothed_on_the_cpu)
    training = Training(images=few, device=device)
    if job.tiny:
        training = replace(training, features=replace(training.features, size=64))

    def masks(out: Path, batch: Batching) -> Any:
        # What the method learns is kept, and not measured.
        folder = out.parent / "masks"
        for kept in ("index", "soft"):
            shutil.rmtree(folder / kept, ignore_errors=True)
        (folder / "progress.jsonl").unlink(missing_ok=True)
        made = mine_masks(images, folder, progress=False, training=training, batch=batch)
        out.mkdir()
        shutil.copytree(folder / "soft", out / "soft")
        return made

    yield "embed", _embedding(job, run, images), of_32
    yield (
        "segment",
        lambda out, batch: segment(run, images, out, device=device, progress=False, batch=batch),
        of_32,
    )
    yield (
        "apply",
        lambda out, batch: apply(
            run / "segmenter", images, out, overlays=False, device=device, progress=False, batch=batch
        ),
        of_32,
    )
    mine_masks(few, job.work / "masks", progress=False, training=training, batch=_of(job, 2))
    yield "masks", masks, (_OneByOne(), nullcontext)


def _beside(job: Job, what: str, verb: Verb, before: tuple[Batching, Any] | None, count: int) -> None:
    """A verb with as many images together as there is room for, as before, and one at a time; and if results differ."""
    ways: list[tuple[str, Batching, Any]] = [("--batch auto", replace(AUTO, on_cpu=job.tiny), nullcontext)]
    ways += [("as it was before", *before)] if before is not None else []
    if not job.tiny or what in ("embed", "masks"):
        ways += [("--batch 1", _of(job, 1), nullcontext)]
    outs: list[tuple[str, Path]] = []
    for name, batch, around in ways:
        out = job.work / f"{what} {name}".replace(" ", "_").replace("/", "_")
        if not job.enough(1 if job.tiny else 4, f"{what}, {name}"):
            continue
        if job.device.type == "cuda":
            torch.cuda.synchronize(job.device)
            torch.cuda.empty_cache()
        with around(), _sizes() as sizes:
            begin = time.perf_counter()
            verb(out, batch)
            synchronise(job.device)
            seconds = time.perf_counter() - begin
        told = {"batches": len(sizes), "images_of_the_largest": max(sizes, default=None)}
        job.speed(f"{what}, {count} photographs, {name}", seconds, count, "images", **told)
        outs.append((name, out))
    for name, out in outs[1:]:
        _compare(job, f"{what}: {outs[0][0]} and {name}", outs[0][1], out)
    for _, out in outs:
        shutil.rmtree(out, ignore_errors=True)


@contextmanager
def _smoothed_on_the_cpu() -> Iterator[None]:
    """As before, when maps were smoothed image by image."""

    def smooth(values: Tensor, image: Tensor, strength: float, guides: Any = (), *rest: Any) -> Tensor:
        there = [each.cpu() for each in guides]
        return smooth_batch(values.cpu(), image.cpu(), strength, there, *rest).to(image.device)

    embedders.smooth_batch = smooth  # type: ignore[assignment]
    try:
        yield
    finally:
        embedders.smooth_batch = smooth_batch


@contextmanager
def _sizes() -> Iterator[list[int]]:
    """How many images each batch has that fitted."""
    found: list[int] = []
    attempt = Room._try

    def counted(room: Room, work: Any, some: Any, pixels: int) -> Any:
        made = attempt(room, work, some, pixels)
        found.extend([] if made is None else [len(some)])
        return made

    Room._try = counted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Room._try = attempt  # type: ignore[method-assign]


def _compare(job: Job, what: str, one: Path, other: Path) -> None:
    """Files of two folders: how far embeddings are apart at most, or how many pixels of maps."""
    largest, unequal, total = 0.0, 0, 0
    files = [file for file in sorted(one.rglob("*")) if file.suffix in (".npy", ".png")]
    for file in files:
        twin = other / file.relative_to(one)
        if file.suffix == ".npy":
            pair = [np.load(path, allow_pickle=False).astype(np.float32) for path in (file, twin)]
            largest = max(largest, float(np.abs(pair[0] - pair[1]).max()))
            continue
        maps = [np.asarray(read_image(path)).astype(np.int16) for path in (file, twin)]
        # Soft maps are values of 0 to 255, others the colours of classes.
        apart = np.abs(maps[0] - maps[1]).max(2) > (3 if "soft" in file.parts else 0)
        unequal, total = unequal + int(np.count_nonzero(apart)), total + apart.size
    if total:
        share = unequal / total
        verdict = "equal" if not unequal else "within rounding" if share < 0.005 else "DIFFERS"
        job.note(what, verdict=verdict, pixels_elsewhere=share, files=len(files))
    else:
        verdict = "equal" if not largest else "within rounding" if largest < 0.02 else "DIFFERS"
        job.note(what, verdict=verdict, largest=largest, files=len(files))


def _waiting(job: Job, run: Path, images: Path) -> None:
    """The share of the time in which the network has nothing to do, then the share in which no kernel runs."""
    device, batch = job.device.type, replace(AUTO, on_cpu=job.tiny)
    spans: list[Callable[[], float]] = []
    original = Embedder.embed_prepared

    def clocked(self: Embedder, *given: Any, **named: Any) -> Tensor:
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            found = original(self, *given, **named)
            end.record()
            spans.append(lambda: begin.elapsed_time(end) / 1e3)
            return found
        start = time.perf_counter()
        found = original(self, *given, **named)
        seconds = time.perf_counter() - start
        spans.append(lambda: seconds)
        return found

    Embedder.embed_prepared = clocked  # type: ignore[method-assign]
    try:
        begun = time.perf_counter()
        embed(run, images, job.work / "clocked", device=device, progress=False, batch=batch)
        synchronise(job.device)
        wall = time.perf_counter() - begun
    finally:
        Embedder.embed_prepared = original  # type: ignore[method-assign]
    shutil.rmtree(job.work / "clocked", ignore_errors=True)
    busy = sum(span() for span in spans)
    job.note(
        "embed: share of the time without a pass of the network, its loading and index.json included",
        value=1 - busy / wall,
        unit="of the time",
        seconds=wall,
        passes=len(spans),
    )
    if device != "cuda" or not job.enough(8, "embed: share of the time without a kernel"):
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        embed(run, images, job.work / "profiled", device=device, progress=False, batch=batch)
        synchronise(job.device)
    shutil.rmtree(job.work / "profiled", ignore_errors=True)
    kernels = []
    for event in profile.events() or ():
        annotation = getattr(event, "is_user_annotation", False)
        copied = event.name.startswith(("Memcpy", "Memset"))
        if str(event.device_type).endswith("CUDA") and not (annotation or copied):
            kernels.append((float(event.time_range.start), float(event.time_range.end)))
    if not kernels:
        job.note("embed: share of the time without a kernel", verdict="left out", why="the profiler saw no kernel")
        return
    job.note(
        "embed: share of the time without a kernel, from the first to the last",
        value=idle_share(kernels),
        unit="of the time",
        kernels_seen=len(kernels),
    )


def idle_share(spans: list[tuple[float, float]]) -> float:
    """The share of the time from the first begin to the last end in which none of the spans lies.

    Example:
        >>> idle_share([(0, 2), (1, 4), (6, 8)])
        0.25
    """
    busy, until = 0.0, min(begin for begin, _ in spans)
    first = until
    for begin, end in sorted(spans):
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return 1 - busy / (until - first) if until > first else 0.0


def _kmeans(job: Job) -> None:
    """The sums of each iteration over a process group of one process: the same centroids, and what it costs."""
    points, k = (2_000, 8) if job.tiny else (2_000_000, 512)
    generator = random_state(0)
    middles = torch.randn(k, 64, generator=generator)
    owner = torch.randint(k, (points,), generator=generator)
    data = (middles[owner] + torch.randn(points, 64, generator=generator)).to(job.device)
    options: dict[str, Any] = {"iterations": 5, "tolerance": 0.0, "initial": data[:k].clone()}
    means = clustering._means

    def reduced(rows: Tensor, assignment: Tensor, best: Tensor, clusters: int) -> Tensor:
        count = torch.bincount(assignment, minlength=clusters)
        total = means(rows, assignment, best, clusters).double() * count[:, None]
        kept = means(rows, assignment, best, clusters)  # of a cluster without points
        dist.all_reduce(total)
        dist.all_reduce(count)
        return torch.where(count[:, None] > 0, (total / count.clamp(min=1)[:, None]).float(), kept)

    def timed() -> tuple[Any, float]:
        clustering.kmeans(data, k, **{**options, "iterations": 1})
        synchronise(job.device)
        begin = time.perf_counter()
        result = clustering.kmeans(data, k, **options)
        synchronise(job.device)
        return result, time.perf_counter() - begin

    plain, seconds = timed()
    backend = "nccl" if job.device.type == "cuda" else "gloo"
    store = dist.FileStore(str(job.work / "store"), 1)
    where = {"device_id": torch.device("cuda", 0)} if backend == "nccl" else {}
    dist.init_process_group(backend, store=store, rank=0, world_size=1, **where)
    clustering._means = reduced
    try:
        over, longer = timed()
    finally:
        clustering._means = means
        dist.destroy_process_group()
    what = f"k-means, {points:,} x 64 into {k}, 5 iterations, sums over {backend} in one process: centroids"
    job.compare(
        what,
        plain.centroids,
        over.centroids,
        1e-5,
        points_elsewhere=float((plain.assignment != over.assignment).float().mean()),
        milliseconds_plain=1e3 * seconds,
        milliseconds_over=1e3 * longer,
    )
