"""CPU = GPU: the same inputs on both, in float32 with TF32 off; equal, or by how much not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_parts import material
from gpu_parts.harness import Job, difference, random_state
from selfseg.data.reading.images import read_image
from selfseg.data.reading.listing import list_images
from selfseg.methods import methods
from selfseg.ops import crf, kmeans
from selfseg.ops.objectives import losses, mutual_information, pixel_contrast
from selfseg.ops.objectives.sinkhorn import sinkhorn
from selfseg.ops.regions.pool_regions import common_regions, pool_regions
from selfseg.ops.regions.slic import slic, slic_batched
from selfseg.training.optimizer import make_optimizer

TITLE = "CPU = GPU"

# Sums in another order: float32 has 1.2e-7, and a network multiplies it by its depth.
_ROUNDING, _NETWORK = 1e-5, 2e-2


def run(job: Job) -> None:
    """Every operation of ours that has a CUDA path of its own, then every loss, then a step of every method."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for what, part in (
        ("superpixels", _superpixels),
        ("CRF", _crf),
        ("k-means", _kmeans),
        ("regions", _regions),
        ("losses", _losses),
        ("pixels to clusters", _assignment),
    ):
        with job.attempt(what):
            part(job)
    for name in (
        "vice_scratch",
        *(f"{method}_small" for method in methods() if method != "pyramid"),
    ):  # it learns nothing
        if job.enough(3, f"a step of {name}"):
            with job.attempt(f"a step of {name}"):
                _step(job, name)


def _superpixels(job: Job) -> None:
    count = 2 if job.tiny else 10
    images = [
        read_image(path) for kind in ("photographs", "camvid/train/images") for path in job.pictures(kind)[:count]
    ]
    if job.tiny:
        images = [np.ascontiguousarray(image[:64, :96]) for image in images]
    for size in (8, 16, 32):
        different, pixels = 0, 0
        for image in images:
            batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(job.device).float() / 255
            found = slic_batched(batch, size)[0].cpu().numpy()
            wrong = int((found != slic(image, size)).sum())
            different, pixels = different + (wrong > 0), pixels + wrong
        verdict = "equal to the bit" if not different else "DIFFERS"
        job.note(f"superpixels of {size} px, {len(images)} images", verdict=verdict, images=different, pixels=pixels)
    same = [image for image in images if image.shape == images[-1].shape]
    batch = torch.from_numpy(np.stack(same)).permute(0, 3, 1, 2).to(job.device).float() / 255
    found = slic_batched(batch, 16).cpu().numpy()
    equal = all(np.array_equal(one, slic(image, 16)) for one, image in zip(found, same, strict=True))
    job.note(f"the same in a batch of {len(same)}", verdict="equal to the bit" if equal else "DIFFERS")


def _crf(job: Job) -> None:
    size = (48, 64) if job.tiny else (375, 500)
    for classes in (2, 21):
        generator = random_state(classes)
        image = read_image(job.pictures("photographs")[0])
        image = np.ascontiguousarray(np.resize(image, (*size, 3)) if min(image.shape[:2]) < size[0] else image)
        image = image[: size[0], : size[1]]
        coarse = torch.randn(1, classes, 12, 16, generator=generator) * 2
        probabilities = F.interpolate(coarse, image.shape[:2], mode="bilinear")[0].softmax(0)
        cpu = crf.refine(probabilities, np.ascontiguousarray(image))
        gpu = crf.refine(probabilities.to(job.device), np.ascontiguousarray(image)).cpu()
        changed = float((cpu.argmax(0) != gpu.argmax(0)).float().mean())
        job.compare(f"CRF, {classes} classes", cpu, gpu, 1e-3, pixels_of_another_class=changed)


