"""Loader processes and their fork server end with the training, whatever ended that."""

from __future__ import annotations

import os
import threading
from multiprocessing import Pipe

import pytest

from selfseg.data import loader, preloading


class Gone(Exception):
    """In the place of `os._exit`."""


@pytest.fixture(autouse=True)
def _exits(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise Gone(code)

    monkeypatch.setattr(os, "_exit", leave)


def test_a_server_that_is_still_importing_looks_for_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preloading, "_EVERY", 0.001)
    with pytest.raises(Gone):
        preloading._watch(os.getppid() + 1, threading.Event())
    loaded = threading.Event()
    loaded.set()
    preloading._watch(os.getppid() + 1, loaded)  # it waits for orders by now, and notices by itself


def test_a_loader_ends_when_its_training_has_gone() -> None:
    one, other = Pipe()

    def look() -> None:
        with pytest.raises(Gone):
            loader._exit_with(other.fileno())

    watch = threading.Thread(target=look)
    watch.start()
    watch.join(0.05)
    assert watch.is_alive()
    one.close()  # as the system does for a process that was killed
    watch.join(5)
    assert not watch.is_alive()
