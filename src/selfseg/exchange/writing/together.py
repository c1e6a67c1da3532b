"""Several formats in one pass over the masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError, EmptyCollection, LabelError
from selfseg.exchange.base import NamedMask
from selfseg.exchange.writing.places import Place, commit, open_place
from selfseg.exchange.writing.writer import Entry, Writer


def write_together(
    kinds: Mapping[str, type[Writer]],
    options: Mapping[str, Mapping[str, Any]],
    masks: Iterable[NamedMask],
    legend: Legend,
    paths: Mapping[str, Path],
) -> dict[str, Path]:
    """Write masks in several formats; see `selfseg.exchange.base.write_formats`.

    Args:
        kinds: the writer of each format, by name.
        options: of each.
        masks: they are gone through once, and one is held at a time.
        legend: the classes.
        paths: the folder or zip of each.

    Returns:
        `paths`.
    """
    for name, kind in kinds.items():
        for option in options[name]:
            if option not in kind.options():
                raise ConfigError(f"the format {name} has no option {option!r}; it has {', '.join(kind.options())}")
    places: dict[str, Place] = {}
    with ExitStack() as stack:
        for name, path in paths.items():
            places[name] = open_place(path)
            stack.callback(places[name].discard)
        writers = [kind(legend, places[name], **options[name]) for name, kind in kinds.items()]
        seen: set[str] = set()
        for index, one in enumerate(masks):
            if one.name in seen:
                raise LabelError(f"two masks are called {one.name!r}; give each image's path below their common folder")
            seen.add(one.name)
            one.check(legend)
            entry = Entry(one, index, legend)
            for writer in writers:
                writer.add(entry)
        if not seen:
            raise EmptyCollection("there is no mask to write")
        for writer in writers:
            writer.finish()
        for place in places.values():
            place.prepare()
        commit(places.values())
        stack.pop_all()
    return dict(paths)
