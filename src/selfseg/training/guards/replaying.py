"""Do a step again whose loss or gradient was no number (`selfseg.training.guards.finite` has what is kept of it)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from selfseg.errors import RunError
from selfseg.fitting.stepping import step_seed
from selfseg.storage.files import read_json
from selfseg.training.loop import Box, TrainingStep
from selfseg.training.machines.launching import make_fabric
from selfseg.training.recipe import read_recipe
from selfseg.types import Batch, View


def replay(record: Path | str) -> dict[str, float]:
    """Do the step of a `nonfinite_*.json` again, on this machine.

    Running statistics and queues may hold the batch already; of a run of several processes it is the step of one of
    them, by itself.

    Args:
        record: the file, in its run's folder.

    Returns:
        "loss", and "gradient", the norm of its gradient, as they come out.

    Raises:
        RunError: if what belongs to the record can't be read.
    """
    record = Path(record)
    try:
        told = read_json(record)
        kept = load_file(record.with_suffix(".safetensors"))
        step, views = int(told["step"]) - 1, len([name for name in kept if name.endswith(".to_image")])
        parts = [{p: kept[f"view.{number}.{p}"] for p in ("image", "to_image", "regions")} for number in range(views)]
        batch = Batch(tuple(View(**part) for part in parts), kept["index"])
        share, rank, images = float(told["progress"]), int(told["rank"]), int(told["images"])
    except Exception as error:  # missing, cut, edited: all mean the same
        raise RunError(f"can't read what belongs to {record}: {type(error).__name__}: {error}") from error
    recipe = read_recipe(record.parent / "recipe.yaml")
    fabric = make_fabric(replace(recipe, devices=1, nodes=1))
    method = recipe.build_method(images).to(fabric.device).to(memory_format=torch.channels_last)
    method.load_state_dict({name[7:]: value for name, value in kept.items() if name.startswith("method.")})
    wrapped = fabric.setup(TrainingStep(method)).train()
    torch.manual_seed(step_seed(recipe.seed, step, rank))
    loss = wrapped(Box((batch.to(fabric.device), share))).content.loss
    fabric.backward(loss)
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    return {"loss": float(loss.detach()), "gradient": float(torch.nn.utils.get_total_norm(gradients))}
