"""Recipes for PiCIE and PiCIE+H (Cho et al., CVPR 2021).

The paper's begin from torchvision's weights of ImageNet, timm's tag tv_in1k, and learn from IIC's curated list of COCO,
49,629 images. As in the reference implementation: 128 images a step (256 are its batches for k-means), a learning rate
of 1e-4 on COCO and 1e-3 on Cityscapes, and a cross entropy that is weighted by the clusters' frequencies.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfseg.data.views.random_crops import NestedCrops
from selfseg.methods.picie import PiCIEConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def picie_small(images: Path, out: Path) -> Recipe[PiCIEConfig]:
    """PiCIE+H for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; crops of 256 px, 27 and 100 clusters of 16,384 cells, a softmax at 0.2.

    Paper: none (this size is ours). Ours: CamVid val, 600 steps: linear .608 mIoU, 11 clusters .297, 64 clusters .473
    (docs/numbers.md). Command:
    selfseg train picie_small IMAGES --out RUN
    """
    return Recipe(
        name="picie_small",
        images=images,
        out=out,
        method=PiCIEConfig(
            embedder=pyramid_embedder(correction=256),
            views=NestedCrops(size=256, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3), short_side=512),
            overclusters=100,
            temperature=0.2,
            reclusterings=20,
            weighting="none",
            queue=16_384,
            sample_stride=1,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def picie_scratch(images: Path, out: Path) -> Recipe[PiCIEConfig]:
    """PiCIE+H for one modest GPU or a CPU, from scratch.

    ResNet-18 at its own stride of 32 under the light FPN, crops of 128 px, 27 and 100 clusters of 16,384 cells. From
    scratch the paper's softmax without a temperature hardly tells clusters apart; here it has one of 0.2, and the
    embedding is centred and aligned.

    Paper: none (this size is ours). Ours: 1,000 steps on 367 frames of CamVid, linear .310 mIoU on val, where random
    weights have .267; never tuned (docs/numbers.md). Command: selfseg train picie_scratch IMAGES --out RUN
    """
    return Recipe(
        name="picie_scratch",
        images=images,
        out=out,
        method=PiCIEConfig(
            embedder=EmbedderConfig(
                backbone="resnet18",
                output_stride=32,
                decoder="fpn",
                dim=128,
                centred=True,
                aligned=True,
                resolution=256,
            ),
            views=NestedCrops(size=128, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3), short_side=256),
            overclusters=100,
            temperature=0.2,
            reclusterings=20,
            weighting="none",
            queue=16_384,
            sample_stride=4,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def picie_coco27(images: Path, out: Path) -> Recipe[PiCIEConfig]:
    """PiCIE, ResNet-18 + FPN, 27 clusters, 10 epochs of COCO's curated list at 320 px.

    Paper: 13.84 mIoU / 48.09 acc on COCO-Stuff-27, linear 14.77 / 54.75 (ViCE's table 1). Ours: not run yet. Command:
    selfseg train picie_coco27 coco27/train_curated:COCO --out runs/picie --init imagenet:tv_in1k --devices 4
    """
    return _resnet18("picie_coco27", images, out)


def picie_h_coco27(images: Path, out: Path) -> Recipe[PiCIEConfig]:
    """PiCIE+H: `picie_coco27` with an auxiliary clustering of 100.

    Paper: 14.40 mIoU / 50.0 acc on COCO-Stuff-27 (ViCE's table 1; 14.36 / 49.99 in SlotCon's table 5). Ours: not run
    yet. Command:
    selfseg train picie_h_coco27 coco27/train_curated:COCO --out runs/picie_h --init imagenet:tv_in1k --devices 4
    """
    recipe = _resnet18("picie_h_coco27", images, out)
    return replace(recipe, method=replace(recipe.method, overclusters=100))


def picie_cityscapes27(images: Path, out: Path) -> Recipe[PiCIEConfig]:
    """PiCIE on Cityscapes with 27 clusters and ten times the learning rate, otherwise as on COCO.

    Paper: 12.31 mIoU / 65.50 acc over 27 classes (ViCE's table 1). Ours: not run yet. Command:
    selfseg train picie_cityscapes27 leftImg8bit/train --out runs/picie_city --init imagenet:tv_in1k --devices 4
    """
    return _resnet18("picie_cityscapes27", images, out, base_lr=1e-3)


def _resnet18(name: str, images: Path, out: Path, base_lr: float = 1e-4) -> Recipe[PiCIEConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=PiCIEConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=32, decoder="fpn", dim=128, resolution=320)
        ),
        # Without weight decay AdamW is Adam; the rate stays as it is.
        optimizer=OptimizerConfig(
            name="adamw", base_lr=base_lr, reference_batch=128, weight_decay=0.0, warmup=0.0, final=1.0
        ),
        epochs=10,
        batch_size=128,
        init="imagenet:tv_in1k",
        workers=8,
    )
