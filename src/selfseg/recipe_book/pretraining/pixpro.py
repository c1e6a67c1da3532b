"""Recipes for PixPro (Xie et al., CVPR 2021), a baseline of cells that lie at the same place."""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import MultiCrops
from selfseg.methods.pretraining.pixpro import PixProConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def pixpro_small(images: Path, out: Path) -> Recipe[PixProConfig]:
    """PixPro for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; crops of 256 px, at the pyramid's stride.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train pixpro_small IMAGES --out RUN
    """
    return Recipe(
        name="pixpro_small",
        images=images,
        out=out,
        method=PixProConfig(
            embedder=pyramid_embedder(correction=256),
            views=MultiCrops(size=256, short_side=512),
            hidden=512,
            dim=128,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def pixpro_scratch(images: Path, out: Path) -> Recipe[PixProConfig]:
    """PixPro for one modest GPU or a CPU, from scratch.

    ResNet-18 at a stride of 16, crops of 128 px, AdamW instead of LARS.

    Paper: none (this size is ours). Ours: not measured yet. Command: selfseg train pixpro_scratch IMAGES --out RUN
    """
    return Recipe(
        name="pixpro_scratch",
        images=images,
        out=out,
        method=PixProConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=16, decoder="none", resolution=320),
            views=MultiCrops(size=128, short_side=320),
            hidden=512,
            dim=128,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def pixpro_imagenet(images: Path, out: Path) -> Recipe[PixProConfig]:
    """PixPro, ResNet-50, 100 epochs of ImageNet-1K; the paper's other run is --epochs 400 --optimizer.warmup 0.0125.

    The reference's warm-up begins at a hundredth of the peak, ours at 0, for the same 5 epochs.

    Paper: without its image-level loss, Mask R-CNN on COCO, 1x: 40.8 box AP, 36.8 mask AP; Faster R-CNN on VOC: 58.8
    AP, after 400 epochs 60.2. As SlotCon's authors measured the weights of 100 epochs (table 4): 40.7 and 36.8; FCN:
    Cityscapes 76.8, VOC 73.9, ADE20K 38.2 mIoU. Ours: not run yet. Command:
    selfseg train pixpro_imagenet imagenet/train --out runs/pixpro --devices 8
    """
    return _resnet50("pixpro_imagenet", images, out, epochs=100)


def pixpro_coco(images: Path, out: Path) -> Recipe[PixProConfig]:
    """PixPro, ResNet-50, 800 epochs of COCO train2017 with the settings for ImageNet.

    Paper: as SlotCon's authors trained it (table 2): Mask R-CNN on COCO, 1x: 40.5 box AP, 36.6 mask AP; FCN: Cityscapes
    75.2, VOC 72.0, ADE20K 38.3 mIoU. They tell the batch of 1,024, and no other setting. Ours: not run yet. Command:
    selfseg train pixpro_coco coco/train2017 --out runs/pixpro_coco --devices 8
    """
    return _resnet50("pixpro_coco", images, out, epochs=800)


def _resnet50(name: str, images: Path, out: Path, epochs: int) -> Recipe[PixProConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=PixProConfig(),
        optimizer=OptimizerConfig(
            name="lars", base_lr=1.0, reference_batch=256, weight_decay=1e-5, warmup=5 / epochs, final=0.0
        ),
        epochs=epochs,
        batch_size=1024,
        workers=8,
        precision="16-mixed",
    )
