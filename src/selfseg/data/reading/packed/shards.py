"""Images in tar shards (WebDataset's layout), local or remote, read by their offsets.

`shards:SOURCE` names them, where SOURCE is a folder of *.tar files, a path with braces or wildcards
(`/data/part-{000..099}.tar`), or such a URL (`s3://bucket/part-{000..099}.tar`), which fsspec opens. Every member
with an image's suffix is an image, whatever else lies beside it; it is named SHARD.tar/KEY.

Each shard's headers are read once: an index of (name, offset, size) that is kept in the run, so that any image can be
read by its number and every view stays a pure function of (seed, epoch, index). Local shards are read where they are.
Remote ones are copied whole when they are needed, a bounded number at a time, and the training order
(`selfseg.data.loader`) stays within a window of `WINDOW` shards for as long as it has images, so that each is copied
about once an epoch. A connection that fails is tried again and then stops the run: an image that was skipped for it
would be another training.

Shards must be plain tar files: nothing can be read by its offset in a compressed one.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import io
import itertools
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.labels import upright_size
from selfseg.data.reading.decoding import MAX_PIXELS, SUFFIXES, Damage, as_bad_image, decode
from selfseg.data.reading.images import check_stream, spread_indices
from selfseg.data.reading.packed.base import GONE, PackedImages
from selfseg.data.reading.packed.slices import Slice, read_part
from selfseg.errors import BadImage, DataError, EmptyCollection, Unreachable
from selfseg.storage.files import MOST_LINES, read_json, storage_errors, write_atomically, write_json
from selfseg.storage.remote.connecting import connect, persist
from selfseg.storage.remote.urls import shown
from selfseg.storage.waiting import is_there

T = TypeVar("T")

WINDOW = 8
"""Shards that images are drawn from at a time."""

KEPT = 3 * WINDOW
"""Copies of remote shards that a run keeps: the window's, the next one's, and those that slow workers still read."""

_PREFIX = "shards:"


@dataclass(frozen=True, eq=False)
class ShardCollection(PackedImages):
    """Images in tar shards; `paths` are SHARD.tar/MEMBER, which no file system opens.

    Attributes:
        shards: local paths or URLs.
        stamps: of each shard (bytes, what else tells a version) when it was indexed.
        places: (N, 3) int64: of each image its shard, offset and bytes; a shard of -1: the image is gone.
        cache: folder for copies of remote shards; None: each image is asked for by itself.
    """

    shards: tuple[str, ...] = ()
    stamps: tuple[tuple[int, str], ...] = ()
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    cache: Path | None = None

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """How many images each shard has, in their order."""
        return tuple(len(list(group)) for _, group in itertools.groupby(self.paths, _shard_of))

    def read(self, index: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Image `index` as (H, W, 3) uint8 RGB.

        Raises:
            BadImage: as `read_image` does.
            DataError: if a remote shard can't be reached, or is not the one that was indexed.
            StorageError: if its copy can't be written.
        """
        path, (shard, offset, size) = self.paths[index], (int(value) for value in self.places[index])
        if size > 16 * max_pixels:  # as for files
            raise BadImage(path, "too-large", f"a member of {size} bytes")
        data = self._bytes(path, shard, offset, size)
        try:
            return decode(data, path.suffix, max_pixels)
        except Damage as damage:
            raise as_bad_image(path, damage) from damage.__cause__

    def check(self, index: int, max_pixels: int = MAX_PIXELS) -> None:
        """Judge an image without decoding it: of a local shard by header and end, of a remote one by its size.

        Raises:
            BadImage: whatever can be known.
        """
        path, (shard, offset, size) = self.paths[index], (int(value) for value in self.places[index])
        if shard == GONE:
            raise BadImage(path, "missing")
        if not size:
            raise BadImage(path, "empty")
        if _is_remote(self.shards[shard]):
            return
        try:
            with open(self.shards[shard], "rb") as file:
                if not check_stream(io.BufferedReader(Slice(file, offset, size)), path.suffix, max_pixels):
                    self.read(index, max_pixels)
        except Damage as damage:
            raise as_bad_image(path, damage) from damage.__cause__
        except FileNotFoundError as error:
            raise BadImage(path, "missing", "the shard is gone") from error
        except OSError as error:
            raise BadImage(path, "unreadable", error.strerror or str(error)) from error

    def version(self, index: int) -> dict[str, int | str] | None:
        """As of `ImageCollection`: the member's bytes, and the time or tag of its shard."""
        shard, _, size = (int(value) for value in self.places[index])
        return None if shard == GONE else {"bytes": size, "modified": self.stamps[shard][1]}

    def vanished(self) -> Path | None:
        """The first shard, if they are local and none of some can be reached."""
        some = [self.shards[i] for i in spread_indices(len(self.shards), 16)]
        return None if any(_is_remote(url) or is_there(Path(url)) for url in some) else Path(self.shards[0])

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) as `read` gives it, from the image's header; raises OSError if that can't be read."""
        path, (shard, offset, size) = self.paths[index], (int(value) for value in self.places[index])
        try:
            return upright_size(io.BytesIO(self._bytes(path, shard, offset, size)))
        except BadImage as error:
            raise OSError(str(error)) from error

    def _bytes(self, path: Path, shard: int, offset: int, size: int) -> bytes:
        if shard == GONE:
            raise BadImage(path, "missing")
        url = self.shards[shard]
        if not _is_remote(url):
            try:
                return read_part(path, url, offset, size)
            except FileNotFoundError as error:
                raise BadImage(path, "missing", "the shard is gone") from error
        if self.cache is None:
            system, inside = connect(url)
            data = cast(bytes, _persist(lambda: system.cat_file(inside, offset, offset + size), url))
            if len(data) != size:
                raise _changed(url)
            return data
        for _ in range(3):  # another process may just have dropped the copy
            try:
                return read_part(path, _copy(url, self.stamps[shard], self.cache), offset, size)
            except FileNotFoundError:
                continue
        raise DataError(
            f"copies of shards vanish from {self.cache} while they are read; what else deletes files there?"
        )


def is_shards(source: object) -> bool:
    """Whether a source of images is `shards:...`."""
    return str(source).startswith(_PREFIX)


def open_shards(source: Path | str, cache: Path | None = None) -> ShardCollection:
    """Find the images in tar shards.

    Args:
        source: `shards:` and a folder, path or URL, see the top of this module.
        cache: folder for the shards' indices, which are not made again while a shard has the same size and time, and
            for copies of remote shards; None: indices are made anew and remote images asked for one by one.

    Returns:
        The images, ordered by shard and as they lie in it.

    Raises:
        DataError: if there is no such shard, or one is damaged or compressed.
        EmptyCollection: if no shard holds an image.
    """
    text = str(source).removeprefix(_PREFIX)
    shards = _expand(text)
    with ThreadPoolExecutor(8) as pool:
        indices = list(pool.map(lambda shard: _index(shard, cache), shards))
    places = [(i, offset, size) for i, index in enumerate(indices) for _, offset, size in index.members]
    if not places:
        raise EmptyCollection(f"none of the {len(shards)} shards of {text} holds an image ({' '.join(SUFFIXES)})")
    root = Path(os.path.commonpath([os.path.dirname(shard) for shard in shards]))
    paths = tuple(
        Path(shard) / name for shard, index in zip(shards, indices, strict=True) for name, _, _ in index.members
    )
    return ShardCollection(
        root,
        paths,
        shards=tuple(shards),
        stamps=tuple(index.stamp for index in indices),
        places=np.asarray(places, np.int64),
        cache=cache,
    )


@dataclass(frozen=True)
class _Index:
    stamp: tuple[int, str]
    members: tuple[tuple[str, int, int], ...]  # name, offset, bytes


def _expand(text: str) -> list[str]:
    """The shards that a source names, in order: of braces as they are written, else by name."""
    # A path that was a Path has lost one of its URL's slashes.
    text = re.sub(r"^([a-z][a-z0-9+]+):/+(?=[^/])", r"\1://", text)
    if text.startswith(("file://", "local://")):
        text = "/" + text.partition("://")[2].lstrip("/")
    found: list[str] = []
    for part in _braces(text):
        if _is_remote(part):
            system, inside = connect(part)
            scheme = part.partition("://")[0]
            if any(sign in part for sign in "*?["):
                matches: list[str] = _persist(partial(system.glob, inside), part)
                found += sorted(f"{scheme}://{match.lstrip('/')}" for match in matches)
            else:
                found.append(part)
            continue
        local = os.path.abspath(os.path.expanduser(part))
        if os.path.isdir(local):
            found += sorted(glob.glob(os.path.join(glob.escape(local), "**", "*.tar"), recursive=True))
        elif os.path.exists(local):
            found.append(local)
        else:
            matches = sorted(glob.glob(local, recursive=True))
            if not matches and not any(sign in part for sign in "*?["):
                raise DataError(f"there is no shard {local}")
            found += matches
    if not found:
        raise DataError(f"there is no shard in {text}; give a folder of .tar files or e.g. /data/part-{{000..099}}.tar")
    return list(dict.fromkeys(found))


def _braces(text: str) -> Iterator[str]:
    """Every string that braces stand for: {000..012} and {a,b}."""
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        yield text
        return
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if numbers is not None:
        width = len(numbers[1]) if len(numbers[1]) == len(numbers[2]) or numbers[1].startswith("0") else 0
        choices = [f"{i:0{width}d}" for i in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        choices = match[1].split(",")
    for choice in choices:
        yield from _braces(text[: match.start()] + choice + text[match.end() :])


def _index(shard: str, cache: Path | None) -> _Index:
    """A shard's members, from the cache if it knows this version."""
    stamp = _stamp(shard)
    stored = None if cache is None else cache / f"{_digest(shard)}.json"
    if stored is not None and stored.is_file():
        try:
            content = read_json(stored, MOST_LINES)
            if tuple(content["stamp"]) == stamp:
                return _Index(stamp, tuple((str(n), int(o), int(s)) for n, o, s in content["members"]))
        except (ValueError, KeyError, TypeError):
            pass  # cut off, or of another version: made again
    members = _persist(lambda: _scan(shard), shard)
    if stored is not None:
        write_json(stored, {"shard": shard, "stamp": stamp, "members": members})
    return _Index(stamp, tuple(members))


