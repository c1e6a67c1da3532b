"""Recipes for BYOL (Grill et al., NeurIPS 2020), a baseline of whole images."""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import MultiCrops
from selfseg.methods.pretraining.byol import BYOLConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def byol_small(images: Path, out: Path) -> Recipe[BYOLConfig]:
    """BYOL for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; crops of 256 px.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train byol_small IMAGES --out RUN
    """
    return Recipe(
        name="byol_small",
        images=images,
        out=out,
        method=BYOLConfig(
            embedder=pyramid_embedder(correction=256),
            views=MultiCrops(size=256, short_side=512),
            hidden=512,
            dim=128,
            momentum=0.99,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def byol_scratch(images: Path, out: Path) -> Recipe[BYOLConfig]:
    """BYOL for one modest GPU or a CPU, from scratch.

    ResNet-18 at a stride of 16, crops of 128 px, AdamW instead of LARS and a momentum of 0.99: with 0.996 the target
    network of a short run stays near random weights.

    Paper: none (this size is ours). Ours: not measured yet. Command: selfseg train byol_scratch IMAGES --out RUN
    """
    return Recipe(
        name="byol_scratch",
        images=images,
        out=out,
        method=BYOLConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=16, decoder="none", resolution=320),
            views=MultiCrops(size=128, short_side=320),
            hidden=512,
            dim=128,
            momentum=0.99,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def byol_imagenet(images: Path, out: Path) -> Recipe[BYOLConfig]:
    """BYOL, ResNet-50, 1,000 epochs of ImageNet-1K in batches of 4,096.

    The paper's runs of 300 epochs, its ablations', are --epochs 300 --optimizer.base-lr 0.3 --optimizer.weight-decay
    1e-6 --optimizer.warmup 0.0333 --method.momentum 0.99.

    Paper: 74.3 % linear accuracy on ImageNet, after 300 epochs 72.5. Ours: not run yet. Command:
    selfseg train byol_imagenet imagenet/train --out runs/byol --devices 8 --nodes 8
    """
    return Recipe(
        name="byol_imagenet",
        images=images,
        out=out,
        method=BYOLConfig(),
        optimizer=OptimizerConfig(
            name="lars", base_lr=0.2, reference_batch=256, weight_decay=1.5e-6, warmup=10 / 1000, final=0.0
        ),
        epochs=1000,
        batch_size=4096,
        workers=8,
    )
