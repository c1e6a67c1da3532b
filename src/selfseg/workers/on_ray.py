"""Workers on a Ray cluster, one actor each.

Every machine needs selfseg, and the same paths for the run, the images and the results: a shared folder, or addresses
such as s3://. Ray starts the actors and carries shards to them and values back; which of them has what to do, and what
becomes of the work of those that die, is `selfseg.workers.pool`'s.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from selfseg.errors import ConfigError, RunError
from selfseg.ops.threads import use_cores
from selfseg.workers.plan import Job, Shard, address_of_ray
from selfseg.workers.pool import Died, Failure, Finished, Pool, Ready, perform

_CORES = 4  # of a worker, at most: it looks at so many images side by side
_PATIENCE = 60.0  # seconds that are waited for room in the cluster before it is said


class Actor:
    """What runs on the cluster.

    Args:
        cores: that it may use.
    """

    def __init__(self, cores: int) -> None:
        use_cores(cores)
        self._key: int | None = None
        self._work: Callable[[Shard[Any]], Iterator[Any]] | None = None

    def ready(self) -> Ready:
        """It has started."""
        return Ready()

    def do(self, key: int, job: Job[Any], shard: Shard[Any]) -> Finished:
        """Do a shard of a job, which is opened when its key is new."""
        if self._key != key or self._work is None:
            import traceback

            try:
                self._work, self._key = job.open(), key
            except Exception as error:
                return Finished(Failure(type(error).__name__, str(error), traceback.format_exc()), 0.0)
        return perform(self._work, shard)


class RayWorkers(Pool[Any]):
    """Actors on a Ray cluster.

    Args:
        address: of the cluster, see `selfseg.workers.plan.Where`.
        workers: how many; 0 = as many as there is room for.
        what: for the progress bar.
        progress: whether to show one on stderr.
        device: that jobs use; see `selfseg.workers.plan.hire`.

    Raises:
        ConfigError: if Ray isn't installed.
        RunError: if there is no such cluster, or no room in it.
    """

    def __init__(self, address: str, workers: int, what: str, progress: bool, device: str) -> None:
        super().__init__(what, progress)
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ConfigError("--ray needs Ray: pip install 'selfseg[ray]'") from error
        self._mine = not self._ray.is_initialized()
        if self._mine:
            try:
                self._ray.init(address=address_of_ray(address), log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RunError(
                    f"there is no Ray cluster at {address}: {error}. Start one with `ray start --head`, give its "
                    "address with --ray, or take --ray local"
                ) from error
        room = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [int(one.get("CPU", 0)) for one in room]
        gpus = sum(int(one.get("GPU", 0)) for one in room)
        self._on_gpus = gpus > 0 and device != "cpu"
        self._cores = max(1, min([_CORES, *(count for count in cpus if count)]))
        places = gpus if self._on_gpus else sum(count // self._cores for count in cpus)
        if not places:
            raise RunError(f"the Ray cluster at {address} has no CPU to work with; add a node with `ray start`")
        self._workers = workers or places
        self._jobs: list[tuple[Job[Any], Any]] = []  # with their reference in the cluster's memory
        self._asked: dict[Any, Any] = {}  # worker by answer that is waited for
        options: dict[str, Any] = {"num_cpus": self._cores, "max_restarts": 0}
        if self._on_gpus:
            options["num_gpus"] = 1
        self._actor = self._ray.remote(**options)(Actor)

    def names(self) -> list[str]:
        """As of every pool."""
        return [f"worker {number}" for number in range(self._workers)]

    def start(self, name: str) -> Any:
        """As of every pool."""
        del name
        member = self._actor.remote(self._cores)
        self._asked[member.ready.remote()] = member
        return member

    def send(self, member: Any, job: Job[Any], shard: Shard[Any]) -> None:
        """As of every pool."""
        if not self._jobs or self._jobs[-1][0] is not job:
            self._jobs.append((job, self._ray.put(job)))
        self._asked[member.do.remote(len(self._jobs), self._jobs[-1][1], shard)] = member

    def listen(self) -> tuple[Any, Ready | Finished | Died]:
        """As of every pool."""
        while True:
            done, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=_PATIENCE)
            if done:
                break
        member = self._asked.pop(done[0])
        try:
            return member, self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:
            with suppress(Exception):
                self._ray.kill(member)
            return member, Died(type(error).__name__)

    def end(self, member: Any) -> None:
        """As of every pool."""
        with suppress(Exception):
            self._ray.kill(member)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._mine:
            self._ray.shutdown()
