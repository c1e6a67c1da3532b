"""torchrun and srun start processes: with more and fewer of them a run goes on, on the same samples."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import pytest

from selfseg.data.loader import StepSampler
from selfseg.errors import ConfigError
from selfseg.storage.hashes import run_hash
from selfseg.training.log import read_log
from selfseg.training.machines.launching import Launch, find_launch, working
from tiny import TWO_PROCESSES, free_port, ready_to_fork, train_tiny

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "examples" / "machines"
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "r", "WORLD_SIZE": "6", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "29500",
}  # fmt: skip
SRUN = {
    "SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_NUM_NODES": "3", "SLURM_STEP_TASKS_PER_NODE": "3(x2),1",
    "SLURM_STEP_NODELIST": "gpu[07-09]", "SLURM_PROCID": "6", "SLURM_LOCALID": "0", "SLURM_NODEID": "2",
    "SLURM_JOB_ID": "123456", "SLURM_STEP_ID": "0",
}  # fmt: skip


def test_a_process_knows_its_place() -> None:
    assert find_launch({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None  # a batch script is one process
    assert find_launch(TORCHRUN) == Launch("torchrun", 6, 5, 1, 2, 1, 2, "a", 29500)
    assert find_launch(SRUN) == Launch("srun", 7, 6, 0, 1, 2, 3, "gpu07", 18456)
    assert find_launch({**SRUN, "MASTER_ADDR": "b", "MASTER_PORT": "1"}) == Launch("srun", 7, 6, 0, 1, 2, 3, "b", 1)
    assert find_launch({**SRUN, **TORCHRUN}) == find_launch(TORCHRUN)  # srun may start torchrun
    assert find_launch({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}) is None
    for broken in ({**TORCHRUN, "RANK": "x"}, {k: v for k, v in SRUN.items() if k != "SLURM_NODEID"}):
        with pytest.raises(ConfigError, match="not whole"):
            find_launch(broken)


def test_as_many_processes_work_as_divide_the_batch() -> None:
    launch = find_launch(TORCHRUN)
    assert launch is not None
    assert [working(launch, batch) for batch in (12, 10, 7, 4, 1024)] == [6, 5, 1, 4, 4]
    srun = find_launch(SRUN)
    assert srun is not None
    assert working(srun, 10) == 7  # which the sampler refuses: somebody has asked for seven


def test_no_sample_is_lost_or_twice_in_an_epoch_when_the_number_of_processes_changes() -> None:
    n, batch, epochs = 30, 6, 4
    alone = list(StepSampler(n, batch, 0, epochs * n // batch, seed=3))
    elastic = []
    for world, first, last in ((2, 0, 7), (1, 7, 11), (3, 11, 12), (2, 12, 20)):
        parts = [list(StepSampler(n, batch, first, last, 3, rank, world)) for rank in range(world)]
        elastic += [list(chain.from_iterable(step)) for step in zip(*parts, strict=True)]
    assert elastic == alone
    seen = Counter(key for step in elastic for key in step)
    assert set(seen.values()) == {1}
    assert len(seen) == n * epochs


def started(rank: int, world: int, port: str, images: Path, out: Path, what: dict[int, str]) -> None:
    """Train as a process of torchrun; the last one that works sends itself a signal before some steps."""
    torchrun = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": 1}
    torchrun |= {"GROUP_RANK": rank, "GROUP_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in torchrun.items()}, TORCHELASTIC_RUN_ID="tested")
    stderr = os.open(out.parent / f"told{world}{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stderr, 2)
    from selfseg.errors import SelfsegError
    from selfseg.training import loop

    original = loop.take_step

    def step(fabric: Any, recipe: Any, wrapped: Any, optimizer: Any, batch: Any, step: int, *rest: Any) -> Any:
        if step in what and fabric.global_rank == fabric.world_size - 1:
            os.kill(os.getpid(), signal.Signals[what[step]])
        with open(out.parent / "steps.txt", "a") as file:
            file.write(json.dumps([step, fabric.world_size, fabric.global_rank, batch.index.tolist()]) + "\n")
        return original(fabric, recipe, wrapped, optimizer, batch, step, *rest)

    loop.take_step = step
    try:
        settings = {**TWO_PROCESSES, "steps": 12, "checkpoint_every": 2, "wait_process": 5.0, "devices": 8}
        train_tiny("vice", images, out, settings)
    except SelfsegError as error:
        os.write(2, f"raised: {error}".encode())
        os._exit(error.exit_code)
    os._exit(0)


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_processes_and_with_more_on_the_same_samples(photos: Path, tmp_path: Path) -> None:
    def machines(count: int, what: dict[int, str]) -> list[int | None]:
        port = free_port()
        words = [(rank, count, port, photos, tmp_path / "run", what) for rank in range(count)]
        processes = [ready_to_fork().Process(target=started, args=each) for each in words]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            process.kill()
        return [process.exitcode for process in processes]

    assert machines(2, {5: "SIGKILL"}) == [4, -signal.SIGKILL]
    begun = run_hash(tmp_path / "run")
    assert machines(1, {8: "SIGTERM"}) == [75]
    assert machines(3, {}) == [0, 0, 0]  # a batch of 4 images: two work, and the third one stands by
    assert run_hash(tmp_path / "run") == begun
    rows = [json.loads(line) for line in (tmp_path / "steps.txt").read_text().splitlines()]
    assert [world for world, _ in groupby(row[1] for row in rows)] == [2, 1, 2]
    done = {(world, step) for step, world, _, _ in rows}
    assert {(2, 4), (1, 4), (1, 8), (2, 9)} <= done  # from the newest checkpoint, and from where a signal saved
    # What counts of a step is the last time that it was done, by all who did it then.
    samples: dict[int, dict[int, list[int]]] = {}
    for step, world, rank, index in rows:
        if step in samples and (world == 1 or len(samples[step]) == world):
            samples[step] = {}
        samples.setdefault(step, {})[rank] = index
    samples[4], samples[5] = ({0: row[3]} for row in rows if row[0] in (4, 5) and row[1] == 1)
    expected = [[index for _, index in step] for step in StepSampler(6, 4, 0, 12, 0)]
    parts = [part for _, part in sorted(samples.items())]
    assert [list(chain.from_iterable(part[rank] for rank in sorted(part))) for part in parts] == expected
    assert "resuming" in (tmp_path / "told30").read_text()
    assert not (tmp_path / "told32").read_text(), "who stands by has nothing to say"
    train_tiny("vice", photos, tmp_path / "straight", {**TWO_PROCESSES, "steps": 12})
    losses = [[line["loss"] for line in read_log(tmp_path / name)] for name in ("straight", "run")]
    assert len(losses[0]) == 12
    # From step to step they change by some 1; sums in another order grow to 1e-3 here (docs/machines.md).
    assert losses[1] == pytest.approx(losses[0], abs=5e-3)


# Writes its words to WORDS, one a line.
_STUB = """#!/usr/bin/env bash
printf '%s\n' "$@" > "$WORDS"
"""


def test_the_script_for_torchrun_asks_it_for_what_it_says(tmp_path: Path) -> None:
    from torch.distributed.run import parse_args

    stub = tmp_path / "python"
    stub.write_text(_STUB)
    stub.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stub), "WORDS": str(tmp_path / "words"), "NODES": "1:4"}
    environment |= {"RENDEZVOUS": "gpu7:29500", "PROCESSES": "8", "RDZV_CONF": "last_call_timeout=10"}
    script = str(SCRIPTS / "torchrun.sh")
    subprocess.run(["bash", script, "vice", "two words", "--out", "r"], env=environment, check=True)
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:2] == ["-m", "torch.distributed.run"]
    asked = parse_args(words[2:])
    assert (asked.nnodes, asked.nproc_per_node, asked.max_restarts) == ("1:4", "8", 10)
    assert (asked.rdzv_backend, asked.rdzv_endpoint, asked.rdzv_conf) == ("c10d", "gpu7:29500", "last_call_timeout=10")
    assert asked.module
    assert [asked.training_script, *asked.training_script_args] == [
        "selfseg", "train", "vice", "two words", "--out", "r",
    ]  # fmt: skip


def slurm(tmp_path: Path, srun: str, words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """The script for Slurm with commands of ours in place of Slurm's; scontrol writes its words to a file."""
    scontrol = f"#!/usr/bin/env bash\necho \"$@\" >> '{tmp_path / 'scontrol.txt'}'\n"
    for name, text in (("srun", srun), ("scontrol", scontrol)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable, **variables}
    script = ["bash", str(SCRIPTS / "slurm.sh"), *words]
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(("code", "again"), [(75, True), (4, False), (0, False)])
def test_slurm_gives_another_turn_to_a_run_that_a_signal_has_stopped(tmp_path: Path, code: int, again: bool) -> None:
    script = str(SCRIPTS / "slurm.sh")
    subprocess.run(["bash", "-n", script], check=True)
    done = slurm(tmp_path, f"#!/usr/bin/env bash\nexit {code}\n", ["vice"], SLURM_JOB_ID="4242")
    assert done.returncode == code
    assert (tmp_path / "scontrol.txt").exists() == again
    if again:
        assert (tmp_path / "scontrol.txt").read_text() == "requeue 4242\n"


