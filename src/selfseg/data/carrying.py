"""How batches come out of loader processes: through shared memory, or through pipes where there is too little of it.

Containers often have 64 MiB of shared memory. A process that finds it full is killed, or its batch is lost and training
waits for ever; so each process looks before it writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

SHARED = "/dev/shm"
"""Where Linux has it; other systems tell no limit."""

_PAGE = 4096


@dataclass(frozen=True)
class Piped:
    """A batch that came through a pipe.

    Attributes:
        content: the batch, with `_Values` in the place of its tensors.
        size: of its tensors, in bytes.
        free: bytes of shared memory that were left; None if the system did not give what it said it had.
    """

    content: Any
    size: int
    free: int | None

    def unpacked(self) -> Any:
        """The batch as it was made."""
        return _changed(self.content, _Values, _Values.tensor)

    def sentence(self) -> str:
        """What to tell of it."""
        left = "cannot be had" if self.free is None else f"has only {self.free / 2**20:.1f} MiB left"
        return (
            f"shared memory ({SHARED}) {left}, and a batch has {self.size / 2**20:.1f} MiB: batches come from the "
            "loader processes through pipes, which is slower; give it more (docker run --shm-size 2g), or --workers 0"
        )


@dataclass(frozen=True)
class _Values:
    """A tensor's values; `NDArray`s are copied into a pipe, and tensors would go to shared memory."""

    values: NDArray[Any]
    channels_last: bool

    @staticmethod
    def of(tensor: Tensor) -> _Values:
        last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        return _Values(tensor.detach().contiguous().numpy(), last)

    def tensor(self) -> Tensor:
        tensor = torch.from_numpy(np.require(self.values, requirements="W"))
        return tensor.contiguous(memory_format=torch.channels_last) if self.channels_last else tensor


@dataclass(frozen=True)
class Carrier:
    """Makes a batch of samples, and chooses its way if this is a loader process.

    Attributes:
        collate: makes the batch: tensors, in tuples, lists, dictionaries and dataclasses.
        processes: how many may write into the same shared memory at the same time.
    """

    collate: Callable[[Sequence[Any]], Any]
    processes: int

    def __call__(self, samples: Sequence[Any]) -> Any:
        """The batch, or a `Piped` one."""
        batch = self.collate(samples)
        if get_worker_info() is None:
            return batch
        tensors = list(_tensors(batch))
        size = sum(tensor.nbytes + _PAGE for tensor in tensors)
        free = free_shared_memory()
        # What others have reserved and not written yet is not counted, so there must be room for all at once.
        if free is None or free >= (self.processes + 1) * size:
            try:
                for tensor in tensors:
                    tensor.share_memory_()  # type: ignore[no-untyped-call]
                return batch
            except (RuntimeError, OSError):  # torch's words for "no space left"
                free = None
        return Piped(_changed(batch, Tensor, _Values.of), size, free)


def free_shared_memory() -> int | None:
    """Bytes that are left of it; None where the system does not tell."""
    try:
        state = os.statvfs(SHARED)
    except (OSError, AttributeError):
        return None
    return state.f_bavail * state.f_frsize


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _changed(value: Any, kind: type[Any], change: Callable[[Any], Any]) -> Any:
    """A batch in which everything of a kind is changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_changed(item, kind, change) for item in value)
    if isinstance(value, dict):
        return {key: _changed(item, kind, change) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _changed(getattr(value, f.name), kind, change) for f in fields(value)})
    return value
