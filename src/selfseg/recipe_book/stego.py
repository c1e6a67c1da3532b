"""Recipes for STEGO (Hamilton et al., ICLR 2022).

The paper's begin from DINO's weights: --init imagenet, by which timm downloads what belongs to the backbone's name, or
a file. They were written from memory of the paper's tables and of the settings that its authors published, because
neither was at hand. How sure we are:

- Certain: frozen DINO at patches of 8 px, the head, K = 7 neighbours, 11 x 11 places, five crops, views of 224 px,
  evaluation at 320 px with cosine clusters and a CRF, Adam at 5e-4; ViT-B/8's numbers on COCO-Stuff-27 and Cityscapes.
- Fairly certain: the shifts and weights of ViT-B/8 on COCO-Stuff-27 and Cityscapes (rounded to two digits), the
  weights of ViT-S/8, its shifts of an image with itself and with a neighbour, and its numbers.
- Not certain: the shift of random pairs of ViT-S/8 on COCO-Stuff-27 (.16; .66 would be the other memory) and on Potsdam
  (.63; or .76); that Potsdam's settings are those of both sizes of network; 70 dimensions (100 on Cityscapes), batches
  of 32 and 5,000 steps; that shifts belong to cosines whose mean is kept (`keep_mean`).
"""

from __future__ import annotations

from pathlib import Path

from selfseg.data.views.random_crops import RandomCrops
from selfseg.methods.stego import STEGOConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.recipe_book.pyramid import pyramid_embedder
from selfseg.training.recipe import OptimizerConfig, Recipe


def stego_small(images: Path, out: Path) -> Recipe[STEGOConfig]:
    """STEGO for your own images, on a CPU or one modest GPU: it begins as the pyramid and learns a correction to it.

    F is of the pyramid's standardised stages, which weigh the same. Watch `effective_rank` in the log: where it falls
    to a dozen, codes fall together, and the shifts are too small.

    Paper: none (this size is ours). Ours: CamVid val, 600 steps: linear .557 mIoU, 11 clusters .253, 64 clusters .442,
    which is no gain over the pyramid (docs/numbers.md). Command: selfseg train stego_small IMAGES --out RUN
    """
    return Recipe(
        name="stego_small",
        images=images,
        out=out,
        method=STEGOConfig(
            embedder=pyramid_embedder(correction=256, smooth=0.0),
            views=RandomCrops(
                views=1, size=256, scale=(0.1, 0.4), jitter_probability=0, gray_probability=0, blur_probability=0
            ),
            # Of all pairs of places 17, 14 and 4 % attract each other. With 33, 43 and 8 % the codes fall together.
            shift_self=0.45,
            shift_neighbour=0.3,
            shift_random=0.3,
            weight_self=0.5,
            weight_neighbour=0.5,
            weight_random=0.5,
            keep_mean=True,
            queue=256,
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=1e-3, weight_decay=1e-4, warmup=0.05),
        steps=600,
        batch_size=16,
        init="default",
    )


def stego_coco27_vitb8(images: Path, out: Path) -> Recipe[STEGOConfig]:
    """STEGO, DINO's ViT-B/8, on COCO train2017 for COCO-Stuff-27.

    Paper: 28.2 mIoU / 56.9 acc with 27 clusters and a CRF, linear 41.0 / 76.1. Ours: not run yet. Command:
    selfseg train stego_coco27_vitb8 coco/train2017 --out runs/stego --init imagenet
    """
    return _published("stego_coco27_vitb8", "base", images, out, (0.12, 0.20, 1.00), (0.10, 1.00, 0.15))


def stego_coco27_vits8(images: Path, out: Path) -> Recipe[STEGOConfig]:
    """STEGO, DINO's ViT-S/8, on COCO train2017 for COCO-Stuff-27.

    Paper: 24.5 mIoU / 48.3 acc with 27 clusters and a CRF, linear 38.3 / 74.4. Ours: not run yet. Command:
    selfseg train stego_coco27_vits8 coco/train2017 --out runs/stego_small --init imagenet
    """
    return _published("stego_coco27_vits8", "small", images, out, (0.08, 0.02, 0.16), (0.67, 0.25, 0.63))


