"""Local copies of what lies at a URL: snapshots that are read, and mirrors whose changes are uploaded.

Object stores can't append or rename, and every verb works on local files. So a verb that writes to a URL writes into a
folder of the cache: what lies at the URL is fetched first, and what is new or has changed is uploaded behind it, in
threads, every few seconds and at the end, when a listing is compared with what was sent. Files are written to a
temporary name and renamed (`selfseg.storage.files`), so one that has its name is whole; names that begin with `.tmp-`
are left alone. JSON follows the files that it tells of, and the marker of a checkpoint comes last of all.

A call that was killed goes on from its folder on this machine, or from what had been uploaded on another one. If
somebody else has written to the URL meanwhile, what lies there counts, and what was not uploaded is dropped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from selfseg.errors import ConfigError, RunError, SelfsegError, StorageError, Unreachable
from selfseg.storage.files import storage_errors, write_text
from selfseg.storage.reading import objects_of_lines
from selfseg.storage.remote.cache import Cache, download
from selfseg.storage.remote.connecting import Missing, Stamp, connect, list_files, persist
from selfseg.storage.remote.snapshots import as_unreachable, digest, local_name, names_of
from selfseg.storage.remote.urls import is_web, shown
from selfseg.telling import tell

EVERY = 5.0
"""Seconds between two looks for what is to be uploaded."""

_THREADS = 8
_LAST = "COMPLETE"  # a checkpoint's marker
_WHOLE = 90 << 20  # bytes; larger files go up in parts, and their tag is no MD5


class Mirror:
    """A local folder whose changes are uploaded to a URL.

    Use it as a context; `path` is the local place of the URL, which may become a file or a folder.

    Args:
        url: of a folder or file; its parent is the place where it is put.
        wanted: which names below the URL are fetched; all if None.
        sent: which names are uploaded; all if None.
        writes: whether changes are uploaded; without, it is only the local folder of a process that does.
        claims: whether a file is written at once where nothing lies yet, and removed: a URL which may not be
            written is known before any work.
        every: s between two looks for changes.

    Raises:
        ConfigError: for URLs where nothing can be written.
        RunError: if another process of this machine has it.
        Unreachable: if it can't be read or written.
    """

    def __init__(
        self,
        url: str,
        wanted: Callable[[str], bool] | None = None,
        sent: Callable[[str], bool] | None = None,
        writes: bool = True,
        claims: bool = True,
        every: float = EVERY,
    ) -> None:
        if is_web(url):
            raise ConfigError(
                f"nothing can be written to {shown(url)}; give a folder, or a URL of a store (s3://, gs://)"
            )
        self.url, self._writes, self._claims, self._every = url, writes, claims, every
        self._wanted, self._ours = wanted or (lambda name: True), sent or (lambda name: True)
        self._parent, _, self._last = url.rpartition("/")
        self._folder = Cache.of_environment().folder / "work" / digest(url)
        self._tree = self._folder / "tree"
        self.path = self._tree / local_name(self._last)
        self._record: dict[str, dict[str, Any]] = {}
        self._noting, self._stop = threading.Lock(), threading.Event()
        self._failure: SelfsegError | None = None
        self._thread: threading.Thread | None = None
        self._held = ExitStack()

    def __enter__(self) -> Mirror:
        if not self._writes:
            self._tree.mkdir(parents=True, exist_ok=True)
            return self
        with storage_errors(self._folder), ExitStack() as held:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = held.enter_context((self._folder / "lock").open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(f"another process is at work on {shown(self.url)}; wait for it to end") from error
            (self._folder / "used").unlink(missing_ok=True)
            self._tree.mkdir(exist_ok=True)
            self._fetch()
            self._claim()
            self._held = held.pop_all()
        self._thread = threading.Thread(target=self._watch, name="selfseg-upload", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not self._writes:
            return
        assert self._thread is not None
        self._stop.set()
        self._thread.join()
        with self._held:
            try:
                self._upload()
                self._verify()
                size = sum(entry["size"] for entry in self._record.values())
                write_text(self._folder / "used", str(size))
            except SelfsegError as failure:
                sentence = f"{failure}; what was made lies in {self.path}, and the same command uploads it"
                if error is None:
                    raise Unreachable(sentence) from failure
                tell(sentence)

    # What lies there

    def _remote(self) -> dict[str, Stamp]:
        """The files at the URL, by their names below its parent."""
        inside = self.url + "/"
        listed = {u: stamp for u, stamp in list_files(self.url).items() if u == self.url or u.startswith(inside)}
        return {name: stamp for name, stamp in names_of(listed, self._parent).items() if self._is_ours(name)}

    def _is_ours(self, name: str) -> bool:
        parts = name.split("/")
        if any(part.startswith(".tmp-") or part.endswith(".lock") for part in parts):
            return False
        return self._ours(self._below(name))

    def _below(self, name: str) -> str:
        """A name below the URL itself; "" for a single file."""
        return name.removeprefix(self._last).lstrip("/")

    def _local(self) -> dict[str, os.stat_result]:
        """The files of the local folder that are uploaded, by the same names."""
        found: dict[str, os.stat_result] = {}
        pending = [self._tree]
        while pending:
            with suppress(FileNotFoundError, NotADirectoryError):
                for entry in os.scandir(pending.pop()):
                    name = Path(entry.path).relative_to(self._tree).as_posix()
                    with suppress(FileNotFoundError):
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(Path(entry.path))
                        elif self._is_ours(name):
                            found[name] = entry.stat()
        return found

    def _fetch(self) -> None:
        """Bring the local folder to where the URL is, or leave it where it is ahead of it."""
        remote, local = self._remote(), self._local()
        # A checkpoint whose upload was cut off has no marker: it is as if it weren't there.
        torn = {folder for name in remote if (folder := _checkpoint_of(name)) and f"{folder}/{_LAST}" not in remote}
        remote = {name: stamp for name, stamp in remote.items() if _checkpoint_of(name) not in torn}
        known = self._record = self._read_record()

        def same(name: str) -> bool:
            entry = known.get(name)
            if entry is not None and remote[name].same(Stamp(entry["size"], entry["tag"])):
                return True
            return name in local and self._fits(name, remote[name])

        wanted = {name for name in remote if self._wanted(self._below(name))}
        looked_at = wanted | (remote.keys() & (local.keys() | known.keys()))
        changed = any(name not in remote for name in known) or not all(map(same, looked_at))
        if changed:  # somebody else has written there: what lies there counts
            for name in local:
                if name not in remote or not self._fits(name, remote[name]):
                    (self._tree / name).unlink(missing_ok=True)
            local = self._local()
        absent = wanted - local.keys()
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda name: self._get(name, remote[name]), sorted(absent)))
        for name in remote.keys() & (absent | (local.keys() if changed else set())):
            self._note(name, remote[name].size, remote[name].tag, (self._tree / name).stat().st_mtime_ns)
        self._record = {n: e for n, e in known.items() if n in remote and (n in local or n in absent)}
        self._write_record()

    def _get(self, name: str, stamp: Stamp) -> None:
        target = self._tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with as_unreachable():
            download(f"{self._parent}/{name}", stamp, target)

    def _fits(self, name: str, stamp: Stamp) -> bool:
        """Whether a local file has the bytes of a remote one, as far as its tag tells."""
        path = self._tree / name
        with suppress(FileNotFoundError):
            return path.stat().st_size == stamp.size and (not _is_md5(stamp.tag) or _md5(path) == stamp.tag)
        return False

    # What was sent

    def _read_record(self) -> dict[str, dict[str, Any]]:
        record: dict[str, dict[str, Any]] = {}
        with suppress(FileNotFoundError):
            for entry in objects_of_lines((self._folder / "record.jsonl").read_text("utf-8", "surrogateescape")):
                with suppress(KeyError, TypeError):
                    if entry.get("gone"):
                        record.pop(entry["name"], None)
                    else:
                        record[entry["name"]] = {key: entry[key] for key in ("size", "tag", "time")}
        return record

    def _write_record(self) -> None:
        lines = [json.dumps({"name": name, **entry}) + "\n" for name, entry in self._record.items()]
        write_text(self._folder / "record.jsonl", "".join(lines))

    def _note(self, name: str, size: int, tag: str, time_ns: int, append: bool = False) -> None:
        with self._noting:
            self._record[name] = {"size": size, "tag": tag, "time": time_ns}
            if append:
                self._append({"name": name, **self._record[name]})

    def _append(self, entry: dict[str, Any]) -> None:
        with storage_errors(self._folder), (self._folder / "record.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    # Uploading

    def _claim(self) -> None:
        """Write a file and remove it: whether one may write is to be known before any work."""
        if not self._claims or self._record or self._local():
            return
        url = f"{self._parent}/.tmp-{digest(self.url)}"
        system, inside = connect(url)
        with as_unreachable("can't be written"):
            persist(lambda: system.pipe_file(inside, b"x"), url)
            persist(lambda: system.rm_file(inside), url)

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._upload()
            except SelfsegError as failure:  # the end tries again, and tells
                self._failure = failure

    def _upload(self) -> None:
        """Send what is new or has changed, and remove what has gone."""
        local = self._local()
        due = [name for name, status in local.items() if not self._is_sent(name, status)]
        for group in _in_order(due):
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(self._send, group))
        gone = [name for name in self._record if name not in local]
        for group in reversed(list(_in_order(gone))):
            for name in group:
                if not (self._tree / name).exists():
                    self._remove(name)

    def _is_sent(self, name: str, status: os.stat_result) -> bool:
        entry = self._record.get(name)
        return entry is not None and entry["size"] == status.st_size and entry["time"] == status.st_mtime_ns

    def _send(self, name: str) -> None:
        path = self._tree / name
        url = f"{self._parent}/{name}"
        system, inside = connect(url)
        try:
            before = path.stat()
            tag = _md5(path) if before.st_size < _WHOLE else ""
            with as_unreachable("can't be written"):
                persist(lambda: system.put_file(str(path), inside), url)
            after = path.stat()
        except FileNotFoundError:
            return  # an old checkpoint, say; the next look finds that it has gone
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            self._note(name, before.st_size, tag, before.st_mtime_ns, append=True)

    def _remove(self, name: str) -> None:
        url = f"{self._parent}/{name}"
        system, inside = connect(url)
        with suppress(Missing), as_unreachable("can't be removed"):
            persist(lambda: system.rm_file(inside), url)
        with self._noting:
            self._record.pop(name, None)
            self._append({"name": name, "gone": True})

    def _verify(self) -> None:
        """Compare a listing with what was sent; what doesn't fit is sent once more."""
        for attempt in (0, 1):
            remote = self._remote()
            record = self._record
            both = [name for name in record if name in remote]
            hashed = [name for name in both if _is_md5(record[name]["tag"]) and _is_md5(remote[name].tag)]
            # A store that encrypts has tags that look like an MD5 and are none: then not one of them fits.
            honest = any(record[name]["tag"] == remote[name].tag for name in hashed)
            wrong = [
                name
                for name, entry in record.items()
                if name not in remote
                or remote[name].size not in (entry["size"], -1)
                or (honest and name in hashed and remote[name].tag != entry["tag"])
            ]
            if not wrong:
                break
            if attempt:
                raise StorageError(
                    f"{len(wrong)} files at {shown(self.url)} are not what was sent, e.g. {wrong[0]}; is something "
                    "else writing there?"
                )
            for name in wrong:
                self._send(name)
        for name, entry in record.items():
            entry["tag"] = remote[name].tag
        self._write_record()


def _in_order(names: Iterable[str]) -> Iterator[list[str]]:
    """Names in groups: plain files; of one checkpoint after the other its files and its marker; JSON that tells of all.

    A call that is killed in between leaves whole checkpoints but for one.
    """
    plain, told = list[str](), list[str]()
    checkpoints: dict[str, tuple[list[str], list[str]]] = {}
    for name in sorted(names):
        folder = _checkpoint_of(name)
        if folder:
            checkpoints.setdefault(folder, ([], []))[name.endswith("/" + _LAST)].append(name)
        else:
            (told if name.endswith(".json") else plain).append(name)
    groups = [plain, *(group for folder in sorted(checkpoints) for group in checkpoints[folder]), told]
    yield from (group for group in groups if group)


def _checkpoint_of(name: str) -> str:
    """The folder of a checkpoint that a file lies in; "" if it lies in none."""
    folder = name.rpartition("/")[0]
    above, _, last = folder.rpartition("/")
    return folder if last.startswith("step_") and above.rpartition("/")[2] == "checkpoints" else ""


def _is_md5(tag: str) -> bool:
    return len(tag) == 32 and all(letter in "0123456789abcdef" for letter in tag)


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
