"""URLs in the place of paths: a function that is given one works on a local copy, and what it writes is uploaded.

    @at_places(runs=["run"], writes=["out"])
    def segment(run, images, out): ...

Where no URL is given, the function is called as it is and nothing is imported. Folders of images are no places: they
are opened where they are (`selfseg.data.reading.remote`).
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from selfseg.errors import SelfsegError
from selfseg.storage.remote.urls import as_url, repaired, shown

P = ParamSpec("P")
R = TypeVar("R")

_KEPT = ("embedder", "clusters", "results", "pictures", "concepts", "segmenter", "studio", "finetune")
_LABELLED = re.compile(r"([A-Za-z][\w-]+(?:/[\w-]+)?):(.+)", re.DOTALL)
_OPTIONS = re.compile(r"(.+?)(\?(?:label-suffix|val|labels)=.*)", re.DOTALL)

_active: dict[tuple[str, bool], Path] = {}
"""The copies that this process works with now, by URL and whether they are written: functions that call each other
share them."""


def of_run(name: str) -> bool:
    """Whether a file of a run is fetched for verbs that use it: all but checkpoints, caches, and foreign folders."""
    first, _, rest = name.partition("/")
    return not rest or first in _KEPT


def of_film(name: str) -> bool:
    """Whether a file of a run is fetched where its checkpoints are looked at."""
    return of_run(name) or name.startswith("checkpoints/")


def of_training(name: str) -> bool:
    """Whether a file of a run is fetched where it is trained, with checkpoints and curves."""
    return of_run(name) or name.partition("/")[0] in ("checkpoints", "tensorboard")


def not_cached(name: str) -> bool:
    """Whether a file of a run is uploaded: its cache is of this machine."""
    return not name.startswith("cache/")


@contextmanager
def written(
    place: Any,
    wanted: Callable[[str], bool] | None = None,
    sent: Callable[[str], bool] | None = None,
    writes: bool = True,
    claims: bool = True,
) -> Iterator[Any]:
    """A path as it is; of a URL its local folder, whose changes are uploaded while the context is open.

    Args:
        place: where something is written.
        wanted: see `selfseg.storage.remote.mirroring.Mirror`.
        sent: as there.
        writes: as there.
        claims: as there.
    """
    url = as_url(place)
    if url is None:
        yield place
        return
    if (url, True) in _active:
        yield _active[url, True]
        return
    from selfseg.storage.remote.mirroring import Mirror

    with Mirror(url, wanted, sent, writes, claims) as mirror:
        _active[url, True] = mirror.path
        try:
            yield mirror.path
        except SelfsegError as error:
            error.args = tuple(with_urls(arg) if isinstance(arg, str) else arg for arg in error.args)
            raise
        finally:
            del _active[url, True]


@contextmanager
def fetched(place: Any, wanted: Callable[[str], bool] | None = None) -> Iterator[Any]:
    """A path as it is; of a URL, also behind `NAME:`, a local copy that is only read.

    Args:
        place: where something lies.
        wanted: see `selfseg.storage.remote.snapshots.snapshot`.
    """
    text = str(place) if isinstance(place, str | Path) else ""
    said = any(f"?{word}=" in text for word in ("val", "label-suffix", "labels"))
    options = _OPTIONS.fullmatch(text) if said or as_url(text) is None else None
    body, rest = (options[1], options[2]) if options else (text, "")
    named = None if as_url(body) else _LABELLED.fullmatch(body)
    url = as_url(named[2] if named else body)
    if url is None:
        yield place
        return
    path = _active.get((url, True)) or _active.get((url, False))
    if path is not None:
        yield type(place)(f"{named[1]}:{path}{rest}" if named else f"{path}{rest}")
        return
    from selfseg.storage.remote.snapshots import snapshot

    with snapshot(url, wanted) as path:
        _active[url, False] = path
        try:
            yield type(place)(f"{named[1]}:{path}{rest}" if named else f"{path}{rest}")
        except SelfsegError as error:
            error.args = tuple(with_urls(arg) if isinstance(arg, str) else arg for arg in error.args)
            raise
        finally:
            del _active[url, False]


def with_urls(text: str) -> str:
    """A message in which local copies are called by their URLs."""
    text = repaired(text)
    for (url, _), path in sorted(_active.items(), key=lambda item: -len(str(item[1]))):
        text = text.replace(str(path), shown(url))
    return text


def at_places(
    runs: Sequence[str] = (),
    models: Sequence[str] = (),
    writes: Sequence[str] = (),
    reads: Sequence[str] = (),
    wanted: Callable[[str], bool] = of_run,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take URLs; see the top of this module.

    Args:
        runs: parameters that are runs, or sequences of them: read, and what is written into them is uploaded.
        models: parameters that are runs, or sequences of them, that are only read.
        writes: parameters that are folders or files for results.
        reads: parameters that are only read, such as labelled data.
        wanted: which files of a run are fetched.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def placed(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs)
            with ExitStack() as held:
                for names, enter in (
                    (runs, lambda place: written(place, wanted, not_cached, claims=False)),
                    (models, lambda place: fetched(place, wanted)),
                    (writes, written),
                    (reads, fetched),
                ):
                    for name in names:
                        if name in given.arguments:
                            given.arguments[name] = _entered(given.arguments[name], enter, held)
                return function(*given.args, **given.kwargs)

        return placed

    return decorate


def _entered(value: Any, enter: Callable[[Any], Any], held: ExitStack) -> Any:
    if isinstance(value, str | Path):
        return held.enter_context(enter(value))
    if isinstance(value, list | tuple):
        return type(value)(_entered(each, enter, held) for each in value)
    return value
