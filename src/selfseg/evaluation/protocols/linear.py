"""The `linear` protocol: a frozen embedder and one 1x1 layer, trained on labels.

The layer is trained on pixels drawn at the label's own resolution, each with the embedding interpolated bilinearly to
it: in expectation the gradient of training on whole images (logits of a 1x1 layer interpolate as embeddings do),
without storing whole embeddings. It is measured by its logits, interpolated to the label's size.

Features are standardised first with the drawn pixels' mean and deviation. That is an affine map of each dimension
and is folded into the layer afterwards: what is measured is one linear layer, just better conditioned for training.

ViCE's papers say one 1x1 layer, and so does this. But the preprint's tables 1 and 8 count a linear model's filters (27
to 256; 256 in both papers' headline figures), which one layer of as many filters as classes doesn't have: the
reference implementation's is 1x1 (D to F filters) + BatchNorm + 1x1 (F to C). That is `Linear(hidden=(256,))`. Nothing
in it is non-linear, so for measuring it is folded into one layer. From as many filters as classes on it can express
just what one layer can; only its schedule makes it another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from selfseg.errors import ConfigError
from selfseg.evaluation.measure.passes import AffineHead
from selfseg.ops.linear import linear

VERSION = 1

_NORM = 1e-5  # added to a BatchNorm's variances
_LARGEST_RATE = 1e6  # with more, scores soon leave what float32 holds
_ROWS = 4096  # pixels at a time: of 128 dimensions 2 MB, which stay in a core's cache


@dataclass(frozen=True)
class Linear:
    """How the linear layer is trained.

    Attributes:
        pixels: about how many labelled pixels are drawn from the fit split, equally many from each image.
        steps: steps of AdamW and of "poly"; with "sgd" they follow from the epochs and the images of a step.
        batch: how many pixels such a step sees.
        learning_rate: learning rate at the start, for standardised features; L-BFGS has none.
        weight_decay: weight decay of the weights, not of the biases. With L-BFGS half of it times the squared weight is
            part of the loss. None = 1e-4 with "sgd", as in the papers, and 0 with the others.
        solver: "adamw" with a cosine from `learning_rate` to 0;
            "sgd", the papers' schedule (MaskContrast, appendix D): SGD with a learning rate of 0.1, momentum 0.9 and
            weight decay 1e-4, 60 epochs, batches of 16 images, a tenth of the learning rate from epoch 40 on, features
            as they are. A step sees as many drawn pixels as 16 images have, mixed over images, instead of all pixels of
            16; the same in every epoch, without augmentation;
            "poly", the schedule of ViCE's reference implementation, which has 12,000 `steps` from a `learning_rate` of
            0.01: SGD with momentum 0.9, the rate times (1 - i / steps) ** 0.9, features as they are. What its images
            and its weight decay are we don't know: a step sees `batch` drawn pixels, and there is none;
            "lbfgs", the optimum itself: L-BFGS with all drawn pixels in each step, until the gradient is nearly 0.
            Nothing is left to a schedule or a seed, so one fit serves. No paper's; the loss is the default's.
        epochs: how often SGD goes through the drawn pixels.
        drop: the epoch from which SGD's learning rate is a tenth.
        images: a step of SGD sees as many pixels as were drawn from so many images.
        balanced: weigh each class by the inverse of its frequency among the drawn pixels; the papers don't.
        standardise: whether features first get mean 0 and deviation 1, which becomes part of the layer afterwards. None
            = not with SGD, as in the papers, but with the others.
        tolerance: L-BFGS has converged when no entry of the gradient (of the mean loss, by the weights of whitened
            features) is larger.
        iterations: the most iterations of L-BFGS.
        hidden: filters of a first layer, with a BatchNorm between the two, as in the linear model of ViCE's tables.
            Several numbers give a result each, from the same pixels. If none is given, there is one layer.
    """

    name: ClassVar[Literal["linear"]] = "linear"

    pixels: int = 400_000
    steps: int = 2000
    batch: int = 4096
    learning_rate: float = 0.1
    weight_decay: float | None = None
    balanced: bool = False
    standardise: bool | None = None
    solver: Literal["adamw", "sgd", "poly", "lbfgs"] = "adamw"
    epochs: int = 60
    drop: int = 40
    images: int = 16
    tolerance: float = 1e-4
    iterations: int = 1000
    hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.solver not in ("adamw", "sgd", "poly", "lbfgs"):
            raise ConfigError(f"the linear layer's solver is adamw, sgd, poly or lbfgs, not {self.solver!r}")
        for name in ("pixels", "steps", "batch", "epochs", "drop", "images", "iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the linear layer's {name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.learning_rate <= _LARGEST_RATE or self.decay < 0:
            raise ConfigError(
                f"the linear layer needs a learning_rate above 0 and up to {_LARGEST_RATE:g} and a weight_decay of at "
                f"least 0, not {self.learning_rate:g} and {self.decay:g}"
            )
        if not self.tolerance > 0:
            raise ConfigError(f"the linear layer's tolerance must be above 0, not {self.tolerance}; 1e-4 is usual")
        if any(filters < 1 for filters in self.hidden) or len(set(self.hidden)) < len(self.hidden):
            raise ConfigError(f"hidden filters must be numbers from 1 on, each of them once, not {self.hidden}")
        if self.hidden and self.solver == "lbfgs":
            raise ConfigError(
                "the solver lbfgs finds the optimum of a single layer and can't train hidden filters; take the solver "
                "adamw, sgd or poly"
            )

    @property
    def seeded(self) -> bool:
        """Whether a fit depends on its seed."""
        return self.solver != "lbfgs"

    @property
    def decay(self) -> float:
        """The weight decay that is used."""
        if self.weight_decay is None:
            return 1e-4 if self.solver == "sgd" else 0.0
        return self.weight_decay

    @property
    def standardises(self) -> bool:
        """Whether features are standardised."""
        return self.solver not in ("sgd", "poly") if self.standardise is None else self.standardise

    def record(self, filters: int | None = None) -> dict[str, Any]:
        """All settings of one layer, or of two with so many `filters`, as they are used."""
        used = {**asdict(self), "weight_decay": self.decay, "standardise": self.standardises, "hidden": filters}
        return {name: value for name, value in used.items() if name != "hidden" or filters is not None}


@dataclass(frozen=True)
class LinearHead(AffineHead):
    """The trained layer, and how far its training came.

    Attributes:
        loss: mean cross entropy of the drawn pixels, weighted if classes are balanced, in nats; without weight decay.
        gradient: the largest entry of the gradient over all drawn pixels, by the weights of standardised features (if
            they were), with weight decay's; of two layers by the one that they are folded into, without.
        steps: that were taken.
    """

    loss: float
    gradient: float
    steps: int


def fit_linear(
    pixels: Tensor,
    labels: Tensor,
    classes: int,
    config: Linear,
    seed: int = 0,
    images: int = 1,
    filters: int | None = None,
) -> LinearHead:
    """Train the layer.

    Args:
        pixels: (M, D) float32 embeddings of labelled pixels, on a CPU. L-BFGS holds a second array of that size if it
            standardises.
        labels: (M,) int64 in [0, classes).
        classes: number of classes.
        config: how.
        seed: of the layer's first weights and of the order of pixels; L-BFGS begins at 0 and has no order.
        images: that the pixels are from; it makes SGD's batches.
        filters: of a first layer, with a BatchNorm behind it; None = one layer alone.

    Returns:
        A head with `classes` outputs.

    Raises:
        ConfigError: if there is no labelled pixel, or one alone, which a BatchNorm can't do with.
    """
    if len(pixels) == 0:
        raise ConfigError("the linear layer has no labelled pixel to learn from; the fit split is all void")
    if filters is not None and min(len(pixels), config.batch) < 2:
        raise ConfigError(
            f"a BatchNorm needs 2 pixels a step; there are {min(len(pixels), config.batch)}: leave hidden out"
        )
    mean, deviation = torch.zeros(pixels.shape[1]), torch.ones(pixels.shape[1])
    if config.standardises:
        mean = pixels.mean(0, dtype=torch.float64).float()
        deviation = pixels.std(0, correction=0)
        deviation = torch.where(deviation > 1e-8, deviation, torch.ones_like(deviation))  # a constant stays one
    importance = torch.ones(classes)
    if config.balanced:
        frequency = torch.bincount(labels, minlength=classes).double()
        importance = torch.where(frequency > 0, len(labels) / (frequency * classes), 0.0).float()
    objective = _Objective(pixels, labels, mean, deviation, importance)
    if config.solver == "lbfgs":
        weight, bias, steps = _converge(objective, config)
    else:
        weight, bias, steps = _descend(pixels, labels, mean, deviation, importance, config, seed, images, filters)
    loss, gradient = objective(weight, bias)
    if filters is None:
        gradient[:, :-1] += config.decay * weight
    folded = weight / deviation
    return LinearHead(folded, bias - folded @ mean, loss, float(gradient.abs().max()), steps)


class _Objective:
    """The mean loss of all drawn pixels and its gradient, by chunks: no (M, C) logits are held."""

    def __init__(self, pixels: Tensor, labels: Tensor, mean: Tensor, deviation: Tensor, importance: Tensor) -> None:
        self.pixels, self.labels, self.mean, self.deviation = pixels, labels, mean, deviation
        self.importance = importance
        self.total = float(importance[labels].sum(dtype=torch.float64))

    def whitened(self) -> tuple[_Objective, Tensor]:
        """The objective of pixels that are also decorrelated, in an array of their own, and the map (D, D) to them.

        An embedding's dimensions are correlated; L-BFGS needs a thousand steps for that, and some dozens without.
        """
        pixels = (self.pixels - self.mean).div_(self.deviation)
        covariance = torch.zeros(pixels.shape[1], pixels.shape[1], dtype=torch.float64)
        chunks = [pixels[start : start + _ROWS] for start in range(0, len(pixels), _ROWS)]
        for rows in chunks:
            covariance += rows.T @ rows
        values, vectors = torch.linalg.eigh(covariance / len(pixels))
        # Directions in which pixels hardly differ hold rounding errors of float32; they are not blown up to size 1.
        to = vectors / values.clamp(min=1e-6 * max(float(values[-1]), 1e-30)).sqrt()
        for rows in chunks:
            rows.copy_(linear(rows, to.float().T))
        still = torch.zeros_like(self.mean), torch.ones_like(self.deviation)
        return _Objective(pixels, self.labels, *still, self.importance), to

    @torch.no_grad()
    def __call__(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor]:
        """The loss and its gradient (C, D + 1) in float64, whose last column is the bias's.

        Args:
            weight: (C, D) float32 of standardised pixels.
            bias: (C,) float32.
        """
        classes, dim = weight.shape
        loss = torch.zeros((), dtype=torch.float64)
        gradient = torch.zeros(classes, dim + 1, dtype=torch.float64)
        plain = not bool(self.mean.any()) and bool((self.deviation == 1).all())
        for start in range(0, len(self.pixels), _ROWS):
            rows, labels = self.pixels[start : start + _ROWS], self.labels[None, start : start + _ROWS]
            if not plain:
                rows = (rows - self.mean).div_(self.deviation)
            # (C, rows): classes come first, because a softmax over the few values of a row is not vectorised.
            share = linear(weight, rows).add_(bias[:, None]).log_softmax(0)
            each = self.importance[labels]
            loss -= (each * share.gather(0, labels)).sum(dtype=torch.float64)
            error = share.exp_().mul_(each).scatter_add_(0, labels, -each)
            gradient[:, :dim] += linear(error, rows.T)
            gradient[:, dim] += error.sum(1, dtype=torch.float64)
        return float(loss / self.total), gradient / self.total


def _converge(objective: _Objective, config: Linear) -> tuple[Tensor, Tensor, int]:
    """L-BFGS from 0: the weight (C, D) of standardised pixels, the bias (C,), and the iterations.

    The problem is the same in whitened coordinates: scores V (T^T x) + b are those of the weight V T^T.
    """
    whitened, to = objective, torch.eye(objective.pixels.shape[1], dtype=torch.float64)
    if config.standardises:
        whitened, to = objective.whitened()
    shape = (len(objective.importance), len(to) + 1)

    def value(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        both = torch.from_numpy(flat.reshape(shape))
        loss, gradient = whitened(both[:, :-1].float().contiguous(), both[:, -1].float())
        weight = both[:, :-1] @ to.T
        gradient[:, :-1] += config.decay * weight @ to
        return loss + 0.5 * config.decay * float(weight.square().sum()), gradient.numpy().ravel()

    # ftol 0: the gradient alone says when it is done. float32 products leave the loss exact to some 1e-8.
    options: dict[str, Any] = {"maxiter": config.iterations, "maxfun": 2 * config.iterations, "maxcor": 20}
    options |= {"gtol": config.tolerance, "ftol": 0.0}
    found = minimize(value, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
    both = torch.from_numpy(np.ascontiguousarray(found.x.reshape(shape)))
    return (both[:, :-1] @ to.T).float(), both[:, -1].float(), int(found.nit)


class _One:
    """The layer: scores = weight @ x + bias, of standardised pixels."""

    def __init__(self, dim: int, classes: int, generator: torch.Generator) -> None:
        self.weight = (0.01 * torch.randn(classes, dim, generator=generator)).requires_grad_()
        self.bias = torch.zeros(classes, requires_grad=True)
        self.decayed, self.free = [self.weight], [self.bias]

    def scores(self, rows: Tensor) -> Tensor:
        return torch.addmm(self.bias, rows, self.weight.T)

    def folded(self, chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """The weight (C, D) and the bias (C,)."""
        return self.weight.detach(), self.bias.detach()


class _Two:
    """Two layers with a BatchNorm between: scores = second @ (gain * (first @ x - m) / s + shift) + bias.

    While it learns m and s are a step's own; when it is done those of all drawn pixels, instead of a running average.
    """

    def __init__(self, dim: int, filters: int, classes: int, generator: torch.Generator) -> None:
        self.first = (torch.randn(filters, dim, generator=generator) / dim**0.5).requires_grad_()
        self.second = (0.01 * torch.randn(classes, filters, generator=generator)).requires_grad_()
        self.gain = torch.ones(filters, requires_grad=True)
        self.shift = torch.zeros(filters, requires_grad=True)
        self.bias = torch.zeros(classes, requires_grad=True)
        self.decayed, self.free = [self.first, self.second], [self.gain, self.shift, self.bias]

    def scores(self, rows: Tensor) -> Tensor:
        inner = F.batch_norm(rows @ self.first.T, None, None, self.gain, self.shift, training=True, eps=_NORM)
        return torch.addmm(self.bias, inner, self.second.T)

    @torch.no_grad()
    def folded(self, chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """The weight (C, D) and the bias (C,) that both layers make together."""
        count, total = 0, torch.zeros(self.first.shape[1], dtype=torch.float64)
        products = torch.zeros(len(total), len(total), dtype=torch.float64)
        for rows in chunks:
            count, total = count + len(rows), total + rows.sum(0, dtype=torch.float64)
            products += rows.double().T @ rows.double()
        mean, first = total / count, self.first.double()
        covariance = products / count - mean[:, None] * mean
        variance = ((first @ covariance) * first).sum(1).clamp(min=0)
        scale = self.gain.double() / (variance + _NORM).sqrt()
        weight = self.second.double() @ (scale[:, None] * first)
        bias = self.bias.double() + self.second.double() @ (self.shift.double() - scale * (first @ mean))
        return weight.float(), bias.float()


def _descend(
    pixels: Tensor,
    labels: Tensor,
    mean: Tensor,
    deviation: Tensor,
    importance: Tensor,
    config: Linear,
    seed: int,
    images: int,
    filters: int | None,
) -> tuple[Tensor, Tensor, int]:
    """AdamW or SGD: the weight (C, D) of standardised pixels, the bias (C,), and the steps."""
    generator = torch.Generator().manual_seed(seed)
    classes, dim = len(importance), pixels.shape[1]
    layer = _One(dim, classes, generator) if filters is None else _Two(dim, filters, classes, generator)
    groups: list[dict[str, Any]] = [
        {"params": layer.decayed, "weight_decay": config.decay},
        {"params": layer.free, "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    if config.solver == "sgd":
        size = max(1, round(len(pixels) * min(1.0, config.images / images)))
        an_epoch = len(pixels) // size
        steps = config.epochs * an_epoch
        optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [config.drop * an_epoch])
    else:
        size, steps = min(config.batch, len(pixels)), config.steps
        if config.solver == "poly":
            optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
            schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)
        else:
            optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order, position = torch.randperm(len(pixels), generator=generator), 0
    with torch.enable_grad():
        for _ in range(steps):
            if position + size > len(order):
                order, position = torch.randperm(len(pixels), generator=generator), 0
            chosen = order[position : position + size]
            position += size
            logits = layer.scores((pixels[chosen] - mean) / deviation)
            loss = F.cross_entropy(logits, labels[chosen], weight=importance)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    chunks = ((pixels[start : start + _ROWS] - mean) / deviation for start in range(0, len(pixels), _ROWS))
    return *layer.folded(chunks), steps
