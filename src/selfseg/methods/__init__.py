"""Methods: one file each. A new one is added to METHODS and nowhere else."""

from selfseg.methods.base import Method
from selfseg.methods.densecl import DenseCL, DenseCLConfig
from selfseg.methods.iic import IIC, IICConfig
from selfseg.methods.maskcontrast import MaskContrast, MaskContrastConfig
from selfseg.methods.moco import MoCo, MoCoConfig
from selfseg.methods.picie import PiCIE, PiCIEConfig
from selfseg.methods.slotcon import SlotCon, SlotConConfig
from selfseg.methods.swav import SwAV, SwAVConfig
from selfseg.methods.vice import ViCE, ViCEConfig

METHODS: dict[str, type[Method]] = {
    "vice": ViCE,
    "slotcon": SlotCon,
    "maskcontrast": MaskContrast,
    # baselines
    "moco": MoCo,
    "densecl": DenseCL,
    "swav": SwAV,
    "iic": IIC,
    "picie": PiCIE,
}

__all__ = [
    "IIC",
    "METHODS",
    "DenseCL",
    "DenseCLConfig",
    "IICConfig",
    "MaskContrast",
    "MaskContrastConfig",
    "Method",
    "MoCo",
    "MoCoConfig",
    "PiCIE",
    "PiCIEConfig",
    "SlotCon",
    "SlotConConfig",
    "SwAV",
    "SwAVConfig",
    "ViCE",
    "ViCEConfig",
]
