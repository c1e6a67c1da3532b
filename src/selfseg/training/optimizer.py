"""The optimiser of a run."""

from __future__ import annotations

import torch
from timm.optim import Lars
from torch import nn

from selfseg.training.recipe import OptimizerConfig


def make_optimizer(method: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser; parameters with fewer than two dimensions get neither weight decay nor LARS's scaling."""
    matrices = [p for p in method.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in method.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if config.name == "lars":
        groups[0]["always_adapt"] = True  # else timm scales nothing at a weight decay of 0
        lars: torch.optim.Optimizer = Lars(
            groups, lr=config.base_lr, momentum=config.momentum, trust_coeff=config.trust
        )
        return lars
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.base_lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.base_lr, betas=(config.momentum, 0.999))
