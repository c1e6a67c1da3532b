"""How many images a GPU looks at together: as many as somebody says, or as many as its free memory holds.

Nobody can tell beforehand what a network takes of a card: layers hold their results for a while, libraries take room
to work in, and other processes have their share. So it is measured: a first batch of one image, one of two, and what
the second took more is what an image takes. Later batches fill a share of what is free, growing a few times at a step,
and each of them corrects the measure. If the memory is too small all the same, half as many are tried, and the limit
stays there: no image is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch

from selfseg.errors import ConfigError, RunError

T = TypeVar("T")
R = TypeVar("R")

MOST = 64
"""Images of a batch where nobody says how many: with more a GPU is hardly faster, and more of them wait."""

_FILLED = 0.6  # share of the free memory that a batch may take; others may use the card, too
_GROWTH = 4  # times as many pixels as the largest batch so far
_UNMEASURED = (32, 1 << 23)  # images and pixels of a batch where memory can't be measured


@dataclass(frozen=True)
class Batching:
    """How many images are looked at together.

    A CPU looks at several images side by side, each in one thread, whatever is said here.

    Attributes:
        images: that a GPU looks at together, at most; "auto" = as many as its free memory holds, up to 64.
        on_cpu: whether a CPU puts images together as a GPU does, which is slower there: to try it without a GPU.

    Raises:
        ConfigError: for a number that can't be.

    Example:
        >>> Batching().applies(torch.device("cpu")), Batching(8).applies(torch.device("cuda"))
        (False, True)
    """

    images: int | Literal["auto"] = "auto"
    on_cpu: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.images, int) and not isinstance(self.images, bool)
        if self.images != "auto" and not (whole and int(self.images) >= 1):
            raise ConfigError(f"--batch must be auto or a number of images from 1 on, not {self.images}")

    def applies(self, device: torch.device) -> bool:
        """Whether images are put together on a device."""
        return device.type == "cuda" or self.on_cpu

    def room(self, device: torch.device) -> Room:
        """The room that there is on a device, nothing measured yet."""
        if self.images != "auto":
            return Room(self.images)
        if device.type == "cuda" and torch.cuda.is_available():
            return Room(MOST, CardMemory(device))
        return Room(_UNMEASURED[0], pixels=_UNMEASURED[1])


AUTO = Batching()
"""As many as a GPU's memory holds."""


class Memory(Protocol):
    """The memory of a device."""

    def free(self) -> int:
        """Bytes that can be had now."""
        ...

    def begin(self) -> None:
        """Measure from here."""
        ...

    def taken(self) -> int:
        """Bytes that were taken at the most since `begin`, beyond those before."""
        ...


class CardMemory:
    """The memory of a CUDA device, as torch hands it out.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0

    def free(self) -> int:
        """What the card has left, and what torch keeps of it without using it."""
        left = torch.cuda.mem_get_info(self._device)[0]
        return left + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)

    def begin(self) -> None:
        """As of `Memory`."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def taken(self) -> int:
        """As of `Memory`; a GPU is not waited for, since torch hands out memory before it works."""
        return torch.cuda.max_memory_allocated(self._device) - self._before


class Room:
    """How many images fit, and what looks at them.

    Args:
        most: images of a batch.
        memory: is measured and filled; None = it is not looked at.
        pixels: of a batch, at most; a single image may have more.

    Example:
        >>> room = Room(most=3)
        >>> room.fitting(480 * 360)
        3
        >>> room.run(lambda some: [2 * each for each in some], [1, 2, 3, 4], pixels=1)
        [2, 4, 6, 8]
    """

    def __init__(self, most: int, memory: Memory | None = None, pixels: int | None = None) -> None:
        self.most, self._memory, self._pixels = most, memory, pixels
        self._least: tuple[int, int] | None = None  # (pixels, bytes) of the smallest batch so far,
        self._largest: tuple[int, int] | None = None  # and of the largest
        self._batches = 0
        self._budget = 0  # bytes

    def fitting(self, pixels: int) -> int:
        """How many images of so many pixels may be looked at together now, at least 1."""
        count = self.most
        if self._memory is not None:
            count = min(count, self._measured(pixels))
        if self._pixels is not None:
            count = min(count, self._pixels // pixels)
        return max(1, count)

    def _measured(self, pixels: int) -> int:
        if self._least is None or self._largest is None or self._batches < 2:
            return 1 + self._batches
        (few, little), (many, much) = self._least, self._largest
        each = much / many
        if many > few:  # without what is taken for any number of pixels; by half at the most, since measures differ
            each = max((much - little) / (many - few), each / 2)
        each = max(each, 1e-9)
        rest = max(0.0, much - each * many)
        return int(min((self._budget - rest) / each, _GROWTH * many) / pixels)

    def run(self, work: Callable[[Sequence[T]], Iterable[R]], group: Sequence[T], pixels: int) -> list[R]:
        """What `work` gives for each of a group, which it is handed in parts that fit.

        Args:
            work: takes several, and gives something for each.
            group: of one size.
            pixels: of each.

        Raises:
            RunError: if the memory is too small for one alone.
        """
        found: list[R] = []
        tried_alone = False
        while len(found) < len(group):
            some = group[len(found) : len(found) + self.fitting(pixels)]
            made = self._try(work, some, pixels)
            if made is not None:
                found += made
                tried_alone = False
                continue
            # Not where the error was caught, which keeps what did not fit alive.
            give_back()
            if len(some) > 1:
                self._pixels = len(some) // 2 * pixels
            elif tried_alone:
                raise RunError(
                    f"the GPU's memory is too small for one image of {pixels:,} pixels; give a smaller --window, or "
                    "--device cpu, or end other programs that use the GPU; then the same command continues"
                )
            tried_alone = len(some) == 1
        return found

    def _try(self, work: Callable[[Sequence[T]], Iterable[R]], some: Sequence[T], pixels: int) -> list[R] | None:
        """None if it did not fit."""
        if self._memory is not None:
            self._memory.begin()
        try:
            made = list(work(some))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        if self._memory is not None:
            self._note(len(some) * pixels, self._memory.taken())
            self._budget = int(_FILLED * self._memory.free())
        return made

    def _note(self, pixels: int, taken: int) -> None:
        self._batches += 1
        if self._least is None or pixels < self._least[0]:
            self._least = pixels, taken
        if self._largest is None or pixels >= self._largest[0]:
            self._largest = pixels, taken


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory is too small; libraries beneath torch say so in words."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "STATUS_ALLOC_FAILED" in text


def once_more(function: Callable[..., R], *arguments: Any) -> R:
    """`function` of the arguments; once more, if memory ran out, after what torch keeps of it was given back."""
    try:
        return function(*arguments)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    give_back()
    return function(*arguments)


def give_back() -> None:
    """Give back what torch keeps of the GPU's memory without using it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
