"""Images at URLs: listed where they lie, fetched one by one when they are read, and kept in a cache.

`selfseg.storage.remote` does the asking. A file that is not there is "missing", one that these credentials may not read
"no-permission": both are skipped and listed as ever. A server that can't be reached after all attempts stops the verb:
an image that was skipped for it would be another training.
"""

from __future__ import annotations

import atexit
import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.decoding import MAX_PIXELS
from selfseg.data.reading.formats.base import Layout, Window
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.measured import ImagePlace, Part
from selfseg.data.reading.packed.zips import open_zip
from selfseg.data.reading.sniffing import MEASURED, SUFFIXES, companions
from selfseg.errors import BadImage, DataError, EmptyCollection, Unreachable
from selfseg.ops.channels import Channels
from selfseg.storage.files import OUTPUT_MARKER
from selfseg.storage.remote.cache import Cache
from selfseg.storage.remote.connecting import Missing, Stamp, list_files, stamp_at
from selfseg.storage.remote.places import fetched
from selfseg.storage.remote.urls import as_url, inner_name, shown, suffix_of
from selfseg.telling import tell

T = TypeVar("T")

_READ = (SUFFIXES | MEASURED).keys() - {".zarr"}  # a Zarr is a folder
_pinned = ExitStack()  # copies that a collection reads from, until the process ends
atexit.register(_pinned.close)


