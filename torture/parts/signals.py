"""Promise 4: a signal at any moment of a verb ends it within ten seconds, with exit code 75, and nothing is lost.

A verb that was through before its signal counts, too: it must have ended with 0. The same command is called after each
signal and must end well. Also promise 4's brother: kill -9 at random moments of a training, after which no process of
it may be left two seconds later.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from torture.parts._runs import SMALL, VERB, call, photographs
from torture.rows import Row

PROMISE = "a signal at any moment of a verb ends it within ten seconds with exit code 75, and nothing is lost"

LIMIT = 10.0


def run(work: Path, quick: bool) -> list[Row]:
    """Quick = two signals in one training; in full three signals at several moments of every long verb."""
    images, run_ = str(photographs(work)), str(work / "signals" / "run")
    if quick:
        return [_verb(work, "train", _train(images, str(work / "signals" / "t"), "100000"), (signal.SIGUSR1,), 1, 0)]
    code, said = call([*VERB, *"train pyramid --steps 0 --out".split(), run_, images], work)
    assert code == 0, said
    verbs = {
        "train": _train(images, str(work / "signals" / "t"), "60"),
        "cluster": ["cluster", run_, images, "-k", "4", "8", "--points", "20000"],
        "segment": ["segment", run_, images, "--out", str(work / "signals" / "segments"), "-k", "4"],
        "embed": ["embed", run_, images, "--out", str(work / "signals" / "vectors")],
        "masks": ["masks", images, "--out", str(work / "signals" / "masks")],
        "report": ["report", run_],
        "export": ["export", run_, "--format", "safetensors"],
    }
    assert call([*VERB, *verbs["cluster"]], work)[0] == 0
    rows = [
        _verb(work, name, words, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1), 3, 1) for name, words in verbs.items()
    ]
    return [*rows, _killed(work, images, 5)]


def _train(images: str, out: str, steps: str) -> list[str]:
    return ["train", "vice", images, "--out", out, "--steps", steps, *SMALL]


def _verb(work: Path, name: str, words: list[str], numbers: tuple[signal.Signals, ...], each: int, again: int) -> Row:
    rng, codes, slowest, wrong = random.Random(name), list[int](), 0.0, list[str]()
    start = time.monotonic()
    if again:
        call([*VERB, *words], work)
    whole = max(2.0, time.monotonic() - start)
    for number in numbers:
        for _ in range(each):
            process = subprocess.Popen([*VERB, *words], cwd=work, stderr=subprocess.PIPE, text=True)
            if again:
                # Before `selfseg.cli` is loaded, nothing listens.
                time.sleep(rng.uniform(1.0, 1.0 + whole))
            else:
                _wait_for(Path(words[words.index("--out") + 1]) / "log.jsonl", process)
            sent = time.monotonic()
            process.send_signal(number)
            try:
                _, said = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                _, said = process.communicate()
            slowest = max(slowest, time.monotonic() - sent)
            codes.append(process.returncode)
            if process.returncode not in (0, 75) or "Traceback" in said:
                wrong.append(f"{number.name}: {process.returncode} {said[-200:]}")
            if again and (code := call([*VERB, *words], work)[0]):
                wrong.append(f"the same command after {number.name}: {code}")
    stopped = codes.count(75)
    detail = (
        f"{stopped} stopped, {codes.count(0)} were through; at most {slowest:.1f} s; {'; '.join(wrong) or 'all well'}"
    )
    return Row(f"signals in {name}", len(codes), not wrong and slowest <= LIMIT, detail)


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 240
    while not (path.exists() and path.stat().st_size) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


def _killed(work: Path, images: str, tries: int) -> Row:
    """Kill -9 at random moments of a training with two loader processes; who is left after two seconds?"""
    rng, left = random.Random(0), 0
    for turn in range(tries):
        words = _train(images, str(work / "signals" / f"killed{turn}"), "100000")
        words[words.index("--workers") + 1] = "2"
        process = subprocess.Popen([*VERB, *words], cwd=work, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(rng.uniform(2, 20))
        process.kill()
        process.wait()
        time.sleep(2)
        words = ["ps", "-o", "pid=,stat=", "-s", str(process.pid)]
        found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
        # One that is "Z" has ended, and only the system's first process has not taken note of it.
        alive = [int(pid) for pid, state in map(str.split, found) if not state.startswith("Z")]
        left += len(alive)
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
    return Row("no process is left 2 s after kill -9 of a training", tries, left == 0, f"{left} left")
