"""Recipes for DetCon (Hénaff et al., ICCV 2021), a baseline of regions.

The regions are superpixels of 96 px unless others are asked for, at the end of the command: a grid with
`method.views.regions:grid --method.views.regions.size 96`, objects in files (`selfseg masks`) with
`method.views.regions:object-masks --masks MASKS`. The paper's segments are those of Felzenszwalb
and Huttenlocher, which a folder of masks can hold as well.

Smaller regions leave less in common: with 16 of each view's, those of 48 px match for a quarter in CamVid's frames at
512 px, those of 96 px for three quarters.

DetCon_S is `--method.form simclr`; `detcon_s_imagenet` and `detcon_s_coco` have SimCLR's heads and rates beside.
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.regions import Superpixels
from selfseg.data.views.region_crops import RegionCrops
from selfseg.methods.pretraining.detcon import DetConConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def detcon_small(images: Path, out: Path) -> Recipe[DetConConfig]:
    """DetCon_B for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; crops of 256 px, up to 16 superpixels of 96 px in each, averaged on the embedding's
    cells of 16 px.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train detcon_small IMAGES --out RUN
    """
    return Recipe(
        name="detcon_small",
        images=images,
        out=out,
        method=DetConConfig(
            embedder=pyramid_embedder(correction=256),
            views=RegionCrops(size=256, scale=(0.2, 1.0), short_side=512, regions=Superpixels(96), region_stride=4),
            hidden=512,
            dim=128,
            momentum=0.99,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def detcon_scratch(images: Path, out: Path) -> Recipe[DetConConfig]:
    """DetCon_B for one modest GPU or a CPU, from scratch.

    ResNet-18 at a stride of 16, crops of 128 px, up to 16 superpixels of 64 px in each, AdamW instead of LARS and a
    momentum of 0.99.

    Paper: none (this size is ours). Ours: not measured yet. Command: selfseg train detcon_scratch IMAGES --out RUN
    """
    return Recipe(
        name="detcon_scratch",
        images=images,
        out=out,
        method=DetConConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=16, decoder="none", resolution=320),
            views=RegionCrops(size=128, scale=(0.2, 1.0), short_side=320, regions=Superpixels(64), region_stride=4),
            hidden=512,
            dim=128,
            momentum=0.99,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def detcon_imagenet(images: Path, out: Path) -> Recipe[DetConConfig]:
    """DetCon_B, ResNet-50, 200 epochs of ImageNet-1K in batches of 4,096.

    The warm-up is 10 epochs: with 100 --epochs it is --optimizer.warmup 0.1, with 1,000 0.01.

    Paper: as SlotCon's authors measured 200 epochs of it (table 4): Mask R-CNN on COCO, 1x: 40.6 box AP, 36.4 mask AP;
    FCN: Cityscapes 75.5, VOC 72.6, ADE20K 37.8 mIoU. Ours: not run yet. Command:
    selfseg train detcon_imagenet imagenet:IMAGENET --out runs/detcon --devices 8 --nodes 8
    """
    return _resnet50("detcon_imagenet", images, out, DetConConfig(), epochs=200, base_lr=0.2, weight_decay=1.5e-6)


def detcon_coco(images: Path, out: Path) -> Recipe[DetConConfig]:
    """DetCon_B, ResNet-50, 1,000 epochs of COCO train2017, with the settings of `detcon_imagenet`.

    Paper: as SlotCon's authors trained it (table 2): Mask R-CNN on COCO, 1x: 39.8 box AP, 35.9 mask AP; FCN: Cityscapes
    76.1, VOC 70.2, ADE20K 38.1 mIoU. Ours: not run yet. Command:
    selfseg train detcon_coco coco:COCO --out runs/detcon_coco --devices 8 --nodes 8
    """
    return _resnet50("detcon_coco", images, out, DetConConfig(), epochs=1000, base_lr=0.2, weight_decay=1.5e-6)


def detcon_s_imagenet(images: Path, out: Path) -> Recipe[DetConConfig]:
    """DetCon_S, ResNet-50, 200 epochs of ImageNet-1K in batches of 4,096.

    The authors' program has DetCon_B alone; heads, rate and weight decay are SimCLR's, which the method is made of.

    Paper: no figure of it in the papers whose tables we measure. Ours: not run yet. Command:
    selfseg train detcon_s_imagenet imagenet:IMAGENET --out runs/detcon_s --devices 8 --nodes 8
    """
    return _resnet50("detcon_s_imagenet", images, out, _SIMCLR, epochs=200, base_lr=0.3, weight_decay=1e-6)


def detcon_s_coco(images: Path, out: Path) -> Recipe[DetConConfig]:
    """DetCon_S, ResNet-50, 1,000 epochs of COCO train2017, with the settings of `detcon_s_imagenet`.

    Paper: no figure of it in the papers whose tables we measure. Ours: not run yet. Command:
    selfseg train detcon_s_coco coco:COCO --out runs/detcon_s_coco --devices 8 --nodes 8
    """
    return _resnet50("detcon_s_coco", images, out, _SIMCLR, epochs=1000, base_lr=0.3, weight_decay=1e-6)


_SIMCLR = DetConConfig(form="simclr", hidden=2048, dim=128)


def _resnet50(
    name: str, images: Path, out: Path, method: DetConConfig, epochs: float, base_lr: float, weight_decay: float
) -> Recipe[DetConConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=method,
        optimizer=OptimizerConfig(
            name="lars",
            base_lr=base_lr,
            reference_batch=256,
            weight_decay=weight_decay,
            warmup=10 / epochs,
            final=0.0,
        ),
        epochs=epochs,
        batch_size=4096,
        workers=8,
        precision="16-mixed",
    )
