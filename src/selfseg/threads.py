"""How many cores there are to use, and how many threads one thing may take of them.

Sums are added up in another order when more threads share them, so their last bits depend on the number of cores. What
goes through a collection looks at several images side by side instead, each in one thread: the result is the same
whatever the machine and however the work is shared out, and it takes half of the processor's time.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_depth = 0  # of `one_thread_each`, in all threads of this process together
_before = 1  # threads that torch had when the first one began
_limits: threadpool_limits | None = None
_most: int | None = None


def usable_cores() -> int:
    """Cores that this process may use."""
    try:
        found = len(os.sched_getaffinity(0))
    except AttributeError:  # not on a Mac
        found = os.cpu_count() or 1
    return found if _most is None else max(1, min(found, _most))


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Where libraries look, when they are loaded, how many threads they may start."""


def use_cores(most: int) -> None:
    """From now on this process uses at most so many cores, as others use the rest; torch's threads too."""
    global _most
    _most = most
    os.environ.update(dict.fromkeys(THREADS, str(usable_cores())))
    if "torch" in sys.modules:  # else it looks there; it takes seconds to import, and a worker may not need it
        import torch

        torch.set_num_threads(usable_cores())


@contextmanager
def one_thread_each() -> Iterator[None]:
    """While it lasts every torch and BLAS call of this process runs in the thread that makes it.

    For small problems, and for images that are looked at side by side: threads would wait for each other. Several may
    overlap, in several threads; the last to end gives the threads back.
    """
    import torch

    global _depth, _before, _limits
    with _lock:
        if _depth == 0:
            _before = torch.get_num_threads()
            torch.set_num_threads(1)
            _limits = threadpool_limits(1, user_api="blas")  # 10 ms: it looks at every library
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                torch.set_num_threads(_before)
                assert _limits is not None
                _limits.restore_original_limits()
