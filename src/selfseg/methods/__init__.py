"""Methods: one file each. A new one is added to METHODS and nowhere else."""

from selfseg.methods.base import Method
from selfseg.methods.maskcontrast import MaskContrast, MaskContrastConfig
from selfseg.methods.slotcon import SlotCon, SlotConConfig
from selfseg.methods.vice import ViCE, ViCEConfig

METHODS: dict[str, type[Method]] = {"vice": ViCE, "slotcon": SlotCon, "maskcontrast": MaskContrast}

__all__ = ["METHODS", "MaskContrast", "MaskContrastConfig", "Method", "SlotCon", "SlotConConfig", "ViCE", "ViCEConfig"]
