"""Recipes for IIC (Ji et al., ICCV 2019), a baseline that clusters cells by mutual information."""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import NestedCrops
from selfseg.methods.iic import IICConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def iic_small(images: Path, out: Path) -> Recipe[IICConfig]:
    """IIC for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is; crops of 256 px compared on the embedding's grid (stride 16), one cell around.

    Paper: none (this size is ours). Ours: not measured yet. Command:
    selfseg train iic_small IMAGES --out RUN
    """
    return Recipe(
        name="iic_small",
        images=images,
        out=out,
        method=IICConfig(
            embedder=pyramid_embedder(correction=256),
            views=NestedCrops(
                size=256,
                scale=(0.2, 1.0),
                ratio=(3 / 4, 4 / 3),
                inner_scale=(1.0, 1.0),
                jitter=(0.4, 0.4, 0.4, 0.1),
                blur_probability=0.0,
                short_side=512,
                plain_first=True,
            ),
            loss_stride=16,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def iic_scratch(images: Path, out: Path) -> Recipe[IICConfig]:
    """IIC for one modest GPU or a CPU, from scratch.

    ResNet-18 at its own stride of 32 under the light FPN, crops of 128 px compared on the embedding's grid (stride 4)
    with a displacement of 10 px, rounded to 2 cells; a centred and aligned embedding.

    Paper: none (this size is ours). Ours: 1,000 steps on 367 frames of CamVid, linear .273 mIoU on val, where random
    weights have .267; never tuned (docs/numbers.md). Command: selfseg train iic_scratch IMAGES --out RUN
    """
    return Recipe(
        name="iic_scratch",
        images=images,
        out=out,
        method=IICConfig(
            embedder=EmbedderConfig(
                backbone="resnet18",
                output_stride=32,
                decoder="fpn",
                dim=128,
                centred=True,
                aligned=True,
                resolution=256,
            ),
            views=NestedCrops(
                size=128,
                scale=(0.2, 1.0),
                ratio=(3 / 4, 4 / 3),
                inner_scale=(1.0, 1.0),
                jitter=(0.4, 0.4, 0.4, 0.1),
                blur_probability=0.0,
                short_side=256,
                plain_first=True,
            ),
            loss_stride=4,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def iic_coco27(images: Path, out: Path) -> Recipe[IICConfig]:
    """IIC with 27 clusters on COCO, with the network, the images' size and the epochs of `picie_coco27`.

    From IIC's paper: Adam at 1e-4, a displacement of 10 px at the loss's full resolution, crops of 128 px, three times
    as many clusters in the auxiliary head. Its own network is a shallow VGG on 3 and 15 stuff classes only.

    Paper: 6.71 mIoU / 21.79 acc on COCO-Stuff-27, on Cityscapes' 27 classes 6.35 / 47.88 (ViCE's table 1, from PiCIE's
    authors); linear on VOC 28.0 mIoU (MaskContrast's table 1a). Ours: not run yet. Command:
    selfseg train iic_coco27 coco27/train_curated:COCO --out runs/iic --init imagenet:tv_in1k --devices 8
    """
    return _resnet18("iic_coco27", images, out, clusters=27, epochs=10, batch_size=256, init="imagenet:tv_in1k")


def iic_cityscapes27(images: Path, out: Path) -> Recipe[IICConfig]:
    """IIC with 27 clusters on Cityscapes leftImg8bit/train, with the network, the epochs and the batch of PiCIE there.

    As on COCO; what PiCIE's authors, whose figure it is, changed for Cityscapes in IIC isn't told. 10 epochs are 232
    steps, and the learning rate is IIC's.

    Paper: 6.35 mIoU / 47.88 acc over 27 classes (ViCE's table 1, from PiCIE's authors). Ours: not run yet. Command:
    selfseg train iic_cityscapes27 cityscapes27:CITYSCAPES --out runs/iic_city --init imagenet:tv_in1k --devices 4
    """
    return _resnet18("iic_cityscapes27", images, out, clusters=27, epochs=10, batch_size=128, init="imagenet:tv_in1k")


def iic_voc(images: Path, out: Path) -> Recipe[IICConfig]:
    """IIC with 21 clusters on VOC train_aug (10,582 images), from random weights.

    MaskContrast's authors "follow the implementation strategy" of IIC and tell no more. So the weights are random and
    the auxiliary head has three times as many clusters, as in IIC; the epochs are those of `maskcontrast_voc`, and
    the network that of `iic_coco27`, because a shallow VGG is none of ours.

    Paper: linear 28.0 mIoU (MaskContrast's tables 1 and 3a), clusters 9.8 (table 3b, of IIC's own head; ours is of
    k-means of the embedding). Ours: not run yet. Command:
    selfseg train iic_voc voc/train_aug:VOC --out runs/iic_voc --devices 4
    """
    return _resnet18("iic_voc", images, out, clusters=21, epochs=60, batch_size=128, init="random")


def _resnet18(
    name: str, images: Path, out: Path, clusters: int, epochs: int, batch_size: int, init: str
) -> Recipe[IICConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=IICConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=32, decoder="fpn", dim=128, resolution=320),
            clusters=clusters,
            overclusters=3 * clusters,
        ),
        # Without weight decay AdamW is Adam; the rate stays as it is.
        optimizer=OptimizerConfig(
            name="adamw", base_lr=1e-4, reference_batch=batch_size, weight_decay=0.0, warmup=0.0, final=1.0
        ),
        epochs=epochs,
        batch_size=batch_size,
        init=init,
        workers=8,
    )
