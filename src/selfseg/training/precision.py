"""`precision: auto`: the precision in which a step is faster on this machine, measured without leaving a trace."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision, Precision

from selfseg.fitting.stepping import step_seed
from selfseg.methods import Method
from selfseg.models.distributed import gather_rows
from selfseg.training.optimizer import make_optimizer
from selfseg.training.processes import anywhere
from selfseg.training.recipe import Recipe, read_recipe
from selfseg.types import Batch

Choice = Literal["32-true", "bf16-mixed"]

CHOICES: tuple[Choice, ...] = ("32-true", "bf16-mixed")
"""What is tried, the preferred one first. 16-mixed isn't: its gradients overflow now and then, which is for a person to
want."""

MARGIN = 1.2
"""How many times as fast bf16-mixed must be: for less, the digits and the same result on every machine are worth more,
and a busy moment must not decide."""

STEPS = 2
"""Measured steps of each, after one that warms up; the faster one counts."""


def has_begun(recipe: Recipe[Any]) -> bool:
    """Whether the recipe's folder holds a run with a checkpoint."""
    return (recipe.out / "recipe.yaml").exists() and any((recipe.out / "checkpoints").glob("step_*"))


def settle_precision(recipe: Recipe[Any]) -> Recipe[Any]:
    """The recipe with the precision that its run took when it began, if it asks for "auto" and has begun.

    Raises:
        RunError: if the run's recipe can't be read.
    """
    if recipe.precision != "auto" or not has_begun(recipe):
        return recipe
    return replace(recipe, precision=read_recipe(recipe.out / "recipe.yaml").precision)


def use_precision(fabric: Fabric, choice: Choice) -> None:
    """Let everything that Fabric sets up from now on have this precision."""
    fabric.strategy.precision = Precision() if choice == "32-true" else MixedPrecision(choice, fabric.device.type)


def choose_precision(fabric: Fabric, recipe: Recipe[Any], method: Method, batch: Batch) -> tuple[Choice, str]:
    """Try some training steps in each precision on copies of the method, and choose; all processes choose the same.

    Args:
        fabric: launched; nothing is set up yet.
        recipe: of the run.
        method: on its device, as it is before the first step; neither it nor any random state is changed.
        batch: this process's part of the first step's.

    Returns:
        The precision, and a sentence on it with the measured times.
    """
    trials = {choice: _Trial(fabric, recipe, method, choice) for choice in CHOICES}
    best = dict.fromkeys(CHOICES, math.inf)
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        for turn in range(1 + STEPS):
            for choice in list(trials):  # in turns, so that a busy moment falls on all
                seconds = trials[choice].step(batch)
                # Agreed on, because a step waits for all processes: none may go on with what another has left.
                (failed,) = anywhere(fabric, math.isinf(seconds))
                if failed:
                    del trials[choice]
                elif turn:
                    best[choice] = min(best[choice], seconds)
    times = torch.tensor([[best[choice] if choice in trials else math.inf for choice in CHOICES]], device=fabric.device)
    slowest = gather_rows(times)[0].amax(0).tolist()  # all wait for the slowest process
    return decide(dict(zip(CHOICES, slowest, strict=True)))


def decide(seconds: Mapping[Choice, float]) -> tuple[Choice, str]:
    """The choice between measured times.

    Args:
        seconds: of a step in each precision; infinite = it failed or was not finite.

    Returns:
        The precision, and a sentence on it.

    Example:
        >>> decide({"32-true": 0.9, "bf16-mixed": 0.6})
        ('bf16-mixed', 'precision: bf16-mixed, because a step takes 0.600 s in it and 0.900 s in 32-true')
        >>> decide({"32-true": 0.66, "bf16-mixed": 1.25})[0]
        '32-true'
    """
    full, half = (seconds[choice] for choice in CHOICES)
    if math.isinf(half) or math.isinf(full):
        wrong = " and ".join(choice for choice in CHOICES if math.isinf(seconds[choice]))
        # If nothing works, the first step fails as it would have without a choice, and says why.
        choice: Choice = "bf16-mixed" if math.isfinite(half) else "32-true"
        told = f", {seconds[choice]:.3f} s a step," if math.isfinite(seconds[choice]) else ","
        return choice, f"precision: {choice}{told} because a trial step in {wrong} failed or was not finite"
    if half * MARGIN <= full:
        return (
            "bf16-mixed",
            f"precision: bf16-mixed, because a step takes {half:.3f} s in it and {full:.3f} s in 32-true",
        )
    return "32-true", (
        f"precision: 32-true, because a step takes {full:.3f} s in it and {half:.3f} s in bf16-mixed, which is taken "
        f"where it is at least {MARGIN:g} times as fast"
    )


class _Trial:
    """Training steps on a copy of the method in one precision, always on the first batch."""

    def __init__(self, fabric: Fabric, recipe: Recipe[Any], method: Method, choice: Choice) -> None:
        self._fabric, self._recipe = fabric, recipe
        self._precision = Precision() if choice == "32-true" else MixedPrecision(choice, fabric.device.type)
        self._method = copy.deepcopy(method).train()
        self._optimizer = make_optimizer(self._method, recipe.optimizer)

    def step(self, batch: Batch) -> float:
        """Its seconds; infinite if it raised, or its loss or gradient was not finite."""
        device = self._fabric.device
        torch.manual_seed(step_seed(self._recipe.seed, 0, self._fabric.global_rank))
        here = batch.to(device)
        try:
            _wait(device)
            begin = time.perf_counter()
            with self._precision.forward_context():
                loss = self._method(here, 0.0).loss
            loss.backward()
            gradients = [p.grad for p in self._method.parameters() if p.grad is not None]
            finite = bool(torch.isfinite(loss) & torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
            if finite:
                self._optimizer.step()
                self._method.after_step(0.0)
            self._optimizer.zero_grad(set_to_none=True)
            _wait(device)
        except Exception:  # a kernel that is missing, a card that is full: this precision is not for this machine
            return math.inf
        return time.perf_counter() - begin if finite else math.inf


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
