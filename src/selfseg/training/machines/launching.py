"""Who started the processes of a run, and how many of them work.

torchrun and srun start processes themselves and tell each one its place in environment variables; those win over
`--devices` and `--nodes`. Without them Fabric starts the processes of a machine.

torchrun may start another number of processes after every failure. The batch is shared evenly by those that work, which
are as many as divide it; the others stand by, and are there for the next start.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from lightning.fabric.strategies import DDPStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from selfseg.errors import ConfigError, RunError
from selfseg.models.distributed import connect
from selfseg.telling import tell
from selfseg.training.recipe import Recipe

ALONE = 1800.0
"""Seconds that one process may work while the others wait for it, beside the time that it waits for a folder."""


@dataclass(frozen=True)
class Launch:
    """This process's place among those that a launcher has started.

    Attributes:
        by: "torchrun" or "srun".
        world: number of processes.
        rank: of this one, from 0.
        local_rank: its number on this machine, from 0.
        here: number of processes on this machine.
        node: number of this machine, from 0.
        nodes: number of machines.
        address: name of the machine of process 0.
        port: where process 0, or torchrun beside it, listens.
    """

    by: str
    world: int
    rank: int
    local_rank: int
    here: int
    node: int
    nodes: int
    address: str
    port: int


def find_launch(variables: Mapping[str, str] = os.environ) -> Launch | None:
    """What the environment tells of a launcher; None without one.

    torchrun comes first: srun may have started it. A single process of srun starts further ones itself.

    Args:
        variables: of the environment.

    Raises:
        ConfigError: if a variable that the launcher sets is missing or no number.

    Example:
        >>> find_launch({}) is None
        True
    """
    try:
        if "TORCHELASTIC_RUN_ID" in variables:
            return Launch(
                by="torchrun",
                world=int(variables["WORLD_SIZE"]),
                rank=int(variables["RANK"]),
                local_rank=int(variables["LOCAL_RANK"]),
                here=int(variables["LOCAL_WORLD_SIZE"]),
                node=int(variables["GROUP_RANK"]),
                nodes=int(variables["GROUP_WORLD_SIZE"]),
                address=variables["MASTER_ADDR"],
                port=int(variables["MASTER_PORT"]),
            )
        # Those of a step: a batch script has SLURM_NTASKS too, but is one process.
        if int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            node = int(variables["SLURM_NODEID"])
            hosts = variables.get("SLURM_STEP_NODELIST", "127.0.0.1")
            port = 15000 + (int(variables["SLURM_JOB_ID"]) + int(variables["SLURM_STEP_ID"])) % 10000
            return Launch(
                by="srun",
                world=int(variables["SLURM_STEP_NUM_TASKS"]),
                rank=int(variables["SLURM_PROCID"]),
                local_rank=int(variables["SLURM_LOCALID"]),
                here=_tasks_of(variables["SLURM_STEP_TASKS_PER_NODE"], node),
                node=node,
                nodes=int(variables["SLURM_STEP_NUM_NODES"]),
                address=variables.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(hosts),
                port=int(variables.get("MASTER_PORT", port)),
            )
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(
            f"the variables of torchrun or srun are not whole ({type(error).__name__}: {error}); start the command "
            "with one of them, or unset TORCHELASTIC_RUN_ID and SLURM_STEP_NUM_TASKS"
        ) from error
    return None


def _tasks_of(words: str, node: int) -> int:
    """The number of a node's tasks in Slurm's notation: "2(x3),1" is 2, 2, 2 and 1."""
    counts: list[int] = []
    for word in words.split(","):
        count, _, times = word.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts[node]


def working(launch: Launch, batch_size: int) -> int:
    """How many of the processes share a batch: the first ones, as many as divide it.

    Of srun all, because their number is what somebody has asked for: one that doesn't divide the batch is an error.

    Example:
        >>> of_three = Launch("torchrun", 3, 0, 0, 1, 0, 3, "localhost", 29500)
        >>> working(of_three, 16), working(of_three, 18)
        (2, 3)
    """
    if launch.by != "torchrun":
        return launch.world
    return max(count for count in range(1, launch.world + 1) if batch_size % count == 0)


class _Started(ClusterEnvironment):  # type: ignore[misc]
    """What a launcher has started, for Fabric; machines may have different numbers of processes."""

    def __init__(self, launch: Launch, world: int) -> None:
        super().__init__()
        self._launch, self._world = launch, world

    @property
    def creates_processes_externally(self) -> bool:
        """They are there."""
        return True

    @property
    def main_address(self) -> str:
        """Of process 0."""
        return self._launch.address

    @property
    def main_port(self) -> int:
        """Of process 0."""
        return self._launch.port

    @staticmethod
    def detect() -> bool:
        """It is never looked for."""
        return False

    def world_size(self) -> int:
        """Processes that work."""
        return self._world

    def set_world_size(self, size: int) -> None:
        """The launcher has said it."""

    def global_rank(self) -> int:
        """Of this process."""
        return self._launch.rank

    def set_global_rank(self, rank: int) -> None:
        """The launcher has said it."""

    def local_rank(self) -> int:
        """On this machine."""
        return self._launch.local_rank

    def node_rank(self) -> int:
        """Of this machine."""
        return self._launch.node


def make_fabric(recipe: Recipe[Any]) -> Fabric:
    """Devices, processes and precision as a recipe wants them, launched.

    Raises:
        ConfigError: if this machine has not as many devices, or the precision needs a GPU.
    """
    accelerator = recipe.accelerator
    gpus = torch.cuda.device_count()
    if accelerator == "auto":
        accelerator = "cuda" if gpus else "cpu"
    devices, nodes = recipe.devices or (max(gpus, 1) if accelerator == "cuda" else 1), recipe.nodes
    launch = find_launch()
    world = devices * nodes
    environment: ClusterEnvironment = LightningEnvironment()
    if launch is not None:
        world = working(launch, recipe.batch_size)
        devices, nodes = (launch.here, launch.nodes) if world > 1 else (1, 1)
        environment = _Started(launch, world)
        _tell_who_wins(recipe, launch, world)
    if accelerator == "cuda" and devices > gpus:
        asked = f"{launch.by} has started {devices} processes here" if launch else f"--devices {devices}"
        raise ConfigError(
            f"{asked} on cuda, but this machine has {gpus} CUDA devices; give fewer, or --accelerator cpu"
        )
    if accelerator == "cpu" and recipe.precision == "16-mixed":
        raise ConfigError("--precision 16-mixed needs a GPU; on a CPU take bf16-mixed or 32-true")
    strategy: Strategy | str = "auto"
    if world > 1:
        # Buffers are the same everywhere already: statistics are synchronised and the queue takes everybody's regions.
        names = inspect.signature(DistributedDataParallel).parameters
        older, newer = "broadcast_buffers", "forward_sync_buffers"  # torch renames it, and warns of the older name
        strategy = DDPStrategy(
            timeout=timedelta(seconds=ALONE + recipe.wait_folder), **{newer if newer in names else older: False}
        )
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it would tell the precision that was asked for
    precision = "32-true" if recipe.precision == "auto" else recipe.precision  # until it is chosen
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=precision,
        plugins=[environment],  # told, because Fabric warns wherever Slurm is installed
    )
    fabric.launch()
    return fabric


def _tell_who_wins(recipe: Recipe[Any], launch: Launch, world: int) -> None:
    if launch.rank > 0:
        return
    if recipe.devices not in (0, launch.here) or recipe.nodes not in (1, launch.nodes):
        tell(
            f"{launch.by} has started {launch.world} processes on {launch.nodes} machines, which is taken instead of "
            f"--devices {recipe.devices} --nodes {recipe.nodes}"
        )
    if world < launch.world:
        tell(
            f"{launch.world} processes can't share a batch of {recipe.batch_size} images evenly: {world} work and "
            f"{launch.world - world} stand by"
        )


def stand_by(recipe: Recipe[Any]) -> bool:
    """Wait for the end of the run where torchrun has started this process in vain; else return at once.

    Returns:
        Whether it stood by; the run is over then.

    Raises:
        RunError: if the process that would tell of the end can't be reached any more.
    """
    launch = find_launch()
    if launch is None or launch.rank < working(launch, recipe.batch_size):
        return False
    try:
        store = connect(launch.address, launch.port, 300)
        while not store.check([_over(recipe)]):
            time.sleep(0.5)
        store.add(_over(recipe) + "/seen", 1)
    except RuntimeError as error:  # torch's errors of networks are
        raise RunError(
            f"process {launch.rank}, which stands by, can't reach {launch.address}:{launch.port} any more"
        ) from error
    return True


@contextmanager
def telling_the_end(recipe: Recipe[Any]) -> Iterator[None]:
    """Tell those who stand by when what is inside has ended well; used by all that work."""
    launch = find_launch()
    world = 0 if launch is None else working(launch, recipe.batch_size)
    if launch is None or launch.rank > 0 or world == launch.world:
        yield
        return
    # Alone it makes no process group, whose store there would be, unless torchrun holds one for all.
    host = world == 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = connect(launch.address, launch.port, 300, host) if world == 1 else None
    yield
    with suppress(RuntimeError):  # torchrun ends them otherwise
        store = store or connect(launch.address, launch.port, 60)
        store.set(_over(recipe), "1")
        end = time.monotonic() + 10
        while store.add(_over(recipe) + "/seen", 0) < launch.world - world and time.monotonic() < end:
            time.sleep(0.1)


def _over(recipe: Recipe[Any]) -> str:
    place = str(recipe.out.absolute()).encode("utf-8", "surrogateescape")
    return f"selfseg/over/{hashlib.blake2b(place, digest_size=8).hexdigest()}"
