"""Opening files, and nothing else that a name in a folder may stand for.

A pipe with an image's name makes who opens it wait for ever, a device may never end, and some do something when they
are opened. What is opened is looked at before anything is read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegular(OSError):
    """What has the name is a pipe, a socket or a device; `strerror` says which."""


def open_regular(path: Path | str) -> IO[bytes]:
    """Open a file for reading; as `open(path, "rb")`, but never waits for a pipe.

    Raises:
        NotRegular: if it is a pipe, a socket or a device.
        OSError: as `open` does.
    """
    try:
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
        return os.fdopen(handle, "rb")
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
