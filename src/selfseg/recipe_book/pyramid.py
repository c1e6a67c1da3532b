"""The recipe of the pyramid."""

from __future__ import annotations

from pathlib import Path

from selfseg.methods.pyramid import PyramidConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.training.recipe import Recipe


def pyramid(images: Path, out: Path) -> Recipe[PyramidConfig]:
    """A pretrained backbone as it is: no training, a minute or two, and what every other run has to beat.

    What is embedded is smoothed over the image's superpixels, whose edges clusters then have.

    Paper: none (this is ours). Ours: CamVid val, under two minutes of one core: linear .607 mIoU, 11 clusters .355, 27
    clusters .400, 64 clusters .449 (docs/numbers.md). Command: selfseg train pyramid IMAGES --out RUN
    """
    return Recipe(
        name="pyramid",
        images=images,
        out=out,
        method=PyramidConfig(pyramid_embedder()),
        steps=0,
        init="default",
    )


def pyramid_embedder(correction: int = 0, smooth: float = 20 / 3) -> EmbedderConfig:
    """The pyramid of the packaged network, with which the recipes begin that learn a `correction` to it."""
    return EmbedderConfig(
        backbone="tf_efficientnet_lite0",
        output_stride=32,
        decoder="pyramid",
        correction=correction,
        frozen=True,
        dim=96,
        aligned=True,
        border=32,
        smooth=smooth,
        resolution=512,
    )
