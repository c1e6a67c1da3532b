"""What the processes of one run must do together: agree, and fail.

A process that raises alone leaves the others waiting in their next collective. So whatever can fail in one process
(the first one writes, each one reads its own images) is agreed on before any of them goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric

from selfseg.errors import RunError
from selfseg.models.distributed import sum_over_processes


def anywhere(fabric: Fabric, *flags: bool) -> tuple[bool, ...]:
    """Each flag, true if it is true in any process; one collective, none in a run of one process."""
    if fabric.world_size == 1:
        return flags
    count = sum_over_processes(torch.tensor(flags, dtype=torch.float32, device=fabric.device))
    return tuple((count > 0).tolist())


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """What fails inside in one process is raised in all of them; every process must enter.

    Raises:
        RunError: in the processes that did not fail themselves.
    """
    problem: Exception | None = None
    try:
        yield
    except Exception as error:
        problem = error
    raise_together(fabric, problem, *anywhere(fabric, problem is not None))


def raise_together(fabric: Fabric, problem: Exception | None, failed: bool) -> None:
    """Raise this process's problem, or that another one has failed, or nothing."""
    if problem is not None:
        raise problem
    if failed:
        raise RunError(f"process {fabric.global_rank} stops because another one of this run failed; see its message")
