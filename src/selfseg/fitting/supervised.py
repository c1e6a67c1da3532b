"""A whole network learns from labels: what the transfer protocols and the few-label curve share.

SGD with the schedules of the published protocols, on one device. Like training, it is a pure function of its settings,
its data and the weights that it starts from: batch i is a function of (seed, i), whatever is drawn at random inside of
the network is keyed by the step, and state is weights, buffers and the optimiser's. So a job that was stopped goes on
from its checkpoint as if it had not been.

    OUT/transfer.json          every setting, and a hash of the weights that it started from
    OUT/log.jsonl              loss and learning rate
    OUT/checkpoints/           the newest two, see `selfseg.storage.checkpoint`
    OUT/weights.safetensors    the whole trained network
    OUT/results/               what was measured
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from selfseg.errors import ConfigError, Interrupted, NonFiniteLoss
from selfseg.fitting.memory import kept_memory
from selfseg.fitting.stepping import ProgressBar, StepLog, step_seed, stop_signals
from selfseg.numbers import require_usable
from selfseg.storage.checkpoint import load_newest, remove_leftovers, save_checkpoint
from selfseg.storage.files import sole_use
from selfseg.storage.tensors import write_tensors

Precision = Literal["32-true", "bf16-mixed"]
MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]
"""An optimiser of some groups of parameters."""

_LOG_EVERY = 10
_KEEP = 2
_WARMUP_FROM = 0.001  # share of the learning rate that a warm-up starts from, as in Detectron2


@dataclass(frozen=True)
class FineTuningConfig:
    """How a network is fine-tuned.

    Attributes:
        backbone: timm's name of the network. A run has its own, which is then taken instead.
        fit_split: the split that is trained on.
        split: the split that is measured.
        steps: number of iterations.
        batch_size: images in an iteration, all on one device: BatchNorm sees them together.
        lr: learning rate, for this batch size.
        momentum: momentum of SGD.
        weight_decay: weight decay of all parameters; detection leaves BatchNorm's out.
        decay: how the learning rate falls. "steps": it becomes a tenth at each of `milestones`; "poly": it is
            multiplied by (1 - i / steps) ** power.
        milestones: for "steps": the shares of the iterations after which it falls.
        power: for "poly": the exponent.
        final_lr: for "poly": the learning rate at the end.
        warmup: in how many iterations the learning rate rises in a straight line, from lr / 1000.
        precision: "32-true" calculates with 32 bits. "bf16-mixed" uses bfloat16 where torch's autocast chooses it.
        seed: seed of the new layers, the order of the images, crops and flips.
    """

    backbone: str = "resnet50"
    fit_split: str = "train"
    split: str = "val"
    steps: int = 30_000
    batch_size: int = 16
    lr: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay: Literal["steps", "poly"] = "steps"
    milestones: tuple[float, ...] = (0.7, 0.9)
    power: float = 0.9
    final_lr: float = 0.0
    warmup: int = 0
    precision: Precision = "32-true"
    seed: int = 0

    def __post_init__(self) -> None:
        require_usable(self, "")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.lr <= 0 or not 0 <= self.final_lr <= self.lr:
            raise ConfigError(f"need lr > 0 and final_lr in [0, lr], not {self.lr} and {self.final_lr}")
        if not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ConfigError(
                f"need momentum in [0, 1) and weight_decay >= 0, not {self.momentum} and {self.weight_decay}"
            )
        if any(not 0 < share < 1 for share in self.milestones):
            raise ConfigError(f"milestones are shares of the iterations, in (0, 1), not {self.milestones}")
        if self.seed < 0 or self.warmup < 0 or self.power <= 0:
            raise ConfigError(
                f"need seed >= 0, warmup >= 0 and power > 0, not {self.seed}, {self.warmup} and {self.power}"
            )
        if self.fit_split == self.split:
            raise ConfigError(f"a network trained on {self.split!r} can't be measured on it; name another split")


def rate_at(config: FineTuningConfig, step: int) -> float:
    """The learning rate of iteration `step`, counted from 0.

    Example:
        >>> config = FineTuningConfig(steps=10, lr=1.0, final_lr=0.0)
        >>> [round(rate_at(config, step), 3) for step in (0, 6, 7, 9)]
        [1.0, 1.0, 0.1, 0.01]
    """
    rate: float
    if config.decay == "poly":
        rate = (config.lr - config.final_lr) * (1 - step / config.steps) ** config.power + config.final_lr
    else:
        rate = config.lr * 0.1 ** sum(step >= round(share * config.steps) for share in config.milestones)
    if step < config.warmup:
        rate *= _WARMUP_FROM + (1 - _WARMUP_FROM) * step / config.warmup
    return rate


def fine_tune(
    model: nn.Module,
    config: FineTuningConfig,
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Callable[[int], Iterator[Any]],
    out: Path,
    groups: list[dict[str, Any]] | None = None,
    checkpoint_every: int = 1000,
    progress: bool = True,
    what: str = "transfer",
    keep_weights: bool = True,
    optimizer: MakeOptimizer | None = None,
    held: bool = False,
) -> None:
    """Train a model in OUT, or go on with it; afterwards it has the last iteration's weights.

    Args:
        model: on its device.
        config: how.
        loss: the scalar loss of a batch.
        batches: gives the batches from an iteration on.
        out: the job's folder, which is claimed already (`selfseg.evaluation.sources.own_job`).
        groups: of parameters, for the optimiser; None = all alike. The learning rate of a group with a "scale" is so
            many times that of the others.
        checkpoint_every: iterations between checkpoints.
        progress: show a progress bar.
        what: what it says.
        keep_weights: write OUT/weights.safetensors at the end.
        optimizer: makes it from the groups; None = SGD with the configuration's momentum and weight decay.
        held: whether the caller holds OUT (`sole_use`) already.

    Raises:
        RunError: if another process is at work on OUT.
        CheckpointError: if OUT's checkpoints are damaged, or not of this model.
        NonFiniteLoss: if the loss stops being a number; nothing of that iteration reaches the weights.
        Interrupted: after Ctrl-C or SIGTERM, when the state is saved.
        StorageError: if the disk is full.
    """
    with nullcontext() if held else sole_use(out):
        for folder in (out, out / "checkpoints"):
            remove_leftovers(folder)
        groups = groups or [{"params": list(model.parameters())}]
        made = _sgd(groups, config) if optimizer is None else optimizer(groups)
        _fine_tune(model, made, config, loss, batches, out, checkpoint_every, progress, what)
        if keep_weights:
            weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
            write_tensors(out / "weights.safetensors", weights)


def _loss_of(
    model: nn.Module, batch: Any, loss: Callable[[nn.Module, Any], Tensor], config: FineTuningConfig
) -> Tensor:
    try:
        return loss(model, batch)
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise ConfigError(
            f"BatchNorm takes its statistics from the batch here, and a batch of {config.batch_size} leaves it one "
            "value of a channel, from which it can take none; give a --batch-size of 2 or more, or larger crops"
        ) from error


def _sgd(groups: list[dict[str, Any]], config: FineTuningConfig) -> Optimizer:
    return torch.optim.SGD(groups, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def _fine_tune(
    model: nn.Module,
    optimizer: Optimizer,
    config: FineTuningConfig,
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Callable[[int], Iterator[Any]],
    out: Path,
    checkpoint_every: int,
    progress: bool,
    what: str,
) -> None:
    device = next(model.parameters()).device
    checkpoint = load_newest(out / "checkpoints")
    if checkpoint is not None:
        checkpoint.restore(model, optimizer)
    step = saved = checkpoint.step if checkpoint is not None else 0
    log = StepLog(out / "log.jsonl", step)

    def save() -> None:
        nonlocal saved
        if step != saved:
            save_checkpoint(out / "checkpoints", step, model.state_dict(), optimizer, {"steps": config.steps}, _KEEP)
            saved = step

    model.train()
    stream = batches(step) if step < config.steps else iter(())
    waited, since, window = 0.0, time.perf_counter(), step
    with kept_memory(device), stop_signals() as stop, ProgressBar(config.steps, step, progress, what) as bar:
        while step < config.steps:
            asked = time.perf_counter()
            try:
                batch = next(stream)
            except Exception:
                # A signal to all processes of a group ends the loader's too; only without one it's an error of its own.
                if not stop.is_set():
                    raise
            waited += time.perf_counter() - asked
            if stop.is_set():
                save()
                raise Interrupted(
                    f"stopped by a signal after iteration {step} of {config.steps}; the state is saved in {out}, and "
                    "the same command continues from there"
                )
            rate = rate_at(config, step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("scale", 1.0)
            # Dropout and drawn proposals are a function of (seed, step), so that a resumed job draws the same.
            torch.manual_seed(step_seed(config.seed, step))
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16-mixed"):
                value = _loss_of(model, batch, loss, config)
            value.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            number, size = torch.stack([value.detach().float(), norm.float()]).tolist()
            if not (math.isfinite(number) and math.isfinite(size)):
                raise NonFiniteLoss(
                    f"the loss of iteration {step + 1} is {number} and its gradient's norm {size}; the weights are "
                    "those of before it. Try a lower --lr, a --warmup, or --precision 32-true"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % _LOG_EVERY == 0 or step == config.steps:
                now = time.perf_counter()
                speed, wait = (step - window) * config.batch_size / (now - since), waited / (now - since)
                log.write({"step": step, "loss": number, "lr": rate, "images_per_second": speed, "data_wait": wait})
                bar.update(step, number, speed, wait)
                waited, since, window = 0.0, now, step
            if step % checkpoint_every == 0 or step == config.steps:
                save()
