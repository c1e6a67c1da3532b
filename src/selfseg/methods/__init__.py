"""Methods: one file each, in the order of their paper; `base` is what they share.

To read one, begin with `vice`. docs/add-a-method.md tells how to add one, here or in a package of your own.
"""

from selfseg.methods.base import Method
from selfseg.methods.deepcluster import ModifiedDeepCluster, ModifiedDeepClusterConfig
from selfseg.methods.iic import IIC, IICConfig
from selfseg.methods.maskcontrast import MaskContrast, MaskContrastConfig
from selfseg.methods.picie import PiCIE, PiCIEConfig
from selfseg.methods.pretraining.byol import BYOL, BYOLConfig
from selfseg.methods.pretraining.densecl import DenseCL, DenseCLConfig
from selfseg.methods.pretraining.detcon import DetCon, DetConConfig
from selfseg.methods.pretraining.dino import DINO, DINOConfig
from selfseg.methods.pretraining.instance import InstanceDiscrimination, InstanceDiscriminationConfig
from selfseg.methods.pretraining.moco import MoCo, MoCoConfig
from selfseg.methods.pretraining.pixpro import PixPro, PixProConfig
from selfseg.methods.pretraining.swav import SwAV, SwAVConfig
from selfseg.methods.pyramid import Pyramid, PyramidConfig
from selfseg.methods.slotcon import SlotCon, SlotConConfig
from selfseg.methods.stego import STEGO, STEGOConfig
from selfseg.methods.vice import ViCE, ViCEConfig
from selfseg.plugins import load_all


def methods() -> dict[str, type[Method]]:
    """Every method by name, those of other packages too (`selfseg.plugins`).

    Example:
        >>> methods()["vice"] is ViCE
        True
    """
    return load_all("selfseg.methods")


__all__ = [
    "BYOL",
    "DINO",
    "IIC",
    "STEGO",
    "BYOLConfig",
    "DINOConfig",
    "DenseCL",
    "DenseCLConfig",
    "DetCon",
    "DetConConfig",
    "IICConfig",
    "InstanceDiscrimination",
    "InstanceDiscriminationConfig",
    "MaskContrast",
    "MaskContrastConfig",
    "Method",
    "MoCo",
    "MoCoConfig",
    "ModifiedDeepCluster",
    "ModifiedDeepClusterConfig",
    "PiCIE",
    "PiCIEConfig",
    "PixPro",
    "PixProConfig",
    "Pyramid",
    "PyramidConfig",
    "STEGOConfig",
    "SlotCon",
    "SlotConConfig",
    "SwAV",
    "SwAVConfig",
    "ViCE",
    "ViCEConfig",
    "methods",
]
