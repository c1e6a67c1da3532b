"""How far a long job is: a bar on a terminal, and elsewhere a line now and then.

Batch systems, containers and `2> log` have no terminal. There, the first line comes after half a minute, and the pauses
grow with the time that has passed, up to ten minutes, so that a weekend's log stays short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID

T = TypeVar("T")

FIRST, SHARE, LONGEST = 30.0, 0.1, 600.0
"""Seconds before the first line; the pause after that, as a share of the time that has passed; the longest one."""


class Bars(Progress):
    """Rich's `Progress`, which also tells how far it is where there is no terminal.

    Args:
        columns: as of `Progress`; None = Rich's own.
        shown: whether anything is shown.
        console: where; None = stderr.
    """

    def __init__(self, *columns: ProgressColumn, shown: bool = True, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        super().__init__(*columns, console=console, disable=not (shown and console.is_terminal))
        self._in_lines = shown and not console.is_terminal
        self._due = self._began = self.get_time()
        self._due += FIRST
        self._before: dict[TaskID, float] = {}
        self._first: dict[TaskID, tuple[float, float]] = {}  # when the first ones were done, and how many there were

    def add_task(self, description: str, *args: Any, **options: Any) -> TaskID:
        """As of `Progress`."""
        task = super().add_task(description, *args, **options)
        self._before[task] = self.tasks[self.task_ids.index(task)].completed
        return task

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As of `Progress`."""
        super().update(task_id, **changes)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As of `Progress`."""
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, number: TaskID) -> None:
        """Print a line, if it is time for one."""
        if not self._in_lines:
            return
        now, task = self.get_time(), self.tasks[self.task_ids.index(number)]
        if number not in self._first and task.completed > self._before[number]:
            self._first[number] = now, task.completed
        if now < self._due:
            return
        self._due = now + min(LONGEST, max(FIRST, SHARE * (now - self._began)))
        if task.finished:
            return
        words = [f"{task.completed:,.0f}"]
        done, passed = task.completed - self._before[number], task.elapsed or now - self._began
        since, first = self._first.get(number, (now, task.completed))
        if task.completed > first:  # the first one may have waited for what was compiled or loaded
            done, passed = task.completed - first, now - since
        if task.total:
            words = [f"{task.completed:,.0f} of {task.total:,.0f}"]
            if done > 0:
                words.append(f"about {lasting(passed / done * (task.total - task.completed))} left")
        if told := task.fields.get("told"):
            words.insert(1, str(told))
        self.console.print(f"{task.description}: {', '.join(words)}", highlight=False, soft_wrap=True)


def passing(values: Iterable[T], what: str, shown: bool, total: int | None = None) -> Iterator[T]:
    """The values, while a bar or lines tell how many have passed.

    Args:
        values: anything.
        what: is done with them.
        shown: whether anything is shown.
        total: how many there are; None = their length.

    Yields:
        Each value.
    """
    if total is None:
        total = len(values)  # type: ignore[arg-type]
    with Bars(shown=shown) as bars:
        task = bars.add_task(what, total=total)
        for value in values:
            yield value
            bars.advance(task)


def lasting(seconds: float) -> str:
    """A time in the words that one would use.

    Example:
        >>> lasting(42), lasting(170), lasting(7500)
        ('42 s', '3 min', '2 h 05 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
