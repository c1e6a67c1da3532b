"""Recipes for region contrast."""

from pathlib import Path

from region_contrast.method import RegionContrastConfig
from selfseg.training.recipe import OptimizerConfig, Recipe


def region_contrast_small(images: Path, out: Path) -> Recipe[RegionContrastConfig]:
    """Region contrast for one modest GPU or a CPU.

    Paper: none. Ours: not run yet. Command: selfseg train region_contrast_small IMAGES --out RUN
    """
    return Recipe(
        name="region_contrast_small",
        images=images,
        out=out,
        method=RegionContrastConfig(),
        optimizer=OptimizerConfig(name="adamw", base_lr=1e-3, weight_decay=1e-4, warmup=0.05),
        steps=2000,
        batch_size=8,
    )
