"""Runs that lose a machine, a process or a folder, by the script that docs/machines.md tells to use, on this machine.

    python benchmarks/machines.py [elastic] [slow] [stopped] [killed] [folder] [drift]

Two torchruns of one process each stand for two machines. Each part trains the tests' tiny ViCE on six drawn photographs
with the default patience, and prints what it saw: how long it took, whether each step had the same samples as in a run
that nothing has happened to, and by how much the losses differ.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "machines" / "torchrun.sh"

# What each process does: train, and write down the samples of each step; before step 5 wait for the file "go".
PROGRAM = """
import json, sys, time
from pathlib import Path
root, images, out, steps, sleep = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:6])
sys.path.insert(0, str(root / "tests"))
import torch
from selfseg.errors import SelfsegError
from selfseg.training import loop
from tiny import TWO_PROCESSES, train_tiny

original = loop.take_step

def step(fabric, recipe, wrapped, optimizer, batch, step, *rest):
    with open(out.parent / "steps.txt", "a") as file:
        file.write(json.dumps([step, fabric.world_size, fabric.global_rank, batch.index.tolist()]) + "\\n")
    if step == 5 and fabric.global_rank == fabric.world_size - 1:
        time.sleep(sleep)
    time.sleep(0.2)
    return original(fabric, recipe, wrapped, optimizer, batch, step, *rest)

loop.take_step = step
try:
    train_tiny("vice", images, out, {**TWO_PROCESSES, "steps": steps, "checkpoint_every": 10, "devices": 0})
except SelfsegError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


class Machines:
    """Torchruns on this machine, each with one process."""

    def __init__(self, folder: Path, steps: int, sleep: int = 0, nodes: str = "1:2") -> None:
        self.folder, self.started = folder, list[subprocess.Popen[Any]]()
        folder.mkdir()
        program = folder / "program.py"
        program.write_text(PROGRAM)
        text = SCRIPT.read_text().replace("-m selfseg train", str(program))
        (folder / "torchrun.sh").write_text(text)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.settings = {"PYTHON": sys.executable, "NODES": nodes, "RENDEZVOUS": f"127.0.0.1:{port}", "RESTARTS": "3"}
        self.words = [str(ROOT), str(folder.parent / "photos"), str(folder / "run"), str(steps), str(sleep)]

    def start(self) -> subprocess.Popen[Any]:
        """One more; the first one has the rendezvous."""
        conf = f"is_host={int(not self.started)}"
        environment = {**os.environ, **self.settings, "RDZV_CONF": conf}
        with (self.folder / f"told{len(self.started)}").open("w") as told:
            words = ["bash", str(self.folder / "torchrun.sh"), *self.words]
            self.started.append(subprocess.Popen(words, env=environment, stderr=told, stdout=told))
        return self.started[-1]

    def process_of(self, machine: subprocess.Popen[Any]) -> int:
        """The process that it has started."""
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(machine.pid)], capture_output=True, text=True)
        return int(found.stdout.split()[0])

    def steps(self) -> list[list[Any]]:
        """What was written down: step, processes, process, samples."""
        file = self.folder / "steps.txt"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def until(self, there: Callable[[], bool], seconds: float = 300) -> float:
        """Wait; returns for how long."""
        begin = time.monotonic()
        while not there():
            if time.monotonic() - begin > seconds:
                raise SystemExit(f"it takes too long; see {self.folder}")
            time.sleep(0.05)
        return time.monotonic() - begin

    def reach(self, step: int, world: int) -> float:
        """Wait for a step by so many processes."""
        return self.until(lambda: any(row[0] == step and row[1] == world for row in self.steps()))

    def switch_off(self, machine: subprocess.Popen[Any]) -> None:
        """Kill it and its process."""
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(machine.pid)], capture_output=True, text=True)
        for pid in (machine.pid, *map(int, children.stdout.split())):
            os.kill(pid, signal.SIGKILL)
        machine.wait()

    def messages(self) -> str:
        """Lines that selfseg has written."""
        lines = chain.from_iterable(path.read_text().splitlines() for path in sorted(self.folder.glob("told*")))
        return "\n".join(f"    {line[:300]}" for line in lines if "process" in line and "rror" in line)


def compare(name: str, folder: Path, straight: Path) -> None:
    """Samples and losses beside those of a run that nothing has happened to."""
    from selfseg.data.loader import StepSampler
    from selfseg.training.log import read_log

    last: dict[int, list[list[Any]]] = {}
    for row in Machines.steps(type("Of", (), {"folder": folder})()):  # type: ignore[arg-type]
        rows = last.setdefault(row[0], [])
        if rows and (rows[0][1] != row[1] or len(rows) == row[1]):
            rows.clear()
        rows.append(row)
    ordered = [sorted(rows, key=lambda row: row[2]) for _, rows in sorted(last.items())]
    samples = [list(chain.from_iterable(row[3] for row in rows)) for rows in ordered]
    expected = [[index for _, index in step] for step in StepSampler(6, 4, 0, len(samples), 0)]
    losses = [[line["loss"] for line in read_log(path)] for path in (folder / "run", straight)]
    differences = [abs(a - b) for a, b in zip(*losses, strict=True)]
    print(
        f"{name}: {len(samples)} steps, same samples: {samples == expected}; losses {min(losses[1]):.2f} to "
        f"{max(losses[1]):.2f} differ by at most {max(differences):.1e}",
        flush=True,
    )


