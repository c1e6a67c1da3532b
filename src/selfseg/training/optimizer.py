"""The optimiser of a run: which parameters decay, and which learn more slowly than the others."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import Lars
from torch import nn

from selfseg.errors import ConfigError
from selfseg.models.backbones import depths
from selfseg.models.embedder import Embedder
from selfseg.training.recipe import OptimizerConfig


def make_optimizer(method: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser; parameters with fewer than two dimensions get neither weight decay nor LARS's scaling.

    Args:
        method: of which those parameters learn that want a gradient.
        config: the settings.

    Returns:
        Its groups have a `share` each, what they take of the learning rate, see `set_rate`.

    Raises:
        ConfigError: if `layer_decay` is asked for and the backbone's stages are not known.
    """
    shares = _shares(method, config)
    found: dict[tuple[float, bool], dict[str, Any]] = {}
    # With one share for all these are the two groups of before, in their order, which is that of a checkpoint's state.
    for is_matrix in (True, False):
        found[1.0, is_matrix] = _group(is_matrix, 1.0, config)
        for parameter in method.parameters():
            if parameter.requires_grad and (parameter.ndim >= 2) == is_matrix:
                share = shares.get(id(parameter), 1.0)
                group = found.setdefault((share, is_matrix), _group(is_matrix, share, config))
                group["params"].append(parameter)
    groups = list(found.values())
    if config.name == "lars":
        lars: torch.optim.Optimizer = Lars(
            groups, lr=config.base_lr, momentum=config.momentum, trust_coeff=config.trust
        )
        return lars
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.base_lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.base_lr, betas=(config.momentum, 0.999))


def set_rate(optimizer: torch.optim.Optimizer, rate: float, decay: float | None = None) -> None:
    """Give each group its share of the learning rate, and those that decay another weight decay if there is one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
        if decay is not None and group["weight_decay"] > 0:
            group["weight_decay"] = decay


@torch.no_grad()
def clip_each(optimizer: torch.optim.Optimizer, limit: float) -> None:
    """Shorten the gradient of each parameter by itself to a norm of `limit`, if it is longer."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if gradients:
        norms = torch._foreach_norm(gradients)
        torch._foreach_mul_(gradients, [(limit / (norm + 1e-6)).clamp(max=1) for norm in norms])


def _group(is_matrix: bool, share: float, config: OptimizerConfig) -> dict[str, Any]:
    group = {"params": [], "weight_decay": config.weight_decay if is_matrix else 0.0, "share": share}
    # Else timm's LARS scales nothing at a weight decay of 0.
    return group | {"always_adapt": True} if config.name == "lars" and is_matrix else group


def _shares(method: nn.Module, config: OptimizerConfig) -> dict[int, float]:
    """By the id of each parameter of a backbone that learns, what it takes of the learning rate."""
    if config.backbone_lr == config.layer_decay == 1:
        return {}
    shares = {}
    for embedder in method.modules():
        if not isinstance(embedder, Embedder):
            continue
        depth = depths(embedder.backbone)
        last = max(depth.values())
        if config.layer_decay != 1 and last == 0:
            raise ConfigError(
                f"optimizer.layer_decay {config.layer_decay:g} needs a backbone whose stages are known, and those of "
                f"{embedder.config.backbone} are not; leave it at 1"
            )
        for name, parameter in embedder.backbone.named_parameters():
            shares[id(parameter)] = config.backbone_lr * config.layer_decay ** (last - depth[name])
    return shares
