"""The verbs that show a run in the papers' pictures: probabilities, nearest, film."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from selfseg.cli.console import Further, ImagesPath, RunPath, say
from selfseg.storage.remote.places import at_places, of_film


@at_places(runs=["run"])
def probabilities(
    run: RunPath,
    images: ImagesPath,
    count: int = 6,
    top: int = 3,
    k: Annotated[int | None, arg(aliases=["-k"])] = None,
    temperature: float | None = None,
    device: str = "auto",
    max_bad: Further[float] = 0.05,
) -> int:
    """Show how probable each prototype is at each pixel of some images, as RUN/probabilities.html.

    Args:
        run: the trained run.
        images: folder of images, or NAME:ROOT.
        count: how many images, evenly over the collection.
        top: prototypes of each image whose maps are shown.
        k: the run's clusters with this k instead of its prototypes.
        temperature: of the softmax; that of the training if not given.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
    """
    from selfseg.collection.picturing.probabilities import probabilities as run_probabilities

    page = run_probabilities(
        run, images, count=count, top=top, k=k, temperature=temperature, device=device, max_bad=max_bad
    )
    say(f"written: {page}")
    return 0


@at_places(runs=["run"], reads=["masks"])
def nearest(
    run: RunPath,
    images: ImagesPath,
    masks: Path | None = None,
    queries: tuple[str, ...] = (),
    count: int = 8,
    top: int = 6,
    apart: int = 0,
    min_share: Further[float] = 0.005,
    seed: Further[int] = 0,
    device: str = "auto",
    max_bad: Further[float] = 0.05,
) -> int:
    """Show the objects that the run finds nearest to some objects, as RUN/nearest.html; no labels are needed.

    Args:
        run: the trained run.
        images: folder of images, or NAME:ROOT.
        masks: folder of masks of objects (selfseg masks); the run's saliency head if not given.
        queries: names of images whose largest object is looked for; drawn if not given.
        count: how many queries are drawn.
        top: neighbours shown of each, each of another image.
        apart: neighbours lie so many images from the query and each other in the folder; for frames of a video.
        min_share: smaller objects are left out, as a share of their image.
        seed: of the drawn queries.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
    """
    from selfseg.evaluation.nearest import nearest as run_nearest

    page = run_nearest(
        run,
        images,
        masks=masks,
        queries=queries,
        count=count,
        top=top,
        apart=apart,
        min_share=min_share,
        seed=seed,
        device=device,
        max_bad=max_bad,
    )
    say(f"written: {page}")
    return 0


@at_places(runs=["run"], wanted=of_film)
def film(run: RunPath, images: ImagesPath, count: int = 4, device: str = "auto", max_bad: Further[float] = 0.05) -> int:
    """Show how the embedding came about, checkpoint by checkpoint: RUN/film.webp and RUN/film.html.

    Args:
        run: the run, trained with e.g. --keep 30 --checkpoint-every 20.
        images: folder of images, or NAME:ROOT.
        count: how many images, evenly over the collection.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
    """
    from selfseg.collection.picturing.film import film as run_film

    say(f"written: {run_film(run, images, count=count, device=device, max_bad=max_bad)}")
    return 0