@dataclass(frozen=True)
class RemoteImages(ImageCollection):
    """Images at URLs; `paths` are the URLs as paths, which no file system opens.

    Attributes:
        urls: one per image; "" = it is gone.
        stamps: of each the version that was listed.
    """

    urls: tuple[str, ...] = field(default=(), kw_only=True)
    stamps: tuple[Stamp, ...] = field(default=(), kw_only=True)

    def read(self, index: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """As of `ImageCollection`; raises Unreachable if the server can't be reached."""
        return self._use(index, lambda local: local.read(0, max_pixels))

    def read_window(self, index: int, window: Window) -> NDArray[np.uint8]:
        """As of `ImageCollection`; the whole file is fetched."""
        return self._use(index, lambda local: local.read_window(0, window))

    def layout(self, index: int) -> Layout | None:
        """As of `ImageCollection`; None of a file that can't be fetched."""
        try:
            return self._use(index, lambda local: local.layout(0))
        except BadImage:
            return None

    def check(self, index: int, max_pixels: int = MAX_PIXELS) -> None:
        """As of `ImageCollection`; the file is fetched."""
        self._use(index, lambda local: local.check(0, max_pixels))

    def size(self, index: int) -> tuple[int, int]:
        """As of `ImageCollection`."""
        try:
            return self._use(index, lambda local: local.size(0))
        except BadImage as error:
            raise OSError(str(error)) from error

    def version(self, index: int) -> dict[str, int | str] | None:
        """As of `ImageCollection`: the bytes, and the server's tag."""
        stamp = self.stamps[index]
        return {"bytes": stamp.size, "modified": stamp.tag} if self.urls[index] else None

    def file(self, index: int) -> Path:
        """The local copy of image `index`; raises FileNotFoundError or PermissionError where there is none."""
        url = self.urls[index]
        if not url:
            raise Missing(f"{self.paths[index]} is gone")
        return Cache.of_environment().fetch(url, self.stamps[index])

    def measured(self, channels: Channels | None) -> RemoteImages:
        """The same images, read as levels of these channels."""
        return replace(self, channels=channels)

    def subset(self, indices: Iterable[int]) -> RemoteImages:
        """The images at `indices`, under the names that they have here."""
        chosen = list(indices)

        def of(values: Sequence[T]) -> tuple[T, ...]:
            return tuple(values[i] for i in chosen) if values else ()

        return replace(
            self,
            paths=of(self.paths),
            names=of(self.names),
            parts=of(self.parts),
            urls=of(self.urls),
            stamps=of(self.stamps),
        )

    def expanded(self, rows: Sequence[int], names: Sequence[str], parts: Sequence[Part]) -> RemoteImages:
        """As of `ImageCollection`."""
        return replace(self.subset(rows), names=tuple(names), parts=tuple(parts))

    def restore(self, files: Mapping[str, Any]) -> RemoteImages:
        """As of `ImageCollection`; images that are no longer there are "missing" when they are read."""
        here = {path.relative_to(self.root).as_posix(): i for i, path in enumerate(self.paths)}
        places = [ImagePlace.of_json(value) for value in files.values()]
        rows = [here.get(place.file) for place in places]
        parts = tuple(place.part for place in places)
        return replace(
            self,
            paths=tuple(self.root / place.file for place in places),
            names=tuple(files),
            parts=parts if any(part != Part() for part in parts) else (),
            urls=tuple("" if row is None else self.urls[row] for row in rows),
            stamps=tuple(Stamp(-1, "") if row is None else self.stamps[row] for row in rows),
        )

    def _use(self, index: int, work: Callable[[ImageCollection], T]) -> T:
        """What `work` makes of a collection of one local file, the copy of image `index`."""
        path, part = self.paths[index], self.part(index)
        if not self.urls[index]:
            raise BadImage(path, "missing")

        def use(copy: Path) -> T:
            parts = () if part is None else (part,)
            return work(ImageCollection(copy.parent, (copy,), ("0",), channels=self.channels, parts=parts))

        try:
            return Cache.of_environment().use(self.urls[index], self.stamps[index], use)
        except Missing as error:
            raise BadImage(shown(self.urls[index]), "missing") from error
        except BadImage as error:
            raise BadImage(shown(self.urls[index]), error.reason, error.detail) from error
        except PermissionError as error:
            raise BadImage(shown(self.urls[index]), "no-permission", error.strerror or "") from error


def list_remote(source: str) -> tuple[ImageCollection, Counter[str]]:
    """The images at a URL, and how many other files there are by suffix.

    Args:
        source: a folder, a pattern such as `s3://bucket/photos/*.jpg`, an image, a zip, or a `.txt` list with a URL a
            line (relative ones from the list's folder).

    Raises:
        Unreachable: if the server can't be reached, or there is nothing.
        EmptyCollection: if there is no image.
        DataError: as `selfseg.data.reading.listing.list_images`.
    """
    suffix = suffix_of(source)
    if suffix == ".zip":
        return _open_zip(source)
    if suffix == ".txt":
        return _from_list(source), Counter()
    if suffix in _READ and not glob.has_magic(source):
        return from_urls([source]), Counter()
    pattern = source if glob.has_magic(source) and not source.startswith("http") else None
    folder = source
    while pattern is not None and glob.has_magic(folder):
        folder = folder.rpartition("/")[0]
    listed = list_files(folder)
    if not listed:
        hint = (
            "; over https a folder is read where its server lists it, or a .txt list of URLs"
            if "http" in source
            else ""
        )
        raise Unreachable(f"there is nothing at {shown(source)}; check the address{hint}")
    return _from_listing(folder, listed, pattern)


def _from_listing(folder: str, listed: Mapping[str, Stamp], pattern: str | None) -> tuple[RemoteImages, Counter[str]]:
    others: Counter[str] = Counter()
    found: dict[str, str] = {}
    refused: list[str] = []
    ours = {url.rpartition("/")[0] for url in listed if url.endswith("/" + OUTPUT_MARKER)} - {folder}
    for url in listed:
        try:
            name = inner_name(url, folder)
        except DataError:
            refused.append(url)
            continue
        suffix = suffix_of(url)
        if any(part.startswith(".") for part in name.split("/")) or any(url.startswith(f"{own}/") for own in ours):
            continue
        if pattern is not None and not _matches(url, pattern):
            continue
        if ".zarr/" in name or suffix not in _READ:
            others[".zarr" if ".zarr/" in name else suffix or "no suffix"] += 1
        elif name in found:
            refused.append(url)  # another spelling of a name that was taken
        else:
            found[name] = url
    for name in companions(found):
        others[".npy"] += 1
        del found[name]
    if refused:
        tell(
            f"{shown(folder)}: {len(refused)} names that lead out of the folder, are no files' names or are there "
            f"twice were left out, e.g. {shown(refused[0])!r}"
        )
    if not found:
        have = ", ".join(f"{count} with {suffix}" for suffix, count in others.most_common(5))
        raise EmptyCollection(f"{shown(folder)} holds no image" + (f", only files {have}" if have else ""))
    names = sorted(found)
    root = Path(folder)
    urls = tuple(found[name] for name in names)
    paths = tuple(root / name for name in names)
    return RemoteImages(root, paths, urls=urls, stamps=tuple(listed[url] for url in urls)), others


def _matches(url: str, pattern: str) -> bool:
    """As a shell's pattern: a star stays within a name, two of them do not."""
    names, wanted = url.split("/"), pattern.split("/")

    def fits(i: int, j: int) -> bool:
        if j == len(wanted):
            return i == len(names)
        if wanted[j] == "**":
            return any(fits(k, j + 1) for k in range(i, len(names) + 1))
        return i < len(names) and fnmatch.fnmatchcase(names[i], wanted[j]) and fits(i + 1, j + 1)

    return fits(0, 0)


def from_urls(urls: Sequence[str]) -> RemoteImages:
    """A collection of single URLs, in their order; each is asked for its version.

    Raises:
        Unreachable: if a server can't be reached. What is not there is "missing" when it is read.
    """
    from concurrent.futures import ThreadPoolExecutor

    urls = list(dict.fromkeys(urls))

    def stamp(url: str) -> Stamp:
        try:
            return stamp_at(url)
        except (Missing, PermissionError):
            return Stamp(-1, "")

    with ThreadPoolExecutor(16) as pool:
        stamps = tuple(pool.map(stamp, urls))
    folders = [url.partition("?")[0].split("/")[:-1] for url in urls]
    one = len({tuple(folder[:3]) for folder in folders}) == 1
    root = Path(os.path.commonpath(["/".join(folder) for folder in folders]) if one else ".")
    paths = tuple(Path(url.partition("?")[0]) for url in urls)
    return RemoteImages(root, paths, urls=tuple(urls), stamps=stamps)


def _from_list(source: str) -> RemoteImages:
    try:
        stamp = stamp_at(source)
        text = Cache.of_environment().use(source, stamp, lambda path: path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't read the list {shown(source)}: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    folder = source.rpartition("/")[0]
    if not lines:
        raise EmptyCollection(f"the list {shown(source)} names no image; put one URL on each line")
    return from_urls([as_url(line) or f"{folder}/{line}" for line in lines])


def _open_zip(source: str) -> tuple[ImageCollection, Counter[str]]:
    local = pinned(source)
    images, others = open_zip(Path(local))
    root = Path(source.partition("?")[0])
    return replace(images, root=root, paths=tuple(root / path.relative_to(local) for path in images.paths)), others


def pinned(source: Path | str) -> Path | str:
    """A local copy of a folder or file at a URL, also of `NAME:URL`, that stays until the process ends."""
    local: Path | str = _pinned.enter_context(fetched(source))
    return local
