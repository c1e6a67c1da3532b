"""Recipes: one function per run. Each docstring gives the paper's number, ours, hours and the command."""

from selfseg_recipes.maskcontrast import (
    maskcontrast_coco,
    maskcontrast_small,
    maskcontrast_voc,
    maskcontrast_voc_reference,
)
from selfseg_recipes.slotcon import (
    slotcon_bdd100k,
    slotcon_coco,
    slotcon_coco_vit,
    slotcon_cocoplus,
    slotcon_cocostuff27,
    slotcon_imagenet,
    slotcon_small,
)
from selfseg_recipes.vice import (
    vice_cityscapes_highres,
    vice_cityscapes_lowres,
    vice_coco_highres,
    vice_coco_lowres,
    vice_small,
)

__all__ = [
    "maskcontrast_coco",
    "maskcontrast_small",
    "maskcontrast_voc",
    "maskcontrast_voc_reference",
    "slotcon_bdd100k",
    "slotcon_coco",
    "slotcon_coco_vit",
    "slotcon_cocoplus",
    "slotcon_cocostuff27",
    "slotcon_imagenet",
    "slotcon_small",
    "vice_cityscapes_highres",
    "vice_cityscapes_lowres",
    "vice_coco_highres",
    "vice_coco_lowres",
    "vice_small",
]
