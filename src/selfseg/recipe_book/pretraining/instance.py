"""Recipes for instance discrimination (Wu et al., CVPR 2018), a baseline of whole images.

With all entries of the bank instead of drawn ones: --method.noise 0.
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import RandomCrops
from selfseg.methods.pretraining.instance import InstanceDiscriminationConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def instance_small(images: Path, out: Path) -> Recipe[InstanceDiscriminationConfig]:
    """Instance discrimination for your own images, on a CPU or one modest GPU: it begins as the pyramid.

    It learns a correction, the backbone stays as it is; crops of 256 px, each compared with all images (the full
    softmax). Entries of the bank are as old as an epoch: with more than some thousand images take more steps.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train instance_small IMAGES --out RUN
    """
    return Recipe(
        name="instance_small",
        images=images,
        out=out,
        method=InstanceDiscriminationConfig(
            embedder=pyramid_embedder(correction=256),
            views=RandomCrops(views=1, size=256, short_side=512),
            noise=0,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def instance_scratch(images: Path, out: Path) -> Recipe[InstanceDiscriminationConfig]:
    """Instance discrimination for one modest GPU or a CPU, from scratch.

    `moco_scratch` with a memory bank: ResNet-18 at a stride of 16, crops of 128 px, each compared with all images (the
    full softmax), AdamW instead of SGD.

    Paper: none (this size is ours). Ours: not measured yet. Command: selfseg train instance_scratch IMAGES --out RUN
    """
    return Recipe(
        name="instance_scratch",
        images=images,
        out=out,
        method=InstanceDiscriminationConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=16, decoder="none", resolution=320),
            views=RandomCrops(views=1, size=128, short_side=320),
            noise=0,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def instance_imagenet(images: Path, out: Path) -> Recipe[InstanceDiscriminationConfig]:
    """Instance discrimination, ResNet-50, 200 epochs of ImageNet-1K, 4,096 noise entries.

    The rate is a tenth after 120 epochs and again after 160. The bank of 1,281,167 images takes 656 MB in every process
    and in every checkpoint.

    Paper: as MaskContrast's authors measured its weights (table 1a), linear on VOC 26.8 mIoU. Ours: not run yet.
    Command:
    selfseg train instance_imagenet imagenet:IMAGENET --out runs/instance --devices 8
    """
    return Recipe(
        name="instance_imagenet",
        images=images,
        out=out,
        method=InstanceDiscriminationConfig(),
        optimizer=OptimizerConfig(
            name="sgd",
            base_lr=0.03,
            reference_batch=256,
            weight_decay=1e-4,
            schedule="steps",
            warmup=0.0,
            milestones=(120 / 200, 160 / 200),
        ),
        epochs=200,
        batch_size=256,
        workers=8,
    )
