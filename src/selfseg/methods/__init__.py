"""Methods: one file each. A new one is added to METHODS and nowhere else."""

from selfseg.methods.base import Method
from selfseg.methods.slotcon import SlotCon, SlotConConfig
from selfseg.methods.vice import ViCE, ViCEConfig

METHODS: dict[str, type[Method]] = {"vice": ViCE, "slotcon": SlotCon}

__all__ = ["METHODS", "Method", "SlotCon", "SlotConConfig", "ViCE", "ViCEConfig"]
