"""Promises 9 and 12: what is no number reaches no checkpoint and can be done again; a constant run is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from selfseg.errors import NonFiniteLoss
from selfseg.methods import Method
from selfseg.storage.checkpoint import load_newest
from selfseg.training import loop
from selfseg.training.guards.replaying import replay
from torture.parts._runs import photographs
from torture.rows import Row

PROMISE = "what is no number reaches no checkpoint and can be done again, and a constant run is told of"


def run(work: Path, quick: bool) -> list[Row]:
    """NaN and Inf in loss, gradient, weights and buffers after step 2; quick = NaN in the loss of one method."""
    from tiny import RUNS

    images = photographs(work)
    rows = []
    for name in ["vice"] if quick else RUNS:
        for value in (math.nan,) if quick else (math.nan, math.inf):
            for place in ("weights",) if quick else ("weights", "gradient", "buffers"):
                rows.append(_try(work, images, name, value, place))
    return rows


def _try(work: Path, images: Path, name: str, value: float, place: str) -> Row:
    from tiny import RUNS

    out = work / "numbers" / f"{name}-{place}-{value}"
    original, calls = loop._require_finite, [0]

    def poisoned(fabric: Any, recipe: Any, loss: Any, method: Method, *rest: Any) -> None:
        calls[0] += 1
        if calls[0] == 4 and place == "gradient":
            gradient = next(p.grad for p in method.parameters() if p.grad is not None)
            gradient[(0,) * gradient.ndim] = value
        original(fabric, recipe, loss, method, *rest)
        if calls[0] == 3 and place != "gradient":
            _spoil(method, value, place)

    loop._require_finite = poisoned
    problem = ""
    try:
        loop.train(RUNS[name](images, out, steps=6, checkpoint_every=1, accelerator="cpu", devices=1), progress=False)
        problem = "nothing was noticed"
    except NonFiniteLoss as error:
        said = str(error).splitlines()[0][:70]
    finally:
        loop._require_finite = original
    saved = load_newest(out / "checkpoints")
    if not problem:
        assert saved is not None
        if saved.step > 3 or not all(
            bool(torch.isfinite(v).all()) for v in saved.model.values() if v.is_floating_point()
        ):
            problem = f"the checkpoint of step {saved.step} was spoilt"
        for record in out.glob("nonfinite*.json"):
            again = replay(record)
            if place == "weights" and all(map(math.isfinite, again.values())):
                problem = f"done again it was {again}"
    told = problem or said
    return Row(f"{value} in the {place} of {name} is not saved", 1, not problem, told)


def _spoil(method: Method, value: float, place: str) -> None:
    chosen: Callable[[], Any] = method.parameters if place == "weights" else method.buffers
    with torch.no_grad():
        for tensor in chosen():
            if tensor.is_floating_point() and tensor.numel():
                tensor[(0,) * tensor.ndim] = value
                return
