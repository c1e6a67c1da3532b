"""Recipes for SlotCon (Wen et al., NeurIPS 2022).

The paper's ablations are overrides of `slotcon_coco`: --method.prototypes 128|512|1024 (table 6a),
--method.group-weight 0.3|0.7|1.0 (6b), --method.teacher-temperature 0.04 (6c), --batch-size 256|1024 (8a),
--method.slots regression (8b), --method.align projections (8c), --method.image-weight 1 (8d; the paper doesn't tell
its weight), --method.views.same-crop (8e).

The reference's warm-up begins at 1/100 of the peak, ours at 0, for the same 5 epochs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfseg.data.views.overlapping_crops import OverlappingCrops
from selfseg.methods.slotcon import SlotConConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def slotcon_small(images: Path, out: Path) -> Recipe[SlotConConfig]:
    """SlotCon for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; crops of 256 px, 64 prototypes.

    Paper: none (this size is ours). Ours: CamVid val, 600 steps: linear .606 mIoU, 11 clusters .363, 27 clusters .435,
    64 clusters .488 (docs/numbers.md). Command: selfseg train slotcon_small IMAGES --out RUN
    """
    return Recipe(
        name="slotcon_small",
        images=images,
        out=out,
        method=SlotConConfig(
            embedder=pyramid_embedder(correction=256),
            views=OverlappingCrops(size=256, short_side=512),
            prototypes=64,
            predictor_hidden=1024,
            teacher_temperature=0.04,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def slotcon_scratch(images: Path, out: Path) -> Recipe[SlotConConfig]:
    """SlotCon for one modest GPU or a CPU, from scratch.

    ResNet-18 at a stride of 16 and crops of 128 px (8x8 cells), 64 prototypes, narrow heads, AdamW instead of LARS:
    runs are short and batches small. A teacher's temperature of 0.04 makes assignments sharp from the start; with the
    paper's 0.07 a run of 400 steps stayed undecided (entropy .93 of log K).

    Paper: none (this size is ours). Ours: CamVid val, 2,000 steps on CamVid and 1,000 ImageNet photographs, 77 minutes
    on a busy CPU core: linear .277 mIoU (of the backbone .407), prototypes .235 (docs/numbers.md). Command:
    selfseg train slotcon_scratch IMAGES --out RUN
    """
    return Recipe(
        name="slotcon_scratch",
        images=images,
        out=out,
        method=SlotConConfig(
            embedder=EmbedderConfig(
                backbone="resnet18", output_stride=16, decoder="projector", hidden=1024, dim=128, resolution=320
            ),
            views=OverlappingCrops(size=128, short_side=320),
            prototypes=64,
            predictor_hidden=1024,
            teacher_temperature=0.04,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def slotcon_coco(images: Path, out: Path) -> Recipe[SlotConConfig]:
    """SlotCon, ResNet-50, 800 epochs of COCO train2017 (118,287 images).

    Paper: Mask R-CNN on COCO, 1x: 41.0 box AP, 37.0 mask AP; FCN: Cityscapes 76.2, VOC 71.6, ADE20K 39.0 mIoU. Ours:
    not run yet. Hours: the paper gives none; 8 RTX 2080 Ti. Command:
    selfseg train slotcon_coco coco/train2017 --out runs/slotcon_coco --devices 8
    """
    return _resnet50("slotcon_coco", images, out, prototypes=256, epochs=800)


def slotcon_cocoplus(images: Path, out: Path) -> Recipe[SlotConConfig]:
    """SlotCon, ResNet-50, 800 epochs of COCO+ (train2017 and unlabeled2017, 241,690 images).

    Paper: Mask R-CNN on COCO, 1x: 41.8 box AP, 37.8 mask AP; FCN: Cityscapes 76.5, VOC 73.9, ADE20K 39.2 mIoU. Ours:
    not run yet. Hours: the paper gives none; 8 RTX 2080 Ti. Command:
    selfseg train slotcon_cocoplus coco/plus:COCO --out runs/slotcon_cocoplus --devices 8
    """
    return _resnet50("slotcon_cocoplus", images, out, prototypes=256, epochs=800)


def slotcon_imagenet(images: Path, out: Path) -> Recipe[SlotConConfig]:
    """SlotCon, ResNet-50, 100 epochs of ImageNet-1K.

    The paper's other run is --epochs 200 --optimizer.warmup 0.025 (a share of the steps: 5 epochs again).
    Paper: after 100 / 200 epochs Mask R-CNN on COCO, 1x: 41.4 / 41.8 box AP, 37.2 / 37.8 mask AP; FCN: Cityscapes
    75.4 / 76.3, VOC 73.1 / 75.0, ADE20K 38.6 / 38.8 mIoU. Ours: not run yet. Command:
    selfseg train slotcon_imagenet imagenet/train --out runs/slotcon_imagenet --devices 8
    """
    return _resnet50("slotcon_imagenet", images, out, prototypes=2048, epochs=100)


def slotcon_bdd100k(images: Path, out: Path) -> Recipe[SlotConConfig]:
    """SlotCon, ResNet-50, 64 prototypes, 800 epochs of BDD100K (70,000 train images).

    Paper: FCN on Cityscapes 73.9 mIoU (table 7). Ours: not run yet. Command:
    selfseg train slotcon_bdd100k bdd100k/images/100k/train --out runs/slotcon_bdd100k --devices 8
    """
    return _resnet50("slotcon_bdd100k", images, out, prototypes=64, epochs=800)


def slotcon_cocostuff27(images: Path, out: Path) -> Recipe[SlotConConfig]:
    """SlotCon as a segmenter: 27 prototypes on COCO train2017, then `--protocols prototypes` on COCO-Stuff-27.

    Paper: 18.26 mIoU, 42.36 pixel accuracy. Ours: not run yet. Command:
    selfseg train slotcon_cocostuff27 coco/train2017 --out runs/slotcon_27 --devices 8
    """
    return _resnet50("slotcon_cocostuff27", images, out, prototypes=27, epochs=800)


def slotcon_coco_vit(images: Path, out: Path) -> Recipe[SlotConConfig]:
    """SlotCon with a ViT-S/16 and AdamW, on COCO train2017.

    Paper: none; the reference implementation's advice for ViTs is AdamW, 5e-4, weight decay 0.04. Ours: not run yet.
    Command: selfseg train slotcon_coco_vit coco/train2017 --out runs/slotcon_vit --devices 8
    """
    recipe = _resnet50("slotcon_coco_vit", images, out, prototypes=256, epochs=800)
    embedder = replace(recipe.method.embedder, backbone="vit_small_patch16_224", output_stride=16)
    optimizer = OptimizerConfig(
        name="adamw", base_lr=5e-4, reference_batch=256, weight_decay=0.04, warmup=5 / 800, final=1e-3
    )
    return replace(recipe, method=replace(recipe.method, embedder=embedder), optimizer=optimizer)


def _resnet50(name: str, images: Path, out: Path, prototypes: int, epochs: float) -> Recipe[SlotConConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=SlotConConfig(prototypes=prototypes),
        optimizer=OptimizerConfig(
            name="lars", base_lr=1.0, reference_batch=256, weight_decay=1e-5, warmup=5 / epochs, final=5e-7
        ),
        epochs=epochs,
        batch_size=512,
        workers=8,
        precision="bf16-mixed",
    )
