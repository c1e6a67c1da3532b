"""Where kernels in Triton do the work."""

from __future__ import annotations

import importlib.util

import torch

_INSTALLED = importlib.util.find_spec("triton") is not None


def by_triton(device: torch.device) -> bool:
    """Whether the device is an NVIDIA GPU of sm_80 or later and triton is installed."""
    if device.type != "cuda" or not _INSTALLED or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
