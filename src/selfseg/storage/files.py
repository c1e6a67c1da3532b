"""Writing files so that a crash or a full disk leaves nothing half-written."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from selfseg.errors import RunError, StorageError
from selfseg.storage.leftovers import sweep, temporary_prefix
from selfseg.storage.reading import objects_of_lines, read_bytes
from selfseg.storage.reading import read_json as read_json

_UMASK = os.umask(0o077)  # can only be read by setting it, at a time when no other thread writes
os.umask(_UMASK)


def permitted(mode: int) -> int:
    """The permissions that the user lets new files and folders have: `mode` less the umask.

    What `tempfile` makes is for nobody else, whatever the user wants.
    """
    return mode & ~_UMASK


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an error of the file system met while writing `path` into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        raise _storage_error(path, error.errno, error.strerror or str(error)) from error
    except SafetensorError as error:
        # It is no OSError: the number is only in its text, "... No space left on device (os error 28)" or "code: 28".
        number = re.search(r"(?:os error|code:) (\d+)", str(error))
        raise _storage_error(path, int(number[1]) if number else None, str(error)) from error


def _storage_error(path: Path, number: int | None, reason: str) -> StorageError:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"no space left while writing {path}; make room and run the same command again")
    return StorageError(f"can't write {path}: {reason}")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    Args:
        path: where the file shall be; its folder is made.
        write: called with the temporary path, which has the same suffix.

    Raises:
        StorageError: if the disk is full or the folder can't be written.
    """
    with storage_errors(path):
        make_folder(path.parent)
        sweep(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(), suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            temporary.chmod(permitted(0o666))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_folder_atomically(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder beside `folder`, then put it in that place.

    The two folders are exchanged in one step where the file system can, so that a kill leaves one or the other; else
    what was there is renamed away first, and back if that fails. Nobody ever sees a mixture of old and new.

    Args:
        folder: where it shall be; its parent is made.
        write: called with the temporary folder, which is empty.

    Raises:
        StorageError: if the disk is full or the folder can't be written.
    """
    with storage_errors(folder):
        make_folder(folder.parent)
        sweep(folder.parent)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=temporary_prefix()))
        try:
            write(temporary)
            temporary.chmod(permitted(0o777))
            for file in temporary.rglob("*"):
                file.chmod(permitted(0o777 if file.is_dir() else 0o666))
            put_in_place((temporary, folder))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(*pairs: tuple[Path, Path]) -> None:
    """Rename what was written beside its places to its places, all or none.

    What is there is exchanged with the new in one step where the file system can; else it is renamed away first. It is
    removed when all is in place. If that can't be, everything is put back.

    Args:
        pairs: a temporary file or folder, and its place in the same folder.

    Raises:
        StorageError: if a name can't be given.
    """
    begun: list[tuple[Path, Path, Path | None]] = []  # and where the old one is renamed to, None if exchanged
    try:
        for temporary, place in pairs:
            with storage_errors(place):
                if os.path.lexists(place) and _exchange(temporary, place):
                    begun.append((temporary, place, None))
                    continue
                old = temporary.with_name(temporary.name + "-old")
                begun.append((temporary, place, old))
                if os.path.lexists(place):
                    os.rename(place, old)
                os.rename(temporary, place)
    except BaseException:
        for temporary, place, away in reversed(begun):
            _put_back(temporary, place, away)
        raise
    for temporary, _, away in begun:
        _remove(temporary if away is None else away)


def _exchange(one: Path, other: Path) -> bool:
    """Give two files or folders each other's names in one step; False where the system or its file system can't."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # no Linux, or a C library from before 2018
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0)


_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD, and the flag of renameat2


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _put_back(temporary: Path, place: Path, old: Path | None) -> None:
    """What is there tells how far the renaming came."""
    try:
        if old is None:
            if not _exchange(temporary, place):
                raise OSError(errno.EIO, "they can't be exchanged again")
            return
        if not os.path.lexists(temporary):
            os.rename(place, temporary)
        if os.path.lexists(old):
            os.rename(old, place)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"what was in {place} is in {old or temporary} now, and can't be renamed back: {reason}"
        ) from error


OUTPUT_MARKER = ".selfseg-output"

_held: set[Path] = set()
"""What this process has by `sole_use`."""


def make_folder(folder: Path) -> None:
    """Make a folder and those that it lies in; but no folder anew that this process holds and that has vanished.

    Where a folder of a network was mounted an empty place is left, and what is written there is lost to the others.

    Raises:
        OSError: if it can't be made; FileNotFoundError for a held one.
    """
    for held in tuple(_held):  # another thread may begin or end to hold one
        if folder.is_relative_to(held):
            os.stat(held / OUTPUT_MARKER)
    folder.mkdir(parents=True, exist_ok=True)


def mark_output(folder: Path) -> None:
    """Make a folder for results and mark it, so that a search for images passes over it.

    Raises:
        StorageError: if it can't be made.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / OUTPUT_MARKER).touch()


def clear(folder: Path) -> None:
    """Remove a folder of results, if it is there.

    Raises:
        StorageError: if it can't be removed.
    """
    with storage_errors(folder):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)


def is_unclaimed(folder: Path) -> bool:
    """Whether nothing is there, or only what a start leaves that is killed before it has written anything."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(p.name == OUTPUT_MARKER or p.name.startswith(".tmp-") for p in folder.iterdir())


@contextmanager
def sole_use(folder: Path, patience: float = 0.0, *, fixed: bool = False) -> Iterator[None]:
    """Hold a folder that `mark_output` made; the system lets go of it when the process ends, however it ends.

    Args:
        folder: the folder.
        patience: seconds to wait for another process that holds it. A server of files may hold on for that of a machine
            that is gone.
        fixed: whether the folder can't be another one, so that nothing is left but to wait.

    Raises:
        RunError: if another process holds it.
    """
    end = time.monotonic() + patience
    with (folder / OUTPUT_MARKER).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < end:
                    time.sleep(0.2)
                    continue
                way_out = "wait until it has ended" if fixed else "wait for it, or give another folder"
                raise RunError(f"another process is at work on {folder}; {way_out}") from error
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # file systems without locks
                    raise
            break
        _held.add(folder)
        try:
            yield
        finally:
            _held.discard(folder)


def check_writable(folder: Path) -> None:
    """Find out whether files can be written into a folder, or one be made there, before hours are spent on them.

    Raises:
        StorageError: if not.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    with storage_errors(folder), tempfile.TemporaryFile(dir=there):
        pass


def write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 text atomically; bytes of file names that are no UTF-8 become "\\udc.." in it."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. Bytes of file names that are no UTF-8 are read back as they were."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        text = json.dumps(value, indent=2)
    write_text(path, text + "\n")


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, JSON objects with a "step"; none if there is no log. A line that was cut off is left out."""
    try:
        text = read_bytes(path, MOST_LINES).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RunError(f"can't read {path}: {error}") from error
    return [line for line in objects_of_lines(text) if isinstance(line.get("step"), int)]


MOST_LINES = 1 << 32
"""Bytes of a file with a line for each image or step."""
