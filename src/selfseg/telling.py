"""Sentences on what was found or understood, for whoever runs a verb; a library's user hears nothing unless asked.

They go to the logger "selfseg.told" at the level INFO. The command line prints each sentence once; in Python,
`logging.basicConfig(level=logging.INFO)` shows them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

TOLD = logging.getLogger("selfseg.told")


def tell(sentence: str) -> None:
    """Say a sentence."""
    TOLD.info("%s", sentence)


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