def stego_cityscapes27_vitb8(images: Path, out: Path) -> Recipe[STEGOConfig]:
    """STEGO, DINO's ViT-B/8, on Cityscapes with 27 classes.

    Paper: 21.0 mIoU / 73.2 acc with 27 clusters and a CRF. Ours: not run yet. Command:
    selfseg train stego_cityscapes27_vitb8 leftImg8bit/train --out runs/stego_city --init imagenet
    """
    name = "stego_cityscapes27_vitb8"
    return _published(name, "base", images, out, (0.46, 0.18, 0.31), (1.00, 0.58, 0.91), dim=100)


def stego_cityscapes27_vits8(images: Path, out: Path) -> Recipe[STEGOConfig]:
    """STEGO, DINO's ViT-S/8, on Cityscapes with 27 classes.

    Paper: 17.6 mIoU / 69.8 acc with 27 clusters (as later papers quote it). Ours: not run yet. Command:
    selfseg train stego_cityscapes27_vits8 leftImg8bit/train --out runs/stego_city_small --init imagenet
    """
    name = "stego_cityscapes27_vits8"
    return _published(name, "small", images, out, (0.34, 0.04, 0.86), (0.29, 0.80, 0.72), dim=100)


def stego_potsdam3_vitb8(images: Path, out: Path) -> Recipe[STEGOConfig]:
    """STEGO, DINO's ViT-B/8, on Potsdam with 3 classes: roads and cars, vegetation and clutter, buildings and trees.

    Paper: 77.0 acc with 3 clusters and a CRF, we believe of this network. Ours: not run yet. Command:
    selfseg train stego_potsdam3_vitb8 POTSDAM --out runs/stego_potsdam --init imagenet
    """
    return _potsdam("stego_potsdam3_vitb8", "base", images, out)


def stego_potsdam3_vits8(images: Path, out: Path) -> Recipe[STEGOConfig]:
    """The same with DINO's ViT-S/8.

    Paper: nothing that we know of. Ours: not run yet. Command:
    selfseg train stego_potsdam3_vits8 POTSDAM --out runs/stego_potsdam_small --init imagenet
    """
    return _potsdam("stego_potsdam3_vits8", "small", images, out)


def _potsdam(name: str, size: str, images: Path, out: Path) -> Recipe[STEGOConfig]:
    return _published(name, size, images, out, (0.08, 0.02, 0.63), (0.67, 0.25, 0.63), prototypes=3)


def _published(
    name: str,
    size: str,
    images: Path,
    out: Path,
    shifts: tuple[float, float, float],
    weights: tuple[float, float, float],
    dim: int = 70,
    prototypes: int = 27,
) -> Recipe[STEGOConfig]:
    """Shifts and weights of an image with itself, with a neighbour, and with any other."""
    return Recipe(
        name=name,
        images=images,
        out=out,
        method=STEGOConfig(
            embedder=EmbedderConfig(
                backbone=f"vit_{size}_patch8_224.dino", decoder="stego", dim=dim, frozen=True, resolution=320
            ),
            shift_self=shifts[0],
            shift_neighbour=shifts[1],
            shift_random=shifts[2],
            weight_self=weights[0],
            weight_neighbour=weights[1],
            weight_random=weights[2],
            keep_mean=True,
            prototypes=prototypes,
        ),
        # Without weight decay AdamW is Adam; the rate stays as it is.
        optimizer=OptimizerConfig(
            name="adamw", base_lr=5e-4, reference_batch=32, weight_decay=0.0, warmup=0.0, final=1.0
        ),
        steps=5000,
        batch_size=32,
        workers=8,
    )