def _scan(shard: str) -> list[tuple[str, int, int]]:
    """(name, offset, bytes) of each image, from the tar's headers."""
    members = []
    try:
        with _open(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                name = os.path.basename(member.name)
                if member.isreg() and not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                    members.append((member.name, member.offset_data, member.size))
    except tarfile.TarError as error:
        raise DataError(
            f"{shard} is damaged or no plain tar file ({error}); a compressed shard must be unpacked first (gunzip)"
        ) from error
    return members


def _stamp(shard: str) -> tuple[int, str]:
    """(bytes, what else tells a version of a shard)."""
    if not _is_remote(shard):
        try:
            status = os.stat(shard)
        except OSError as error:
            raise DataError(f"can't read the shard {shard}: {error.strerror}") from error
        return status.st_size, str(status.st_mtime_ns)
    system, inside = connect(shard)
    info = cast(dict[str, Any], _persist(lambda: system.info(inside), shard))
    known = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
    return int(info.get("size") or 0), next((str(info[key]) for key in known if info.get(key)), "")


def _is_remote(shard: str) -> bool:
    return "://" in shard


def _open(shard: str) -> IO[bytes]:
    if not _is_remote(shard):
        return open(shard, "rb")
    system, inside = connect(shard)
    return cast(IO[bytes], system.open(inside, "rb"))


def _persist(ask: Callable[[], T], url: str) -> T:
    """`persist`; what is not there or not allowed is an error of the data."""
    try:
        return persist(ask, url)
    except FileNotFoundError as error:
        raise DataError(f"there is no shard {shown(url)}") from error
    except PermissionError as error:
        raise Unreachable(str(error.strerror)) from error


def _copy(url: str, stamp: tuple[int, str], cache: Path) -> str:
    """A local copy of a remote shard; the oldest ones go when there are more than `KEPT`."""
    target = cache / f"{_digest(url + str(stamp))}.tar"
    if target.exists():
        return str(target)
    with storage_errors(target):
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / f"{target.stem}.lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process fetches it, the others wait
        if target.exists():
            return str(target)
        system, inside = connect(url)

        def fetch(temporary: Path) -> None:
            _persist(lambda: system.get_file(inside, str(temporary)), url)
            if temporary.stat().st_size != stamp[0]:
                raise _changed(url)

        write_atomically(target, fetch)
        copies = sorted(cache.glob("*.tar"), key=_age)
        for old in copies[: max(0, len(copies) - KEPT)]:
            old.unlink(missing_ok=True)
            old.with_suffix(".lock").unlink(missing_ok=True)
    return str(target)


def _changed(url: str) -> DataError:
    return DataError(f"{url} has changed since it was indexed; give another --out, or restore it")


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _shard_of(path: Path) -> str:
    """The part of SHARD.tar/MEMBER that is the shard, also of a member in folders."""
    text = path.as_posix()
    return text[: text.find(".tar/") + 4]
