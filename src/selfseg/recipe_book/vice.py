"""Recipes for ViCE (Karlsson et al., BMVC 2022; P is the preprint of 2021, which has other numbers in places).

The papers' models begin from torchvision's first weights of ImageNet, timm's tag tv_in1k, which their recipes load.
--init random is "from scratch".

Prototypes stand still for the first 313 steps, and the queue joins after them, whatever the run's length: those are
56 % of the 558 steps of Cityscapes at low resolution, 28 % of its 1,116 at high resolution, 8 and 2 % of COCO's. The
papers don't say that they changed it for short runs, so neither do the recipes.

How many prototypes at low resolution? P says that it trains with 27 clusters on Cityscapes and with 128 elsewhere, the
BMVC paper 128 "in all experiments", and the reference implementation has 27 for both data sets at low resolution.
`vice_coco_lowres` and `vice_cityscapes_lowres` have 128, `*_lowres_k27` have 27.
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.regions import Grid, Superpixels
from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.methods.vice import ViCEConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe

# Methods know no steps, so recipes turn them into a share.
_FROZEN_STEPS = 313


def vice_small(images: Path, out: Path) -> Recipe[ViCEConfig]:
    """ViCE for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    The backbone stays as it is, so that a step costs a forward pass and no more; three views of 256 px, regions of a
    16 px grid.

    Paper: none (this size is ours). Ours: CamVid val, 600 steps: linear .608 mIoU, 11 clusters .386, 27 clusters .437,
    64 clusters .502 (docs/numbers.md). Command: selfseg train vice_small IMAGES --out RUN
    """
    return Recipe(
        name="vice_small",
        images=images,
        out=out,
        method=ViCEConfig(
            embedder=pyramid_embedder(correction=256),
            views=ContentCentredViews(
                views=3,
                size=256,
                zoom=(0.7, 2.0),
                outside="clip",
                short_side=512,
                centre_square=False,
                regions=Grid(16),
                mask_area=0.0,
                jitter=(0.4, 0.4, 0.4, 0.1),
                blur_probability=0.1,
                region_stride=16,
            ),
            prototypes=128,
            epsilon=0.03,
            queue=4000,
            pool_stride=16,
            prototypes_frozen=0.02,
            symmetric=True,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=3e-4, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=8,
        init="default",
    )


def vice_scratch(images: Path, out: Path) -> Recipe[ViCEConfig]:
    """ViCE for one modest GPU or a CPU, from scratch.

    ResNet-18 at its own stride of 32 under the light FPN (a fifth of the dilated network's cost), three views of
    128 px, regions pooled at the embedding's stride of 4. What differs from the papers makes short runs from random
    weights learn (docs/numbers.md has the figures): a centred and aligned embedding, every view assigns once and
    sharply, milder colours, less blur, no noise, AdamW instead of LARS; and regions are squares of 8 px, whose clusters
    came out better in our ablation than those of superpixels (--method.views.regions:superpixels for the paper's).

    Paper: none (this size is ours). Ours: CamVid val, 2,000 steps, 19 minutes on a busy CPU core: linear .467 mIoU,
    11 clusters .272, 64 clusters .366 (docs/numbers.md). Command: selfseg train vice_scratch IMAGES --out RUN
    """
    return Recipe(
        name="vice_scratch",
        images=images,
        out=out,
        method=ViCEConfig(
            embedder=EmbedderConfig(
                backbone="resnet18",
                output_stride=32,
                decoder="fpn",
                dim=128,
                centred=True,
                aligned=True,
                resolution=256,
            ),
            views=ContentCentredViews(
                views=3,
                size=128,
                zoom=(0.7, 2.0),
                outside="clip",  # filled, 11 clusters of CamVid val fall from .272 to .237 (docs/numbers.md)
                short_side=256,
                centre_square=False,
                regions=Grid(8),
                mask_area=0.0,
                jitter=(0.4, 0.4, 0.4, 0.1),
                blur_probability=0.1,
                region_stride=4,
            ),
            epsilon=0.03,
            queue=4000,
            pool_stride=4,
            prototypes_frozen=0.02,
            symmetric=True,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=2.5e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=8,
        precision="bf16-mixed",
    )


def vice_coco_lowres(images: Path, out: Path) -> Recipe[ViCEConfig]:
    """ViCE, low resolution, on COCO train2017 (118,287 images).

    Paper: linear 25.49 mIoU / 62.78 acc on COCO-Stuff-27, 256 clusters 17.98 / 54.92, 27 clusters 11.40 / 28.91.
    Ours: not run yet. Hours: the paper gives none for this run; 32 V100s. Command:
    selfseg train vice_coco_lowres coco/train2017 --out runs/coco --init imagenet:tv_in1k --devices 8 --nodes 4
    """
    return _lowres("vice_coco_lowres", images, out, epochs=4, total=118_287)


def vice_cityscapes_lowres(images: Path, out: Path) -> Recipe[ViCEConfig]:
    """ViCE, low resolution, on Cityscapes leftImg8bit/train (2,975 images).

    Paper: linear 31.55 mIoU / 86.33 acc over 19 classes (from scratch 24.84 / 82.99), 256 clusters 21.24 / 81.72, 27
    clusters 12.81 / 31.87. Ours: not run yet. Hours: 5.6 on 32 V100s (table 3). Command:
    selfseg train vice_cityscapes_lowres leftImg8bit/train --out runs/city --init imagenet:tv_in1k --devices 8 --nodes 4
    """
    return _lowres("vice_cityscapes_lowres", images, out, epochs=24, total=2_975)


def vice_coco_lowres_k27(images: Path, out: Path) -> Recipe[ViCEConfig]:
    """`vice_coco_lowres` with 27 prototypes instead of 128, as the reference implementation has it.

    Paper: as for vice_coco_lowres; which of the two made its numbers isn't told. Ours: not run yet. Command:
    selfseg train vice_coco_lowres_k27 coco/train2017 --out runs/coco_k27 --init imagenet:tv_in1k --devices 8 --nodes 4
    """
    return _lowres("vice_coco_lowres_k27", images, out, epochs=4, total=118_287, prototypes=27)


def vice_cityscapes_lowres_k27(images: Path, out: Path) -> Recipe[ViCEConfig]:
    """`vice_cityscapes_lowres` with 27 prototypes instead of 128, as P says and the reference implementation has it.

    Paper: as for vice_cityscapes_lowres; which of the two made its numbers isn't told. Ours: not run yet. Command:
    selfseg train vice_cityscapes_lowres_k27 leftImg8bit/train --out runs/k27 --init imagenet:tv_in1k --devices 32
    """
    return _lowres("vice_cityscapes_lowres_k27", images, out, epochs=24, total=2_975, prototypes=27)


def vice_coco_highres(images: Path, out: Path) -> Recipe[ViCEConfig]:
    """ViCE, high resolution, ResNet-50 + DeepLabV3+, on COCO train2017.

    Paper: linear 29.38 mIoU / 68.16 acc on COCO-Stuff-27, 256 clusters 21.77 / 64.75, 64 hours on 32 V100s. Ours:
    not run yet. Needs selfseg[smp]. Command:
    selfseg train vice_coco_highres coco/train2017 --out runs/coco_high --init imagenet:tv_in1k --devices 8 --nodes 4
    """
    return _highres("vice_coco_highres", "resnet50", images, out, epochs=16, total=118_287)


def vice_cityscapes_highres(images: Path, out: Path) -> Recipe[ViCEConfig]:
    """ViCE, high resolution, ResNet-18 + DeepLabV3+, on Cityscapes leftImg8bit/train.

    Paper: linear 30.40 mIoU / 87.00 acc over 19 classes, 256 clusters 25.23 / 84.28. Ours: not run yet. Needs
    selfseg[smp]. Command:
    selfseg train vice_cityscapes_highres leftImg8bit/train --out runs/hr --init imagenet:tv_in1k --devices 8 --nodes 4
    """
    return _highres("vice_cityscapes_highres", "resnet18", images, out, epochs=48, total=2_975)


def _frozen(epochs: float, total: int, batch_size: int) -> float:
    return min(_FROZEN_STEPS / (epochs * total / batch_size), 1.0)


def _lowres(name: str, images: Path, out: Path, epochs: float, total: int, prototypes: int = 128) -> Recipe[ViCEConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=ViCEConfig(
            embedder=EmbedderConfig(backbone="resnet18", output_stride=8, decoder="fpn", dim=128, resolution=320),
            views=ContentCentredViews(views=5, size=256, zoom=(0.5, 2.0), short_side=320, regions=Superpixels(10)),
            prototypes=prototypes,
            queue=5000 * 32,  # 5,000 a process in the paper
            queue_start=_frozen(epochs, total, 128),
            prototypes_frozen=_frozen(epochs, total, 128),
        ),
        optimizer=OptimizerConfig(name="lars", base_lr=0.04, reference_batch=16),
        epochs=epochs,
        batch_size=128,
        init="imagenet:tv_in1k",
        workers=8,
    )


def _highres(name: str, backbone: str, images: Path, out: Path, epochs: float, total: int) -> Recipe[ViCEConfig]:
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=ViCEConfig(
            embedder=EmbedderConfig(
                backbone=backbone, output_stride=8, decoder="deeplabv3plus", dim=128, resolution=None
            ),
            views=ContentCentredViews(
                views=5,
                size=512,
                zoom=(0.5, 2.0),
                short_side=None,
                centre_square=False,
                shortest=500,
                longest=2048,
                regions=Superpixels(20),
            ),
            prototypes=128,
            queue=5000 * 32,
            queue_start=_frozen(epochs, total, 128),
            prototypes_frozen=_frozen(epochs, total, 128),
        ),
        optimizer=OptimizerConfig(name="lars", base_lr=0.04, reference_batch=16),
        epochs=epochs,
        batch_size=128,
        init="imagenet:tv_in1k",
        workers=8,
    )
