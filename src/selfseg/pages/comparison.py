"""The page of `selfseg compare`: a table of all that was measured, and the same images as each row sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from selfseg.drawing.figures import Figure, figure
from selfseg.drawing.pictures import Picture, fit_within, hex_colour, palette
from selfseg.drawing.result_charts import comparison_of
from selfseg.errors import StorageError
from selfseg.pages.shown_path import ShownPath
from selfseg.storage.files import write_text
from selfseg.types import EvalResult
from selfseg.version import __version__

_LONGEST = 300  # of a picture, in px
_VOID = (60, 60, 60)


@dataclass(frozen=True)
class Shown:
    """An image that the page shows.

    Attributes:
        name: its name.
        index: its place in the split.
        image: (H, W, 3) uint8 RGB, or (H, W, C) levels.
        label: (H, W) uint8, 255 = void.
        drawn: (H, W, 3) uint8 RGB, the image in false colours; None = it is a photograph.
        legend: which channel is which colour.
    """

    name: str
    index: int
    image: Picture
    label: NDArray[np.uint8]
    drawn: Picture | None = None
    legend: str = ""


@dataclass(frozen=True)
class Drawing:
    """What one row makes of the shown images.

    Attributes:
        what: the row, as results call it.
        kind: "embedding", whose pictures are RGB, or a result's column, whose pictures are classes (255 = none).
        files: a PNG of each shown image, below the page's folder.
    """

    what: str
    kind: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Panel:
    """One kind of picture: a name and a picture of each shown image per line."""

    kind: str
    classes: bool
    lines: tuple[tuple[str, tuple[Figure, ...]], ...]


def write_comparison_page(
    out: Path,
    sources: Mapping[str, str],
    results: Sequence[EvalResult],
    shown: Sequence[Shown],
    drawings: Sequence[Drawing],
    class_names: Sequence[str],
) -> Path:
    """Write OUT/compare.html; one file that loads nothing.

    Args:
        out: the page's folder.
        sources: of each row that is compared, in order, where it is from.
        results: of all rows and baselines, at least one, all on one split.
        shown: the images.
        drawings: what each makes of them.
        class_names: C names.

    Returns:
        The page's path.

    Raises:
        StorageError: if it can't be written, or a picture is gone.
    """
    colours = palette(len(class_names))
    photographs = tuple(
        figure(fit_within(image.image if image.drawn is None else image.drawn, _LONGEST), image.name) for image in shown
    )
    labels = tuple(
        figure(fit_within(colour_classes(image.label, colours), _LONGEST), f"{image.name}: labels") for image in shown
    )
    legend = next((image.legend for image in shown if image.legend), "")
    panels = []
    for kind in sorted(dict.fromkeys(drawing.kind for drawing in drawings), key=lambda kind: kind == "embedding"):
        classes = kind != "embedding"
        lines = [("false colours" if legend else "photograph", photographs), *([("labels", labels)] if classes else [])]
        for drawing in drawings:
            if drawing.kind == kind:
                pictures = [_read(out / file) for file in drawing.files]
                drawn = [colour_classes(picture, colours) if classes else picture for picture in pictures]
                lines.append((drawing.what, _figures(drawn, shown, drawing.what)))
        panels.append(_Panel(kind, classes, tuple(lines)))
    comparison = comparison_of(results, list(sources))
    context: dict[str, Any] = {
        "title": comparison.title,
        "comparison": comparison,
        "sources": sources,
        "images": results[0].counts["images"],
        "panels": panels,
        "legend": legend,
        "count": len(shown),
        "classes": [(name, hex_colour(colour)) for name, colour in zip(class_names, colours, strict=True)],
        "void": hex_colour(_VOID),
        "version": __version__,
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    }
    environment = Environment(loader=PackageLoader("selfseg.pages"), autoescape=True, trim_blocks=True)
    write_text(out / "compare.html", environment.get_template("compare.html.j2").render(context))
    return ShownPath(out / "compare.html")


def colour_classes(classes: NDArray[np.uint8], colours: Picture) -> Picture:
    """Classes as colours.

    Args:
        classes: (H, W) uint8 in [0, C); others, such as 255, are dark gray.
        colours: (C, 3) uint8.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    table = np.full((256, 3), _VOID, np.uint8)
    table[: len(colours)] = colours[:256]
    return np.asarray(table[classes])


def _figures(pictures: Sequence[Picture], shown: Sequence[Shown], what: str) -> tuple[Figure, ...]:
    return tuple(
        figure(fit_within(picture, _LONGEST), f"{image.name}: {what}")
        for picture, image in zip(pictures, shown, strict=True)
    )


def _read(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, or (H, W) classes."""
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if read is None:
        raise StorageError(f"the picture {path} is gone or damaged; remove {path.parents[1]} and run the same command")
    return np.asarray(read if read.ndim == 2 else cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.uint8)
