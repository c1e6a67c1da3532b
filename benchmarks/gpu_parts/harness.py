"""What the parts share: a job with its rows, times of a device that works behind our back, differences, Markdown.

A row is a plain dictionary: `what` was measured, a `verdict` or a `value` with its `unit`, and whatever else is worth
keeping. Rows are written the moment they are known.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Dense peaks of the cards' data sheets, in TFLOP/s and TB/s: bf16 and TF32 on tensor cores, plain float32, memory.
PEAKS = {
    "H100": {"bf16": 989.0, "tf32": 494.0, "fp32": 67.0, "memory": 3.35},
    "H200": {"bf16": 989.0, "tf32": 494.0, "fp32": 67.0, "memory": 4.8},
    "A100": {"bf16": 312.0, "tf32": 156.0, "fp32": 19.5, "memory": 2.0},
}


@dataclass
class Job:
    """What a part is given.

    Attributes:
        device: to measure; the CPU in a tiny run, where the comparison with the CPU is one with itself.
        tiny: sizes for a CPU and seconds, to see that everything runs.
        images: folder with camvid/{train,val}/{images,labels}, camvid/classes.txt and photographs/.
        work: an empty folder for what the part writes.
        deadline: `time.monotonic()` at which the part must have ended.
        rows: where rows go, one JSON object a line.
        repository: the folder that holds benchmarks/ and tests/.
    """

    device: torch.device
    tiny: bool
    images: Path
    work: Path
    deadline: float
    rows: Path
    repository: Path
    found: list[dict[str, Any]] = field(default_factory=list)

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def note(self, what: str, **values: Any) -> None:
        """Keep a row."""
        row = {"what": what, **{key: plain(value) for key, value in values.items()}}
        self.found.append(row)
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        sys.stdout.write(f"  {sentence(row)}\n")
        sys.stdout.flush()

    def compare(self, what: str, cpu: Any, device: Any, tolerance: float, **values: Any) -> None:
        """Keep how much the device's values differ from the CPU's, relative to the CPU's largest.

        Args:
            what: was computed.
            cpu: a tensor, an array, a number, or a mapping or sequence of them.
            device: the same.
            tolerance: the largest relative difference that counts as float rounding; 0 = equal to the bit.
            values: more of the row.
        """
        self.note(what, **difference(cpu, device, tolerance), **values)

    def speed(
        self, what: str, seconds: float, amount: float, unit: str, aim: float | None = None, **values: Any
    ) -> None:
        """Keep a rate: `amount` of `unit` in `seconds`; `aim` is the least rate that was hoped for."""
        rate = amount / seconds
        if aim is not None:
            values = {"aim": f"at least {aim:g}", "verdict": "reached" if rate >= aim else "missed", **values}
        self.note(what, value=rate, unit=f"{unit}/s", milliseconds=1e3 * seconds, **values)

    def duration(self, what: str, seconds: float, aim: float | None = None, **values: Any) -> None:
        """Keep a time; `aim` is the most seconds that were hoped for."""
        if aim is not None:
            values = {"aim": f"at most {aim:g} s", "verdict": "reached" if seconds <= aim else "missed", **values}
        self.note(what, value=1e3 * seconds, unit="ms", **values)

    @contextmanager
    def attempt(self, what: str, needs: float = 0.0) -> Iterator[None]:
        """Keep the traceback of what fails inside, and go on; a row of its own.

        Args:
            what: is tried.
            needs: seconds; with fewer left it is passed over: check `enough` first.
        """
        try:
            yield
        except Exception as error:
            self.note(
                what,
                verdict="FAILED",
                error=f"{type(error).__name__}: {error}"[:2000],
                traceback=traceback.format_exc(),
            )
            if "CUDA error" in str(error):  # the context is lost: nothing after it in this process can work
                raise
        finally:
            release(self.device)

    def enough(self, seconds: float, what: str) -> bool:
        """Whether so many seconds are left; if not, a row says that `what` was left out."""
        if self.left() >= seconds:
            return True
        self.note(what, verdict="left out", why=f"{self.left():.0f} s were left, it takes about {seconds:.0f}")
        return False

    def seconds_of(
        self,
        function: Callable[[], Any],
        repeats: int = 7,
        warm_up: int = 2,
        most: float = 8.0,
        device: torch.device | None = None,
    ) -> tuple[float, float]:
        """`seconds_of` on the job's device, or another one; of one call in a tiny run, whose times mean nothing."""
        repeats, warm_up = (1, 0) if self.tiny else (repeats, warm_up)
        return seconds_of(function, device or self.device, repeats, warm_up, most)

    def pictures(self, kind: str) -> list[Path]:
        """The images of "photographs" or of "camvid/train/images" and so on, by name."""
        return sorted(path for path in (self.images / kind).iterdir() if path.suffix.lower() in (".jpg", ".png"))


def plain(value: Any) -> Any:
    """A value that JSON takes; floats keep five digits, and what is no number becomes a word."""
    if isinstance(value, Tensor | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give cached memory back, so that the next peak is its own."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def seconds_of(
    function: Callable[[], Any], device: torch.device, repeats: int = 7, warm_up: int = 2, most: float = 8.0
) -> tuple[float, float]:
    """The median time of a call and its peak memory.

    Args:
        function: the call; what it returns is dropped.
        device: is waited for before and after.
        repeats: calls that are timed, at least five of them unless `most` seconds have gone by.
        warm_up: calls before.
        most: seconds after which no further call is made, if one has been timed.

    Returns:
        Seconds, and GiB that were allocated at the peak beyond what was there before (0 on a CPU).
    """
    begun = time.monotonic()
    for _ in range(warm_up):
        function()
    synchronise(device)
    before = 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    times = []
    for repeat in range(repeats):
        if repeat and time.monotonic() - begun > most:
            break
        start = time.perf_counter()
        function()
        synchronise(device)
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else 0
    return statistics.median(times), peak / 2**30


