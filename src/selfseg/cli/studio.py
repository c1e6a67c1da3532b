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
    """Open the studio: look at the clusters of a collection in the browser, name and correct them, take masks away.

    Nothing leaves this computer. Every decision is saved at once in RUN/studio, and Ctrl+C ends the studio.

    Args:
        run: the trained and clustered run.
        images: folder of images, or NAME:ROOT.
        k: the number of clusters to begin with; the one that was worked with last, or one that is not too many.
        decisions: RUN/studio of another run, from which to take over what was decided.
        labels: labels that you already have of some of the images (COCO, CVAT, palette PNGs, a labelled folder, ...),
            which are taken over as clicks.
        format: of the labels; auto looks what is there.
        port: where to listen; the first free one from 8760 on if not given, any that is free if 0.
        browser: open the page; --no-browser for another computer, and the words to reach it are printed.
        scales: look at each image at these multiples of its size and average, e.g. 1 1.5; slower, and steadier.
        flip: also look at its mirror image.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
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
