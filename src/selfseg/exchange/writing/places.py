"""Where files are written: a folder or a zip that is there whole at the end, or not at all.

Everything is written beside its place under a name that begins with ".tmp-", and gets its name when all is done. An
earlier result stays until then. The same content gives the same bytes, zips too. Only what was written by this is ever
replaced: a folder has a list of its files, a zip a comment.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from selfseg.errors import ConfigError
from selfseg.storage.files import OUTPUT_MARKER, is_unclaimed, mark_output, permitted, put_in_place, storage_errors
from selfseg.storage.leftovers import sweep, temporary_prefix
from selfseg.storage.reading import parse_json

_STORED = (".png", ".jpg", ".jpeg", ".webp")  # compressed already
_COMMENT = b"masks written by selfseg"  # by which a zip of ours is told from a person's
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Place(ABC):
    """A folder or a zip that is being written. Paths in it have "/"; each is written once.

    Attributes:
        path: where it will be.
        temporary: where it is meanwhile.
    """

    temporary: Path

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file."""

    @abstractmethod
    def copy(self, name: str, source: Path) -> None:
        """Write a copy of a file."""

    @abstractmethod
    def open(self, name: str) -> IO[str]:
        """A file to write text to, bit by bit; `prepare` closes it."""

    @abstractmethod
    def prepare(self) -> None:
        """Write what is left, so that only `commit` is missing.

        Raises:
            ConfigError: as `open_place`; something may have come there meanwhile.
            StorageError: if the disk is full.
        """

    @abstractmethod
    def discard(self) -> None:
        """Leave nothing behind."""


def open_place(path: Path) -> Place:
    """The place for what is written to `path`: a zip if it ends in ".zip", else a folder.

    Raises:
        ConfigError: if something else is there, which would be lost.
        StorageError: if nothing can be written there.
    """
    with storage_errors(path):
        path = path.resolve() if path.is_symlink() else path  # the link stays, and leads to what is written
        path.parent.mkdir(parents=True, exist_ok=True)
        return _Zip(path) if path.suffix.lower() == ".zip" else _Folder(path)


def commit(places: Iterable[Place]) -> None:
    """Give all that was prepared its name, or nothing.

    Raises:
        StorageError: if that can't be; what was there before is there again.
    """
    put_in_place(*((place.temporary, place.path) for place in places))


class _Folder(Place):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        _refuse_what_is_not_ours(path)
        sweep(path.parent)
        self.temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=temporary_prefix()))
        self._streams: list[IO[str]] = []
        self._names: list[str] = []

    def write(self, name: str, data: bytes) -> None:
        with storage_errors(self.path / name), self._at(name).open("xb") as file:
            file.write(data)

    def copy(self, name: str, source: Path) -> None:
        with storage_errors(self.path / name), self._at(name).open("xb") as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)

    def open(self, name: str) -> IO[str]:
        with storage_errors(self.path / name):
            self._streams.append(self._at(name).open("x", encoding="utf-8", newline="\n"))
        return self._streams[-1]

    def prepare(self) -> None:
        with storage_errors(self.path):
            for stream in self._streams:
                stream.close()
            mark_output(self.temporary)
            lines = "".join(json.dumps(name) + "\n" for name in self._names)
            (self.temporary / OUTPUT_MARKER).write_text(lines, encoding="utf-8")
            self.temporary.chmod(permitted(0o777))
            _refuse_what_is_not_ours(self.path)  # again: writing may have taken an hour

    def discard(self) -> None:
        for stream in self._streams:
            _close(stream)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _at(self, name: str) -> Path:
        path = self.temporary / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._names.append(name)
        return path


class _Zip(Place):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        _refuse_a_zip_that_is_not_ours(path)
        sweep(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(), suffix=".zip")
        self.temporary = Path(name)
        self._file = os.fdopen(handle, "wb")
        self._zip = zipfile.ZipFile(self._file, "w")
        self._zip.comment = _COMMENT
        self._streams: dict[str, IO[str]] = {}

    def write(self, name: str, data: bytes) -> None:
        with storage_errors(self.path):
            self._zip.writestr(_entry(name), data)

    def copy(self, name: str, source: Path) -> None:
        with storage_errors(self.path), source.open("rb") as original:
            with self._zip.open(_entry(name), "w", force_zip64=True) as file:
                shutil.copyfileobj(original, file)

    def open(self, name: str) -> IO[str]:
        # A zip takes one file at a time: this one waits outside until it is complete.
        with storage_errors(self.path):
            self._streams[name] = tempfile.TemporaryFile("w+", dir=self.path.parent, encoding="utf-8", newline="\n")
        return self._streams[name]

    def prepare(self) -> None:
        with storage_errors(self.path):
            for name, stream in self._streams.items():
                stream.flush()
                stream.seek(0)
                with self._zip.open(_entry(name), "w", force_zip64=True) as file:
                    shutil.copyfileobj(stream.buffer, file)  # type: ignore[attr-defined]
                stream.close()
            self._zip.close()
            self._file.close()
            self.temporary.chmod(permitted(0o666))
            _refuse_a_zip_that_is_not_ours(self.path)

    def discard(self) -> None:
        for stream in self._streams.values():
            _close(stream)
        _close(self._zip)
        _close(self._file)
        self.temporary.unlink(missing_ok=True)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_STORED if name.lower().endswith(_STORED) else zipfile.ZIP_DEFLATED
    return entry


def _close(file: IO[str] | IO[bytes] | zipfile.ZipFile) -> None:
    try:
        file.close()
    except OSError:  # what it still held doesn't fit on the disk; it is thrown away anyway
        pass


def _refuse_a_zip_that_is_not_ours(path: Path) -> None:
    """Raise ConfigError if there is something that writing the zip `path` would lose."""
    if not path.exists():
        return
    try:
        with zipfile.ZipFile(path) as archive:
            ours = archive.comment == _COMMENT
    except (zipfile.BadZipFile, IsADirectoryError) as error:
        raise ConfigError(f"{path} exists already and is no zip file; give another name, or remove it") from error
    if not ours:
        raise ConfigError(f"{path} exists already and was not written by selfseg; give another name, or move it away")


def _refuse_what_is_not_ours(path: Path) -> None:
    """Raise ConfigError if there is a file that writing to the folder `path` would lose."""
    if is_unclaimed(path):
        return
    if not path.is_dir():
        raise ConfigError(f"{path} is a file; give a folder")
    marker = path / OUTPUT_MARKER
    ours = {OUTPUT_MARKER}
    if marker.is_file():
        for line in marker.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):  # somebody wrote into it: what it doesn't list isn't ours
                ours.add(str(parse_json(line)))
    for folder, folders, files in os.walk(path):
        links = [one for one in folders if (Path(folder) / one).is_symlink()]  # never gone into
        for file in (*files, *links):
            name = (Path(folder) / file).relative_to(path).as_posix()
            if name not in ours:
                raise ConfigError(
                    f"{path} holds {name}, which was not written by selfseg; give another folder, or move it away"
                )
