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
from typing import Literal

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
        steps: of AdamW; with SGD `epochs` and `images` say it.
        batch: pixels of a step of AdamW.
        learning_rate: at the start, for standardised features.
        weight_decay: on the weight only.
        optimizer: "adamw" with a cosine from `learning_rate` to 0, or "sgd" with momentum 0.9, see `linear_sgd`.
        epochs: passes over the drawn pixels, of SGD.
        drop: the epoch from which SGD's learning rate is a tenth.
        images: so many images' share of the drawn pixels is a step of SGD.
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
    optimizer: Literal["adamw", "sgd"] = "adamw"
    epochs: int = 60
    drop: int = 40
    images: int = 16

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "sgd"):
            raise ConfigError(f"the linear layer's optimizer is adamw or sgd, not {self.optimizer!r}")
        for name in ("pixels", "steps", "batch", "epochs", "drop", "images"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the linear layer's {name} must be at least 1, not {getattr(self, name)}")


def linear_sgd() -> LinearConfig:
    """The papers' schedule (MaskContrast, appendix D): SGD 0.1, momentum 0.9, weight decay 1e-4, 60 epochs, 16 images.

    The learning rate drops to a tenth after 40 epochs, features are as they are. A step sees as many drawn pixels as 16
    images have, mixed over images, instead of all pixels of 16; the same in every epoch, without augmentation.
    """
    return LinearConfig(optimizer="sgd", learning_rate=0.1, weight_decay=1e-4, standardise=False)


def fit_linear(
    pixels: Tensor, labels: Tensor, classes: int, config: LinearConfig, seed: int = 0, images: int = 1
) -> AffineHead:
    """Train the layer.

    Args:
        pixels: (M, D) float32 embeddings of labelled pixels.
        labels: (M,) int64 in [0, classes).
        classes: number of classes.
        config: how.
        seed: of the layer's first weights and of the order of pixels.
        images: that the pixels are from; it makes SGD's batches.

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
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    if config.optimizer == "sgd":
        size = max(1, round(len(pixels) * min(1.0, config.images / images)))
        an_epoch = len(pixels) // size
        steps = config.epochs * an_epoch
        optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [config.drop * an_epoch])
    else:
        size, steps = min(config.batch, len(pixels)), config.steps
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order, position = torch.randperm(len(pixels), generator=generator), 0
    with torch.enable_grad():
        for _ in range(steps):
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
