"""kill -9 at random moments of the writing of everything that is written.

A process writes one version after the other over the former; another one waits a random time and kills it. What lies
there then must be one of the versions, as a whole, and not older than the last one that was said to be written. At the
end one more is written, and no temporary file may be left.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from torture.rows import Row

PROMISE = "kill -9 at any moment leaves the former version or the new one, and nothing half-written is taken"
ROOT = Path(__file__).resolve().parents[2]
TRIES, QUICK = 50, 1
LONGEST = 0.4
"""Seconds until a kill: several writings of most artefacts."""


def run(work: Path, quick: bool) -> list[Row]:
    """As of every part."""
    work.mkdir(parents=True, exist_ok=True)
    # A process of its own: it forks, which none with threads should.
    words = [sys.executable, "-W", "error", "-m", "torture.parts.kills", str(work), str(QUICK if quick else TRIES)]
    settings = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **settings, "PYTHONPATH": path}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=7200, check=False)
    rows = []
    for line in done.stdout.splitlines():
        if line.startswith("ROW\t"):
            _, what, tries, ok, detail = line.split("\t")
            rows.append(Row(what, int(tries), ok == "1", detail))
    if done.returncode:
        rows.append(Row("the killing process", 1, False, done.stderr[-1500:]))
    return rows


def _main(work: Path, tries: int) -> None:
    import torch

    from torture.written import ARTEFACTS

    torch.set_num_threads(1)
    for artefact in ARTEFACTS:
        folder = work / artefact.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        artefact.prepare(folder)
        artefact.write(folder, 1)
        _report(artefact.name, tries, lambda each, at=artefact, where=folder: _kill(at, where, each), folder)
    _report("decisions", tries, lambda each: _kill_decisions(work / "decisions", each), work)


def _report(name: str, tries: int, kill: Callable[[int], str], folder: Path) -> None:
    problems, begin = [], time.monotonic()
    for each in range(tries):
        if said := kill(each):
            problems.append(f"kill {each}: {said}")
    detail = "; ".join(problems[:5]) or f"{(time.monotonic() - begin) / tries:.2f} s a kill"
    print("ROW", f"kill -9: {name}", tries, int(not problems), " ".join(detail.split()), sep="\t", flush=True)


def _kill(artefact: object, folder: Path, seed: int) -> str:
    """Kill a writer; what is wrong with what it left, "" if nothing."""
    from torture.written import Artefact, left_over

    assert isinstance(artefact, Artefact)
    before = artefact.read(folder)
    written = _killed(lambda version: artefact.write(folder, version), 1 + max(before, 0), seed)
    problem, found = "", -1
    try:
        found = artefact.read(folder)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if artefact.name in ("checkpoint", "clusters", "tree of clusters", "result") and found < max(before, written):
        problem = problem or f"version {found} lies there, and {max(before, written)} was written"
    # Also after a problem: the next try begins with what is whole.
    went_on = _in_a_process(lambda: artefact.write(folder, max(before, found, 0) + 2))
    left = left_over(folder)
    return problem or went_on or (f"{left[0]} is left, and {len(left) - 1} more" if left else "")


def _in_a_process(write: Callable[[], object]) -> str:
    """Write once more as the next call would, in a process of its own; "" if it ends well."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            write()
            code = 0
        except BaseException as error:
            os.write(2, f"the next call: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return "" if status == 0 else f"the next call ended with {status}"


def _killed(write: Callable[[int], object], first: int, seed: int) -> int:
    """Let a process write one version after the other and kill it; the last one that it said to have written, or -1."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.write(writing, b"-1\n")
            for version in range(first, first + 1_000_000):
                write(version)
                os.write(writing, b"%d\n" % version)
        except BaseException as error:  # it must never come back into the code of its parent
            os.write(2, f"the writer: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(9)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        begun = pipe.readline()
        time.sleep(random.Random(seed).random() * LONGEST)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        said = (begun + pipe.read()).split(b"\n")[:-1]
    if not os.WIFSIGNALED(status):
        raise RuntimeError("the writer ended by itself")
    return int(said[-1]) if said else -1


def _kill_decisions(folder: Path, seed: int) -> str:
    from selfseg.studio.decisions.log import DecisionLog

    before = len(DecisionLog.open(folder).entries)
    last = _killed(
        lambda number: DecisionLog.open(folder).append("name", cluster="27/3", name=f"n{number}"), before, seed
    )
    log = DecisionLog.open(folder)
    names = [entry.fields["name"] for entry in log.entries]
    if names != [f"n{number}" for number in range(len(names))] or len(names) < max(before, last + 1):
        return f"{len(names)} decisions lie there, {last + 1} were said to be written"
    log.append("name", cluster="27/3", name=f"n{len(names)}")
    return "; ".join(DecisionLog.open(folder).damage)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
