"""Recipes for DenseCL (Wang et al., CVPR 2021), a baseline of cells.

The paper's ablation of the dense loss's weight is --method.dense-weight 0 ... 1.
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import RandomCrops
from selfseg.methods.pretraining.densecl import DenseCLConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def densecl_small(images: Path, out: Path) -> Recipe[DenseCLConfig]:
    """DenseCL for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; crops of 256 px (16x16 cells), queues of 1,024 keys.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train densecl_small IMAGES --out RUN
    """
    return Recipe(
        name="densecl_small",
        images=images,
        out=out,
        method=DenseCLConfig(
            embedder=pyramid_embedder(correction=256),
            views=RandomCrops(size=256, short_side=512),
            hidden=512,
            grid=16,
            queue=1024,
            momentum=0.99,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def densecl_scratch(images: Path, out: Path) -> Recipe[DenseCLConfig]:
    """DenseCL for one modest GPU or a CPU, from scratch.

    `moco_small` with a dense head: ResNet-18 at a stride of 16, crops of 128 px (8x8 cells), queues of 1,024 keys,
    AdamW instead of SGD, a momentum of 0.99.

    Paper: none (this size is ours). Ours: 1,000 steps on 367 frames of CamVid, linear .347 mIoU on val, where random
    weights have .235; never tuned (docs/numbers.md). Command: selfseg train densecl_scratch IMAGES --out RUN
    """
    return Recipe(
        name="densecl_scratch",
        images=images,
        out=out,
        method=DenseCLConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=16, decoder="none", resolution=320),
            views=RandomCrops(size=128, short_side=320),
            hidden=512,
            grid=8,
            queue=1024,
            momentum=0.99,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def densecl_coco(images: Path, out: Path) -> Recipe[DenseCLConfig]:
    """DenseCL, ResNet-50, 800 epochs of COCO train2017 (118,287 images).

    Paper: its authors' weights in SlotCon's table 2: Mask R-CNN on COCO, 1x: 39.6 box AP, 35.7 mask AP; FCN: Cityscapes
    75.8, VOC 71.6, ADE20K 37.1 mIoU. Ours: not run yet. Command:
    selfseg train densecl_coco coco/train2017 --out runs/densecl_coco --devices 8
    """
    return _resnet50("densecl_coco", images, out, base_lr=0.3, epochs=800)


def densecl_imagenet(images: Path, out: Path) -> Recipe[DenseCLConfig]:
    """DenseCL, ResNet-50, 200 epochs of ImageNet-1K.

    Paper: its authors' weights in SlotCon's table 4: Mask R-CNN on COCO, 1x: 40.3 box AP, 36.4 mask AP; FCN:
    Cityscapes 76.2, VOC 72.8, ADE20K 38.1 mIoU. Ours: not run yet. Command:
    selfseg train densecl_imagenet imagenet/train --out runs/densecl_imagenet --devices 8
    """
    return _resnet50("densecl_imagenet", images, out, base_lr=0.03, epochs=200)


def _resnet50(name: str, images: Path, out: Path, base_lr: float, epochs: float) -> Recipe[DenseCLConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=DenseCLConfig(),
        optimizer=OptimizerConfig(
            name="sgd", base_lr=base_lr, reference_batch=256, weight_decay=1e-4, warmup=0.0, final=0.0
        ),
        epochs=epochs,
        batch_size=256,
        workers=8,
    )
