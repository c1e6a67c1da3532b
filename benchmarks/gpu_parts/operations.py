"""k-means, the three losses and the CRF: time, memory and the share of what the card can do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_parts.harness import Job, random_state, share_of_peak, synchronise
from selfseg.data.reading.images import read_image
from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.methods.maskcontrast import MaskContrast, MaskContrastConfig
from selfseg.methods.slotcon import SlotCon, SlotConConfig
from selfseg.methods.vice import ViCE, ViCEConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.ops import crf
from selfseg.ops.kmeans import kmeans
from selfseg.ops.regions.pool_regions import common_regions

TITLE = "k-means, losses, CRF: speed"


def run(job: Job) -> None:
    """What the card itself does first: everything after it is a share of that."""
    for what, part in (("the machine itself", _machine), ("k-means", _kmeans), ("losses", _losses), ("CRF", _crf)):
        with job.attempt(what):
            part(job)


def _machine(job: Job) -> None:
    """Matrix products, copies on the card, and from page-locked memory to it."""
    side = 256 if job.tiny else 8192
    for kind, dtype, tf32 in (
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(side, side, device=job.device).to(dtype) for _ in range(2))
        seconds, _ = job.seconds_of(lambda a=a, b=b: a @ b, 5)
        flop = 2 * side**3
        job.speed(
            f"product of {side}x{side} matrices, {kind}",
            seconds,
            flop / 1e12,
            "TFLOP",
            share_of_peak=share_of_peak(job.device, kind, flop, seconds),
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    size = (1 << 20) if job.tiny else (1 << 30)
    source = torch.empty(size, dtype=torch.uint8, device=job.device)
    target = torch.empty_like(source)
    seconds, _ = job.seconds_of(lambda: target.copy_(source), 5)
    share = share_of_peak(job.device, "memory", 2 * size, seconds)
    job.speed("copy on the card, read and written", seconds, 2 * size / 1e9, "GB", share_of_peak=share)
    host = torch.empty(size // 4, dtype=torch.uint8, pin_memory=job.device.type == "cuda")
    seconds, _ = job.seconds_of(lambda: target[: size // 4].copy_(host, non_blocking=True), 5)
    job.speed("copy from page-locked memory to the card", seconds, size / 4e9, "GB")
    seconds, _ = job.seconds_of(lambda: host.copy_(target[: size // 4], non_blocking=True), 5)
    job.speed("copy from the card to page-locked memory", seconds, size / 4e9, "GB")


def _kmeans(job: Job) -> None:
    points, dim = (4_000, 16) if job.tiny else (16_000_000, 128)
    with torch.no_grad():
        generator = torch.Generator(job.device).manual_seed(0)
        data = torch.empty(points, dim, device=job.device)
        middles = torch.randn(512, dim, device=job.device, generator=generator)
        for start in range(0, points, 1 << 20):  # in pieces: a gather of all at once would need as much again
            stop = min(points, start + (1 << 20))
            owner = torch.randint(512, (stop - start,), device=job.device, generator=generator)
            data[start:stop] = middles[owner] + torch.randn(stop - start, dim, device=job.device, generator=generator)
        for k, aim in ((16, None), (32, None)) if job.tiny else ((4096, 0.2), (8192, 0.35)):
            what = f"k-means, {points:,} x {dim} into {k}: an iteration"
            if not job.enough(20, what) and not job.tiny:
                continue
            with job.attempt(what):
                _iterations(job, data, k, aim, what)
        if job.device.type == "cuda" and job.enough(10, "k-means, the other tile"):
            with job.attempt("k-means, the other tile"):
                from selfseg.ops.kernels import kmeans_cuda

                kmeans_cuda.CENTROIDS = 64
                _iterations(job, data, 4096, None, "the same into 4096 with tiles of 64 centroids instead of 128")
                kmeans_cuda.CENTROIDS = None
        if job.enough(30, "k-means with seeding") or job.tiny:
            sample = data[: min(points, 2_000_000)]
            begin = time.perf_counter()
            result = kmeans(sample, 16 if job.tiny else 4096, seed=0, iterations=3)
            synchronise(job.device)
            job.duration(
                f"k-means, {len(sample):,} x {dim} into {len(result.centroids)}, with its seeding",
                time.perf_counter() - begin,
                iterations=result.iterations,
            )


def _iterations(job: Job, data: Tensor, k: int, aim: float | None, what: str) -> None:
    """The difference of a call with many iterations and one with few: what is done once falls out."""
    initial = data[torch.arange(k, device=data.device) * (len(data) // k)].clone()
    few, many = (1, 3) if job.tiny else (1, 6)

    def call(iterations: int) -> float:
        synchronise(job.device)
        begin = time.perf_counter()
        kmeans(data, k, iterations=iterations, tolerance=0.0, initial=initial)
        synchronise(job.device)
        return time.perf_counter() - begin

    call(few)
    before = torch.cuda.memory_allocated(job.device) if job.device.type == "cuda" else 0
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
    short, long = call(few), call(many)
    seconds = (long - short) / (many - few)
    memory = (torch.cuda.max_memory_allocated(job.device) - before) / 2**30 if job.device.type == "cuda" else 0.0
    flop = 2 * len(data) * data.shape[1] * k
    job.duration(
        what,
        max(seconds, 1e-9),
        aim,
        once=f"{short - seconds * few:.2f} s",
        tflops=flop / max(seconds, 1e-9) / 1e12,
        share_of_bf16_peak_of_three_products=share_of_peak(job.device, "bf16", 3 * flop, max(seconds, 1e-9)),
        gib=memory,
    )


def _losses(job: Job) -> None:
    for name, function in loss_inputs(job).items():
        if job.enough(3, name):
            with job.attempt(name):
                seconds, memory = job.seconds_of(function, most=4)
                job.duration(f"{name}, forward and backward", seconds, gib=memory)


def loss_inputs(job: Job) -> dict[str, Loss]:
    """By name: a call that gives a loss and its gradient, from dense embeddings on.

    ViCE's at the paper's sizes for one of 32 GPUs: 4 images in 5 views of 256 and of 512 px, 128 dimensions and
    prototypes. SlotCon's at the paper's 64 images of a GPU, and 512. MaskContrast's at 8 images of 224 px.
    """
    tiny = job.tiny
    found: dict[str, Loss] = {}
    for name, side, superpixel in (("low", 256, 10), ("high", 512, 20)):
        size, images = (32, 2) if tiny else (side, 4)
        found[f"ViCE's loss, {name} resolution ({images} x 5 x {size}x{size})"] = Loss(
            lambda size=size, images=images, superpixel=superpixel: _vice(job.device, images, size, superpixel)
        )
    for images in (4,) if tiny else (64, 512):
        found[f"SlotCon's loss, {images} images"] = Loss(
            lambda images=images: _slotcon(job.device, images, 64 if tiny else 4096)
        )
    for queue in (128,) if tiny else (128, 4096):
        size = 32 if tiny else 224
        found[f"MaskContrast's loss, 8 x {size}x{size}, {queue} keys"] = Loss(
            lambda queue=queue, size=size: _maskcontrast(job.device, queue, size)
        )
    return found


class Loss:
    """A loss and what it is of; calling it gives the loss and the lengths of its gradients.

    The inputs are made when they are first needed: those of all losses together would fill the card.
    """

    def __init__(self, make: Callable[[], tuple[list[Tensor], Callable[[], Tensor]]]) -> None:
        self.make = make
        self.made: tuple[list[Tensor], Callable[[], Tensor]] | None = None

    def parts(self) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """The inputs and the function of them."""
        if self.made is None:
            torch.manual_seed(0)
            self.made = self.make()
        return self.made

    def __call__(self, function: Callable[[], Tensor] | None = None) -> list[Tensor]:
        inputs, loss_of = self.parts()
        for each in inputs:
            each.grad = None
        loss = (function or loss_of)()
        loss.backward()
        return [loss.detach(), *(each.grad.norm() for each in inputs if each.grad is not None)]


_HEADLESS: dict[str, Any] = {"backbone": "resnet10t", "output_stride": 32, "decoder": "linear"}  # none of it runs


def _vice(device: torch.device, images: int, size: int, superpixel: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
    generator = random_state(0)
    embedding = torch.randn(5 * images, 128, size, size, generator=generator).to(device)
    embedding = embedding.contiguous(memory_format=torch.channels_last).requires_grad_()
    side = size // superpixel + 2
    block = torch.arange(size) // superpixel
    regions = torch.stack(
        [
            torch.roll(block[:, None] * side + block[None], int(move), 1)
            for move in torch.randint(0, superpixel, (5 * images,), generator=generator)
        ]
    )
    regions = regions.view(5, images, size, size).to(device)
    method = ViCE(
        ViCEConfig(
            embedder=EmbedderConfig(dim=128, **_HEADLESS),
            views=ContentCentredViews(views=5, size=size),
            prototypes=128,
            queue=0,
        )
    ).to(device)
    rows = common_regions(regions)
    return [embedding], lambda: method.compare(method.pool(embedding, rows), rows, images, 1.0).loss


def _slotcon(device: torch.device, images: int, hidden: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
    generator = random_state(0)
    method = SlotCon(
        SlotConConfig(embedder=EmbedderConfig(dim=256, **_HEADLESS), prototypes=256, predictor_hidden=hidden)
    ).to(device)
    student = [torch.randn(images, 7, 7, 256, generator=generator).to(device).requires_grad_() for _ in range(2)]
    teacher = [torch.randn(images, 7, 7, 256, generator=generator).to(device) for _ in range(2)]
    scale = 0.6 + 0.3 * torch.rand(2, images, 2, generator=generator)
    shift = (torch.rand(2, images, 2, generator=generator) - 0.5) * 0.4
    first, second = torch.cat([torch.diag_embed(scale), shift[..., None]], dim=3).to(device)
    return student, lambda: method.compare(student, teacher, (first, second)).loss


def _maskcontrast(device: torch.device, queue: int, size: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
    generator = random_state(0)
    embedder = EmbedderConfig(dim=32, saliency=True, **_HEADLESS)
    config = MaskContrastConfig(embedder=embedder, queue=queue, saliency_loss="balanced")
    method = MaskContrast(config).to(device)
    method.queue.push(F.normalize(torch.randn(queue, 32, generator=generator), dim=1).to(device))
    query, key = (
        torch.randn(8, 32, size, size, generator=generator).to(device).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    saliency = torch.randn(8, size, size, generator=generator).to(device).requires_grad_()
    query.requires_grad_()
    mask = torch.full((8, size, size), -1)
    mask[:, size // 4 : size * 3 // 4, size // 4 : size * 3 // 4] = 0
    mask = mask.to(device)
    return [query, saliency], lambda: method.compare(query, saliency, key, mask, mask).loss


def _crf(job: Job) -> None:
    height, width = (48, 64) if job.tiny else (375, 500)
    image = read_image(job.pictures("photographs")[0])
    image = np.ascontiguousarray(np.resize(image, (height, width, 3)))
    for classes in (2, 21):
        coarse = torch.randn(1, classes, 12, 16, generator=random_state(0)) * 2
        probabilities = F.interpolate(coarse, (height, width), mode="bilinear")[0].softmax(0)
        on_device = probabilities.to(job.device)
        seconds, memory = job.seconds_of(lambda p=on_device: crf.refine(p, image), 5, most=6)
        beside, _ = job.seconds_of(
            lambda p=probabilities: crf.refine(p, image), 3, 1, most=4, device=torch.device("cpu")
        )
        job.duration(
            f"CRF {width}x{height}, {classes} classes, 10 iterations",
            seconds,
            gib=memory,
            cpu_one_thread_ms=1e3 * beside,
            times_as_fast=beside / seconds,
        )
