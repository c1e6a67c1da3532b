"""Workers on a Ray cluster, one actor each.

Every machine needs selfseg, and the same paths for the run, the images and the results: a shared folder, or addresses
such as s3://. Ray starts the actors and carries shards to them and values back; which of them has what to do, and what
becomes of the work of those that die, is `selfseg.workers.pool`'s.
"""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from selfseg.errors import ConfigError, MissingExtra, RunError
from selfseg.telling import tell
from selfseg.threads import use_cores
from selfseg.workers.pipes import packed, unpacked
from selfseg.workers.plan import Job, Shard
from selfseg.workers.pool import Died, Failure, Finished, Pool, Ready, perform

_CORES = 4  # of a worker, at most: it looks at so many images side by side
_PATIENCE = 60.0  # seconds without any worker, after which it is said, and then each time it has doubled


class Actor:
    """What runs on the cluster.

    Args:
        cores: that it may use.
        folder: that paths are relative to.
    """

    def __init__(self, cores: int, folder: str) -> None:
        use_cores(cores)
        with suppress(OSError):  # there may be no such folder, nor any need for it
            os.chdir(folder)
        self._key: int | None = None
        self._work: Callable[[Shard[Any]], Iterator[Any]] | None = None

    def ready(self) -> Ready:
        """It has started."""
        return Ready()

    def do(self, key: int, job: Job[Any], shard: Shard[Any]) -> bytes:
        """Do a shard of a job, which is opened when its key is new; packed, as Ray's own arrays can't be written to."""
        return packed(self._do(key, job, shard))

    def _do(self, key: int, job: Job[Any], shard: Shard[Any]) -> Finished:
        if self._key != key or self._work is None:
            self._work = None  # before the next one is loaded
            try:
                self._work, self._key = job.open(), key
            except Exception as error:
                return Finished(Failure.of(error), 0.0)
        return perform(self._work, shard)


class RayWorkers(Pool[Any]):
    """Actors on a Ray cluster.

    Args:
        address: of the cluster, see `selfseg.workers.plan.Where`.
        workers: how many; 0 = as many as there is room for.
        what: for the progress bar.
        progress: whether to show one on stderr.
        device: that jobs use; see `selfseg.workers.hiring.hire`.

    Raises:
        MissingExtra: if Ray isn't installed.
        RunError: if there is no such cluster, or no room in it.
    """

    def __init__(self, address: str, workers: int, what: str, progress: bool, device: str) -> None:
        super().__init__(what, progress)
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise MissingExtra("--ray", "ray", "ray") from error
        self._mine = not self._ray.is_initialized()
        if self._mine:
            self._connect(address)
        try:
            self._plan(address, workers, device)
        except BaseException:
            self._leave()
            raise

    def _connect(self, address: str) -> None:
        where = _address(address)
        alone: dict[str, Any] = {}
        host, _, port = where.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():
            try:  # Ray itself would try for minutes
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            except OSError as error:
                raise _no_cluster(address, error) from error
        if where == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it sends some to its makers
            alone = {"include_dashboard": False}
        try:
            self._ray.init(address=where, log_to_driver=False, logging_level="ERROR", **alone)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, error) from error

    def _plan(self, address: str, workers: int, device: str) -> None:
        """Decide how large workers are, and how many."""
        room = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [int(one.get("CPU", 0)) for one in room]
        gpus = sum(int(one.get("GPU", 0)) for one in room)
        on_gpus = gpus > 0 and device != "cpu"
        self._cores = max(1, min([_CORES, *(count for count in cpus if count)]))
        places = gpus if on_gpus else sum(count // self._cores for count in cpus)
        if not places:
            raise RunError(f"the Ray cluster at {address} has no CPU to work with; add a node with `ray start`")
        self._workers = workers or places
        self._job: Job[Any] | None = None
        self._reference: Any = None  # of the job in the cluster's memory
        self._key = 0
        self._asked: dict[Any, Any] = {}  # worker by answer that is waited for
        self._begun = False  # whether any worker has
        options: dict[str, Any] = {"num_cpus": self._cores, "max_restarts": 0}
        if on_gpus:
            options["num_gpus"] = 1
        self._actor = self._ray.remote(**options)(Actor)

    def names(self) -> list[str]:
        """As of every pool."""
        return [f"worker {number}" for number in range(self._workers)]

    def start(self, name: str) -> Any:
        """As of every pool."""
        del name
        member = self._actor.remote(self._cores, os.getcwd())
        self._asked[member.ready.remote()] = member
        return member

    def send(self, member: Any, job: Job[Any], shard: Shard[Any]) -> None:
        """As of every pool; raises ConfigError for a job that can't be pickled."""
        try:
            if self._job is not job:
                self._reference, self._job, self._key = self._ray.put(job), job, self._key + 1
            self._asked[member.do.remote(self._key, self._reference, shard)] = member
        except TypeError as error:
            raise ConfigError(
                f"what this call was given can't be handed to other machines ({error}); give folders and files "
                "instead of objects, or leave out --ray"
            ) from error

    def listen(self) -> tuple[Any, Ready | Finished | Died]:
        """As of every pool."""
        begun, patience = time.monotonic(), _PATIENCE
        while True:
            done, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=_PATIENCE)
            if done:
                break
            waited = time.monotonic() - begun
            if not self._begun and waited >= patience:
                patience *= 2
                tell(
                    f"no worker could be started on the Ray cluster for {waited / 60:.0f} min: each needs "
                    f"{self._cores} free CPUs, and a GPU where there are some. `ray status` shows who has them; the "
                    "work begins as soon as there is room"
                )
        member = self._asked.pop(done[0])
        try:
            said = self._ray.get(done[0])
            self._begun = True
            return member, unpacked(said) if isinstance(said, bytes) else said
        except self._ray.exceptions.RayTaskError as error:  # of the arguments or the answer: `Actor.do` raises nothing
            return member, Finished(Failure.of(error), 0.0)
        except self._ray.exceptions.RayError as error:
            with suppress(Exception):
                self._ray.kill(member)
            reason = " ".join(str(error).split())
            return member, Died(f"{type(error).__name__}: {reason[:300]}")

    def end(self, members: Sequence[Any]) -> None:
        """As of every pool."""
        for member in members:
            with suppress(Exception):
                self._ray.kill(member)
        self._asked = {answer: one for answer, one in self._asked.items() if not any(one is each for each in members)}

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._mine:
            self._ray.shutdown()


def _no_cluster(address: str, error: Exception) -> RunError:
    return RunError(
        f"there is no Ray cluster at {address}: {error}. Start one with `ray start --head`, give its address with "
        "--ray, or take --ray local"
    )


def _address(wish: str) -> str:
    """What `ray.init` takes as the address; "local" starts a cluster, even if RAY_ADDRESS names one."""
    return os.environ.get("RAY_ADDRESS", "auto") if wish == "auto" else wish
