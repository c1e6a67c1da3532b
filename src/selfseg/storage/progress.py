"""What a verb has finished, a line for each image, so that a call that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from selfseg.storage.files import storage_errors
from selfseg.storage.reading import objects_of_lines


class ProgressFile:
    """The lines of OUT/progress.jsonl; a context manager while lines are added.

    Args:
        path: of the file; none there is no error.
        key: which says in each line who made the image's file: "embedder", "segmenter", ...
        maker: of the lines that are added.

    Attributes:
        known: the last line of each image that any maker wrote, by name; as text, which takes less than its values
    """

    def __init__(self, path: Path, key: str, maker: str) -> None:
        self.path, self.key, self.maker = path, key, maker
        self.known: dict[str, bytes] = {}
        self._lines: IO[str] | None = None
        self._torn = False
        self._replaced: dict[str, None] = {}  # of which there were lines before another maker began
        self._last = ""  # who began last
        if path.is_file():
            with storage_errors(path), path.open("rb") as file:
                for line in file:
                    self._torn = not line.endswith(b"\n")
                    for entry in objects_of_lines(line.decode("utf-8", "replace")):  # none of one that was cut off
                        if isinstance(entry.get(key), str):
                            self._take(entry, line)

    def _take(self, entry: Mapping[str, Any], line: bytes) -> None:
        if entry.get("begins") is True:
            self._last = entry[self.key]
            gone = [name for name, one in self.known.items() if self._maker_of(one) != self._last]
            for name in gone:
                del self.known[name]
            self._replaced.update(dict.fromkeys(gone))
        elif isinstance(entry.get("name"), str):
            self.known[entry["name"]] = line
            self._replaced.pop(entry["name"], None)

    def _maker_of(self, line: bytes) -> str:
        return str(json.loads(line)[self.key])

    def of(self, name: str) -> dict[str, Any] | None:
        """An image's line, if this maker wrote it."""
        line = self.known.get(name)
        entry: dict[str, Any] | None = None if line is None else json.loads(line)
        return entry if entry is not None and entry[self.key] == self.maker else None

    def made_from(self, name: str, version: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """An image's line, if this maker wrote it of the image as it is now (`ImageCollection.version`)."""
        entry = self.of(name)
        return entry if entry is not None and version is not None and entry.get("source") == version else None

    def beside(self, names: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The images that this maker made something of and that are not among `names`, with their lines."""
        for name in [name for name in self.known if name not in names and _is_inner(name)]:
            entry = self.of(name)
            if entry is not None:
                yield name, entry

    def of_others(self) -> list[str]:
        """The images whose files another maker made, as far as their names lead to files below a folder."""
        others = [name for name, line in self.known.items() if self._maker_of(line) != self.maker]
        return [name for name in (*others, *self._replaced) if _is_inner(name)]

    def begin(self) -> None:
        """Say that this maker replaces what others made, before it does.

        What was said before by the others counts no more. Without this, a kill after a file was replaced and before
        its line was added would leave one maker's file under the other's line.

        Raises:
            StorageError: if the disk is full.
        """
        assert self._lines is not None, "use it as a context manager"
        others = (self._last and self._last != self.maker) or any(
            self._maker_of(line) != self.maker for line in self.known.values()
        )
        if others:
            entry = {"begins": True, self.key: self.maker}
            line = json.dumps(entry) + "\n"
            with storage_errors(self.path):
                self._lines.write(line)
                self._lines.flush()
            self._take(entry, line.encode())

    def __enter__(self) -> ProgressFile:
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = self.path.open("a", encoding="utf-8")
            if self._torn:
                self._lines.write("\n")
                self._torn = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            with storage_errors(self.path):  # what a full disk kept in the buffer is tried again by `close`
                self._lines.close()

    def add(self, entry: Mapping[str, Any]) -> None:
        """An image is done: {"name", "source", ...}.

        Raises:
            StorageError: if the disk is full.
        """
        assert self._lines is not None, "use it as a context manager"
        line = json.dumps({**entry, self.key: self.maker}) + "\n"
        self.known[str(entry["name"])] = line.encode()
        with storage_errors(self.path):
            self._lines.write(line)
            self._lines.flush()


def _is_inner(name: str) -> bool:
    """Whether a name that was read leads to a file below a folder, and not elsewhere."""
    return "\0" not in name and not name.startswith("/") and ".." not in name.split("/") and bool(name)