def difference(cpu: Any, device: Any, tolerance: float) -> dict[str, Any]:
    """Verdict, largest difference (absolute, and relative to the largest value) and the share of values that differ."""
    pairs = list(_pairs(cpu, device))
    largest = relative = 0.0
    unequal = total = 0
    for one, other in pairs:
        if one.shape != other.shape:
            return {"verdict": "DIFFERS", "why": f"shapes {one.shape} and {other.shape}"}
        if not one.size:
            continue
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        total += one.size
        unequal += int(one.size - np.count_nonzero(same))
        if same.all():
            continue
        gap = np.abs(np.where(same, 0, one - other))
        if not np.isfinite(gap).all():
            return {"verdict": "DIFFERS", "why": "one of the two has values that are not finite"}
        largest = max(largest, float(gap.max()))
        relative = max(relative, float(gap.max()) / max(float(np.abs(one).max()), 1e-30))
    verdict = "equal" if not unequal else "within rounding" if relative <= tolerance else "DIFFERS"
    share = unequal / max(total, 1)
    return {"verdict": verdict, "largest": largest, "relative": relative, "unequal": share, "tolerance": tolerance}


def _pairs(cpu: Any, device: Any) -> Iterator[tuple[Any, Any]]:
    """Arrays of float64 (whole numbers stay exact below 2^53) that are to be compared."""
    if isinstance(cpu, Mapping):
        if cpu.keys() != device.keys():
            raise ValueError(f"different names: {sorted(cpu.keys() ^ device.keys())}")
        for key in cpu:
            yield from _pairs(cpu[key], device[key])
    elif isinstance(cpu, list | tuple):
        for one, other in zip(cpu, device, strict=True):
            yield from _pairs(one, other)
    else:
        yield _array(cpu), _array(device)


def _array(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, np.float64)


def random_state(seed: int) -> torch.Generator:
    """Numbers that are drawn on the CPU, so that all devices get the same."""
    return torch.Generator().manual_seed(seed)


def sentence(row: Mapping[str, Any]) -> str:
    """A row as one line for people."""
    return f"{row['what']}: " + "; ".join(part for part in (_result(row), _detail(row)) if part)


def _result(row: Mapping[str, Any]) -> str:
    if "value" in row:
        value = row["value"]
        text = str(value)
        if isinstance(value, int | float):
            text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        aim = f" ({row['aim']}: {row['verdict']})" if "aim" in row else ""
        return f"{text} {row.get('unit', '')}".strip() + aim
    verdict = str(row.get("verdict", ""))
    if row.get("relative"):
        verdict += f", by at most {row['largest']:.2g} ({row['relative']:.1g} of the largest)"
    return verdict


def _detail(row: Mapping[str, Any]) -> str:
    known = {"what", "value", "unit", "verdict", "aim", "largest", "relative", "tolerance", "traceback", "milliseconds"}
    known |= {"kernels", "output"}  # long; in the JSON only
    parts = []
    for key, value in row.items():
        if key in known or value is None or (key == "unequal" and not value):
            continue
        if key == "unequal":
            parts.append(f"{value:.2g} of the values differ")
        elif isinstance(value, Mapping):
            parts.append(f"{key.replace('_', ' ')}: " + ", ".join(f"{name} {item}" for name, item in value.items()))
        elif key == "error":
            parts.append(str(value).splitlines()[0][:200] if value else "")
        else:
            parts.append(f"{key.replace('_', ' ')} {value}")
    return "; ".join(parts)


def markdown(record: Mapping[str, Any]) -> str:
    """The whole record as tables for docs/numbers/speed.md."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"`{record['command']}` on {machine['card']} ({machine['cores']} cores), {record['date']}, seed 0, commit "
        f"{record['commit'] or 'unknown'}; {versions}. {record['seconds']:.0f} s in all.",
        "",
    ]
    for name, part in record["parts"].items():
        lines += [f"**{name}**: {part['title']} ({part['seconds']:.0f} s, {part['status']})", ""]
        lines += ["| what | result | more |", "|---|---|---|"]
        lines += [f"| {_cell(row['what'])} | {_cell(_result(row))} | {_cell(_detail(row))} |" for row in part["rows"]]
        if part.get("error"):
            lines += [
                f"| the part itself | {_cell(part['status'])} | {_cell(part['error'].strip().splitlines()[-1])} |"
            ]
        lines += [""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def card_of(device: torch.device) -> str:
    """The card's name, or that it is a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"


def peak_of(device: torch.device, kind: str) -> float | None:
    """TFLOP/s ("bf16", "tf32", "fp32") or TB/s ("memory") of the card's data sheet, if we know it."""
    name = card_of(device)
    return next((peaks[kind] for card, peaks in PEAKS.items() if card in name), None)


def share_of_peak(device: torch.device, kind: str, amount: float, seconds: float) -> float | None:
    """Share of the peak when `amount` FLOP or bytes take `seconds`."""
    peak = peak_of(device, kind)
    return None if peak is None else amount / seconds / (peak * 1e12)


def median_of(values: Sequence[float]) -> float:
    """The median; nan for none."""
    return statistics.median(values) if values else math.nan
