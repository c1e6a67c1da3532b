"""Recipes: one function per run. Each docstring gives the paper's number, ours, hours and the command."""

from selfseg.recipe_book.densecl import densecl_coco, densecl_imagenet, densecl_small
from selfseg.recipe_book.iic import iic_coco27, iic_small
from selfseg.recipe_book.maskcontrast import (
    maskcontrast_coco,
    maskcontrast_small,
    maskcontrast_voc,
    maskcontrast_voc_reference,
)
from selfseg.recipe_book.moco import moco_coco, moco_imagenet, moco_small
from selfseg.recipe_book.picie import picie_cityscapes27, picie_coco27, picie_h_coco27, picie_small
from selfseg.recipe_book.slotcon import (
    slotcon_bdd100k,
    slotcon_coco,
    slotcon_coco_vit,
    slotcon_cocoplus,
    slotcon_cocostuff27,
    slotcon_imagenet,
    slotcon_small,
)
from selfseg.recipe_book.swav import swav_imagenet, swav_imagenet_batch256, swav_small
from selfseg.recipe_book.vice import (
    vice_cityscapes_highres,
    vice_cityscapes_lowres,
    vice_coco_highres,
    vice_coco_lowres,
    vice_small,
)

__all__ = [
    "densecl_coco",
    "densecl_imagenet",
    "densecl_small",
    "iic_coco27",
    "iic_small",
    "maskcontrast_coco",
    "maskcontrast_small",
    "maskcontrast_voc",
    "maskcontrast_voc_reference",
    "moco_coco",
    "moco_imagenet",
    "moco_small",
    "picie_cityscapes27",
    "picie_coco27",
    "picie_h_coco27",
    "picie_small",
    "slotcon_bdd100k",
    "slotcon_coco",
    "slotcon_coco_vit",
    "slotcon_cocoplus",
    "slotcon_cocostuff27",
    "slotcon_imagenet",
    "slotcon_small",
    "swav_imagenet",
    "swav_imagenet_batch256",
    "swav_small",
    "vice_cityscapes_highres",
    "vice_cityscapes_lowres",
    "vice_coco_highres",
    "vice_coco_lowres",
    "vice_small",
]
