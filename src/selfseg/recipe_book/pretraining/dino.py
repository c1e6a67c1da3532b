"""Recipes for DINO (Caron et al., ICCV 2021), a baseline of whole images.

What is certain of the published runs' settings, and what is not:
- Certain, as the paper or its authors' program has them: the architectures, the head, temperatures, momenta, batches,
  epochs, AdamW with 0.0005 per 256 images and a weight decay from 0.04 to 0.4 (ViTs), the appearance of the views.
- Less certain: what is only in the lists of arguments that lie beside the published weights. They couldn't be read when
  this was written, and are given as we know them: sizes and number of the crops, last learning rates, clipping, the
  epochs of the warm-ups, and all that ResNet-50 was optimised with but its batch of 4,080.
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import MultiCrops
from selfseg.methods.pretraining.dino import DINOConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def dino_small(images: Path, out: Path) -> Recipe[DINOConfig]:
    """DINO for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; two crops of 256 px and four of 128, 64 prototypes. What makes few steps enough:
    BatchNorms in the head and a bottleneck of 16, in which prototypes lie further apart, so that the teacher is sure of
    something from the start; its temperature stays at 0.04, and its momentum begins at 0.9. With a bottleneck of 128,
    512 prototypes and the paper's temperatures the loss stayed near that of a guess for 60 steps.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train dino_small IMAGES --out RUN
    """
    return Recipe(
        name="dino_small",
        images=images,
        out=out,
        method=DINOConfig(
            embedder=pyramid_embedder(correction=256),
            views=MultiCrops(size=256, scale=(0.4, 1.0), short_side=512, small_views=4, small_size=128),
            hidden=512,
            bottleneck=16,
            prototypes=64,
            batch_norm=True,
            teacher_temperature=0.04,
            momentum=0.9,
            prototypes_frozen=0.02,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=1e-3, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def dino_scratch(images: Path, out: Path) -> Recipe[DINOConfig]:
    """DINO for one modest GPU or a CPU, from scratch.

    ResNet-18 at a stride of 16, two crops of 128 px and four of 64, the head and temperatures of `dino_small`.

    Paper: none (this size is ours). Ours: not measured yet. Command: selfseg train dino_scratch IMAGES --out RUN
    """
    return Recipe(
        name="dino_scratch",
        images=images,
        out=out,
        method=DINOConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=16, decoder="none", resolution=320),
            views=MultiCrops(
                size=128, scale=(0.14, 1.0), short_side=320, small_views=4, small_size=64, small_scale=(0.05, 0.14)
            ),
            hidden=512,
            bottleneck=16,
            prototypes=64,
            batch_norm=True,
            teacher_temperature=0.04,
            momentum=0.9,
            prototypes_frozen=0.02,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def dino_imagenet(images: Path, out: Path) -> Recipe[DINOConfig]:
    """DINO, ResNet-50, 800 epochs of ImageNet-1K in batches of 4,080.

    Paper: 75.3 % linear accuracy on ImageNet, 67.5 by nearest neighbours. Ours: not run yet. Command:
    selfseg train dino_imagenet imagenet/train --out runs/dino --devices 8 --nodes 10
    """
    return Recipe(
        name="dino_imagenet",
        images=images,
        out=out,
        method=DINOConfig(
            embedder=EmbedderConfig(backbone="resnet50", output_stride=32, decoder="none"),
            views=MultiCrops(scale=(0.14, 1.0), small_views=6, small_scale=(0.05, 0.14)),
            prototypes=60_000,
            batch_norm=True,
            temperature_warmup=50 / 800,
            prototypes_frozen=1 / 800,
        ),
        optimizer=OptimizerConfig(
            name="lars", base_lr=0.3, reference_batch=256, weight_decay=1e-6, warmup=10 / 800, final=0.001
        ),
        epochs=800,
        batch_size=4080,
        workers=8,
        precision="16-mixed",
    )


def dino_imagenet_vits16(images: Path, out: Path) -> Recipe[DINOConfig]:
    """DINO, ViT-S/16, 800 epochs of ImageNet-1K.

    Paper: 77.0 % linear accuracy on ImageNet, 74.5 by nearest neighbours. Ours: not run yet. Command:
    selfseg train dino_imagenet_vits16 imagenet/train --out runs/dino_vits16 --devices 8 --nodes 2
    """
    return _vit("dino_imagenet_vits16", images, out, "small", epochs=800)


def dino_imagenet_vitb16(images: Path, out: Path) -> Recipe[DINOConfig]:
    """DINO, ViT-B/16, 400 epochs of ImageNet-1K.

    Paper: 78.2 % linear accuracy on ImageNet, 76.1 by nearest neighbours. Ours: not run yet. Command:
    selfseg train dino_imagenet_vitb16 imagenet/train --out runs/dino_vitb16 --devices 8 --nodes 4
    """
    return _vit("dino_imagenet_vitb16", images, out, "base", epochs=400)


def _vit(name: str, images: Path, out: Path, size: str, epochs: int) -> Recipe[DINOConfig]:
    small = size == "small"
    rate = 5e-4 if small else 7.5e-4
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=DINOConfig(
            embedder=EmbedderConfig(backbone=f"vit_{size}_patch16_224.dino", decoder="none"),
            views=MultiCrops(scale=(0.25, 1.0), small_views=10, small_scale=(0.05, 0.25)),
            unit_prototypes=not small,
            temperature_warmup=(30 if small else 50) / epochs,
            prototypes_frozen=(1 if small else 3) / epochs,
            drop_path=0.1,
        ),
        optimizer=OptimizerConfig(
            name="adamw",
            base_lr=rate,
            reference_batch=256,
            weight_decay=0.04,
            final_weight_decay=0.4,
            warmup=10 / epochs,
            final=(1e-5 if small else 2e-6) / (4 * rate),  # of the peak, which a batch of 1,024 has four times
            clip_each=None if small else 0.3,
        ),
        epochs=epochs,
        batch_size=1024,
        workers=8,
        precision="16-mixed",
    )