def elastic(home: Path) -> None:
    """Two machines, one, two."""
    machines = Machines(home / "elastic", steps=60)
    machines.start()
    lost = machines.start()
    print(f"elastic: two machines train after {machines.reach(0, 2):.0f} s")
    machines.reach(15, 2)
    machines.switch_off(lost)
    print(f"elastic: one of them is switched off, the other trains after {machines.reach(12, 1):.0f} s")
    machines.reach(25, 1)
    machines.start()
    seen = len(machines.steps())
    joined = machines.until(lambda: any(row[1] == 2 for row in machines.steps()[seen:]))
    print(f"elastic: one joins, both train after {joined:.0f} s")
    codes = [machine.wait(300) for machine in (machines.started[0], machines.started[2])]
    print(f"elastic: exit codes {codes}\n{machines.messages()}")
    compare("elastic", machines.folder, straight(home, 60))


def slow(home: Path) -> None:
    """A process that sleeps for 20 s in a step."""
    machines = Machines(home / "slow", steps=10, sleep=20, nodes="2:2")
    machines.start()
    machines.start()
    print(f"slow: exit codes {[machine.wait(300) for machine in machines.started]}")
    compare("slow", machines.folder, straight(home, 10))


def ended(home: Path, name: str, number: signal.Signals) -> None:
    """A process that is stopped or killed: when the other one ends."""
    machines = Machines(home / name, steps=100, nodes="2:2")
    machines.start()
    machines.start()
    machines.reach(5, 2)
    rank = {machines.process_of(machine): machine for machine in machines.started}
    victim = machines.process_of(machines.started[1])
    (other,) = [pid for pid in rank if pid != victim]
    os.kill(victim, number)
    seconds = machines.until(lambda: not Path(f"/proc/{other}").exists())
    for machine in machines.started:
        machines.switch_off(machine)
    print(f"{name}: the other process has ended after {seconds:.1f} s\n{machines.messages()}", flush=True)


def folder(home: Path) -> None:
    """Images and run vanish for 30 s."""
    machines = Machines(home / "folder", steps=20, nodes="2:2")
    machines.start()
    machines.start()
    machines.reach(8, 2)
    places = [(path, path.with_name(f"{path.name}-away")) for path in (home / "photos", machines.folder / "run")]
    for path, away in places:
        path.rename(away)
    time.sleep(30)
    for path, away in places:
        away.rename(path)
    print(f"folder: exit codes {[machine.wait(300) for machine in machines.started]}")
    told = "".join(path.read_text() for path in machines.folder.glob("told*"))
    print("\n".join(f"    {line[:200]}" for line in told.splitlines() if "waiting for it" in line or "is back" in line))
    compare("folder", machines.folder, straight(home, 20))


def one_of(rank: int, world: int, port: str, images: Path, out: Path, seed: int) -> None:
    """Train as a process of some."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, NODE_RANK="0", LOCAL_RANK=str(rank))
    from tiny import TWO_PROCESSES, train_tiny

    train_tiny("vice", images, out, {**TWO_PROCESSES, "devices": world, "steps": 60, "seed": seed})
    os._exit(0)


def drift(home: Path) -> None:
    """One process and two that nothing happens to: how far sums in another order lead."""
    from selfseg.training.log import read_log
    from tiny import free_port, ready_to_fork

    for seed in range(3):
        outs = [home / f"drift{seed}{world}" for world in (1, 2)]
        for world, out in zip((1, 2), outs, strict=True):
            port = free_port()
            words = [(rank, world, port, home / "photos", out, seed) for rank in range(world)]
            processes = [ready_to_fork().Process(target=one_of, args=each) for each in words]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
        losses = [[line["loss"] for line in read_log(out)] for out in outs]
        differences = [abs(a - b) for a, b in zip(*losses, strict=True)]
        told = ", ".join(f"{steps}: {max(differences[:steps]):.1e}" for steps in (1, 5, 10, 15, 20, 30, 60))
        print(f"drift: seed {seed}, largest difference over so many steps: {told}", flush=True)


def straight(home: Path, steps: int) -> Path:
    """A run of one process that nothing happens to."""
    from tiny import TWO_PROCESSES, train_tiny

    out = home / f"straight{steps}"
    if not out.exists():
        train_tiny("vice", home / "photos", out, {**TWO_PROCESSES, "steps": steps})
    return out


def main() -> None:
    """Run the parts that are asked for, or all."""
    sys.path.insert(0, str(ROOT / "tests"))
    from golden_steps import draw

    parts: dict[str, Callable[[Path], None]] = {
        "elastic": elastic,
        "slow": slow,
        "stopped": lambda home: ended(home, "stopped", signal.SIGSTOP),
        "killed": lambda home: ended(home, "killed", signal.SIGKILL),
        "folder": folder,
        "drift": drift,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all if none is given")
    names = parser.parse_args().parts or list(parts)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        home = Path(temporary)
        draw(home / "photos", home / "masks")
        for name in names:
            parts[name](home)


if __name__ == "__main__":
    main()
