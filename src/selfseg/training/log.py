"""What training writes while it goes: log.jsonl always, TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from selfseg.errors import StorageError
from selfseg.fitting.stepping import StepLog
from selfseg.fitting.stepping import read_log as read_log
from selfseg.storage.files import storage_errors


class TrainingLog:
    """Appends to RUN/log.jsonl and to TensorBoard events; a resumed run drops the lines after its checkpoint.

    Args:
        run: the run's folder.
        step: the step that training goes on from.
        enabled: False on every process but the first.

    Raises:
        StorageError: here and while it is used, if the disk is full.
    """

    def __init__(self, run: Path, step: int, enabled: bool) -> None:
        self._folder = run / "tensorboard"
        self._events: Any = None
        if not enabled:
            return
        self._lines = StepLog(run / "log.jsonl", step)
        self._written = step
        self._open(step)

    def _open(self, step: int) -> None:
        # Here because it takes a second, which only the first process needs to spend.
        from torch.utils.tensorboard import SummaryWriter

        with storage_errors(self._folder):
            self._events = SummaryWriter(str(self._folder), purge_step=step + 1)

    def write(self, line: Mapping[str, float]) -> None:
        """Append one line; every value is a number. A line whose writing has failed may be given again."""
        if self._events is None:
            return
        step = int(line["step"])
        if step > self._written:
            self._lines.write(line)
            self._written = step
        # Written by a thread of TensorBoard's: its error shows at a later call, as here.
        try:
            with storage_errors(self._folder):
                for key, value in line.items():
                    if key != "step":
                        self._events.add_scalar(key, value, step)
        except StorageError:
            self._open(step - 1)  # that thread writes nothing any more
            raise

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush the events."""
        if self._events is None:
            return
        try:
            with storage_errors(self._folder):
                self._events.close()
        except StorageError:
            if error is None:  # else the first error is the one to tell
                raise
