"""Processes that are slow, stopped or killed: the others wait for the first, and end because of the other two."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny import TWO_PROCESSES, free_port, ready_to_fork, train_tiny

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

LIMIT = 2.0


def one_of_two(rank: int, port: str, told: Path, images: Path, out: Path, what: dict[int, str]) -> None:
    """Train as one process of two; process 1 does something before some steps."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, NODE_RANK="0", LOCAL_RANK=str(rank))
    stderr = os.open(told, os.O_WRONLY | os.O_CREAT)
    os.dup2(stderr, 2)
    from selfseg.errors import SelfsegError
    from selfseg.training import loop

    original = loop.take_step

    def step(fabric: Any, recipe: Any, wrapped: Any, optimizer: Any, batch: Any, step: int, *rest: Any) -> Any:
        if rank == 1 and step in what:
            if what[step] == "sleep":
                time.sleep(1.5 * LIMIT)
            else:
                os.kill(os.getpid(), signal.Signals[what[step]])
        return original(fabric, recipe, wrapped, optimizer, batch, step, *rest)

    loop.take_step = step
    try:
        settings = {**TWO_PROCESSES, "devices": 2, "wait_process": LIMIT, "checkpoint_every": 2, "steps": 8}
        train_tiny("vice", images, out, settings)
    except SelfsegError as error:
        os.write(2, f"raised: {error}".encode())
        os._exit(error.exit_code)
    os._exit(0)


@pytest.fixture
def pair(photos: Path, tmp_path: Path) -> Iterator[Any]:
    """Starts two processes and returns them with the files of their messages; kills what is left."""
    context = ready_to_fork()
    started: list[Any] = []

    def start(what: dict[int, str]) -> tuple[list[Any], list[Path]]:
        port, told = free_port(), [tmp_path / f"told{rank}" for rank in range(2)]
        for rank in range(2):
            words = (rank, port, told[rank], photos, tmp_path / "run", what)
            started.append(context.Process(target=one_of_two, args=words))
            started[-1].start()
        return started, told

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_slow_process_is_waited_for_and_a_stopped_one_ends_the_others(pair: Any, tmp_path: Path) -> None:
    (first, second), told = pair({1: "sleep", 5: "SIGSTOP"})
    first.join(60)
    assert first.exitcode == 4, told[0].read_text()
    text = " ".join(told[0].read_text().split())
    expected = f"process 1 on {socket.gethostname()} gives no sign of life for {LIMIT:g} s"
    assert expected in text
    assert second.is_alive(), "it is stopped, and nothing else has ended it"
    # It slept for longer than the limit before step 2, and the run went on.
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*"))[-1] == "step_00000004"


def test_a_stopped_process_0_which_holds_the_store_ends_the_others(pair: Any) -> None:
    (first, second), told = pair({3: "sleep"})
    while not (told[0].parent / "run" / "checkpoints" / "step_00000002").exists() and first.is_alive():
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGSTOP)
    second.join(60)
    assert second.exitcode == 4, told[1].read_text()
    assert f"process 0 on {socket.gethostname()} gives no sign of life" in " ".join(told[1].read_text().split())


def test_a_killed_process_is_named(pair: Any) -> None:
    (first, second), told = pair({3: "SIGKILL"})
    first.join(60)
    second.join(60)
    assert second.exitcode == -signal.SIGKILL
    assert first.exitcode == 4, told[0].read_text()
    assert f"process 1 on {socket.gethostname()} has ended or can't be reached" in told[0].read_text()
