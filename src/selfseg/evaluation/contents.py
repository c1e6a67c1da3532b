"""What lies in the files of splits: images that are in both, and whether labels are those of an earlier call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.catalog import VOID, LabelledImages
from selfseg.data.labelled.coloured import ColouredCodes
from selfseg.errors import LabelError
from selfseg.telling import tell
from selfseg.threads import usable_cores

_HEAD = 1 << 16
_SHOWN = 3
_NAMED = 5  # classes


def images_in_both(fit: LabelledImages, measured: LabelledImages) -> dict[str, int]:
    """{"images_in_both": how many images of the measured split the other one holds too}, {} without any; it is told.

    Images are the same if their files have the same bytes.

    Whoever copies images from one split to the other measures what was learned by heart. Only files of the same length
    are read, and of these only the beginnings, unless they are equal.
    """
    lengths = [_by_length(split) for split in (fit, measured)]
    pairs: list[tuple[str, str]] = []
    for length in lengths[0].keys() & lengths[1].keys():
        known = {_digest(path, _HEAD): (name, path) for name, path in lengths[0][length]}
        for name, path in lengths[1][length]:
            other = known.get(_digest(path, _HEAD))
            if other is not None and _digest(path) == _digest(other[1]) != "":
                pairs.append((name, other[0]))
    if pairs:
        pairs.sort()
        listed = ", ".join(name if name == other else f"{name} = {other}" for name, other in pairs[:_SHOWN])
        more = ", ..." if len(pairs) > _SHOWN else ""
        tell(
            f"{len(pairs)} of the {len(measured)} images of {measured.split!r} are in {fit.split!r} too "
            f"({listed}{more}); what learns from labels there has seen them, and its numbers are too good"
        )
    return {"images_in_both": len(pairs)} if pairs else {}


def contents_of(splits: Iterable[LabelledImages]) -> str:
    """16 hex digits of the images' names and lengths and of all that is in the labels: an edited label changes them."""
    digest = hashlib.blake2b(digest_size=8)
    for split in splits:
        for name, image, label in zip(split.images.names, split.images.paths, split.labels, strict=True):
            digest.update(f"{name} {_length(image)} {_digest(label)}\n".encode("utf-8", "surrogateescape"))
        if isinstance(split.codes, ColouredCodes):
            digest.update(repr(split.codes.colours).encode())
        digest.update(f"{split.class_names}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def fingerprint_of(measured: LabelledImages) -> dict[str, str]:
    """8 hex digits each of where a split lies and of its images' names and lengths; no path can be read from them.

    A folder that was moved keeps the second, one that was added to keeps the first.
    """
    names = [
        f"{name} {_length(path)}\n" for name, path in zip(measured.images.names, measured.images.paths, strict=True)
    ]
    told = {"folder": str(measured.root.resolve()), "images": "".join(names)}
    return {
        key: hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
        for key, text in told.items()
    }


def check_labels(fit: LabelledImages, measured: LabelledImages) -> None:
    """Read all labels before a network is trained: what is found after hours of it may cost them all.

    Classes that are measured and can't be learned, because no label has them, are told.

    Raises:
        LabelError: for a label that can't be read, and for a split without a pixel of any class.
    """
    seen = []
    for split in (fit, measured):
        with ThreadPoolExecutor(usable_cores()) as threads:
            counts = np.sum(list(threads.map(partial(_pixels, split), range(len(split)))), axis=0)
        if not counts.any():
            raise LabelError(
                f"no pixel of the {len(split)} labels of the split {split.split!r} of {split.name} is of a class: all "
                f"are void, so there is nothing to learn or measure; `selfseg data {split.root}` tells what they hold"
            )
        seen.append(counts > 0)
    unseen = [name for name, had, wanted in zip(fit.class_names, *seen, strict=True) if wanted and not had]
    if unseen:
        names = ", ".join(unseen[:_NAMED]) + (f" and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else "")
        tell(f"no label of {fit.split!r} has {names}, which {measured.split!r} has: nothing can be learned of them")


def _pixels(split: LabelledImages, index: int) -> NDArray[np.int64]:
    """(C,) pixels of each class in a label."""
    return np.bincount(split.read_label(index).ravel(), minlength=VOID + 1)[: len(split.class_names)]


def contents_of_files(*paths: Path) -> str:
    """16 hex digits of what is in some files, such as COCO's annotations."""
    return hashlib.blake2b("\n".join(map(_digest, paths)).encode(), digest_size=8).hexdigest()


def _by_length(split: LabelledImages) -> dict[int, list[tuple[str, Path]]]:
    found: dict[int, list[tuple[str, Path]]] = {}
    for name, path in zip(split.images.names, split.images.paths, strict=True):
        if (length := _length(path)) > 0:
            found.setdefault(length, []).append((name, path))
    return found


def _length(path: Path) -> int:
    """In bytes; -1 for what is no file."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def _digest(path: Path, most: int = -1) -> str:
    """Of a file, or its beginning; "" where there is none. Whoever reads it for its sake says what is wrong."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return hashlib.blake2b(file.read(most), digest_size=16).hexdigest()
    except OSError:
        return ""
