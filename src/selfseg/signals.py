"""Signals that ask a command to stop.

Ctrl-C (SIGINT), SIGTERM, SIGUSR1, by which Slurm warns of a job's end, and SIGHUP, which comes when a terminal or its
connection is closed. `nohup` keeps the last one away, and that stays so.

The first one stops it where its state can be saved; a second one of the same kind ends it at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
"""Those that this system has."""


class Stopped(KeyboardInterrupt):
    """A signal asked a command to stop.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.name = signal.Signals(number).name


class _Ending:
    """Handles signals of a command: the first one raises `Stopped`, the second one ends the process.

    When the command is over, the first one does nothing.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self.hook = sys.unraisablehook  # before this
        self.seen = self.over = False

    def __call__(self, number: int, frame: Any) -> None:
        if os.getpid() != self._owner:
            return
        if self.seen:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.seen = True
        if not self.over:
            raise Stopped(number)

    def unraisable(self, told: Any) -> None:
        """In the place of `sys.unraisablehook`: ask again if Python let go of `Stopped`, as it does in finalizers."""
        if isinstance(told.exc_value, Stopped) and os.getpid() == self._owner:
            self.seen = False
            again = threading.Timer(0.02, self._ask_again, (told.exc_value.number,))
            again.daemon = True
            again.start()
        else:
            self.hook(told)

    def _ask_again(self, number: int) -> None:
        if not self.over:
            os.kill(self._owner, number)


@contextmanager
def ending_on_signals(last: bool = False) -> Iterator[None]:
    """While inside, the first of the signals raises `Stopped` in the main thread, and a second one ends the process.

    Args:
        last: whether the process ends afterwards. Its work is done then, and taking down what was loaded can last a
            second: a signal that comes now changes nothing, and a second one ends the process while threads are still
            waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _Ending()
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup, or in a shell's background
            signal.signal(number, ending)
    if last:
        atexit.register(_ignore)
    sys.unraisablehook = ending.unraisable
    try:
        yield
    finally:
        ending.over = True
        sys.unraisablehook = ending.hook
        if not last:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ignore() -> None:
    """Ignore them from now on; Python would give them their usual effect while it ends."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """While inside, the signals set the event; a second one of the same kind acts as it would outside, or at once.

    Outside of the main thread, where signals can't be handled, the event is never set.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    if before.get(getattr(signal, "SIGHUP", signal.SIGTERM)) is signal.SIG_IGN:
        del before[signal.SIGHUP]
    owner = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() != owner:
            return
        event.set()
        handler = before[signal.Signals(number)]
        if isinstance(handler, _Ending):
            handler.seen = True
        signal.signal(number, handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
