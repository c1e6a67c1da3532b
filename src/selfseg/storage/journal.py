"""An append-only file of JSON objects, one a line, that outlives kills, full disks and several writers.

What it promises, and how:

- What `write` has returned from is on the disk: the file is synced, and its folder before the first time.
- A write that was cut off at any byte (a kill, a power cut, a full disk) leaves a last line that is no JSON object, as
  an object ends with its last byte. It is never taken for an entry and never joined to the next: the next write moves
  those bytes to NAME.torn beside the file. A last line that only lacks its newline is whole, and is kept.
- A line that can't be read is reported with its number, and the lines after it are read.
- Writers exclude each other by a lock on the file, which the system drops with the process, however it ends. A writer
  reads what others wrote before it writes. Readers hold the lock too (shared), so they never see half a line of a
  writer that lives. On a file system without locks there are none; single writers are as safe there as anywhere.
- A file that was replaced or rewritten meanwhile (a restored copy, an editor) is read anew from its beginning. It is
  told by being another file, a shorter one, or by other bytes at the end of what was read; who changes single letters
  further up in place, and leaves the length as it is, is heard when the file is opened the next time.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from selfseg.errors import StorageError
from selfseg.storage.files import storage_errors
from selfseg.storage.reading import parse_json

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # folders that can't be synced, on some network file systems
_MARK = 64  # bytes before the place read up to, by which a rewritten file is told from one that grew


class Line(NamedTuple):
    """A line of a journal that isn't empty.

    Attributes:
        number: from 1, as editors count.
        value: the JSON object; None if the line is damaged.
        damage: what is wrong with it; "" if nothing.
    """

    number: int
    value: dict[str, Any] | None
    damage: str = ""


class News(NamedTuple):
    """What was found since the last look.

    Attributes:
        lines: the new ones; all of them if `anew`.
        anew: whether the file is not what it was, so that everything known before is to be forgotten.
    """

    lines: list[Line]
    anew: bool = False


class Held:
    """A journal while nobody else writes to it; see `Journal.hold`.

    Attributes:
        news: what others had written since the last look.
    """

    def __init__(self, journal: Journal, file: int) -> None:
        self._journal, self._file = journal, file
        self.news = journal._read(file)

    def write(self, values: Sequence[Mapping[str, Any]]) -> News:
        """Append objects and sync them to the disk; returns their lines as read back.

        Raises:
            StorageError: if that fails; nothing of them is kept then.
        """
        self._journal._write(self._file, b"".join(_as_line(value) for value in values))
        return self._journal._read(self._file)


class Journal:
    """The file at `path`; it and its folder are made by the first write.

    Args:
        path: of the file.
        patience: seconds to wait for another process that holds it.

    Attributes:
        torn: the bytes of a last line that was cut off; b"" if there is none.
    """

    def __init__(self, path: Path, patience: float = 10.0) -> None:
        self.path = path
        self._patience = patience
        self._threads = threading.RLock()
        self._folder_synced = False
        self.forget()

    def forget(self) -> None:
        """Let the next look read everything again."""
        self._identity: tuple[int, int] | None = None
        self._offset = self._lines = 0
        self._mark = self.torn = b""
        self._unended = False  # the last line is whole but has no newline yet

    def read(self) -> News:
        """What came since the last look, here or elsewhere; nothing where there is no file yet.

        Raises:
            StorageError: if the file can't be read or locked, or has gone since the last look.
        """
        with self._threads, _reading(self.path):
            try:
                file = self._open(os.O_RDONLY, fcntl.LOCK_SH)
            except FileNotFoundError:
                if self._identity is not None:
                    raise self._gone() from None
                return News([])
            try:
                return self._read(file)
            finally:
                os.close(file)

    @contextmanager
    def hold(self) -> Iterator[Held]:
        """Keep other writers out, see what they wrote, and write.

        Raises:
            StorageError: if the file can't be opened or locked, or has gone since the last look.
        """
        with self._threads, storage_errors(self.path):
            if self._identity is not None and not self.path.exists():
                raise self._gone()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self._open(os.O_RDWR | os.O_APPEND | os.O_CREAT, fcntl.LOCK_EX)
            try:
                yield Held(self, file)
            finally:
                os.close(file)

    def _gone(self) -> StorageError:
        return StorageError(
            f"{self.path} was there and is gone, so nothing was written; put it back from a copy, or start again"
        )

    def _open(self, flags: int, lock: int) -> int:
        """The file, locked, once it is sure that the path still leads to it."""
        while True:
            file = os.open(self.path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)  # a pipe would be waited for
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise StorageError(f"{self.path} is no file; move it away")
                self._lock(file, lock)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.stat(self.path), os.fstat(file)):
                        return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # replaced while we waited

    def _lock(self, file: int, kind: int) -> None:
        end = time.monotonic() + self._patience
        while True:
            try:
                return fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise StorageError(
                        f"another process has kept {self.path} locked for {self._patience:g} s; wait for it or end it"
                    ) from error
                time.sleep(0.002)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                return None

    def _read(self, file: int) -> News:
        """What came since the last look at the open file."""
        status = os.fstat(file)
        anew = self._identity is not None and not self._continues(file, status)
        if anew:
            self.forget()
        self._identity = (status.st_dev, status.st_ino)
        data = _pread(file, self._offset, status.st_size)
        lines: list[Line] = []
        consumed = 0
        if self._unended and data:
            consumed, self._unended = 1, False  # the newline, as `_continues` saw
        *whole, tail = data[consumed:].split(b"\n")
        for text in whole:
            consumed += len(text) + 1
            self._take(text, lines)
        self.torn = b""
        if tail.strip():
            if _parse(tail)[0] is not None:
                consumed, self._unended = len(data), True
                self._take(tail, lines)
            else:
                self.torn = tail
        self._offset += consumed
        self._mark = (self._mark + data[:consumed])[-_MARK:]
        return News(lines, anew)

    def _take(self, text: bytes, lines: list[Line]) -> None:
        self._lines += 1
        if text.strip():
            lines.append(Line(self._lines, *_parse(text)))

    def _continues(self, file: int, status: os.stat_result) -> bool:
        """Whether the file still begins with what was read, by its identity and the last bytes."""
        if self._identity != (status.st_dev, status.st_ino) or status.st_size < self._offset:
            return False
        if _pread(file, self._offset - len(self._mark), self._offset) != self._mark:
            return False
        return not self._unended or _pread(file, self._offset, self._offset + 1) in (b"", b"\n")

    def _write(self, file: int, text: bytes) -> None:
        if os.fstat(file).st_size > self._offset:  # a torn line, or blanks
            self._set_aside(_pread(file, self._offset, os.fstat(file).st_size))
            os.ftruncate(file, self._offset)
        if not self._folder_synced:  # by whoever writes first: the file's maker may not have come to it yet
            for folder in (self.path.parent, self.path.parent.parent):
                _sync_folder(folder)
            self._folder_synced = True
        rest = memoryview(b"\n" + text if self._unended else text)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except OSError:
            with suppress(OSError):  # the writer is told that it failed, so it must not be found later
                os.ftruncate(file, self._offset)
            raise

    def _set_aside(self, text: bytes) -> None:
        with self.path.with_name(self.path.name + ".torn").open("ab") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"can't read {path}: {error.strerror or error}") from error


def _pread(file: int, begin: int, end: int) -> bytes:
    parts = []
    while begin < end and (part := os.pread(file, end - begin, begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def _as_line(value: Mapping[str, Any]) -> bytes:
    """Readable UTF-8; names of files that are no UTF-8 are escaped."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False).encode() + b"\n"


def _parse(text: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        value = parse_json(text.removeprefix(b"\xef\xbb\xbf"), most_digits=4000)  # a mark that some editors leave
    except UnicodeDecodeError:
        return None, "not UTF-8"
    except ValueError:
        return None, "not JSON"
    return (value, "") if isinstance(value, dict) else (None, "not a JSON object")
