"""What the verbs share: where they write, and how they read their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tyro
from rich.console import Console

OUT = Console()
ERR = Console(stderr=True)


def parse(verb: str, function: Callable[..., int], words: Sequence[str]) -> int:
    """Call a verb's function with the options of the command line."""
    return tyro.cli(function, prog=f"selfseg {verb}", args=list(words))


def say(sentence: str) -> None:
    """Print a line as it is: paths may hold brackets, and are copied from it."""
    OUT.print(sentence, markup=False, highlight=False, soft_wrap=True)
