"""Temporary files that say whose they are, so that those of killed processes are removed.

`.tmp-MACHINE-PID-RANDOM`: MACHINE is a digest of the machine and of the container in it, where the process number means
something. Whatever is written into a folder for the first time removes what dead processes of the same machine have
left there; what another machine has left, or an older version without a name, is removed when nobody has touched it for
a day.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

PREFIX = ".tmp-"
_OURS = re.compile(r"\.tmp-([0-9a-f]{8})-(\d+)-")
_LONG_AGO = 24 * 3600.0
_AWAY = "-old"  # what it ends with may be the only copy of something, see `selfseg.storage.files.put_in_place`

_swept: set[tuple[int, Path]] = set()


@cache
def _machine() -> str:
    """Of the machine, and of the room of process numbers in it: containers may share a folder and a host's name."""
    try:
        room = os.readlink("/proc/self/ns/pid")
    except OSError:
        room = ""
    return hashlib.blake2b(f"{socket.gethostname()} {room}".encode(), digest_size=4).hexdigest()


def temporary_prefix() -> str:
    """What the names of this process's temporary files begin with; for `tempfile`."""
    return f"{PREFIX}{_machine()}-{os.getpid()}-"


def sweep(folder: Path) -> None:
    """Remove from a folder what killed processes have left; once for each process and folder. Errors are passed over.

    Args:
        folder: only its own entries are looked at, not those of folders in it.
    """
    key = (os.getpid(), folder)
    if key in _swept:
        return
    _swept.add(key)
    remove_abandoned(folder)


def remove_abandoned(folder: Path) -> None:
    """As `sweep`, whenever it is called."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in [each for each in entries if each.name.startswith(PREFIX) and not each.name.endswith(_AWAY)]:
            with suppress(OSError):
                if _is_abandoned(entry):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    ours = _OURS.match(entry.name)
    if ours is not None and ours[1] == _machine():
        return not _is_alive(int(ours[2]))
    newest = entry.stat(follow_symlinks=False).st_mtime
    if entry.is_dir(follow_symlinks=False):
        with os.scandir(entry.path) as inside:
            newest = max([newest, *(each.stat(follow_symlinks=False).st_mtime for each in inside)])
    return time.time() - newest > _LONG_AGO


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's; no number of a process
        return True
    return True
