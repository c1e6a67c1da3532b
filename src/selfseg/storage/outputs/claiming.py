"""Whose a folder of results is: a verb writes into a new folder or into its own, and two never at once.

The marker of a folder (`selfseg.storage.files.mark_output`) has a word for what lies there. What an older version wrote
has none; there the files tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from selfseg.errors import ConfigError
from selfseg.storage.files import OUTPUT_MARKER, is_unclaimed, mark_output, read_json, sole_use, storage_errors
from selfseg.storage.reading import objects_of_lines
from selfseg.storage.regular import open_regular

Kind = Literal["made_by", "clusters", "segmenter", "embedder", "comparison"]
"""What lies in a folder, by the word in the lines of its progress.jsonl."""

_CALLED: dict[str, str] = {
    "made_by": "masks of objects (selfseg masks)",
    "clusters": "maps of clusters (selfseg segment)",
    "segmenter": "masks of named classes (selfseg apply)",
    "embedder": "embeddings (selfseg embed)",
    "comparison": "a comparison (selfseg compare)",
    "run": "a run (selfseg train)",
}
_RUN = ("recipe.yaml", "checkpoints", "embedder")


def check_output(folder: Path, kind: Kind) -> None:
    """Refuse a folder that holds something else than what `kind` says; nothing is written.

    Raises:
        ConfigError: if it does, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a new folder with --out")
    others = [] if is_unclaimed(folder) else [each.name for each in folder.iterdir() if not each.name.startswith(".")]
    if not others:
        return
    found = what_lies_in(folder)
    if found == kind or (not found and kind == "made_by" and _is_marked(folder)):  # one that was killed early
        return
    if found:
        raise ConfigError(f"{folder} holds {_CALLED[found]}, not {_CALLED[kind]}; give a new folder with --out")
    raise ConfigError(
        f"{folder} holds other files, such as {min(others)}, and results are never mixed with them; give a new folder "
        "with --out"
    )


def check_results(folder: Path) -> None:
    """Refuse a folder for results of evaluations that holds other files and no such result; nothing is written.

    Among images or labels they would be in the way, and table.md could be somebody's own.

    Raises:
        ConfigError: if it does, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a new folder with --out")
    others = [] if is_unclaimed(folder) else [each.name for each in folder.iterdir() if not each.name.startswith(".")]
    if others and not any({"protocol", "metrics"} <= _object_in(file).keys() for file in folder.glob("*.json")):
        raise ConfigError(
            f"{folder} holds other files, such as {min(others)}, and results are never mixed with them; give a new "
            "folder with --out"
        )


@contextmanager
def own_output(folder: Path, kind: Kind) -> Iterator[None]:
    """Make and mark a folder, and hold it: no other process writes results there meanwhile.

    Raises:
        ConfigError: as of `check_output`.
        RunError: if another process is at work on it.
        StorageError: if it can't be made.
    """
    check_output(folder, kind)
    mark_output(folder)
    with sole_use(folder):
        marker = folder / OUTPUT_MARKER
        if _word(folder) != kind:
            with storage_errors(marker):
                marker.write_text(f"{kind}\n", encoding="ascii")
        yield


def check_picture(file: Path | str | None, images: Path, option: str) -> None:
    """Refuse a picture that can't be written, and one among images: it would be one of them, or even replace one.

    Args:
        file: the picture; None = there is none.
        images: their folder, or something else.
        option: which gives the file.

    Raises:
        ConfigError: if its name is no picture's; if it lies below `images`, and in no folder of results there.
    """
    if file is None:
        return
    file = Path(file)
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"{option} is a picture, whose name ends with .png, .jpg or .webp, not {file}")
    if not images.is_dir():
        return
    folder, root = file.resolve().parent, images.resolve()
    if folder.is_relative_to(root):
        between = [folder, *folder.parents][: len(folder.parts) - len(root.parts)]
        if not any((each / OUTPUT_MARKER).exists() for each in between):
            raise ConfigError(f"{file} would lie among the images of {images}, as one of them; give another {option}")


def what_lies_in(folder: Path) -> str:
    """A word of `Kind`, or "run"; "" if that can't be told."""
    word = _word(folder)
    if word:
        return word
    if any((folder / name).exists() for name in _RUN):
        return "run"
    if "how" in _object_in(folder / "masks.json"):
        return "made_by"
    if "embedder" in _object_in(folder / "index.json"):
        return "embedder"
    if any(folder.glob("rows/*/row.json")):
        return "comparison"
    legend = _object_in(folder / "legend.json")
    for key in ("segmenter", "clusters"):
        if key in legend:
            return key
    for name in ("progress.jsonl", "progress.shards.jsonl"):
        for entry in _lines(folder / name):
            for key in ("made_by", "clusters", "segmenter", "embedder"):
                if isinstance(entry.get(key), str):
                    return key
    return ""


def _word(folder: Path) -> str:
    word = _begin_of(folder / OUTPUT_MARKER).strip()
    return word if word in _CALLED else ""


def _is_marked(folder: Path) -> bool:
    marker = folder / OUTPUT_MARKER
    return marker.is_file() and not marker.stat().st_size


def _object_in(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    return objects_of_lines(_begin_of(file))


def _begin_of(file: Path) -> str:
    try:
        with open_regular(file) as stream:
            return stream.read(1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""
