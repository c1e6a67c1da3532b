"""torch.compile of the losses and of the training step: does it work, is it right, is it faster?"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from gpu_parts import material
from gpu_parts.harness import Job, difference
from gpu_parts.operations import Loss, loss_inputs
from selfseg.types import Batch, StepOutput

TITLE = "torch.compile"


def run(job: Job) -> None:
    """Losses first, which compile in seconds; then the embedder, then the whole step."""
    # A tiny run only traces: inductor would compile C++ for a minute.
    backend = "eager" if job.tiny else "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(job.work / "inductor"))
    for name, loss in list(loss_inputs(job).items())[-1 if job.tiny else 0 :]:
        if job.enough(2 if job.tiny else 20, f"compiled: {name}"):
            with job.attempt(f"compiled: {name}"):
                _compare(job, name, loss, backend)
    for name in ("vice_scratch",) if job.tiny else ("vice_scratch", "slotcon_scratch"):
        for whole in (False,) if job.tiny else (False, True):
            what = f"compiled {'step' if whole else 'network'} of {name}"
            if job.enough(3 if job.tiny else 45, what):
                with job.attempt(what):
                    _step(job, name, whole, backend, what)


def _compare(job: Job, name: str, loss: Loss, backend: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    loss = Loss(loss.make)  # its own, untouched by others
    compiled = torch.compile(loss.parts()[1], backend=backend)
    # The first call of each, from the same state: a step moves queues and centres, and with them the next loss.
    result = difference(Loss(loss.make)(), loss(compiled), 1e-3)["verdict"]
    eager, _ = job.seconds_of(loss, 7, 1, most=4)
    seconds, _ = job.seconds_of(lambda: loss(compiled), 7, 1, most=4)
    job.note(
        f"compiled: {name}",
        value=eager / seconds,
        unit="x as fast",
        eager_ms=1e3 * eager,
        compiled_ms=1e3 * seconds,
        result=result,
        **_graphs(),
    )


def _graphs() -> dict[str, int]:
    counters = torch._dynamo.utils.counters
    return {"graphs": counters["stats"].get("unique_graphs", 0), "breaks": sum(counters["graph_break"].values())}


def _step(job: Job, name: str, whole: bool, backend: str, what: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    recipe = material.small(name, job, job.work / name)
    count = 2 if job.tiny else 32
    batch: Batch = material.batch(recipe, count).to(job.device)
    mixed = torch.autocast(job.device.type, torch.bfloat16, enabled=not job.tiny)

    def build() -> Any:
        torch.manual_seed(0)
        return recipe.build_method().train().to(job.device).to(memory_format=torch.channels_last)

    def stepper(method: Any, call: Callable[[Batch, float], StepOutput]) -> Callable[[], float]:
        def step() -> float:
            with mixed:
                output = call(batch, 0.5)
            output.loss.backward()
            method.zero_grad(set_to_none=True)
            return float(output.loss.detach())

        return step

    plain, compiled = build(), build()
    if whole:
        eager, fast = stepper(plain, plain), stepper(compiled, torch.compile(compiled, backend=backend))
    else:
        for module in compiled.modules():
            if hasattr(module, "raw_views"):
                module.backbone.compile(backend=backend)
        eager, fast = stepper(plain, plain), stepper(compiled, compiled)
    losses = eager(), fast()
    before, memory = job.seconds_of(eager, 7, 1, most=6)
    after, less = job.seconds_of(fast, 7, 1, most=6)
    job.note(
        what,
        value=before / after,
        unit="x as fast",
        eager_ms=1e3 * before,
        compiled_ms=1e3 * after,
        gib=f"{memory:.2f} and {less:.2f}",
        loss=f"{losses[0]:.5f} and {losses[1]:.5f}",
        images=count,
        **_graphs(),
    )
