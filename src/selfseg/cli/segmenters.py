"""The verbs of named segmenters: name, apply."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import arg

from selfseg.cli.console import (
    BatchSize,
    Further,
    ImagesPath,
    Processes,
    RayAddress,
    RunPath,
    batching,
    say,
    where_to_work,
)
from selfseg.errors import ConfigError
from selfseg.storage.remote.places import at_places

if TYPE_CHECKING:
    from selfseg.data.labelled.legend import Colour

_SHOWN = 3  # typical images of a cluster in the list


@at_places(runs=["run"])
def name(
    run: RunPath,
    pairs: Annotated[tuple[str, ...], tyro.conf.Positional, arg(metavar="[3=road 5,7=sky 9=void ...]")] = (),
    k: Annotated[int | None, arg(aliases=["-k"])] = None,
    colours: tuple[str, ...] = (),
) -> int:
    """Name a run's clusters, which makes RUN/segmenter; without pairs: list them, with their names.

    Args:
        run: the trained and clustered run.
        pairs: a cluster, or several with commas, and a name. The same name again: one class. 9=void leaves cluster 9
            out, 9= takes its name away, or takes it in again. Names given earlier are kept.
        k: which clustering; that of the names so far, else the largest.
        colours: of classes, such as road=#804080.
    """
    from selfseg.collection.clusters import load_clusters
    from selfseg.segmenter.naming import LEFT_OUT, cluster_name, renamed
    from selfseg.studio.carrying import keep_names
    from selfseg.studio.decisions import DecisionLog

    if not pairs and not colours:
        return _list(run, k)
    names = {number: cluster_name(given) for number, given in _names(pairs).items()}
    made = renamed(run, names, k, _colours(colours))
    out = [number for number, given in names.items() if given == LEFT_OUT]
    # The log first: the studio shows them, and nobody else has what a person decided.
    clusters = load_clusters(run, made.about["k"])
    keep_names(run, clusters, {n: given for n, given in names.items() if n not in out}, out)
    folder = made.save(run / "segmenter")
    say(f"written: {folder} ({', '.join(made.legend.names)}); masks with it: selfseg apply {run} IMAGES --out DIR")
    if clicks := len(DecisionLog.open(run / "studio").state().clicks):
        noun = "click" if clicks == 1 else "clicks"
        say(f"it is made of names alone; for the {clicks:,} {noun} made in the studio, use “Hand over” there")
    return 0


@at_places(models=["segmenter"], writes=["out"])
def apply(
    segmenter: Annotated[Path, tyro.conf.Positional, arg(metavar="RUN|SEGMENTER")],
    images: ImagesPath,
    out: Path,
    overlays: bool = True,
    window: Further[int | None] = None,
    geojson: bool = False,
    min_area: Further[int] = 0,
    large_as: Further[Literal["tiff", "zarr"]] = "tiff",
    device: str = "auto",
    max_bad: Further[float] = 0.05,
    processes: Processes = None,
    ray: RayAddress = None,
    batch: BatchSize = "auto",
) -> int:
    """Write the mask of every image in named classes, as palette PNGs; a stopped call goes on.

    Args:
        segmenter: a run whose clusters have names, or the folder of a segmenter.
        images: folder of images, or NAME:ROOT.
        out: folder for the results.
        overlays: whether to write the photographs under the classes' colours, too.
        window: look at images with more than twice this side's pixels in windows of this many px; the
            run's own if not given, or 1024 for images that can't be looked at whole.
        geojson: also write the areas as polygons, in map coordinates where an image has some.
        min_area: of the polygons, in px: smaller ones become part of the largest one beside them.
        large_as: what the maps of images that are looked at in windows are written as: tiled TIFF or OME-Zarr.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
        processes: share the work between so many processes of this machine; the files are the same.
        ray: share it on a Ray cluster: its address, auto for the one that RAY_ADDRESS or this machine's files name, or
            local to start one here. --processes is then the number of workers; as many as there is room for if not
            given.
        batch: how many images a GPU looks at together; auto finds out how many its memory holds. A CPU looks at
            images side by side whatever is said here.
    """
    from selfseg.segmenter.applying import apply as run_apply

    made = run_apply(
        segmenter,
        images,
        out,
        overlays=overlays,
        device=device,
        max_bad=max_bad,
        window=window,
        geojson=geojson,
        min_area=min_area,
        large_as=large_as,
        where=where_to_work(processes, ray),
        batch=batching(batch),
    )
    say(f"written: {made}")
    return 0


def _list(run: Path, k: int | None) -> int:
    from selfseg.collection.clusters import load_clusters
    from selfseg.segmenter.naming import LEFT_OUT, named

    made = named(run)
    if made is not None and k not in (None, made.k):
        made = None
    clusters = load_clusters(run, k if made is None else made.k)
    names = {} if made is None else made.names
    width = max([len("cluster"), *(len(each) for each in names.values())])
    say(f"cluster  share  {'name':{width}}  images that show it best")
    for number, (share, typical) in enumerate(zip(clusters.share, clusters.typical, strict=True)):
        shown = {LEFT_OUT: "(left out)"}.get(names.get(number, ""), names.get(number, ""))
        say(f"{number:7}  {share:5.1%}  {shown:{width}}  {', '.join(typical[:_SHOWN])}")
    without = sum(share for number, share in enumerate(clusters.share) if number not in names)
    say(f"{clusters.k - len(names)} of {clusters.k} clusters have no name yet, {without:.1%} of the pixels")
    return 0


def _names(pairs: Sequence[str]) -> dict[int, str]:
    """{3: "road"} of "3=road"."""
    names: dict[int, str] = {}
    for pair in pairs:
        numbers, sign, given = pair.partition("=")
        if not sign or not re.fullmatch(r"\d+(,\d+)*", numbers):
            raise ConfigError(
                f"{pair!r} names no cluster; write its number and a name, e.g. 3=road or 3,5='traffic light'"
            )
        for number in map(int, numbers.split(",")):
            if names.get(number, given) != given:
                raise ConfigError(f"cluster {number} gets two names, {names[number]!r} and {given!r}; give it one")
            names[number] = given
    return names


def _colours(pairs: Sequence[str]) -> dict[str, Colour]:
    """{"road": (128, 64, 128)} of "road=#804080"."""
    from selfseg.data.labelled.legend import clean_name, parse_colour

    colours = {}
    for pair in pairs:
        given, sign, colour = pair.rpartition("=")
        if not sign or not given:
            raise ConfigError(f"{pair!r} is no colour of a class; write e.g. road=#804080")
        colours[clean_name(given)] = parse_colour(colour)
    return colours
