"""What lies in a labelled folder and was not taken, in sentences: nothing is passed over in silence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from selfseg.data.labelled.layouts.finding import Layout
from selfseg.data.labelled.values import LOSSLESS
from selfseg.data.reading.decoding import SUFFIXES
from selfseg.errors import EmptyCollection

_EXPLAIN = ("classes.txt", "labelmap.txt", "legend.json")
_LISTS = "ImageSets"


def left_over(layout: Layout) -> tuple[str, ...]:
    """Sentences on files that are neither images nor labels of a split.

    Raises:
        LabelError: as `Layout.pairs`.
    """
    images: set[Path] = set()
    labels: set[Path] = set()
    for split in layout.splits:
        try:
            pairs = layout.pairs(split)
        except EmptyCollection:
            continue
        images.update(pairs.images)
        labels.update(pairs.labels)
    folders = {part.labels for part in layout.parts.values()} - {part.images for part in layout.parts.values()}
    orphans, unused = list[str](), list[str]()
    others: Counter[str] = Counter()
    for path in _files(layout.root):
        if path in images or path in labels or path.name in _EXPLAIN or _LISTS in path.parts:
            continue
        name, suffix = path.relative_to(layout.root).as_posix(), path.suffix.lower()
        if suffix in LOSSLESS and not folders.isdisjoint(path.parents):
            orphans.append(name)
        elif suffix in SUFFIXES:
            unused.append(name)
        else:
            others[suffix or "no suffix"] += 1
    sentences = []
    if orphans:
        sentences.append(f"{_count(orphans, 'label')} no image: {some(orphans)}")
    if unused:
        sentences.append(f"{_count(unused, 'image')} no place in a split: {some(unused)}")
    return (*sentences, *kinds(others))


def kinds(others: Counter[str]) -> tuple[str, ...]:
    """A sentence on files by their suffixes; none of none."""
    if not others:
        return ()
    counted = [f"{count} file{'s' if count > 1 else ''} {suffix}" for suffix, count in others.most_common()]
    return (f"{', '.join(counted)}: selfseg does not read such files here",)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of some names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _count(names: Sequence[str], what: str) -> str:
    return f"1 {what} has" if len(names) == 1 else f"{len(names)} {what}s have"


def _files(root: Path) -> Iterable[Path]:
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))
