"""Tiny runs for the parts: drawn photographs, the tests' recipes, and a hash of all that a run has learned."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

VERB = [sys.executable, "-m", "selfseg"]
SMALL = (
    "--batch-size 2 --workers 0 --log-every 1 --method.views.size 32 --max-bad 0.2 --method.views.short-side 48 "
    "--method.embedder.dim 8 --method.queue 10"
).split()
"""Settings of `selfseg train vice` that make a step some milliseconds."""


def photographs(work: Path) -> Path:
    """Six drawn photographs, with masks beside them."""
    from golden_steps import draw

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder = work / "photos"
    if not folder.exists():
        work.mkdir(parents=True, exist_ok=True)
        draw(folder, work / "photos_masks")
    return folder


def state_hash(run: Path) -> str:
    """A hash of everything in the newest checkpoint: tensors, the optimiser's numbers, the loss scale, the step."""
    from selfseg.storage.checkpoint import load_newest

    found = load_newest(run / "checkpoints")
    assert found is not None
    digest = hashlib.sha256(f"{found.step} {json.dumps(found.meta.get('scaler'))}".encode())
    values: dict[str, Any] = dict(found.model)
    for number, state in found.optimizer.items():
        values |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
    for name, value in sorted(values.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
    digest.update(repr(losses).encode())
    return digest.hexdigest()[:16]


def call(words: list[str], work: Path, timeout: float = 300) -> tuple[int, str]:
    """The exit code of a command and what it said."""
    done = subprocess.run(words, cwd=work, capture_output=True, text=True, check=False, timeout=timeout)
    return done.returncode, done.stdout + done.stderr
