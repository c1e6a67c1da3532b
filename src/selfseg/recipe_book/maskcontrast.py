"""Recipes for MaskContrast (Van Gansbeke et al., ICCV 2021).

Each takes a folder of images and one of their masks, --masks MASKS: MASKS/NAME.png for each image (docs/data.md tells
what may be in it). Images without a mask are passed over.

The paper's hyperparameter study (table 2c) are overrides: --method.temperature 0.1 ... 1, --method.queue 64 ... 1024;
and so is its study of mechanisms (2b): --method.momentum 0, --method.queue 0, --method.views.same-view.
The learning rate falls with every step, the reference's with every epoch. It is 0.004 for each recipe's own batch;
another --batch-size changes it in proportion.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfseg.data.regions import ObjectMasks
from selfseg.data.views.object_crops import ObjectCrops
from selfseg.methods.maskcontrast import MaskContrastConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe

_MASKS = Path("masks")


def maskcontrast_small(images: Path, out: Path, masks: Path = _MASKS) -> Recipe[MaskContrastConfig]:
    """MaskContrast for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction.

    The backbone stays as it is; crops of 256 px, contrasted on the embedding's grid (stride 16).

    Paper: none (this size is ours). Ours: CamVid val, 600 steps: linear .603 mIoU, 11 clusters .291, 64 clusters .441
    (docs/numbers.md). Command:
    selfseg train maskcontrast_small IMAGES --masks MASKS --out RUN
    """
    return Recipe(
        name="maskcontrast_small",
        images=images,
        out=out,
        method=MaskContrastConfig(
            embedder=replace(pyramid_embedder(correction=256), saliency=True),
            views=ObjectCrops(regions=ObjectMasks(masks), size=256, region_stride=16, short_side=512),
            momentum=0.99,
            saliency_loss="balanced",
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def maskcontrast_scratch(images: Path, out: Path, masks: Path = _MASKS) -> Recipe[MaskContrastConfig]:
    """MaskContrast for one modest GPU or a CPU, from scratch.

    ResNet-18 at its own stride of 32 under the light FPN, crops of 128 px contrasted on the embedding's grid (stride
    4), a centred embedding (without it all vectors begin near one direction), AdamW instead of SGD because runs are
    short, and a momentum of 0.99: with 0.999 the momentum network of a short run stays near random weights.

    On one core a step takes about 0.4 s, two thirds of it the two networks' forward and backward: half an hour is some
    4,000 steps. The grid of stride 4 costs nothing against that; larger crops do (the time grows with their area).

    Paper: none (this size is ours). Ours: 1,000 photographs of ImageNet with masks by `selfseg masks`, 4,000 steps, 31
    minutes on a busy CPU core: on CamVid val linear .257 mIoU, a random network .208 (docs/numbers.md). Command:
    selfseg train maskcontrast_scratch IMAGES --masks MASKS --out RUN
    """
    return Recipe(
        name="maskcontrast_scratch",
        images=images,
        out=out,
        method=MaskContrastConfig(
            embedder=EmbedderConfig(
                backbone="resnet18",
                output_stride=32,
                decoder="fpn",
                dim=32,
                centred=True,
                resolution=256,
                saliency=True,
            ),
            views=ObjectCrops(regions=ObjectMasks(masks), size=128, region_stride=4, short_side=256),
            momentum=0.99,
            saliency_loss="balanced",
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=16,
        precision="bf16-mixed",
    )


def maskcontrast_voc(images: Path, out: Path, masks: Path = _MASKS) -> Recipe[MaskContrastConfig]:
    """MaskContrast, ResNet-50 + DeepLabV3, 60 epochs of VOC train_aug (10,582 images), as in the paper.

    Colours change as strongly as in SimCLR's default (.8, .8, .8, .2), since the paper has "the same set of
    augmentations"; saliency has the plain cross entropy of algorithm 1. --init takes MoCo v2's weights (the paper's
    unsupervised setting) or imagenet:tv_in1k (supervised).

    Paper: on VOC val, unsupervised masks and MoCo v2: linear 58.4 mIoU, k-means of objects 35.0; with supervised
    saliency 62.2 and 38.9; with weights of ImageNet's labels 61.0 and 41.6, 63.9 and 44.2. Ours: not run yet. Hours:
    the paper gives none. Command:
    selfseg train maskcontrast_voc JPEGImages --masks MASKS --out runs/voc --init moco_v2_800ep.pth.tar --devices 2
    """
    return _resnet50("maskcontrast_voc", images, out, masks, epochs=60)


def maskcontrast_voc_reference(images: Path, out: Path, masks: Path = _MASKS) -> Recipe[MaskContrastConfig]:
    """MaskContrast on VOC train_aug with the reference implementation's settings, which made the published numbers.

    What differs from the paper: 40 epochs; batches of 128 and 256 older objects at the same learning rate; small
    objects weigh more; foreground and background have the same say in the saliency loss; crops with 1 to 99 % of
    object, milder colours (.4, .4, .4, .1) and no blur. These are its settings from MoCo v2's weights; from ImageNet's
    labels see `maskcontrast_voc_reference_supervised`.

    Paper: as for maskcontrast_voc. Ours: not run yet. Command:
    selfseg train maskcontrast_voc_reference JPEGImages --masks MASKS --out runs/voc_ref --init moco_v2_800ep.pth.tar
    """
    return _reference("maskcontrast_voc_reference", images, out, masks, batch_size=128, queue=256)


def maskcontrast_voc_reference_supervised(images: Path, out: Path, masks: Path = _MASKS) -> Recipe[MaskContrastConfig]:
    """MaskContrast on VOC train_aug from ImageNet's labels, with the reference implementation's settings for them.

    As `maskcontrast_voc_reference`, but for the paper's batches of 64 and 128 older objects, and for the first two
    blocks of the backbone with what comes before them: they stay as they are, with their BatchNorms' statistics.

    Paper: as for maskcontrast_voc; users who trained it again got 41.4 to 44.4 instead of 44.2 (k-means, supervised
    masks and weights). Ours: not run yet. Command:
    selfseg train maskcontrast_voc_reference_supervised JPEGImages --masks MASKS --out runs/voc_ref_in
    """
    name = "maskcontrast_voc_reference_supervised"
    recipe = _reference(name, images, out, masks, batch_size=64, queue=128)
    embedder = replace(recipe.method.embedder, frozen_stages=2)
    return replace(recipe, method=replace(recipe.method, embedder=embedder), init="imagenet:tv_in1k")


def maskcontrast_coco(images: Path, out: Path, masks: Path = _MASKS) -> Recipe[MaskContrastConfig]:
    """MaskContrast, ResNet-50 + DeepLabV3, on COCO train2017 (118,287 images; those without a mask are passed over).

    The paper doesn't tell its schedule on COCO; this is VOC's.

    Paper: MoCo v2 and supervised saliency, linear on COCO's VOC classes 44.0 mIoU, on VOC 59.0. Ours: not run yet.
    Command:
    selfseg train maskcontrast_coco coco/train2017 --masks MASKS --out runs/coco --init moco_v2_800ep.pth.tar
    """
    return _resnet50("maskcontrast_coco", images, out, masks, epochs=60)


def _reference(
    name: str, images: Path, out: Path, masks: Path, batch_size: int, queue: int
) -> Recipe[MaskContrastConfig]:
    recipe = _resnet50(name, images, out, masks, epochs=40, batch_size=batch_size)
    views = ObjectCrops(regions=ObjectMasks(masks), min_share=0.01, max_share=0.99, blur_probability=0.0)
    method = replace(recipe.method, views=views, queue=queue, weighting="object", saliency_loss="balanced")
    return replace(recipe, method=method)


def _resnet50(
    name: str, images: Path, out: Path, masks: Path, epochs: float, batch_size: int = 64
) -> Recipe[MaskContrastConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=MaskContrastConfig(views=ObjectCrops(regions=ObjectMasks(masks), jitter=(0.8, 0.8, 0.8, 0.2))),
        optimizer=OptimizerConfig(
            name="sgd",
            base_lr=0.004,
            reference_batch=batch_size,
            momentum=0.9,
            weight_decay=1e-4,
            schedule="poly",
            warmup=0.0,
            final=0.0,
        ),
        epochs=epochs,
        batch_size=batch_size,
        workers=8,
    )
