"""What the fork server of loader processes imports: the loader, which takes seconds; it is imported for nothing else.

The fork server notices that the training is gone when it waits for orders, not while it imports. So a thread looks
meanwhile; it ends before anything is forked.
"""

from __future__ import annotations

import gc
import importlib
import os
import threading

_EVERY = 0.1  # s


def _watch(parent: int, loaded: threading.Event) -> None:
    while not loaded.wait(_EVERY):
        if os.getppid() != parent:
            os._exit(1)


def _load() -> None:
    loaded = threading.Event()
    watch = threading.Thread(target=_watch, args=(os.getppid(), loaded), daemon=True)
    watch.start()
    try:
        importlib.import_module("selfseg.data.loader")
    finally:
        loaded.set()
        watch.join()
    # What is loaded stays: loaders share its memory as long as nobody searches it for garbage, and the server ends at
    # once where it would search for a second.
    gc.freeze()


_load()