def _kmeans(job: Job) -> None:
    points, k = (2_000, 8) if job.tiny else (200_000, 100)
    generator = random_state(0)
    middles = torch.randn(k, 64, generator=generator)
    data = middles[torch.randint(k, (points,), generator=generator)] + torch.randn(points, 64, generator=generator)
    on_device = data.to(job.device)
    for spherical in (True, False):
        word = "spherical" if spherical else "Euclidean"
        options: dict[str, Any] = {"iterations": 5, "tolerance": 0.0, "spherical": spherical, "initial": data[:k]}
        cpu = kmeans.kmeans(data, k, **options)
        gpu = kmeans.kmeans(on_device, k, **options)
        again = kmeans.kmeans(on_device, k, **options)
        job.compare(
            f"k-means, {word}, 5 iterations from one start: centroids",
            cpu.centroids,
            gpu.centroids,
            1e-3,
            points_elsewhere=float((cpu.assignment != gpu.assignment.cpu()).float().mean()),
            inertia=gpu.inertia / cpu.inertia - 1,
        )
        same = torch.equal(gpu.centroids, again.centroids) and torch.equal(gpu.assignment, again.assignment)
        job.note(f"k-means, {word}, twice on the GPU", verdict="equal to the bit" if same else "DIFFERS")
    cpu = kmeans.kmeans(data, k, seed=1)
    gpu = kmeans.kmeans(on_device, k, seed=1)
    job.note(
        "k-means with its own seeding: inertia",
        verdict="within 1 %" if abs(gpu.inertia / cpu.inertia - 1) < 0.01 else "DIFFERS",
        ratio=gpu.inertia / cpu.inertia,
        iterations=f"{cpu.iterations} and {gpu.iterations}",
    )


def _regions(job: Job) -> None:
    views, images, size = (2, 2, 32) if job.tiny else (5, 4, 128)
    generator = random_state(0)
    ids = torch.arange(size)[:, None] // 8 * (size // 8) + torch.arange(size)[None] // 8
    moves = [torch.roll(ids, int(shift), 1) for shift in torch.randint(0, 8, (views * images,), generator=generator)]
    regions = torch.stack(moves).view(views, images, size, size)
    regions[:, :, :2] = -1
    cpu, gpu = common_regions(regions), common_regions(regions.to(job.device))
    job.compare("common regions", [cpu.row, cpu.image, cpu.id], [gpu.row, gpu.image, gpu.id], 0.0)
    embedding = torch.randn(views * images, 32, size, size, generator=generator)
    weight = torch.randn(cpu.count, 32, generator=generator)

    def pooled(device: torch.device) -> list[Tensor]:
        x = embedding.to(device, copy=True).requires_grad_()
        row = cpu.row.flatten(0, 1).to(device)
        means = pool_regions(x, row, cpu.count)
        (means * weight.to(device)).sum().backward()
        return [means, _gradient(x)]

    job.compare("region pooling and its gradient", pooled(torch.device("cpu")), pooled(job.device), _ROUNDING)
    scores = F.normalize(torch.randn(3000, 64, generator=generator), dim=1) @ F.normalize(
        torch.randn(64, 64, generator=generator), dim=0
    )
    for epsilon in (0.05, 0.02):
        job.compare(
            f"Sinkhorn, epsilon {epsilon}", sinkhorn(scores, epsilon), sinkhorn(scores.to(job.device), epsilon), 1e-4
        )


