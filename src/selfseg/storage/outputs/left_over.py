"""What a folder of results holds that its collection does not have any more: removed where that is certain, else told.

A user removes or renames images and calls the verb again. What was made of the images that went would lie beside the
rest as if it belonged there. It is removed if the folder of the image still has other images of the collection, so that
it can't be a disk that is away. Where the image is still there, or lay elsewhere, only a part of a collection may have
been given: then nothing is removed, and a sentence says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfseg.storage.files import storage_errors
from selfseg.telling import tell


def remove_left_over(
    out: Path,
    earlier: Iterable[tuple[str, Mapping[str, Any]]],
    paths: Iterable[Path],
    made: Callable[[str], Sequence[Path]],
    remove: Callable[[Path], object] = lambda path: path.unlink(missing_ok=True),
) -> list[str]:
    """Remove what was made of images that are gone, and tell of what was made of other images.

    Args:
        out: the folder of results.
        earlier: the images that are not in the collection and of which something was made: their names, and their
            lines of progress.jsonl, in which "image" is the path of the image.
        paths: of the collection's images.
        made: the places of what is made of an image, by its name.
        remove: removes one of these.

    Returns:
        The names of the images that are gone.

    Raises:
        StorageError: if something can't be removed.
    """
    left = [
        (name, line.get("image"), found)
        for name, line in earlier
        if (found := [path for path in made(name) if os.path.lexists(path)])
    ]
    if not left:
        return []
    files = {os.path.abspath(path) for path in paths}
    folders = {os.path.dirname(file) for file in files}
    gone, kept = list[str](), list[str]()
    for name, file, found in left:
        # One that is in the collection under another name now, since a second image took its name, is gone, too.
        known = isinstance(file, str) and os.path.dirname(file) in folders
        if not known or (file not in files and os.path.lexists(str(file))):
            kept.append(name)
            continue
        for path in found:
            with storage_errors(path):
                remove(path)
        gone.append(name)
    if gone:
        tell(f"{out}: what was made earlier of {_some(gone, 'image')} was removed, because the images are gone")
    if kept:
        tell(
            f"{out} still holds what was made earlier of {_some(kept, 'other image')}, not given this time; to have "
            "only what belongs to these images, give another --out"
        )
    return gone


def _some(names: Sequence[str], what: str) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''} ({shown})"
