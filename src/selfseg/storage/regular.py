"""Opening files, and nothing else that a name in a folder may stand for.

A pipe with an image's name makes who opens it wait for ever, a device may never end, and some do something when they
are opened. What is opened is looked at before anything is read.

No program can give up a read from a network folder that doesn't answer. But it can say which file it waits for: a
thread looks every few seconds whether a read has begun long ago.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from selfseg.telling import tell

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


SLOW = 30.0
"""Seconds after which a read is said to wait."""


class NotRegular(OSError):
    """What has the name is a pipe, a socket or a device; `strerror` says which."""


def open_regular(path: Path | str) -> IO[bytes]:
    """Open a file for reading; as `open(path, "rb")`, but never waits for a pipe.

    Raises:
        NotRegular: if it is a pipe, a socket or a device.
        OSError: as `open` does.
    """
    try:
        with _watch.over(path):
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # what a socket gives
            _check(os.stat(path).st_mode, path)
        raise
    except ValueError as error:  # a name with a zero byte, of a list
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    try:
        mode = os.fstat(handle).st_mode
        _check(mode, path)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return io.BufferedReader(_Watched(handle, path))
    except BaseException:
        os.close(handle)
        raise


def read_whole(path: Path | str, most: int) -> bytes:
    """The bytes of a file that is held in memory at once.

    Raises:
        OSError: as `open_regular`, and EFBIG for a file of more than `most` bytes.
    """
    with open_regular(path) as stream:
        if os.fstat(stream.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"a file of more than {most} bytes", str(path))
        return stream.read()


def read_text(path: Path | str, most: int = 64 << 20) -> str:
    """The UTF-8 text of a file that is held in memory at once, without a byte order mark, with plain line ends.

    Raises:
        OSError: as `read_whole`.
        UnicodeDecodeError: if it is no UTF-8.
    """
    return read_whole(path, most).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _check(mode: int, path: Path | str) -> None:
    for is_one, what in _KINDS:
        if is_one(mode):
            raise NotRegular(errno.EINVAL, f"{what}, no file", str(path))


class _Watch:
    """Says which reads have begun long ago; one thread, from the first read on."""

    def __init__(self) -> None:
        self._reads: dict[object, tuple[Path | str, float]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, path: Path | str) -> Iterator[None]:
        """While it lasts a file is opened or read."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="slow files", daemon=True)
            self._thread.start()
        key = object()
        self._reads[key] = path, time.monotonic()
        try:
            yield
        finally:
            self._reads.pop(key, None)

    def _look(self) -> None:
        while True:
            time.sleep(min(SLOW / 4, 5))
            for key, (path, began) in list(self._reads.items()):
                waits = time.monotonic() - began
                if waits > SLOW and self._reads.pop(key, None) is not None:
                    tell(
                        f"still waiting for {path}, for {waits:.0f} s by now: the disk or the network folder that it "
                        "lies on may not answer. selfseg goes on as soon as it does; Ctrl-C stops here"
                    )


class _Watched(io.FileIO):
    """A file whose reads are watched over."""

    def __init__(self, handle: int, path: Path | str) -> None:
        super().__init__(handle, "rb")
        self._path = path

    def readinto(self, buffer: WriteableBuffer) -> int:
        with _watch.over(self._path):
            return super().readinto(buffer) or 0

    def readall(self) -> bytes:
        with _watch.over(self._path):
            return super().readall() or b""


_watch = _Watch()


def _watch_anew() -> None:
    global _watch
    _watch = _Watch()  # a forked process has none of its parent's threads


os.register_at_fork(after_in_child=_watch_anew)
