"""Methods: one file each. A new one is added to METHODS and nowhere else."""

from selfseg.methods.base import Method
from selfseg.methods.vice import ViCE, ViCEConfig

METHODS: dict[str, type[Method]] = {"vice": ViCE}

__all__ = ["METHODS", "Method", "ViCE", "ViCEConfig"]
