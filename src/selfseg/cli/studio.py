"""The verb studio: a page on which a person names and corrects what a run found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from selfseg.cli.console import Further, ImagesPath, RunPath, say
from selfseg.storage.remote.places import at_places


@at_places(runs=["run"], reads=["decisions", "labels"])
def studio(
    run: RunPath,
    images: ImagesPath,
    k: Annotated[int | None, arg(aliases=["-k"])] = None,
    decisions: Path | None = None,
    labels: Path | None = None,
    format: Further[str] = "auto",
    port: int | None = None,
    browser: bool = True,
    scales: Further[tuple[float, ...]] = (1.0,),
    flip: Further[bool] = False,
    device: str = "auto",
    max_bad: Further[float] = 0.05,
) -> int:
    """Open the studio, a page in your browser. There you name and correct clusters, and take masks and a model away.

    Nothing leaves this computer. Every decision is saved at once in RUN/studio. Ctrl+C ends the studio.

    Args:
        run: folder of a trained run that has clusters.
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        k: how many clusters to begin with. If not given, those that you worked with last, or a number that is not too
            large.
        decisions: RUN/studio of another run, whose names and clicks are taken over.
        labels: labels that you already have of some of the images (COCO, CVAT, palette PNGs, a labelled folder, ...).
            They are taken over as clicks.
        format: format of the labels; auto finds it out.
        port: port of the page. If not given, the first free one from 8760 on; 0 takes any free port.
        browser: open the page in a browser. With --no-browser its address is printed, for a browser on another
            computer.
        scales: look at each image at each of these multiples of its size and take the mean, e.g. 1 1.5. This is slower,
            and the results are steadier.
        flip: also look at the mirror image of each image, and take the mean.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
    """
    from selfseg.models.embedder import Looks
    from selfseg.studio.server.serving import kept_token, serve
    from selfseg.studio.studio import Studio

    with Studio(run, images, k, Looks(scales, flip), device, max_bad=max_bad) as opened:
        if decisions is not None:
            say(opened.carry(decisions).sentence)
        if labels is not None:
            say(opened.take_labels(labels, format).sentence)
        serve(opened, say, port=port, browser=browser, token=kept_token(run / "studio"))
    return 0
