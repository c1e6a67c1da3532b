"""The files of a format: in a folder, in a zip that is never unpacked, or a single one. None of them is trusted.

A zip is refused if a member's name leads out of it, if it is encrypted, or if a member says it is too large; what is
read of it never exceeds what it said. XML is refused with a document type, whose entities make a small file a large
one.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from selfseg.data.labelled.coco_json import inner_path
from selfseg.data.labelled.layouts.finding import split_in_words
from selfseg.errors import DataError, LabelError
from selfseg.storage.regular import read_whole

_LARGEST = 1 << 31  # bytes of a text; COCO's own largest has 470 MB
_EXPLAIN = ("legend.json", "labels.xml", "renamed.json")  # what writers lay beside the files they write
_DEEPEST = 100  # elements within each other


def split_of_file(path: Path) -> str:
    """The split that the name of a file of labels tells: "val" of instances_val2017.json; "" if it tells none."""
    return split_in_words(re.split(r"[^A-Za-z0-9]+", path.stem)) or ""


@dataclass(frozen=True)
class Tree:
    """The files below a folder or in a zip, by their names with "/"; of a single file that one, and what explains it.

    Attributes:
        path: the folder, zip or file.
        names: of all files, sorted.
        archive: the open zip, if it is one.
        beside: of a single file, those beside it that explain it; only `find` tells of them.
    """

    path: Path
    names: tuple[str, ...]
    archive: zipfile.ZipFile | None = field(default=None, repr=False)
    beside: tuple[str, ...] = ()

    @staticmethod
    def open(path: Path) -> Tree:
        """List the files.

        Raises:
            DataError: if there is nothing, or the zip is damaged.
            LabelError: if a name in the zip leads out of it.
        """
        try:
            if path.is_dir():
                found = (file for file in path.rglob("*") if file.is_file())
                names = (file.relative_to(path).as_posix() for file in found)
                return Tree(
                    path, tuple(sorted(n for n in names if not any(part.startswith(".tmp-") for part in n.split("/"))))
                )
            if not zipfile.is_zipfile(path):
                path.stat()
                above = ("", "../") if path.absolute().parent.name == "annotations" else ("",)
                beside = (f"{folder}{name}" for folder in above for name in _EXPLAIN)
                return Tree(
                    path.parent, (path.name,), beside=tuple(name for name in beside if (path.parent / name).is_file())
                )
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise DataError(f"can't open {path}: {error}") from error
        members = [info for info in archive.infolist() if not info.is_dir()]
        for info in members:
            try:
                inner_path(info.filename)
            except LabelError as error:
                raise LabelError(f"{path}: {error}") from error
        return Tree(path, tuple(sorted({info.filename for info in members})), archive)

    def ending(self, *suffixes: str) -> list[str]:
        """The names that end so, in any case; what systems hide among them is passed over."""
        kept = [name for name in self.names if name.lower().endswith(suffixes)]
        return [
            name for name in kept if not name.startswith("__MACOSX/") and not name.rpartition("/")[2].startswith("._")
        ]

    def find(self, wanted: str) -> str | None:
        """The name of a file called `wanted`, at the top or in the only folder that has one."""
        for name in self.beside:
            if name.rpartition("/")[2] == wanted:
                return name
        if wanted in self.names:
            return wanted
        deeper = [name for name in self.ending(f"/{wanted.lower()}") if name.endswith(f"/{wanted}")]
        return deeper[0] if len(deeper) == 1 else None

    def place(self, name: str) -> Path:
        """Where a file is, for messages; in a folder it can be opened there."""
        return self.path / name

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: if it can't be read, or is too large.
        """
        try:
            if self.archive is None:
                if self.place(name).stat().st_size > _LARGEST:
                    raise DataError(f"{self.place(name)} has more than {_LARGEST} bytes")
                return read_whole(self.place(name), _LARGEST)
            info = self.archive.getinfo(name)
            if info.flag_bits & 1:
                raise DataError(f"{self.place(name)} is encrypted; unpack it first")
            if info.file_size > _LARGEST:
                raise DataError(f"{self.place(name)} unpacks to {info.file_size} bytes; at most {_LARGEST} are read")
            with self.archive.open(info) as member:
                return member.read(info.file_size + 1)
        except (
            OSError,
            KeyError,
            ValueError,
            EOFError,
            RuntimeError,
            NotImplementedError,
            zipfile.BadZipFile,
        ) as error:
            raise DataError(f"can't read {self.place(name)}: {error}") from error
        except Exception as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"can't read {self.place(name)}: {error}") from error  # zlib.error and its like

    def text(self, name: str) -> str:
        """The text of a file, UTF-8 with or without its mark.

        Raises:
            DataError: if it is no such text.
        """
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.place(name)} is no UTF-8 text: {error}") from error

    def json(self, name: str) -> Any:
        """The value of a JSON file.

        Raises:
            DataError: if it is none.
        """
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            raise DataError(f"can't read {self.place(name)} as JSON: {type(error).__name__}: {error}") from error

    def xml(self, name: str) -> Element:
        """The root of an XML file.

        Raises:
            DataError: if it is none, has a document type, or is nested too deeply.
        """
        builder, depth = TreeBuilder(), 0

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal depth
            depth += 1
            if depth > _DEEPEST:
                raise DataError(f"{self.place(name)} has more than {_DEEPEST} elements within each other")
            builder.start(tag, attributes)

        def end(tag: str) -> None:
            nonlocal depth
            depth -= 1
            builder.end(tag)

        def refuse(*_: Any) -> None:
            raise DataError(
                f"{self.place(name)} declares a document type (<!DOCTYPE), which labels don't need and attacks do; "
                "take that line out if you trust the file"
            )

        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
        parser.buffer_text = True
        try:
            parser.Parse(self.read(name), True)
            root: Element = builder.close()
        except (expat.ExpatError, ValueError, LookupError, AssertionError) as error:
            raise DataError(f"can't read {self.place(name)} as XML: {error}") from error
        return root
