"""The run's folder, which all processes share: on a network it may show late what another wrote, or vanish."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from selfseg.errors import CheckpointError, ConfigError
from selfseg.storage.checkpoint import Checkpoint, load_checkpoint, load_newest
from selfseg.storage.files import OUTPUT_MARKER
from selfseg.storage.waiting import Patience, is_there, vanished_output
from selfseg.training.processes import together
from selfseg.training.recipe import Recipe

LOCK = 120.0
"""Seconds that a process started by torchrun or srun waits for the folder's lock: a server of files lets go of that of
a machine that is gone after 90 s (NFS)."""

_LATE = 90.0
"""Seconds in which a machine sees what another one has written: NFS looks again after 60 s at the latest."""


def writing(recipe: Recipe[Any]) -> Patience:
    """How long writing to the run's folder waits for it."""
    return Patience(recipe.wait_folder)


def first_writes(fabric: Fabric, recipe: Recipe[Any], write: Callable[[], object]) -> None:
    """Let the first process write to the run's folder, and wait for a folder that has vanished.

    Args:
        fabric: all of its processes must call this.
        recipe: of the run.
        write: may be called twice.

    Raises:
        RunError: in all processes, if it fails in the first one.
    """
    with together(fabric):
        if fabric.is_global_zero:
            writing(recipe).outlast(write, lambda: vanished_output(recipe.out))


def require_shared(fabric: Fabric, run: Path) -> None:
    """Make sure that every process sees the folder that the first one has made.

    Raises:
        ConfigError: if one doesn't.
    """
    with together(fabric):
        end = time.monotonic() + _LATE
        while not is_there(run / OUTPUT_MARKER):
            if time.monotonic() > end:
                raise ConfigError(
                    f"process {fabric.global_rank} doesn't see {run}, where process 0 has begun the run; give --out a "
                    "folder that all machines share"
                )
            time.sleep(0.5)


def newest_of_all(fabric: Fabric, run: Path) -> Checkpoint | None:
    """The newest complete checkpoint that the first process sees, in all processes; None if there is none.

    Raises:
        CheckpointError: if none is usable, or a process can't read the one that the others go on from.
    """
    with together(fabric):
        found = load_newest(run / "checkpoints")
    step: int = fabric.broadcast(-1 if found is None else found.step)
    with together(fabric):
        end = time.monotonic() + _LATE
        while step != (-1 if found is None else found.step):
            try:
                found = None if step < 0 else load_checkpoint(run / "checkpoints" / f"step_{step:08d}")
            except CheckpointError as error:
                if time.monotonic() > end:
                    raise CheckpointError(
                        f"process {fabric.global_rank} can't read the checkpoint of step {step} in {run}, from which "
                        f"process 0 goes on ({error}); give --out a folder that all machines share"
                    ) from error
                time.sleep(1)
    return found
