"""Where kernels in Triton do the work."""

from __future__ import annotations

import importlib.util
from functools import cache

import torch


@cache
def by_triton(device: torch.device) -> bool:
    """Whether the device is an NVIDIA GPU of sm_80 or later and triton is installed."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)
