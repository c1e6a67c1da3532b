"""Time and memory of each phase of a step, on a CPU and on a GPU.

Every moment of a step belongs to exactly one phase, the innermost that is open, or to "other": a step's phases add up
to the step. On a GPU a phase lasts from where the device's stream gets to its begin to where it gets to its end: events
mark both, and nobody waits for them before the step is over, so that marking doesn't slow the step down. What the
device waits for the host, it waits in the phase whose work comes next.

Memory: on a GPU the allocator's peak within the phase. On a CPU the peak of the process's resident memory, where the
system lets a process reset that mark (Linux); the marks cost time, so that memory has steps of its own.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from selfseg.ops.phases import PHASES, Phase, listening

OTHER = "other"
"""What belongs to no phase."""

ALL = (*PHASES, OTHER)

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Recorder:
    """Listens to the phases of one step after the other.

    Args:
        device: that the steps run on.
        what: whether the phases' "time" or "memory" is kept.

    Attributes:
        seconds: of each step, by phase.
        bytes: of each step the peak by phase; empty where it can't be known.
    """

    def __init__(self, device: torch.device, what: Literal["time", "memory"]) -> None:
        self.device, self.what = device, what
        self.seconds: list[dict[str, float]] = []
        self.bytes: list[dict[str, int]] = []
        self._open: list[str] = []
        self._marks: list[tuple[str, Any]] = []  # (phase that ends here, moment)
        self._peaks: dict[str, int] = {}

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step, from asking for its batch to the moved weights."""
        self._marks, self._peaks, self._open = [], {}, [OTHER]
        wait(self.device)
        if self.what == "memory":
            reset_peak(self.device)
        self._mark("")
        with listening(self):
            yield
        self._mark(OTHER)
        wait(self.device)
        if self.what == "time":
            found = dict.fromkeys(ALL, 0.0)
            for (_, begin), (name, end) in zip(self._marks, self._marks[1:], strict=False):
                found[name] += _between(begin, end)
            self.seconds.append(found)
        elif self._peaks:
            self.bytes.append(self._peaks)

    def enter(self, phase: Phase) -> None:
        """The phase begins."""
        self._mark(self._open[-1])
        self._open.append(phase)

    def leave(self) -> None:
        """The innermost phase ends."""
        self._mark(self._open.pop())

    def _mark(self, ended: str) -> None:
        if self.what == "time":
            self._marks.append((ended, _now(self.device)))
            return
        peak = peak_bytes(self.device)
        if peak is not None and ended:
            self._peaks[ended] = max(self._peaks.get(ended, 0), peak)
        reset_peak(self.device)


def reset_peak(device: torch.device) -> None:
    """Let the peak of memory begin anew, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _RESET.write_text("5")  # proc(5): "reset the peak resident set size"
    except OSError:
        return


def peak_bytes(device: torch.device) -> int | None:
    """The peak since `reset_peak`: the allocator's on a GPU, resident memory on a CPU; None if it can't be reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        if not _RESET.exists():
            return None
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def process_peak() -> int:
    """The most resident memory that this process ever had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _now(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _between(begin: Any, end: Any) -> float:
    """Seconds between two moments."""
    if isinstance(begin, float):
        return float(end - begin)
    return float(begin.elapsed_time(end)) / 1000


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
