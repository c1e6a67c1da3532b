"""What was timed, as plain values and as tables for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from selfseg.timing.inference import Inference
from selfseg.timing.recorder import ALL, OTHER


@dataclass(frozen=True)
class Timing:
    """What a recipe costs on a machine.

    Attributes:
        recipe: its name.
        machine: what it ran on, and the versions.
        settings: batch size, views, precision, loader processes, and how it was measured.
        steps: of each measured step the seconds of each phase; they add up to `whole`'s step of the same measurement.
        peaks: of each step that memory was measured in, the peak bytes of each phase; empty where it can't be known.
        unmarked: seconds of further steps in which no phase was marked: what training takes.
        peak: the most memory in bytes: of a GPU what tensors had, of a CPU what the process had.
        reserved: of a GPU, what the allocator held of it; None on a CPU.
        loading: seconds for each part of one image's views, in one process.
        inference: parts and ways of segmenting an image.
        sizes: (H, W) at which these images were looked at.
    """

    recipe: str
    machine: dict[str, str]
    settings: dict[str, Any]
    steps: tuple[dict[str, float], ...]
    peaks: tuple[dict[str, int], ...]
    unmarked: tuple[float, ...]
    peak: int
    reserved: int | None
    loading: dict[str, tuple[float, ...]]
    inference: tuple[Inference, ...]
    sizes: tuple[tuple[int, int], ...]

    @property
    def step(self) -> float:
        """The median marked step, in seconds."""
        return statistics.median(sum(step.values()) for step in self.steps)

    @property
    def phases(self) -> dict[str, float]:
        """The median seconds of each phase. Medians don't add up exactly; each step's own phases do."""
        return {name: statistics.median(step[name] for step in self.steps) for name in ALL}

    @property
    def memory(self) -> dict[str, int]:
        """The largest peak of each phase in bytes."""
        names = [name for name in ALL if any(name in each for each in self.peaks)]
        return {name: max(each.get(name, 0) for each in self.peaks) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "recipe": self.recipe,
            "machine": self.machine,
            "settings": self.settings,
            "step_seconds": self.step,
            "step_seconds_unmarked": statistics.median(self.unmarked),
            "images_per_second": self.settings["batch_size"] / statistics.median(self.unmarked),
            "phases_seconds": self.phases,
            "phases_peak_bytes": self.memory,
            "peak_bytes": self.peak,
            "reserved_bytes": self.reserved,
            "loading_seconds_per_image": {name: statistics.median(each) for name, each in self.loading.items()},
            "inference": [
                {"what": part.what, "seconds": part.median, "peak_bytes": part.bytes, "each": list(part.seconds)}
                for part in self.inference
            ],
            "inference_sizes": [list(size) for size in self.sizes],
            "steps": list(self.steps),
            "unmarked": list(self.unmarked),
        }

    def tables(self) -> list[Table]:
        """Step, views and inference, for a terminal."""
        return [self._step_table(), self._loading_table(), self._inference_table()]

    def _step_table(self) -> Table:
        settings = self.settings
        table = Table(
            title=f"{escape(self.recipe)}: a training step, {settings['batch_size']} images, {settings['precision']}, "
            f"{escape(self.machine['device'])}",
            title_justify="left",
        )
        for name in ("phase", "ms", "share", "spread, ms", "peak memory"):
            table.add_column(name, justify="left" if name == "phase" else "right")
        phases, memory = self.phases, self.memory
        total = sum(phases.values())
        for name in ALL:
            each = [step[name] for step in self.steps]
            if name == OTHER and phases[name] < 0.0005 * total:
                continue
            spread = _spread(each)
            table.add_row(name, _ms(phases[name]), f"{phases[name] / total:.1%}", spread, _gib(memory.get(name)))
        table.add_section()
        table.add_row("sum of the medians", _ms(total), "", "", "")
        whole = [sum(step.values()) for step in self.steps]
        table.add_row("step, its phases marked", _ms(self.step), "", _spread(whole), "")
        speed = settings["batch_size"] / statistics.median(self.unmarked)
        table.add_row(
            "step as trained, not marked", _ms(statistics.median(self.unmarked)), "", _spread(self.unmarked), ""
        )
        table.add_row(f"that is {speed:.3g} images a second", "", "", "", _gib(self.peak))
        table.caption = self._note()
        table.caption_justify = "left"
        return table

    def _note(self) -> str:
        settings = self.settings
        memory = (
            f"Memory is what tensors had of the GPU; with what the allocator kept it is {_gib(self.reserved)}."
            if self.reserved is not None
            else "Memory is the process's resident memory, without its loader processes; by phase it is measured in "
            "steps of their own, in which what is freed goes back to the system at once, in the last row as trained."
        )
        return (
            f"Medians of {len(self.steps)} steps after {settings['warm_up']}; spread: the middle half, of fewer than "
            f"four all. data: waiting for {_workers(settings['workers'])}, and the way to the device; regions: finding "
            f"and pooling them (how they are made is below); loss: what is neither network nor regions. {memory}"
        )

    def _loading_table(self) -> Table:
        table = Table(title="the views of one image, in one loader process", title_justify="left")
        for name in ("part", "ms", "share", "spread, ms"):
            table.add_column(name, justify="left" if name == "part" else "right")
        medians = {name: statistics.median(each) for name, each in self.loading.items()}
        total = sum(medians.values())
        for name, each in self.loading.items():
            table.add_row(name, _ms(medians[name]), f"{medians[name] / total:.1%}", _spread(each))
        table.add_section()
        table.add_row("sum of the medians", _ms(total), "", "")
        cached = "Regions are made in the first epoch and read from RUN/cache afterwards. "
        table.caption = (
            f"{cached if self.settings['regions_are_kept'] else ''}A step needs "
            f"{self.settings['batch_size']} images: {_ms(total * self.settings['batch_size'])} ms in one process."
        )
        table.caption_justify = "left"
        return table

    def _inference_table(self) -> Table:
        table = Table(
            title=f"segmenting one image of {_sizes(self.sizes)} px, {escape(self.machine['device'])}",
            title_justify="left",
        )
        for name in ("part", "ms", "spread, ms", "peak memory"):
            table.add_column(name, justify="left" if name == "part" else "right")
        for place, part in enumerate(self.inference):
            if place == 2:
                table.add_section()
            table.add_row(part.what, _ms(part.median), _spread(part.seconds), _gib(part.bytes))
        table.caption = (
            f"Medians of {len(self.sizes)} images, each alone; the mask is fetched. pixels: the embedding is enlarged "
            "to the image, then every pixel's own vector is asked, as in ViCE's tables; cells: the cells' scores are "
            "enlarged, as selfseg does."
        )
        table.caption_justify = "left"
        return table


def _ms(seconds: float) -> str:
    milliseconds = 1000 * seconds
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def _spread(seconds: Sequence[float]) -> str:
    if len(seconds) < 4:
        return f"{_ms(min(seconds))} to {_ms(max(seconds))}"
    low, _, high = statistics.quantiles(seconds, n=4)
    return f"{_ms(low)} to {_ms(high)}"


def _gib(number: int | None) -> str:
    if number is None:
        return "–"
    return f"{number / 2**30:.2f} GiB" if number >= 2**29 else f"{number / 2**20:.0f} MiB"


def _workers(count: int) -> str:
    if count == 0:
        return "the views, which this process makes itself"
    return "a loader process" if count == 1 else f"{count} loader processes"


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    kinds = sorted(set(sizes))
    if len(kinds) == 1:
        return f"{kinds[0][1]}x{kinds[0][0]}"
    middle = sorted(sizes, key=lambda size: size[0] * size[1])[len(sizes) // 2]
    return f"{len(kinds)} sizes, the middle one {middle[1]}x{middle[0]}"
