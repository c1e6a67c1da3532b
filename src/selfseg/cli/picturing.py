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
    """Make the page RUN/probabilities.html: how probable each prototype is at each pixel of some images.

    Args:
        run: folder of the trained run, which `selfseg train` wrote to --out.
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        count: how many images are shown, spread evenly over the collection.
        top: how many prototypes are shown of each image: the most probable ones.
        k: show the run's clusters with this k instead of its prototypes.
        temperature: temperature of the softmax; that of the training if not given.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
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
    """Make the page RUN/nearest.html: for some objects, the objects that the run finds most alike. Needs no labels.

    Args:
        run: folder of the trained run, which `selfseg train` wrote to --out.
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        masks: folder with masks of objects, which `selfseg masks` makes. If not given, the run's saliency head finds
            the objects.
        queries: names of images; the largest object of each is looked for. If not given, images are drawn at random.
        count: how many images are drawn at random.
        top: how many neighbours are shown of each object; each is of another image.
        apart: least number of images that lie in the folder between the query and its neighbours. For frames of a
            video, where the next frame shows the same.
        min_share: objects that are a smaller share of their image than this are left out.
        seed: seed of the random choice of images.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
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
    """Make an animation of how the embedding came about, from checkpoint to checkpoint: RUN/film.webp and film.html.

    Args:
        run: folder of a run that kept several checkpoints, e.g. trained with --keep 30 --checkpoint-every 20.
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        count: how many images are shown, spread evenly over the collection.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
    """
    from selfseg.collection.picturing.film import film as run_film

    say(f"written: {run_film(run, images, count=count, device=device, max_bad=max_bad)}")
    return 0