def _losses(job: Job) -> None:
    """Each objective with the gradient of what is learned."""
    generator = random_state(0)

    def unit(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=generator), dim=-1)

    target = sinkhorn(unit(200, 32))
    queries, positives, negatives = unit(200, 32), unit(200, 32), unit(500, 32)
    logits = torch.randn(4, 40, 40, generator=generator)
    foreground = torch.rand(4, 40, 40, generator=generator) < 0.3
    share = (~foreground).float().mean()
    embedding = torch.randn(4, 32, 40, 40, generator=generator)
    owner = torch.randint(-1, 20, (4, 40, 40), generator=generator)
    keys = unit(20, 32)
    probability = torch.randn(2, 4, 12, 20, 20, generator=generator).softmax(2)
    cases: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
        "swapped prediction": (
            lambda s, t: losses.swapped_prediction(s, t, torch.full((200,), 1 / 200, device=s.device), 0.1),
            [unit(4, 200, 32), target],
        ),
        "InfoNCE": (lambda q, p, n: losses.info_nce(q, p, n, 0.2)[0].mean(), [queries, positives, negatives]),
        "balanced cross entropy": (
            lambda x: losses.balanced_bce(x, foreground.to(x.device), share.to(x.device)),
            [logits],
        ),
        "pixels against objects": (
            lambda x: pixel_contrast.contrast_pixels(x, owner.to(x.device), keys.to(x.device), 0.5)[0].mean(),
            [embedding],
        ),
        "mutual information": (
            lambda a, b: -mutual_information.mutual_information(mutual_information.displaced_joint(a, b, 3)).mean(),
            [probability[0].contiguous(), probability[1].contiguous()],
        ),
    }
    for name, (function, inputs) in cases.items():

        def on(device: torch.device, function: Any = function, inputs: list[Tensor] = inputs) -> list[Tensor]:
            first, *others = (x.to(device) for x in inputs)
            first = first.clone().requires_grad_()
            loss = function(first, *others)
            loss.backward()
            return [loss, _gradient(first)]

        job.compare(f"loss and gradient: {name}", on(torch.device("cpu")), on(job.device), 1e-4)
    vectors = unit(500, 64)
    job.compare("effective rank", losses.effective_rank(vectors), losses.effective_rank(vectors.to(job.device)), 1e-4)


def _assignment(job: Job) -> None:
    from selfseg.collection.clusters import assign_pixels

    generator = random_state(0)
    embedding = F.interpolate(torch.randn(1, 64, 12, 16, generator=generator), (90, 120), mode="bicubic")[0]
    embedding = F.normalize(embedding, dim=0)
    for k in (27, 300):
        centroids = F.normalize(torch.randn(k, 64, generator=generator), dim=1)
        cpu = np.asarray(assign_pixels(embedding, centroids, (360, 480)), np.int64)
        gpu = np.asarray(assign_pixels(embedding.to(job.device), centroids.to(job.device), (360, 480)), np.int64)
        wrong = float((cpu != gpu).mean())
        job.note(
            f"pixels to the best of {k} clusters",
            verdict="equal" if wrong == 0 else "within rounding" if wrong < 1e-4 else "DIFFERS",
            pixels_elsewhere=wrong,
        )


def _step(job: Job, name: str) -> None:
    """Forward, backward and the optimiser's step of a small recipe, twice, from the same weights and views."""
    recipe = material.small(name, job, job.work / name)
    torch.manual_seed(0)
    method = recipe.build_method(len(list_images(recipe.images))).train()
    batch = material.batch(recipe, 2 if job.tiny else 8)
    # AdamW's first step is the sign of the gradient, which rounding can turn; SGD's is not.
    config = replace(recipe.optimizer, name="sgd", base_lr=1e-3, clip=None)

    def steps(device: torch.device) -> dict[str, Any]:
        mine = copy.deepcopy(method).to(device)
        optimizer = make_optimizer(mine, config)
        outputs, gradients = [], {}
        for progress in (0.3,) if job.tiny else (0.3, 0.301):
            output = mine(batch.to(device), progress)
            output.loss.backward()
            gradients = gradients or {key: _gradient(p) for key, p in mine.named_parameters() if p.grad is not None}
            optimizer.step()
            optimizer.zero_grad()
            mine.after_step(progress)
            outputs.append(output.loss)
        floating = {key: value for key, value in mine.state_dict().items() if value.is_floating_point()}
        return {"loss": outputs[:1], "gradient": gradients, "second loss": outputs[1:], "state": floating}

    cpu, gpu = steps(torch.device("cpu")), steps(job.device)
    found = {key: difference(cpu[key], gpu[key], _NETWORK) for key in cpu}
    verdicts = {one["verdict"] for one in found.values()}
    job.note(
        f"two steps of {name} ({type(method).__name__})",
        verdict="DIFFERS" if "DIFFERS" in verdicts else "within rounding" if len(verdicts) > 1 else verdicts.pop(),
        relative_difference={key: f"{one.get('relative', -1):.1e}" for key, one in found.items()},
        loss=float(cpu["loss"][0].detach()),
    )


def _gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad.detach().clone()
