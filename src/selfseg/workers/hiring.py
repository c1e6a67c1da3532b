"""Who does the work, by what the caller said of where."""

from __future__ import annotations

from selfseg.workers.on_ray import RayWorkers
from selfseg.workers.plan import Here, Where, Workers
from selfseg.workers.processes import ProcessWorkers


def hire(where: Where, what: str, progress: bool = True, device: str = "auto") -> Workers:
    """Those who do the work.

    Args:
        where: it is done.
        what: for the progress bar.
        progress: whether to show one on stderr.
        device: that the jobs use; on Ray each worker is given a GPU if there are some and this isn't "cpu".

    Raises:
        ConfigError: if Ray isn't installed.
        RunError: if there is no such cluster.
    """
    if where.here:
        return Here()
    if where.ray is not None:
        return RayWorkers(where.ray, where.processes, what, progress, device)
    return ProcessWorkers(where.processes, what, progress)
