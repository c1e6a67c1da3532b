"""Sentences on what was found or understood, for whoever runs a verb; a library's user hears nothing unless asked.

They go to the logger "selfseg.told" at the level INFO. The command line prints each sentence once; in Python,
`logging.basicConfig(level=logging.INFO)` shows them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

from rich.markup import escape

TOLD = logging.getLogger("selfseg.told")


def plain(text: str) -> str:
    r"""A text for a terminal: what names of files may hold can't move the cursor, colour or rename anything.

    Example:
        >>> print(plain("a\x1b[2J.jpg"))
        a\x1b[2J.jpg
    """
    if text.isprintable():
        return text
    return "".join(each if each in "\n\t" or not _is_control(each) else f"\\x{ord(each):02x}" for each in text)


def cell(text: str) -> str:
    """A text for a table on a terminal, with nothing in it that would be taken for markup, either."""
    return escape(plain(text))


def _is_control(letter: str) -> bool:
    return letter < " " or "\x7f" <= letter <= "\x9f"


def tell(sentence: str) -> None:
    """Say a sentence."""
    TOLD.info("%s", sentence)


@contextmanager
def tell_after(sentence: str, seconds: float = 5.0) -> Iterator[None]:
    """Say a sentence if what is done within takes longer than so many seconds.

    Example:
        >>> with tell_after("the server hasn't answered yet"):
        ...     pass
    """
    timer = Timer(seconds, tell, (sentence,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Once(logging.Handler):
    """Gives each sentence to a function, once.

    Args:
        say: what prints it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say, self._said = say, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """As of every handler."""
        sentence = record.getMessage()
        if sentence not in self._said:
            self._said.add(sentence)
            self._say(sentence)
