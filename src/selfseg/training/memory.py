"""Freed memory that the process keeps, so that big tensors of the next step need no new pages."""

from __future__ import annotations

import contextlib
import ctypes
import sys

# mallopt's numbers in glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_GIGABYTE = 1 << 30


def keep_freed_memory() -> bool:
    """Let glibc keep blocks of up to 1 GiB after they are freed, instead of returning them to the system.

    A step on a CPU frees and asks again for the same large tensors; each time the system hands out zeroed pages one
    by one. For the gradient of ViCE's full-resolution embeddings (640 MiB) that takes 0.4 s, ten times as long as
    filling it. The price: the process's memory stays at its peak.

    Returns:
        Whether it took effect; False where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        return bool(library.mallopt(_M_MMAP_THRESHOLD, _GIGABYTE) and library.mallopt(_M_TRIM_THRESHOLD, _GIGABYTE))
    return False
