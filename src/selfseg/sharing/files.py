"""A shared folder, from both sides: what is believed of a stranger's, and what must not be in one's own."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from selfseg.errors import CheckpointError, ConfigError

MOST_JSON = 1 << 24
"""Bytes of a shared JSON file: a legend of 65,535 classes has about 6 million."""

MOST_WEIGHTS = 1 << 34
"""Bytes of shared weights, 16 GiB: the largest networks of timm have about 8."""

CARD = "README.md"

_PICKLES = re.compile(r".+\.(?:bin|pt|pth|ckpt|pkl|pickle|joblib|msgpack|h5)", re.IGNORECASE)
_TEXT = (".json", ".md")


def most_bytes(name: str) -> int:
    """How large a shared file may be, by its name."""
    return MOST_JSON if name.endswith(".json") else MOST_WEIGHTS


def check_listing(sizes: Mapping[str, int | None], wanted: Collection[str], where: str, what: str) -> None:
    """Refuse a listing of files that lacks a wanted one, or in which one is too large.

    Args:
        sizes: bytes by name with "/"; None = not known.
        wanted: names that are read.
        where: the folder or repository, for messages.
        what: "embedder" or "segmenter".

    Raises:
        CheckpointError: says what is there instead, and what to do.
    """
    missing = [name for name in wanted if name not in sizes]
    if missing:
        raise CheckpointError(f"{where} holds no {what} of selfseg: {_instead(missing, sizes, what)}")
    for name in wanted:
        size, most = sizes[name], most_bytes(name)
        if size is not None and size > most:
            raise CheckpointError(
                f"{name} in {where} has {size:,} bytes, and such a file has at most {most:,}; it is not read"
            )


def _instead(missing: list[str], there: Iterable[str], what: str) -> str:
    names = sorted(there)
    said = f"{missing[0]} is missing"
    if what == "embedder" and "segmenter.json" in names:
        return f"{said}. It holds a named segmenter: load it with Segmenter.from_pretrained"
    if what == "segmenter" and "embedder.json" in names:
        return f"{said}. It holds an embedder: load it with Embedder.from_pretrained"
    if pickles := [name for name in names if _PICKLES.fullmatch(name)]:
        return (
            f"{said}, and {shown(pickles[0])} is not opened, because such a file can run a program. selfseg reads JSON "
            "and safetensors; `selfseg weights FILE` shows what it can take from a file of another project"
        )
    return f"{said}" + (f" (it holds {', '.join(map(shown, names[:4]))})" if names else " (it is empty)")


def shown(name: str) -> str:
    """A stranger's file name for a message: anything odd in it is written as Python would.

    Example:
        >>> shown("a/b.bin"), shown("a b")
        ('a/b.bin', "'a b'")
    """
    return name if re.fullmatch(r"[\w./-]{1,100}", name, re.ASCII) else ascii(name[:100])


def check_folder(folder: Path, wanted: Collection[str], what: str) -> None:
    """Refuse a folder of which a wanted file is missing, too large, no file, or a link that leads out of the folder.

    What else lies there is neither opened nor counted.

    Raises:
        CheckpointError: says which file, and why.
    """
    sizes: dict[str, int | None] = {}
    try:
        for name in wanted:
            sizes |= _size_of(folder, name)
        missing = [name for name in wanted if name not in sizes]
        others = {entry.name: None for entry in os.scandir(folder)} if missing else {}
    except OSError as error:
        raise CheckpointError(f"{folder} can't be read: {error.strerror or error}") from error
    check_listing({**others, **sizes}, wanted, str(folder), what)


def _size_of(folder: Path, name: str) -> dict[str, int | None]:
    path = folder / name
    if not os.path.lexists(path):
        return {}
    real = path.resolve()
    if not any(real.is_relative_to(place) for place in _places(folder)):
        raise CheckpointError(
            f"{path} is a link that leads out of its folder, to {real}; a shared model has its files inside. Copy the "
            "file there if you trust it"
        )
    status = real.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
        raise CheckpointError(f"{path} is no file; a shared model has files only")
    return {name: status.st_size}


def _places(folder: Path) -> list[Path]:
    """Where the files of a folder may really lie: in it, or beside it where the hub's cache keeps them."""
    real = folder.resolve()
    cached = real.parent.name == "snapshots"  # CACHE/models--USER--NAME/snapshots/COMMIT with links to ../../blobs
    return [real, real.parent.parent / "blobs"] if cached else [real]


def check_own(folder: Path, names: Collection[str], secrets: Iterable[Path | str] = ()) -> None:
    """Refuse to share a folder that holds anything else than these files, or that names a place of this machine.

    Args:
        folder: what shall be shared.
        names: with "/", all that it may hold.
        secrets: places that must not be named in it, beside the home folder and the current one.

    Raises:
        ConfigError: if there is something else, or a link.
        ConfigError: if a text in it names one of the places.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ConfigError(f"{path} is no plain file; only the model's own files are shared: {', '.join(names)}")
        if path.is_file() and name not in names:
            raise ConfigError(
                f"{path} is not part of the model and would be shared with it; take it away, or share a new folder. "
                f"The model's files are {', '.join(names)}"
            )
    words = {str(place) for place in (*secrets, *_around()) if len(str(place)) > 1}
    for name in sorted(names):
        if (folder / name).is_file():
            text = _readable(folder / name)
            for word in sorted(words, key=len, reverse=True):
                if re.search(re.escape(word) + r"(?![\w-])", text):
                    raise ConfigError(
                        f"{folder / name} names {word}, a place of this machine, so nothing is shared; take that out "
                        "of the file first"
                    )


def _around() -> list[Path]:
    """The home folder and the current one, as far as there are any."""
    found = []
    for place in (Path.home, Path.cwd):
        with suppress(OSError, RuntimeError):
            found.append(place())
    return found


def _readable(path: Path) -> str:
    """The text of a file, of tensors that of their header."""
    with path.open("rb") as file:
        if path.suffix in _TEXT:
            data = file.read(MOST_JSON)
        else:
            length = int.from_bytes(file.read(8), "little")
            data = file.read(min(length, MOST_JSON))
    return data.decode("utf-8", "replace")
