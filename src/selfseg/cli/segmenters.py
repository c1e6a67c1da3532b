"""The verbs of named segmenters: name, apply."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
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

FormatName = Literal["coco", "cvat", "datumaro", "geojson", "label-studio", "palette", "yolo"]

_SHOWN = 3  # typical images of a cluster in the list


@at_places(runs=["run"])
def name(
    run: RunPath,
    pairs: Annotated[tuple[str, ...], tyro.conf.Positional, arg(metavar="[3=road 5,7=sky 9=void ...]")] = (),
    k: Annotated[int | None, arg(aliases=["-k"])] = None,
    colours: tuple[str, ...] = (),
) -> int:
    """Give names to a run's clusters, and write RUN/segmenter. Without names, list the clusters.

    Args:
        run: folder of a trained run that has clusters.
        pairs: cluster numbers, an equals sign, and a name: 3=road, or 3,5='traffic light' for several. Clusters with
            the same name become one class. 9=void leaves cluster 9 out of the masks. 9= takes its name away. Names that
            you gave earlier, here or in the studio, are kept.
        k: which clustering: the one with this many clusters. If not given, the one that has names already, or the
            largest.
        colours: colours of classes, such as road=#804080.
    """
    from selfseg.segmenter.segmenter import Segmenter
    from selfseg.studio.carrying.naming import name_clusters

    if not pairs and not colours:
        return _list(run, k)
    folder = name_clusters(run, _names(pairs), k, _colours(colours))
    names = ", ".join(Segmenter.load(folder).legend.names)
    say(f"written: {folder} ({names}); to write masks: selfseg apply {quote(str(run))} IMAGES --out DIR")
    return 0


@at_places(models=["segmenter"], writes=["out"])
def apply(
    segmenter: Annotated[Path, tyro.conf.Positional, arg(metavar="RUN|SEGMENTER")],
    images: ImagesPath,
    out: Path,
    overlays: bool = True,
    window: Further[int | None] = None,
    geojson: bool = False,
    formats: Annotated[tuple[FormatName, ...], arg(metavar="FORMAT...")] = (),
    min_area: Further[int] = 0,
    large_as: Further[Literal["tiff", "zarr"]] = "tiff",
    device: str = "auto",
    max_bad: Further[float] = 0.05,
    processes: Processes = None,
    ray: RayAddress = None,
    batch: BatchSize = "auto",
) -> int:
    """Write a mask of the named classes for every image, as PNGs with a palette.

    If you stop it, the same command continues.

    Args:
        segmenter: folder of a run whose clusters have names, or of a segmenter.
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        out: folder for the results.
        overlays: also write the photographs with the classes' colours over them.
        window: side in px of the overlapping windows in which large images are looked at. Large are images with more
            than twice as many pixels as a window. If not given, the run's own value is taken, or 1024 px for images
            that are too large to be looked at whole. Only files that can be read in parts are cut, such as TIFF and
            Zarr; JPEG and PNG files never are.
        geojson: also write the areas as polygons. They are in map coordinates if the image says where it lies.
        formats: also write the masks for other tools, into OUT/formats. Give one or more of coco, cvat, datumaro,
            geojson, label-studio, palette and yolo.
        min_area: of the polygons, in px. Smaller areas become part of the largest area beside them.
        large_as: how the maps of images that are looked at in windows are written: as tiled TIFF or as OME-Zarr.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
        processes: how many processes of this machine share the work; 1 if not given. The results are the same with any
            number.
        ray: share the work on a Ray cluster: give its address; or auto, to find it through RAY_ADDRESS or this
            machine's files; or local, to start one on this machine. --processes is then the number of workers. If it is
            not given, there are as many as the cluster has room for.
        batch: how many images a GPU looks at together; auto measures how many its memory holds. On a CPU this changes
            nothing.
    """
    from selfseg.segmenter.applying import apply as run_apply
    from selfseg.segmenter.naming import tell_of_age

    tell_of_age(segmenter)
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
    if formats:
        from selfseg.exchange import FORMATS, write_applied

        for wanted, written in write_applied(tuple(dict.fromkeys(formats)), made, images).items():
            say(f"written: {written}, {FORMATS[wanted].title}")
    return 0


def _list(run: Path, k: int | None) -> int:
    from selfseg.collection.clusters import load_clusters
    from selfseg.segmenter.naming import LEFT_OUT
    from selfseg.studio.carrying.naming import names_so_far

    made = names_so_far(run, k)
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
    """{3: "road", 5: "sky"} of "3=road" and "5=sky", also of "3=road,5=sky"."""
    names: dict[int, str] = {}
    for pair in (pair for word in pairs for pair in _parted(word)):
        numbers, sign, given = pair.partition("=")
        if not sign or not re.fullmatch(r"\d+(,\d+)*", numbers):
            raise ConfigError(
                f"{pair!r} does not name a cluster; write its number, = and a name, e.g. 3=road or 3,5='traffic light'"
            )
        for number in map(int, numbers.split(",")):
            if names.get(number, given) != given:
                raise ConfigError(f"cluster {number} has two names, {names[number]!r} and {given!r}; give it one")
            names[number] = given
    return names


def _parted(word: str) -> list[str]:
    """["3=road", "5=sky"] of "3=road,5=sky"; a comma before the first "=" stands between numbers."""
    numbers, sign, names = word.partition("=")
    begins = [match.start() for match in re.finditer(r",\s*\d+(?:,\d+)*=", names)]
    parts = [names[begin:end] for begin, end in zip([0, *begins], [*begins, len(names)], strict=True)]
    return [numbers + sign + parts[0], *(part[1:].lstrip() for part in parts[1:])]


def _colours(pairs: Sequence[str]) -> dict[str, Colour]:
    """{"road": (128, 64, 128)} of "road=#804080"."""
    from selfseg.data.labelled.legend import clean_name, parse_colour

    colours = {}
    for pair in pairs:
        given, sign, colour = pair.rpartition("=")
        if not sign or not given:
            raise ConfigError(f"{pair!r} does not give a class a colour; write e.g. road=#804080")
        colours[clean_name(given)] = parse_colour(colour)
    return colours
