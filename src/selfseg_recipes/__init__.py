"""Recipes: one function per run. Each docstring gives the paper's number, ours, hours and the command."""

from selfseg_recipes.vice import (
    vice_cityscapes_highres,
    vice_cityscapes_lowres,
    vice_coco_highres,
    vice_coco_lowres,
    vice_small,
)

__all__ = [
    "vice_cityscapes_highres",
    "vice_cityscapes_lowres",
    "vice_coco_highres",
    "vice_coco_lowres",
    "vice_small",
]
