"""What training writes while it goes: log.jsonl always, TensorBoard events, a progress bar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from selfseg.files import storage_errors, write_text


class TrainingLog:
    """Appends to RUN/log.jsonl and to TensorBoard events; a resumed run drops the lines after its checkpoint.

    Args:
        run: the run's folder.
        step: the step that training goes on from.
        enabled: False on every process but the first.
    """

    def __init__(self, run: Path, step: int, enabled: bool) -> None:
        self.path = run / "log.jsonl"
        self.enabled = enabled
        self._events: Any = None
        if not enabled:
            return
        if self.path.exists():
            kept = [line for line in read_log(run) if line["step"] <= step]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        from torch.utils.tensorboard import SummaryWriter

        self._events = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, line: Mapping[str, float]) -> None:
        """Append one line; every value is a number."""
        if not self.enabled:
            return
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line)) + "\n")
        for key, value in line.items():
            if key != "step":
                self._events.add_scalar(key, value, int(line["step"]))

    def close(self) -> None:
        """Flush the events."""
        if self._events is not None:
            self._events.close()


def read_log(run: Path) -> list[dict[str, float]]:
    """The lines of RUN/log.jsonl; a last line that a kill cut short is left out."""
    lines = []
    for text in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


class ProgressBar:
    """Step, loss, rate, remaining time, and the share of time that training waited for data."""

    def __init__(self, total: int, done: int, enabled: bool) -> None:
        self._progress = Progress(
            TextColumn("[bold]train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[rate]:.1f} img/s"),
            TextColumn("data {task.fields[wait]:.0%}"),
            TimeRemainingColumn(),
            disable=not enabled,
        )
        self._task = self._progress.add_task(
            "train", total=total, completed=done, loss=float("nan"), rate=0.0, wait=0.0
        )

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, step: int, **values: float) -> None:
        """Show `step` steps done; values are loss, rate and wait."""
        self._progress.update(self._task, completed=step, **values)  # type: ignore[arg-type]