def test_the_script_for_slurm_lets_srun_start_what_it_was_given(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(_STUB)
    stub.chmod(0o755)
    srun = '#!/usr/bin/env bash\n[ "$1" = --kill-on-bad-exit=1 ] || exit 9\nshift\n"$@"\n'
    done = slurm(tmp_path, srun, ["vice", "two words"], PYTHON=str(stub), WORDS=str(tmp_path / "words"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "words").read_text().splitlines() == ["-m", "selfseg", "train", "vice", "two words"]


def started_by_srun(number: int, port: str, words: list[str], told: Path) -> None:
    """The command as a task of two on one machine."""
    srun = {"SLURM_JOB_ID": 4242, "SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": 2, "SLURM_STEP_NUM_NODES": 1}
    srun |= {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_TASKS_PER_NODE": 2, "SLURM_NODEID": 0}
    srun |= {"SLURM_PROCID": number, "SLURM_LOCALID": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in srun.items()})
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(told / f"{name}{number}", os.O_WRONLY | os.O_CREAT), stream)
    from selfseg.cli import main

    code = main(words)
    sys.stdout.flush()
    os._exit(code)


@pytest.mark.slow
def test_the_command_trains_by_as_many_processes_as_srun_starts(photos: Path, tmp_path: Path) -> None:
    words = ["train", "vice", str(photos), "--out", str(tmp_path / "run"), "--steps", "2", "--batch-size", "2"]
    words += "--workers 0 --log-every 1 --precision 32-true --accelerator cpu --devices 5".split()
    words += "--method.views.size 32 --method.views.short-side 48 --method.embedder.dim 8 --method.queue 10".split()
    port = free_port()
    tasks = [
        ready_to_fork().Process(target=started_by_srun, args=(number, port, words, tmp_path)) for number in range(2)
    ]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(120)
        task.kill()
    out, err = (
        "".join((tmp_path / f"{name}{number}").read_text() for number in range(2)) for name in ("stdout", "stderr")
    )
    assert [task.exitcode for task in tasks] == [0, 0], err[-3000:]
    assert "srun has started 2 processes on 1 machines, which is taken instead of --devices 5" in " ".join(err.split())
    assert out.count("trained:") == 1
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1, 2]
