"""Files that were fetched, kept on this disk up to a limit; those that were not used for longest go first.

`SELFSEG_CACHE` names the folder (~/.cache/selfseg if it isn't set), `SELFSEG_CACHE_LIMIT` how large it may get, such as
`50G`. Any number of processes may share it: a file appears by one rename, one of those that want it fetches it, and
what was used within the last minute stays. Who opens a file that was just dropped fetches it again (`Cache.use`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from selfseg.errors import ConfigError, Unreachable
from selfseg.storage.files import storage_errors
from selfseg.storage.remote.connecting import Stamp, cache_folder, connect, persist
from selfseg.storage.remote.urls import shown, suffix_of

T = TypeVar("T")

LIMIT = "20G"
_GRACE = 60.0  # s since its last use, within which nothing is dropped
_STRIPES = 256
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def bytes_of(text: str) -> int:
    """A size such as `20G`, `500M` or a number of bytes.

    Raises:
        ConfigError: if it is none.

    Example:
        >>> bytes_of("1.5K"), bytes_of("7")
        (1536, 7)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if found is None:
        raise ConfigError(f"{text!r} is not a size; write e.g. 20G or 500M")
    return int(float(found[1]) * _UNITS[found[2].upper()])


@dataclass(frozen=True)
class Cache:
    """A folder of fetched files.

    Attributes:
        folder: the folder.
        limit: bytes that it holds at most, but for what is in use.
    """

    folder: Path
    limit: int

    @classmethod
    def of_environment(cls) -> Cache:
        """The one that the environment names."""
        return cls(cache_folder(), bytes_of(os.environ.get("SELFSEG_CACHE_LIMIT") or LIMIT))

    def place(self, url: str, stamp: Stamp) -> Path:
        """Where a version of a file lies, if it is here."""
        digest = hashlib.blake2b(f"{url}\n{stamp.size}\n{stamp.tag}".encode("utf-8", "surrogateescape"), digest_size=20)
        name = digest.hexdigest()
        return self.folder / "files" / name[:2] / (name + suffix_of(url)[:16])

    def fetch(self, url: str, stamp: Stamp) -> Path:
        """The local copy of a version of a file.

        Raises:
            Missing, PermissionError, Unreachable: as `selfseg.storage.remote.connecting.persist`; Unreachable also if
                the file has changed meanwhile.
            StorageError: if the disk is full.
        """
        target = self.place(url, stamp)
        if _touch(target):
            return target
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "locks").mkdir(exist_ok=True)
        with self._lock(f"{int(target.parent.name, 16) % _STRIPES:02x}"):  # one fetches it, the others wait
            if not _touch(target):
                download(url, stamp, target)
                self._account(target.stat().st_size)
        return target

    def use(self, url: str, stamp: Stamp, work: Callable[[Path], T]) -> T:
        """What `work` makes of the local copy; once more, if the copy was dropped before it could be opened."""
        for _ in range(3):
            path = self.fetch(url, stamp)
            try:
                return work(path)
            except Exception:
                if path.exists():
                    raise
        return work(self.fetch(url, stamp))

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.folder / "locks" / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _account(self, size: int) -> None:
        """Look at the whole folder when this process has fetched a twentieth of it."""
        with _counting:
            before = _fetched.get(self.folder)
            _fetched[self.folder] = size if before is None else before + size
            if before is not None and _fetched[self.folder] < self.limit // 20:
                return
            _fetched[self.folder] = 0
        self.trim()

    def trim(self) -> int:
        """Drop what was not used for longest until the limit is kept; returns the bytes that are left."""
        files, total = self._files()
        folders = self._folders()
        total += sum(size for _, size, _ in folders)
        if total <= self.limit:
            return total
        now = time.time()
        for used, size, path in sorted(files):
            if total <= 0.9 * self.limit or now - used < _GRACE:
                break
            path.unlink(missing_ok=True)
            total -= size
        for used, size, folder in sorted(folders):
            if total <= self.limit or now - used < _GRACE:
                break
            if _drop_folder(folder):
                total -= size
                for _, its, path in self._files()[0]:  # a snapshot's files are only ours now
                    if total > self.limit and now - path.stat().st_atime >= _GRACE:
                        path.unlink(missing_ok=True)
                        total -= its
        return total

    def _files(self) -> tuple[list[tuple[float, int, Path]], int]:
        """(last use, bytes, path) of each file that is in no snapshot, and the bytes of all."""
        entries, total = list[tuple[float, int, Path]](), 0
        for folder in (self.folder / "files").glob("??"):
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    status = os.stat(entry.path)
                    if entry.name.startswith(".tmp-"):
                        if time.time() - status.st_mtime > 24 * 3600:  # of a process that was killed
                            os.unlink(entry.path)
                        continue
                    total += status.st_size
                    if status.st_nlink == 1:
                        entries.append((status.st_atime, status.st_size, Path(entry.path)))
        return entries, total

    def _folders(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, path) of each copy of a folder that may be dropped: `used` lies in it, with its size."""
        found = []
        for marker in self.folder.glob("*/*/used"):
            with suppress(FileNotFoundError, ValueError):
                found.append((marker.stat().st_mtime, int(marker.read_text()), marker.parent))
        return found


_fetched: dict[Path, int] = {}
_counting = threading.Lock()


def download(url: str, stamp: Stamp, target: Path) -> None:
    """Fetch a version of a file; it appears in one rename, with the time that the server gives it.

    Raises:
        Missing, PermissionError, Unreachable, StorageError: as `Cache.fetch`.
    """
    temporary = target.with_name(f".tmp-{os.getpid()}-{threading.get_ident()}-{target.name[-40:]}")
    system, inside = connect(url)

    def get() -> None:
        system.get_file(inside, str(temporary))
        got = temporary.stat().st_size
        if stamp.size >= 0 and got != stamp.size:
            if got < stamp.size:
                raise ConnectionError(f"{got} of {stamp.size} bytes came")
            raise Unreachable(f"{shown(url)} has changed since it was listed; run the command again")

    try:
        try:
            persist(get, url)
        except OSError as error:
            if error.errno is None or isinstance(error, FileNotFoundError | PermissionError):
                raise
            with storage_errors(target):
                raise
        if stamp.modified:
            os.utime(temporary, (time.time(), stamp.modified))
        with storage_errors(target):
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _touch(path: Path) -> bool:
    """Whether it is there; its access time, which file systems don't all keep, is set to now."""
    try:
        status, now = path.stat(), time.time()
        if now - status.st_atime > _GRACE / 4:
            os.utime(path, ns=(int(now * 1e9), status.st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def _drop_folder(folder: Path) -> bool:
    """Remove a snapshot that nobody uses."""
    try:
        with (folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            return True
    except OSError:
        return False
