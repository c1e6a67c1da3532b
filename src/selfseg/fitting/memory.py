"""On a CPU: memory that one step gives back is kept for the next, or is returned to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Parameters of glibc's mallopt(3), and what glibc lets them grow to by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_USUAL = ((_MMAP_MAX, 65_536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))
_KEPT = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))  # no block has a mapping of its own; nothing goes back


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """While inside, memory that tensors give back stays with the process; results are the same to the bit.

    Every step needs the same hundreds of MiB and gives them back. glibc maps a block of more than 32 MiB anew each
    time, and the system fills it with zeros page by page: more than half of a step of `vice_small`
    (docs/numbers.md). The price is a process that is as large as its largest step, until this ends. With another C
    library than glibc, or on a GPU, nothing happens.

    Args:
        device: where the steps run.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    for parameter, value in _KEPT:
        libc.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _USUAL:
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def return_memory() -> None:
    """Return to the system what tensors have given back.

    glibc keeps blocks below 32 MiB for the thread that made them: what a network needed in one thread is of no use to
    what another one does next, and the two add up. With another C library than glibc nothing happens.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        known = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):  # not of Unix, or of another C library
        return None
    return ctypes.CDLL(None) if known else None
