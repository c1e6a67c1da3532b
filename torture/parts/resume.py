"""Promise 2: a run that was stopped and went on is, by a hash of everything, the run that was not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision

from selfseg.errors import Interrupted
from selfseg.training import loop
from torture.parts._runs import photographs, state_hash
from torture.rows import Row

PROMISE = "a run that was stopped and continued is, by a hash of everything, the run that was never stopped"

STEPS = 6  # two epochs of three
EDGE, WITHIN = 3, 4


def run(work: Path, quick: bool) -> list[Row]:
    """Stop and go on: quick = one method within an epoch; in full every method, precision and number of workers."""
    from tiny import RUNS

    images = photographs(work)
    if quick:
        return [_compare(work, images, "vice", [WITHIN], {"steps": 5})]
    rows = [_compare(work, images, name, [EDGE, WITHIN], {}) for name in RUNS]
    rows += [_compare(work, images, name, [WITHIN], {"precision": "bf16-mixed"}) for name in RUNS]
    rows += [_compare(work, images, name, [WITHIN], {"precision": "16-mixed", "steps": 12}) for name in RUNS]
    rows += [_compare(work, images, "vice", [EDGE, WITHIN], {"workers": count}) for count in (2, 8)]
    return rows


def _compare(work: Path, images: Path, method: str, stops: list[int], settings: dict[str, Any]) -> Row:
    from tiny import RUNS

    told = "".join(f", {key} {value}" for key, value in settings.items() if key != "steps")
    before = loop.make_fabric
    if settings.get("precision") == "16-mixed":
        loop.make_fabric = _half
    try:
        make, base = RUNS[method], work / "resume" / f"{method}{told.replace(' ', '').replace(',', '-')}"
        settings = {"steps": STEPS, "accelerator": "cpu", "devices": 1, **settings}
        # The one that is not stopped reads in its own process.
        loop.train(make(images, base / "straight", **{**settings, "workers": 0}), progress=False)
        wanted, found = state_hash(base / "straight"), []
        for stop in stops:
            recipe = make(images, base / f"stopped{stop}", **settings)
            with _signal_after(stop), suppress(Interrupted):
                loop.train(recipe, progress=False)
            loop.train(recipe, progress=False)
            found.append(state_hash(recipe.out))
    finally:
        loop.make_fabric = before
    ok = all(each == wanted for each in found)
    return Row(f"stopped and resumed = straight: {method}{told}", len(stops), ok, f"{wanted}; {', '.join(found)}")


@contextmanager
def _signal_after(step: int) -> Iterator[None]:
    """While inside, a SIGTERM comes within a step."""
    original, calls = loop._require_finite, [0]

    def counted(*words: Any) -> None:
        original(*words)
        calls[0] += 1
        if calls[0] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    loop._require_finite = counted
    try:
        yield
    finally:
        loop._require_finite = original


def _half(recipe: Any) -> Fabric:
    """Selfseg refuses 16-mixed on a CPU, and so does Fabric. The scale overflows at once, then grows now and then."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=2)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    fabric.launch()
    return fabric
