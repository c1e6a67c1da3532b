"""Recipes for MoCo v2 (He et al., CVPR 2020; Chen et al., arXiv 2003.04297), a baseline of whole images."""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import RandomCrops
from selfseg.methods.pretraining.moco import MoCoConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def moco_small(images: Path, out: Path) -> Recipe[MoCoConfig]:
    """MoCo v2 for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; crops of 256 px, a queue of 1,024 keys.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train moco_small IMAGES --out RUN
    """
    return Recipe(
        name="moco_small",
        images=images,
        out=out,
        method=MoCoConfig(
            embedder=pyramid_embedder(correction=256),
            views=RandomCrops(size=256, short_side=512),
            hidden=512,
            queue=1024,
            momentum=0.99,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def moco_scratch(images: Path, out: Path) -> Recipe[MoCoConfig]:
    """MoCo v2 for one modest GPU or a CPU, from scratch.

    ResNet-18 at a stride of 16, crops of 128 px, a queue of 1,024 keys, AdamW instead of SGD and a momentum of 0.99:
    with 0.999 the momentum network of a short run stays near random weights.

    Paper: none (this size is ours). Ours: 1,000 steps on 367 frames of CamVid, linear .294 mIoU on val, where random
    weights have .235; never tuned (docs/numbers.md). Command: selfseg train moco_scratch IMAGES --out RUN
    """
    return Recipe(
        name="moco_scratch",
        images=images,
        out=out,
        method=MoCoConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=16, decoder="none", resolution=320),
            views=RandomCrops(size=128, short_side=320),
            hidden=512,
            queue=1024,
            momentum=0.99,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def moco_imagenet(images: Path, out: Path) -> Recipe[MoCoConfig]:
    """MoCo v2, ResNet-50, 800 epochs of ImageNet-1K; the paper's other run is --epochs 200.

    Paper: 71.1 % linear accuracy on ImageNet (200 epochs 67.5). As others measured its weights: linear on VOC 45.0 mIoU
    (MaskContrast's table 1a); Mask R-CNN on COCO, 1x: 40.4 box AP, 36.5 mask AP, FCN: Cityscapes 76.2, VOC 73.7, ADE20K
    36.9 mIoU (SlotCon's table 4); 27 clusters on COCO-Stuff-27 10.40 mIoU (ViCE's table 1). Ours: not run yet. Command:
    selfseg train moco_imagenet imagenet/train --out runs/moco_imagenet --devices 8
    """
    return _resnet50("moco_imagenet", images, out, base_lr=0.03)


def moco_coco(images: Path, out: Path) -> Recipe[MoCoConfig]:
    """MoCo v2, ResNet-50, 800 epochs of COCO train2017 with DenseCL's learning rate for it.

    Paper: as SlotCon's authors trained it (table 2): Mask R-CNN on COCO, 1x: 38.5 box AP, 34.8 mask AP; FCN: Cityscapes
    73.8, VOC 69.2, ADE20K 36.2 mIoU. Ours: not run yet. Command:
    selfseg train moco_coco coco/train2017 --out runs/moco_coco --devices 8
    """
    return _resnet50("moco_coco", images, out, base_lr=0.3)


def _resnet50(name: str, images: Path, out: Path, base_lr: float) -> Recipe[MoCoConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=MoCoConfig(),
        optimizer=OptimizerConfig(
            name="sgd", base_lr=base_lr, reference_batch=256, weight_decay=1e-4, warmup=0.0, final=0.0
        ),
        epochs=800,
        batch_size=256,
        workers=8,
    )
