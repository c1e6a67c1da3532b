"""What the verbs share: where they write, and how they read their words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

OUT = Console()
ERR = Console(stderr=True)


def parse(verb: str, function: Callable[..., int], words: Sequence[str]) -> int:
    """Call a verb's function with the options of the command line."""
    return tyro.cli(function, prog=f"selfseg {verb}", args=list(words))


def say(sentence: str) -> None:
    """Print a line as it is: paths may hold brackets, and are copied from it."""
    OUT.print(sentence, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def passes() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for each pass over images: call what is yielded with (what, images done, images in all)."""
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=ERR) as bar:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield show
