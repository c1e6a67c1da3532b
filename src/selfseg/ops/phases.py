"""The phases of a training step, told to whoever measures them; nobody listens most of the time, and nothing is done.

The networks say when they are at work ("forward"), the functions on regions when they are ("regions"), the loop says
the rest. Phases may lie inside each other: time belongs to the innermost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Literal, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Phase = Literal["data", "forward", "regions", "loss", "backward", "optimiser"]

PHASES: tuple[Phase, ...] = ("data", "forward", "regions", "loss", "backward", "optimiser")
"""In the order in which a step first comes to them."""


class Listener(Protocol):
    """What is told of phases."""

    def enter(self, phase: Phase) -> None:
        """The phase begins, perhaps inside another one."""

    def leave(self) -> None:
        """The innermost phase ends."""


_listener: Listener | None = None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """While inside, a listener is told of the phases of this process."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextmanager
def phase(name: Phase) -> Iterator[None]:
    """What is inside belongs to a phase."""
    listener = _listener
    if listener is None:
        yield
        return
    listener.enter(name)
    try:
        yield
    finally:
        listener.leave()


def in_phase(name: Phase) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let every call of a function belong to a phase.

    Example:
        >>> class Told(list):
        ...     def enter(self, phase):
        ...         self.append(phase)
        ...
        ...     def leave(self):
        ...         self.append("end")
        >>> add = in_phase("loss")(lambda a, b: a + b)
        >>> told = Told()
        >>> with listening(told):
        ...     print(add(1, 2), told)
        3 ['loss', 'end']
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def told(*args: P.args, **kwargs: P.kwargs) -> R:
            if _listener is None:
                return function(*args, **kwargs)
            with phase(name):
                return function(*args, **kwargs)

        return told

    return decorate
