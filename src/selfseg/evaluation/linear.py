"""The `linear` protocol: a frozen embedder and one 1x1 layer, trained on labels.

The layer is trained on pixels drawn at the label's own resolution, each with the embedding interpolated bilinearly to
it: in expectation the gradient of training on whole images (logits of a 1x1 layer interpolate as embeddings do),
without storing whole embeddings. It is measured by its logits, interpolated to the label's size.

Features are standardised first with the drawn pixels' mean and deviation. That is an affine map of each dimension
and is folded into the layer afterwards: what is measured is one linear layer, just better conditioned for training.

The ViCE paper says one 1x1 layer, and so does this; the reference implementation has 1x1 + BN + 1x1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.errors import ConfigError
from selfseg.evaluation.passes import AffineHead

VERSION = 1


@dataclass(frozen=True)
class LinearConfig:
    """How the linear layer is trained.

    Attributes:
        pixels: about how many labelled pixels are drawn from the fit split, equally from each image.
        steps: of AdamW, cosine from `learning_rate` to 0.
        batch: pixels a step.
        learning_rate: at the start, for standardised features.
        weight_decay: of AdamW, on the weight only.
        balanced: weigh each class by the inverse of its frequency among the drawn pixels; off in the papers.
        standardise: see the top of this file.
    """

    pixels: int = 400_000
    steps: int = 2000
    batch: int = 4096
    learning_rate: float = 0.1
    weight_decay: float = 0.0
    balanced: bool = False
    standardise: bool = True

    def __post_init__(self) -> None:
        for name in ("pixels", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the linear layer's {name} must be at least 1, not {getattr(self, name)}")


def fit_linear(pixels: Tensor, labels: Tensor, classes: int, config: LinearConfig, seed: int = 0) -> AffineHead:
    """Train the layer.

    Args:
        pixels: (M, D) float32 embeddings of labelled pixels.
        labels: (M,) int64 in [0, classes).
        classes: number of classes.
        config: how.
        seed: of the layer's first weights and of the order of pixels.

    Returns:
        A head with `classes` outputs.

    Raises:
        ConfigError: if there is no labelled pixel.
    """
    if len(pixels) == 0:
        raise ConfigError("the linear layer has no labelled pixel to learn from; the fit split is all void")
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = torch.zeros(pixels.shape[1]), torch.ones(pixels.shape[1])
    if config.standardise:
        mean = pixels.mean(0, dtype=torch.float64).float()
        deviation = pixels.std(0, correction=0)
        deviation = torch.where(deviation > 1e-8, deviation, torch.ones_like(deviation))  # a constant stays one
    importance = torch.ones(classes)
    if config.balanced:
        frequency = torch.bincount(labels, minlength=classes).double()
        importance = torch.where(frequency > 0, len(labels) / (frequency * classes), 0.0).float()

    weight = (0.01 * torch.randn(classes, pixels.shape[1], generator=generator)).requires_grad_()
    bias = torch.zeros(classes, requires_grad=True)
    groups = [{"params": [weight], "weight_decay": config.weight_decay}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    size = min(config.batch, len(pixels))
    order, position = torch.randperm(len(pixels), generator=generator), 0
    with torch.enable_grad():
        for _ in range(config.steps):
            if position + size > len(order):
                order, position = torch.randperm(len(pixels), generator=generator), 0
            chosen = order[position : position + size]
            position += size
            logits = torch.addmm(bias, (pixels[chosen] - mean) / deviation, weight.T)
            loss = F.cross_entropy(logits, labels[chosen], weight=importance)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    folded = weight.detach() / deviation
    return AffineHead(folded, bias.detach() - folded @ mean)
