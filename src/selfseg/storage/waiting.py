"""Waiting for a folder that has vanished, as one on a network does for a while, instead of failing.

Only a whole folder is waited for: what is missing in a folder that is there is missing.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from safetensors import SafetensorError

from selfseg.errors import BadImage, SelfsegError, StorageError
from selfseg.storage.files import OUTPUT_MARKER

T = TypeVar("T")

GONE = frozenset(
    getattr(errno, name)
    for name in (
        "ENOENT ENOTDIR ESTALE EIO ENOTCONN ENODEV ENXIO EREMOTEIO ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENETDOWN "
        "ENETUNREACH ECONNREFUSED ECONNRESET ECONNABORTED ESHUTDOWN"
    ).split()
    if hasattr(errno, name)
)
"""Errors of a file that a folder on a network gives while it is away."""

_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # s between looks; the last one stays

_console = Console(stderr=True)


def is_there(path: Path) -> bool:
    """Whether a path can be reached; also if it only may not be looked at."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def vanished_output(folder: Path) -> Path | None:
    """The folder if it has lost what `mark_output` put there: gone, or an empty place where it was mounted."""
    return None if is_there(folder / OUTPUT_MARKER) else folder


def may_be_the_folder(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is one that a vanished folder gives."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, SafetensorError):  # the number is only in its text
            found = re.search(r"(?:os error|code:) (\d+)", str(error))
            number = int(found[1]) if found else None
        if number in GONE or (isinstance(error, BadImage) and error.reason in ("missing", "mask-missing")):
            return True
        error = error.__cause__
    return False


@dataclass(frozen=True)
class Patience:
    """How long to wait for a folder that has vanished.

    Attributes:
        seconds: after which it is an error; 0 = at once.
        error: of what kind.
        loud: whether to say on stderr that and for what is waited.
    """

    seconds: float
    error: type[SelfsegError] = field(default=StorageError)
    loud: bool = True

    def outlast(self, do: Callable[[], T], vanished: Callable[[], Path | None]) -> T:
        """Do something, again and again while what it needs is away.

        Args:
            do: may be done twice. What it raises counts only if the folder is there, before and after.
            vanished: the folder that is away, or None.

        Returns:
            What `do` returned.

        Raises:
            SelfsegError: of the kind `error`, if the folder stays away; otherwise what `do` raised.
        """
        again = False
        while True:
            try:
                return do()
            except Exception as error:
                if self.seconds == 0 or not may_be_the_folder(error):
                    raise
                folder = vanished()
                if folder is None and again:
                    raise
                again = folder is None  # it may just have come back: once more
                if folder is not None:
                    self.wait(vanished, error)

    def wait(self, vanished: Callable[[], Path | None], cause: Exception | None = None) -> None:
        """Return as soon as nothing is away any more.

        Raises:
            SelfsegError: of the kind `error`, if it stays away.
        """
        begin, looks = time.monotonic(), 0
        while (folder := vanished()) is not None:
            away = time.monotonic() - begin
            if away >= self.seconds:
                raise self.error(
                    f"{folder} can't be reached any more, for {self.seconds:g} s; bring it back, and the same command "
                    "continues from the newest checkpoint (--wait-folder waits longer)"
                ) from cause
            if not looks:
                first = folder
                self._say(f"{folder} can't be reached; waiting for it, for up to {self.seconds:g} s")
            time.sleep(min(_PAUSES[min(looks, len(_PAUSES) - 1)], self.seconds - away))
            looks += 1
        if looks:
            self._say(f"{first} is back after {time.monotonic() - begin:.1f} s; going on")

    def _say(self, sentence: str) -> None:
        if self.loud:
            _console.print(f"{socket.gethostname()}: {sentence}", markup=False, highlight=False, soft_wrap=True)
