"""The tests that need a GPU, and mixed precision: 20 steps without a NaN, saved, resumed, equal to the straight run."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from gpu_parts import material
from gpu_parts.harness import Job, difference
from selfseg.training.log import read_log
from selfseg.training.loop import train

TITLE = "tests that need a GPU; mixed precision; resumed = straight"
# The suite that runs this finds the project's tests itself; importing them here would take most of a tiny run.
ONE_TEST = (
    "import pytest\n\n@pytest.mark.gpu\ndef test_nothing():\n    pass\n\ndef test_another():\n    raise ValueError\n"
)


def run(job: Job) -> None:
    """Each precision with a stop in the middle, then pytest -m gpu with the time that is left."""
    for precision in ("32-true",) if job.tiny else ("bf16-mixed", "16-mixed", "32-true"):
        for deterministic in (True,) if job.tiny else (False, True):
            what = f"{precision}{', deterministic operations' if deterministic else ''}: resumed and straight"
            if job.enough(4 if job.tiny else 8, what):
                with job.attempt(what):
                    _resume(job, precision, deterministic, what)
    with job.attempt("pytest -m gpu"):
        _tests(job)


def _tests(job: Job) -> None:
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-rfE", "--tb=short"]
    words += (
        ["-o", "markers=gpu", "test_one.py"] if job.tiny else ["-n", "4", *_with_gpu_tests(job.repository / "tests")]
    )
    folder = job.work if job.tiny else job.repository
    if job.tiny:
        (folder / "test_one.py").write_text(ONE_TEST, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(job.repository / "src"), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, **({"PYTHONPATH": path} if (job.repository / "src").is_dir() else {})}
    if job.tiny:
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    seconds = max(10.0, job.left() - 5)
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        seen = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        job.note("pytest -m gpu", verdict=f"stopped after {seconds:.0f} s", output=seen[-20_000:])
        return
    last = next((line for line in reversed(done.stdout.splitlines()) if re.search(r"\d+ |no tests", line)), "")
    job.note(
        "pytest -m gpu",
        verdict="passed" if done.returncode == 0 else f"FAILED with status {done.returncode}",
        summary=last.strip("= "),
        output=(done.stdout + done.stderr)[-20_000:] if done.returncode else "",
    )


def _with_gpu_tests(tests: Path) -> list[str]:
    """Files with tests that need a GPU; others may import what the machine lacks."""
    return sorted(str(path) for path in tests.rglob("test_*.py") if "mark.gpu" in path.read_text(encoding="utf-8"))


def _resume(job: Job, precision: str, deterministic: bool, what: str) -> None:
    steps = 4 if job.tiny else 20
    half = steps // 2
    root = job.work / f"{precision}{deterministic}"
    options: dict[str, Any] = {
        "steps": steps,
        "checkpoint_every": half,
        "keep": 4,
        "log_every": 1,
        "precision": precision,
        "batch_size": 2 if job.tiny else 8,
        "workers": 0 if job.tiny else 2,
    }
    with _determinism(deterministic):
        straight = train(material.small("vice_scratch", job, root / "straight", **options), progress=False)
        # A run that was killed after its checkpoint: the same folder without what came later.
        stopped = root / "stopped"
        shutil.copytree(straight, stopped)
        shutil.rmtree(stopped / "checkpoints" / f"step_{steps:08d}")
        train(material.small("vice_scratch", job, stopped, **options), progress=False)
    losses = [[line["loss"] for line in read_log(folder)] for folder in (straight, stopped)]
    (one, one_scale), (other, other_scale) = (material.state(folder, steps) for folder in (straight, stopped))
    found = difference(one, other, 1e-3)
    if one_scale != other_scale:
        found = {"verdict": "DIFFERS", "why": f"the loss scale is {one_scale} and {other_scale}"}
    job.note(
        what,
        **found,
        losses_equal=losses[0] == losses[1],
        finite=all(math.isfinite(value) for value in losses[0]),
        last_loss=losses[0][-1],
        scaler=one_scale or None,
    )


class _determinism:
    """Operations that add up in the same order each time, where torch has them."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def __enter__(self) -> None:
        torch.use_deterministic_algorithms(self.wanted, warn_only=True)
        torch.backends.cudnn.deterministic = self.wanted

    def __exit__(self, *_: object) -> None:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
