"""Which files are images: of a folder, a list, a zip, a pattern, of paths. No image is opened here."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.long.images import LONG, open_long_list
from selfseg.data.reading.long.paths import PathList, listed
from selfseg.data.reading.packed.zips import open_zip
from selfseg.data.reading.sniffing import MEASURED, SUFFIXES, companions
from selfseg.errors import DataError, EmptyCollection
from selfseg.storage.files import OUTPUT_MARKER
from selfseg.storage.regular import read_whole
from selfseg.storage.remote.urls import as_url, shown
from selfseg.telling import tell

_LONGEST_LIST = 1 << 30  # bytes

READ = SUFFIXES | MEASURED
"""The suffixes of all that is read, photographs and measured images."""


def list_images(source: Path | str | Sequence[Path | str]) -> ImageCollection:
    """Find the images of a folder, a zip, a list file, a pattern or a sequence of paths.

    Args:
        source: a folder (searched with all its folders, hidden ones left out, links followed, folders that selfseg
            wrote passed over; sorted by code point, the same in every locale), a zip, an image, a pattern such as
            "photos/*.jpg" or "photos/**/*.png", a `.txt` file with a path per line (`read_list`; the order is kept;
            from 64 MiB on it is not held in memory, see `selfseg.data.reading.long.images`), or paths; any of these at
            a URL. Files without an image's suffix are passed over, and counted (`selfseg.telling`).

    Returns:
        The collection. No image was opened: `scan` tells which of them are images.

    Raises:
        EmptyCollection: if there is no image, with what there is instead.
        DataError: if the source is not there or is nothing of these.
    """
    if not isinstance(source, str | Path):
        urls = [as_url(path) for path in source]
        if any(urls):
            return _from_urls(urls, source)
        return _from_paths([Path(path) for path in source], "the given sequence")
    url = as_url(source)
    if url is not None:
        from selfseg.data.reading.remote import list_remote

        return _told(shown(url), *list_remote(url))
    if source == "":
        raise DataError("the images are an empty text; give a folder")
    source = Path(os.path.expanduser(source))
    if source.suffix.lower() == ".zarr" and source.is_dir():  # a folder that is one image
        return _from_paths([source], str(source))
    if source.is_dir():
        return _told(source, *_from_folder(source))
    if not source.exists():
        if glob.has_magic(str(source)):
            return _from_pattern(source)
        raise DataError(
            f"{source} does not exist; give a folder of images, an image, a zip, a pattern such as 'photos/*.jpg' or a "
            ".txt list of paths"
        )
    suffix = source.suffix.lower()
    if suffix == ".zip":
        return _told(source, *open_zip(source))
    if suffix in READ:
        return _from_paths([source], str(source))
    if suffix != ".txt":
        raise DataError(
            f"{source} is not a kind of file that selfseg reads; give a folder, a zip, a .txt list with one path a "
            f"line, or an image ({' '.join(READ)})"
        )
    if source.stat().st_size >= LONG:
        return open_long_list(source)
    return _from_paths(read_list(source), f"the list {source}")


def read_list(path: Path) -> list[Path]:
    r"""The paths that a text file lists, one a line.

    Windows writes such files, too: a byte order mark, UTF-16 and "\r\n" are understood. Other bytes that are no UTF-8
    are taken for those of names. Of a line that names no file as it stands, quotes around it are taken off, what comes
    behind a tab is left out, and "\" is taken for "/". Empty lines and those that begin with # are passed over; # in
    the middle of a line is part of the name.

    Args:
        path: the list; relative paths are from its folder.

    Raises:
        DataError: if it can't be read, or is no text.
    """
    try:
        data = read_whole(path, _LONGEST_LIST)
    except OSError as error:
        raise DataError(f"can't read the list {path}: {error}") from error
    try:
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16") if wide else data.decode("utf-8-sig", "surrogateescape")
    except UnicodeDecodeError as error:
        raise DataError(f"can't read the list {path}: {error}") from error
    if "\0" in text:
        raise DataError(f"can't read the list {path}: it has zero bytes in it, so it is not a text file")
    lines = (line.strip() for line in re.split("\r\n|\r|\n", text))
    return [Path(listed(str(path.parent), line)) for line in lines if line and not line.startswith("#")]


def _from_urls(urls: Sequence[str | None], source: Sequence[Path | str]) -> ImageCollection:
    from selfseg.data.reading.remote import from_urls

    places = [url for url in urls if url is not None]
    if len(places) < len(urls):
        local = next(path for path, url in zip(source, urls, strict=True) if url is None)
        raise DataError(f"the given sequence has both URLs and paths, such as {local}; give one or the other")
    return from_urls(places)


def list_folder(root: Path) -> ImageCollection:
    """As `list_images` of a folder, but nothing is said of its other files: they are labels, say."""
    return _from_folder(root)[0]


def _told(source: Path | str, images: ImageCollection, others: Mapping[str, int]) -> ImageCollection:
    if others:
        kinds = [f"{count} files {suffix}" if count > 1 else f"1 file {suffix}" for suffix, count in others.items()]
        shown = ", ".join(kinds[:5]) + (f" and {sum(others.values())} in all" if len(kinds) > 5 else "")
        tell(
            f"{source}: {shown} {'was' if sum(others.values()) == 1 else 'were'} left out, since selfseg does not "
            "read such files"
        )
    return images


def _from_pattern(pattern: Path) -> ImageCollection:
    others: Counter[str] = Counter()
    parts = Path(os.path.abspath(pattern)).parts
    fixed = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    paths, ours = [], dict[str, bool]()
    for path in map(Path, sorted(glob.glob(str(pattern), recursive=True))):
        if _is_ours(os.path.dirname(os.path.abspath(path)), str(fixed), ours):
            continue
        if path.suffix.lower() in READ and path.is_dir() == (path.suffix.lower() == ".zarr"):
            paths.append(path)
        elif path.is_file():
            others[path.suffix.lower() or "no suffix"] += 1
    if not paths:
        have = ", ".join(f"{count} with {suffix}" for suffix, count in others.most_common(5))
        raise EmptyCollection(f"no image is named like {pattern}" + (f", only files {have}" if have else ""))
    unique = tuple(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    return _told(pattern, ImageCollection(fixed, unique), others)


def _is_ours(folder: str, top: str, known: dict[str, bool]) -> bool:
    """Whether a folder lies in one of results that is below `top`."""
    if len(folder) <= len(top):
        return False
    if folder not in known:
        marked = os.path.exists(os.path.join(folder, OUTPUT_MARKER))
        known[folder] = marked or _is_ours(os.path.dirname(folder), top, known)
    return known[folder]


def _from_paths(paths: list[Path], what: str) -> ImageCollection:
    # Made absolute but not resolved: names shall follow the links that the user wrote.
    unique = tuple(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    if not unique:
        raise EmptyCollection(f"{what} names no image; put one path on each line")
    return ImageCollection(Path(os.path.commonpath([path.parent for path in unique])), unique)


def _from_folder(root: Path) -> tuple[ImageCollection, Counter[str]]:
    found: list[tuple[str, str]] = []
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    pending, linked = [(root, "")], list[tuple[Path, str]]()
    while pending or linked:
        folder, prefix = pending.pop() if pending else linked.pop(0)  # links last: a folder keeps its real name
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder that is listed already
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                listing = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"can't list the folder {folder}: {error.strerror}") from error
        if prefix and any(entry.name == OUTPUT_MARKER for entry in listing):  # our own pictures, not the user's
            continue
        for entry in listing:
            if entry.name.startswith("."):
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that points to itself, say: no folder, and whoever opens it is told why
                is_folder = False
            if suffix == ".zarr" and is_folder:  # a folder that is one image
                found.append((prefix + entry.name, entry.path))
            elif is_folder:
                (linked if entry.is_symlink() else pending).append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif suffix in READ:
                found.append((prefix + entry.name, entry.path))
            else:
                others[suffix or "no suffix"] += 1
    if not found:
        have = ", ".join(f"{count} with {suffix}" for suffix, count in others.most_common(5))
        raise EmptyCollection(
            f"{root} holds no image" + (f", only files {have}" if have else "; it is empty") + "; images are files "
            f"named {' '.join(READ)}"
        )
    found = _without_companions(found, others)
    others = +others  # without those that are none
    found.sort(key=lambda item: item[0])
    return ImageCollection(root, PathList(tuple(path for _, path in found))), others


def _without_companions(found: list[tuple[str, str]], others: Counter[str]) -> list[tuple[str, str]]:
    arrays = companions([name for name, _ in found])
    others[".npy"] += len(arrays)
    return [(name, path) for name, path in found if name not in arrays]
