"""Recipes for modified DeepCluster, the baseline of PiCIE (Cho et al., CVPR 2021).

Those of the paper begin from ImageNet's weights: --init imagenet. Without a classifier that learns they are
--method.classifier centres.
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import RandomCrops
from selfseg.methods.deepcluster import ModifiedDeepClusterConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def deepcluster_small(images: Path, out: Path) -> Recipe[ModifiedDeepClusterConfig]:
    """Modified DeepCluster for your own images, on a CPU or one modest GPU: it begins as the pyramid.

    It learns a correction, the backbone stays as it is; crops of 256 px, 27 clusters of 16,384 cells.
    A classifier has 100 steps to learn what the clusters are, hence the lower temperature, and a rate that stays.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train deepcluster_small IMAGES --out RUN
    """
    return Recipe(
        name="deepcluster_small",
        images=images,
        out=out,
        method=ModifiedDeepClusterConfig(
            embedder=pyramid_embedder(correction=256),
            views=RandomCrops(views=1, size=256, scale=(0.3, 1.0), short_side=512),
            temperature=0.05,
            reclusterings=6,
            queue=16_384,
            sample_stride=1,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05, final=1.0),
        steps=600,
        batch_size=8,
        init="default",
    )


def deepcluster_scratch(images: Path, out: Path) -> Recipe[ModifiedDeepClusterConfig]:
    """Modified DeepCluster for one modest GPU or a CPU, from scratch.

    The network, crops and optimiser of `picie_scratch`: ResNet-18 at its own stride of 32 under the light FPN, centred
    and aligned, crops of 128 px, 27 clusters of 16,384 cells.

    Paper: none (this size is ours). Ours: not measured yet. Command: selfseg train deepcluster_scratch IMAGES --out RUN
    """
    return Recipe(
        name="deepcluster_scratch",
        images=images,
        out=out,
        method=ModifiedDeepClusterConfig(
            embedder=EmbedderConfig(
                backbone="resnet18",
                output_stride=32,
                decoder="fpn",
                dim=128,
                centred=True,
                aligned=True,
                resolution=256,
            ),
            views=RandomCrops(views=1, size=128, scale=(0.3, 1.0), short_side=256),
            temperature=0.05,
            reclusterings=10,
            queue=16_384,
            sample_stride=4,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05, final=1.0),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def deepcluster_coco27(images: Path, out: Path) -> Recipe[ModifiedDeepClusterConfig]:
    """Modified DeepCluster, ResNet-18 + FPN, 27 clusters, 10 epochs of COCO at 320 px.

    Its images are the curated list of COCO-Stuff (49,629 of train2017). The batch, the rate and the weights of cells
    are the authors' program's.

    Paper: 9.79 mIoU / 32.21 acc on COCO-Stuff-27 (ViCE's table 1). Ours: not run yet. Command:
    selfseg train deepcluster_coco27 coco27/train_curated:COCO --out runs/deepcluster --init imagenet --devices 4
    """
    return _resnet18("deepcluster_coco27", images, out)


def deepcluster_cityscapes27(images: Path, out: Path) -> Recipe[ModifiedDeepClusterConfig]:
    """Modified DeepCluster on Cityscapes with 27 clusters, otherwise as on COCO.

    Paper: 7.06 mIoU / 40.67 acc over 27 classes (ViCE's table 1). Ours: not run yet. Command:
    selfseg train deepcluster_cityscapes27 cityscapes27:CITYSCAPES --out runs/deepcluster_city --init imagenet
    """
    return _resnet18("deepcluster_cityscapes27", images, out)


def _resnet18(name: str, images: Path, out: Path) -> Recipe[ModifiedDeepClusterConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=ModifiedDeepClusterConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=32, decoder="fpn", dim=128, resolution=320)
        ),
        # Without weight decay AdamW is Adam; the rate stays as it is.
        optimizer=OptimizerConfig(
            name="adamw", base_lr=1e-3, reference_batch=128, weight_decay=0.0, warmup=0.0, final=1.0
        ),
        epochs=10,
        batch_size=128,
        workers=8,
    )
