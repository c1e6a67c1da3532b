"""Local copies of folders at URLs, that are only read, and what mirrors share with them.

A snapshot is made of links to files of the cache, under the digest of its listing: it is made anew when the listing
changes, of the files that have changed, and one that is in use stays what it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from selfseg.errors import ConfigError, DataError, Unreachable
from selfseg.storage.files import storage_errors, write_text
from selfseg.storage.remote.cache import Cache
from selfseg.storage.remote.connecting import Missing, Stamp, list_files
from selfseg.storage.remote.urls import inner_name, shown

_THREADS = 8


def names_of(listed: dict[str, Stamp], folder: str) -> dict[str, Stamp]:
    """A listing by safe names below the folder.

    Raises:
        DataError: if a name leads out of it, or two are one file, or one is a file and a folder.
    """
    found: dict[str, Stamp] = {}
    for url, stamp in listed.items():
        name = inner_name(url, folder)
        if name in found:
            raise DataError(f"{shown(folder)} lists {name!r} twice, under two spellings; rename one of them there")
        found[name] = stamp
    for name in found:
        for end in (i for i, letter in enumerate(name) if letter == "/"):
            if name[:end] in found:
                raise DataError(f"{shown(folder)} lists {name[:end]!r} as a file and as a folder; rename one of them")
    return found


@contextmanager
def snapshot(url: str, wanted: Callable[[str], bool] | None = None) -> Iterator[Path]:
    """A local copy of a folder or file at a URL, as it is now; it is only for reading.

    Args:
        url: the URL.
        wanted: which names below it are fetched; all if None.

    Raises:
        Unreachable: if it can't be read, or nothing lies there.
        DataError: for names that lead out of it.
        StorageError: if the disk is full.
    """
    cache = Cache.of_environment()
    listed = list_files(url)
    if not listed:
        raise Unreachable(f"there is nothing at {shown(url)}; check the address")
    parent, _, last = url.rpartition("/")
    single = list(listed) == [url]
    if wanted is not None and not single:
        listed = {u: stamp for u, stamp in listed.items() if wanted(u.removeprefix(url).lstrip("/"))}
    names = names_of(listed, parent if single else url)
    facts = json.dumps([url, sorted((name, stamp.size, stamp.tag) for name, stamp in names.items())])
    folder = cache.folder / "snapshots" / digest(facts)
    urls = dict(zip(names, listed, strict=True))
    with _held(folder, fcntl.LOCK_SH):
        tree = folder / "tree" / local_name(last)
        if not (folder / "used").exists():
            with _fetching(cache, folder):
                _link_all(cache, names, urls, tree.parent if single else tree)
        write_text(folder / "used", "0")
        yield tree.parent / next(iter(names)) if single else tree


@contextmanager
def _fetching(cache: Cache, folder: Path) -> Iterator[None]:
    """One process makes a snapshot; what another one did meanwhile is found by its files."""
    with (folder / "making").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _link_all(cache: Cache, names: dict[str, Stamp], urls: dict[str, str], tree: Path) -> None:
    def get(name: str) -> None:
        target = tree / name
        if target.exists():
            return
        with as_unreachable():
            cache.use(urls[name], names[name], lambda path: _link(path, target))

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(get, names))


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name[-40:]}")
    try:
        os.link(path, temporary)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        with storage_errors(target):
            shutil.copy2(path, temporary)
    os.replace(temporary, target)


@contextmanager
def _held(folder: Path, kind: int) -> Iterator[None]:
    """Hold a folder of the cache, so that it isn't dropped."""
    while True:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / "lock").open("a")
        with file:
            fcntl.flock(file, kind)
            if _still(file, folder / "lock"):
                yield
                return


def _still(file: IO[Any], path: Path) -> bool:
    """Whether an open file is the one at a path: the folder may have been dropped while we waited for it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def as_unreachable(what: str = "can't be read") -> Iterator[None]:
    """What a server refuses, as an error with a sentence."""
    try:
        yield
    except (Missing, PermissionError) as error:
        raise Unreachable(f"{error.strerror or error} ({what})") from error


def digest(text: str) -> str:
    """A short name for a text, as a folder is called."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def local_name(last: str) -> str:
    """The last name of a URL as one of a local file."""
    if last in ("", ".", "..") or "\\" in last or "\0" in last:
        raise ConfigError(f"{last!r} at the end of a URL is no name of a file or folder")
    return last.partition("?")[0]
