"""Which files are images: of a folder, of a list, of paths. Nothing is opened here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.sniffing import MEASURED, SUFFIXES
from selfseg.errors import DataError, EmptyCollection
from selfseg.storage.files import OUTPUT_MARKER

READ = SUFFIXES | MEASURED
"""The suffixes of all that is read, photographs and measured images."""


def list_images(source: Path | str | Sequence[Path | str]) -> ImageCollection:
    """Find the images of a folder, a list file or a sequence of paths.

    Args:
        source: a folder (searched with all its folders, hidden ones left out, links followed, folders that selfseg
            wrote passed over; sorted by code point, the same in every locale), a `.txt` file with a path per line
            (relative ones from the list's folder; empty lines and lines that begin with # are passed over; the order
            is kept), or paths. Files of a folder without an image's suffix are passed over.

    Returns:
        The collection. Nothing was opened: `scan` tells which of them are images.

    Raises:
        EmptyCollection: if there is no image, with what there is instead.
        DataError: if the source is not there or is neither a folder nor a list.
    """
    if not isinstance(source, str | Path):
        return _from_paths([Path(path) for path in source], "the given sequence")
    source = Path(source).expanduser()
    if source.is_dir():
        return _from_folder(source)
    if not source.exists():
        raise DataError(f"{source} does not exist; give a folder of images or a .txt list of their paths")
    if source.suffix.lower() != ".txt":
        raise DataError(f"{source} is a file; give its folder, or a .txt list with one path a line")
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't read the list {source}: {error}") from error
    listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return _from_paths([source.parent / Path(line).expanduser() for line in listed], f"the list {source}")


def _from_paths(paths: list[Path], what: str) -> ImageCollection:
    # Made absolute but not resolved: names shall follow the links that the user wrote.
    unique = tuple(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    if not unique:
        raise EmptyCollection(f"{what} names no image; put one path on each line")
    return ImageCollection(Path(os.path.commonpath([path.parent for path in unique])), unique)


def _from_folder(root: Path) -> ImageCollection:
    found: list[tuple[str, Path]] = []
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
            if suffix == ".zarr" and entry.is_dir():  # a folder that is one image
                found.append((prefix + entry.name, Path(entry.path)))
            elif entry.is_dir():
                (linked if entry.is_symlink() else pending).append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif suffix in READ:
                found.append((prefix + entry.name, Path(entry.path)))
            else:
                others[suffix or "no suffix"] += 1
    if not found:
        have = ", ".join(f"{count} with {suffix}" for suffix, count in others.most_common(5))
        raise EmptyCollection(
            f"{root} holds no image" + (f", only files {have}" if have else "; it is empty") + "; images are files "
            f"named {' '.join(READ)}"
        )
    found = _without_companions(found)
    found.sort(key=lambda item: item[0])
    return ImageCollection(root, tuple(path for _, path in found))


def _without_companions(found: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Leave out `a.npy` beside `a.jpg`: features or labels of that image, and no image."""
    stems = {os.path.splitext(name)[0] for name, path in found if path.suffix.lower() in SUFFIXES}
    arrays = {name for name, path in found if path.suffix.lower() == ".npy" and os.path.splitext(name)[0] in stems}
    return [(name, path) for name, path in found if name not in arrays]
