"""Nothing that is no number reaches the weights or a checkpoint; what was met is kept, to be looked at again.

    RUN/nonfinite_step_12_rank_0.json           the step, what was no number, the batch's images
    RUN/nonfinite_step_12_rank_0.safetensors    the batch, and the weights that the step found

`selfseg.training.guards.replaying` does that step again.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from selfseg.data.reading.images import ImageCollection
from selfseg.errors import NonFiniteLoss
from selfseg.methods import Method
from selfseg.storage.files import write_json
from selfseg.storage.tensors import all_finite, write_tensors
from selfseg.training.processes import anywhere
from selfseg.training.recipe import Recipe
from selfseg.types import Batch

_ADVICE = "Try a lower --optimizer.base-lr, --optimizer.clip 1, or --precision 32-true; the last checkpoint is kept"


def require_finite(
    fabric: Fabric,
    recipe: Recipe[Any],
    loss: Tensor,
    method: Method,
    batch: Batch,
    images: ImageCollection,
    step: int,
) -> None:
    """Refuse a step whose loss or gradient is no number, in all processes, before it reaches the weights.

    Raises:
        NonFiniteLoss: after the step has been written down.
    """
    values = {"loss": loss.detach()}
    if recipe.precision != "16-mixed":  # there the gradient scaler expects and skips overflows
        gradients = [p.grad for p in method.parameters() if p.grad is not None]
        values["gradient"] = torch.nn.utils.get_total_norm(gradients)
    numbers = dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))  # waits for the device once
    wrong = [what for what, number in numbers.items() if not math.isfinite(number)]
    (anywhere_wrong,) = anywhere(fabric, bool(wrong))
    if not anywhere_wrong:
        return
    what = wrong[0] if wrong else "gradient"
    path = recipe.out / f"nonfinite_step_{step + 1}_rank_{fabric.global_rank}.json"
    index = batch.index.tolist()
    record = {
        "step": step + 1,
        "what": what,
        "value": str(numbers[what]),
        "index": index,
        "names": [images.names[i] for i in index],
        "progress": step / recipe.total_steps(len(images)),
        "rank": fabric.global_rank,
        "images": len(images),
    }
    _keep(path.with_suffix(".safetensors"), method, batch)
    write_json(path, record)
    raise NonFiniteLoss(
        f"the {what} of step {step + 1} is {numbers[what]} (here or in another process). The weights are those of "
        f"before this step. {path} lists its images, and selfseg.training.guards.replaying.replay repeats the step. "
        + _ADVICE
    )


def require_finite_state(method: Method, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Refuse to save weights, averages, queues or an optimiser's state with values that are no numbers.

    Raises:
        NonFiniteLoss: with the name of the first one.
    """
    state = dict(method.state_dict())
    for number, values in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{number}.{key}": value for key, value in values.items()}
    for name, value in state.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not all_finite(value):
            raise NonFiniteLoss(
                f"after step {step} {name} holds values that are not numbers, so nothing was saved. " + _ADVICE
            )


def _keep(path: Path, method: Method, batch: Batch) -> None:
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    for number, view in enumerate(batch.views):
        for part in ("image", "to_image", "regions"):
            tensors[f"view.{number}.{part}"] = getattr(view, part)
    tensors["index"] = batch.index
    write_tensors(path, {name: value.detach().clone() for name, value in tensors.items()})  # none may share memory
