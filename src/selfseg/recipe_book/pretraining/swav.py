"""Recipes for SwAV (Caron et al., NeurIPS 2020), a baseline of whole images."""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import RandomCrops
from selfseg.methods.pretraining.swav import SwAVConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def swav_small(images: Path, out: Path) -> Recipe[SwAVConfig]:
    """SwAV for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; two crops of 256 px and four of 128, 64 prototypes, a queue of 1,024.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train swav_small IMAGES --out RUN
    """
    return Recipe(
        name="swav_small",
        images=images,
        out=out,
        method=SwAVConfig(
            embedder=pyramid_embedder(correction=256),
            views=RandomCrops(size=256, scale=(0.14, 1.0), short_side=512, small_views=4, small_size=128),
            hidden=512,
            prototypes=64,
            epsilon=0.03,
            queue=1024,
            prototypes_frozen=0.02,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def swav_scratch(images: Path, out: Path) -> Recipe[SwAVConfig]:
    """SwAV for one modest GPU or a CPU, from scratch.

    ResNet-18 at a stride of 16, two crops of 128 px and four of 64, 64 prototypes, a queue of 1,024, sharper
    assignments (epsilon 0.03, as `vice_small`), milder colours, AdamW instead of LARS.

    Paper: none (this size is ours). Ours: 1,000 steps on 367 frames of CamVid, linear .294 mIoU on val, where random
    weights have .235; never tuned (docs/numbers.md). Command: selfseg train swav_scratch IMAGES --out RUN
    """
    return Recipe(
        name="swav_scratch",
        images=images,
        out=out,
        method=SwAVConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=16, decoder="none", resolution=320),
            views=RandomCrops(size=128, scale=(0.14, 1.0), short_side=320, small_views=4, small_size=64),
            hidden=512,
            prototypes=64,
            epsilon=0.03,
            queue=1024,
            prototypes_frozen=0.02,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def swav_imagenet(images: Path, out: Path) -> Recipe[SwAVConfig]:
    """SwAV, ResNet-50, 800 epochs of ImageNet-1K in batches of 4,096.

    The paper's warm-up begins at a sixteenth of the peak, ours at 0, for the same 10 epochs.

    Paper: 75.3 % linear accuracy on ImageNet; as others measured its weights, linear on VOC 50.7 mIoU (MaskContrast's
    table 1a). Ours: not run yet. Hours: 50 on 64 V100s. Command:
    selfseg train swav_imagenet imagenet/train --out runs/swav --devices 8 --nodes 8
    """
    return Recipe(
        name="swav_imagenet",
        images=images,
        out=out,
        method=SwAVConfig(prototypes_frozen=1 / 800),
        optimizer=OptimizerConfig(
            name="lars", base_lr=4.8, reference_batch=4096, weight_decay=1e-6, warmup=10 / 800, final=0.001
        ),
        epochs=800,
        batch_size=4096,
        workers=8,
        precision="16-mixed",
    )


def swav_imagenet_batch256(images: Path, out: Path) -> Recipe[SwAVConfig]:
    """SwAV, ResNet-50, 200 epochs of ImageNet-1K in batches of 256, with a queue of 3,840 after 15 epochs.

    The paper's other run is --epochs 400 --method.queue-start 0.0375 --method.prototypes-frozen 0.0025.

    Paper: 72.7 % linear accuracy on ImageNet, after 400 epochs 74.3. Ours: not run yet. Command:
    selfseg train swav_imagenet_batch256 imagenet/train --out runs/swav_256 --devices 4
    """
    return Recipe(
        name="swav_imagenet_batch256",
        images=images,
        out=out,
        method=SwAVConfig(queue=3840, queue_start=15 / 200, prototypes_frozen=1 / 200),
        optimizer=OptimizerConfig(
            name="lars", base_lr=0.6, reference_batch=256, weight_decay=1e-6, warmup=0.0, final=0.001
        ),
        epochs=200,
        batch_size=256,
        workers=8,
        precision="16-mixed",
    )
