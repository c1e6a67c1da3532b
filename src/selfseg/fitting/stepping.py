"""What every long job needs: it shows and logs how far it is, and a signal stops it where its state can be saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from selfseg.signals import stop_signals as stop_signals
from selfseg.storage.files import read_steps, storage_errors, write_text
from selfseg.telling.bars import Bars


class ProgressBar:
    """Step, loss, rate, remaining time, and the share of time that training waited for data."""

    def __init__(self, total: int, done: int, enabled: bool, what: str = "train") -> None:
        self._progress = Bars(
            TextColumn(f"[bold]{what}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            shown=enabled,
        )
        self._task = self._progress.add_task(what, total=total, completed=done, told="first steps")

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, step: int, loss: float, rate: float, wait: float) -> None:
        """Show the steps done, the loss, images a second, and the share of time spent waiting for data."""
        told = f"loss {loss:.3f}  {rate:.1f} img/s  data {wait:.0%}"
        self._progress.update(self._task, completed=step, told=told)


class StepLog:
    """A log of one JSON object per line; a job that goes on drops the lines after its checkpoint.

    Args:
        path: the file.
        step: the step that the job goes on from.

    Raises:
        StorageError: here and in `write`, if the disk is full.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self._torn = False
        if path.exists():
            kept = [line for line in read_steps(path) if line["step"] <= step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, line: Mapping[str, float]) -> None:
        """Append one line with its "step"; every value is a number. May be called again after an error."""
        self._torn, torn = True, self._torn
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(dict(line)) + "\n")
        self._torn = False


def step_seed(*key: int) -> int:
    """The seed of whatever draws at random inside a network in a step, a function of (seed, step, rank)."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest())


def read_log(run: Path | str) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl; none if there is no log. A last line that was cut off is left out."""
    return read_steps(Path(run) / "log.jsonl")
