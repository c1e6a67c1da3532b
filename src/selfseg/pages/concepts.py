"""What each prototype or cluster found, as a section of the report and as a page of its own.

Reads what `selfseg.collection.concepts` wrote to RUN/concepts; pictures are taken as they are.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from selfseg.drawing.figures import Figure
from selfseg.drawing.pictures import Picture, hex_colour, palette
from selfseg.pages.shown_path import ShownPath
from selfseg.storage.files import read_json, write_text
from selfseg.storage.hashes import embedder_hash
from selfseg.version import __version__

PICTURES = "pictures"
"""The folder below RUN/concepts that holds the pictures."""


@dataclass(frozen=True)
class Concept:
    """One prototype or cluster.

    Attributes:
        number: which.
        colour: "#rrggbb".
        share: of all cells.
        images: how many images it is active in.
        coherence: mean cosine between two of all its segments; None below two.
        coherence_top: the same for its best segments.
        figures: its best segments, the best first.
    """

    number: int
    colour: str
    share: float
    images: int
    coherence: float | None
    coherence_top: float | None
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Concepts:
    """What a collection's concepts are.

    Attributes:
        word: "prototype" or "cluster".
        k: how many there are.
        images: how many were looked at.
        folder: where they were.
        active_per_image: how many concepts an image shows, on the average.
        coherence_any: mean cosine between any two segments.
        cards: those with segments, by share, at most as many as were asked for.
        left_out: how many more have segments.
        dead: those without, e.g. "3, 7–9".
        dead_count: how many.
        whole: whether each image was one segment.
        legend: which measured channel is which colour; "" of photographs.
    """

    word: str
    k: int
    images: int
    folder: str
    active_per_image: float
    coherence_any: float | None
    cards: tuple[Concept, ...]
    left_out: int
    dead: str
    dead_count: int
    whole: bool = False
    legend: str = ""


def read_concepts(
    run: Path | str, most: int | None = None, each: int | None = None, notes: list[str] | None = None
) -> Concepts | None:
    """What `selfseg.concepts` left in a run; None if it left nothing that can be shown.

    Args:
        run: the run's folder.
        most: how many concepts to take, those with the largest share; None = all.
        each: how many segments of each; None = all.
        notes: gets a sentence if there is something that can't be shown.
    """
    run = Path(run)
    folder = run / "concepts"
    if not (folder / "concepts.json").is_file():
        return None
    notes = notes if notes is not None else []
    try:
        values = read_json(folder / "concepts.json")
        if values["embedder"] != embedder_hash(run):
            notes.append("What the concepts found is of an earlier embedder; to see it here run: selfseg concepts")
            return None
        active = sorted((c for c in values["concepts"] if c["images"]), key=lambda c: (-c["share"], c["concept"]))
        shown = active if most is None else active[:most]
        colours = palette(int(values["k"]))
        return Concepts(
            word="prototype" if values["source"] == "prototypes" else "cluster",
            k=int(values["k"]),
            images=int(values["count"]),
            folder=str(values["images"]),
            active_per_image=float(values["active_per_image"]),
            coherence_any=values["coherence_any"],
            cards=tuple(_concept(c, folder, hex_colour(colours[c["concept"]]), each) for c in shown),
            left_out=len(active) - len(shown),
            dead=ranges(values["dead"]),
            dead_count=len(values["dead"]),
            whole=bool(values.get("whole", False)),
            legend=str(values.get("false_colours", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        notes.append(f"{folder / 'concepts.json'} can't be read: {error!r}")
        return None


def draw_segment(image: Picture, mask: NDArray[np.bool_], colour: Iterable[int]) -> Picture:
    """A photograph with a segment in its own colours and outlined; the rest is gray and of little contrast.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W), the segment.
        colour: (R, G, B) of the outline, which has a dark rim, so that it is seen on everything.

    Returns:
        (H, W, 3) uint8.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    result: Picture = np.repeat((gray * 0.42 + 66).astype(np.uint8)[..., None], 3, axis=2)
    result[mask] = image[mask]
    around = np.ones((3, 3), np.uint8)
    inside = cv2.erode(mask.astype(np.uint8), around, borderType=cv2.BORDER_REPLICATE)
    near = cv2.dilate(mask.astype(np.uint8), around)
    result[cv2.dilate(near, around) > near] = (20, 20, 22)
    result[near > inside] = tuple(int(v) for v in colour)
    return result


def write_concepts_page(run: Path, found: Concepts) -> Path:
    """Write RUN/concepts.html, which loads nothing; returns its path."""
    environment = Environment(loader=PackageLoader("selfseg.pages"), autoescape=True, trim_blocks=True)
    page = environment.get_template("concepts.html.j2").render(
        title=run.resolve().name,
        concepts=found,
        version=__version__,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )
    write_text(run / "concepts.html", page)
    return ShownPath(run / "concepts.html")


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as text.

    Example:
        >>> ranges([3, 7, 8, 9, 12, 13])
        '3, 7–9, 12, 13'
    """
    groups: list[list[int]] = [[n] for n in numbers[:1]]
    for before, n in pairwise(numbers):
        if n == before + 1:
            groups[-1].append(n)
        else:
            groups.append([n])
    words = (f"{g[0]}–{g[-1]}" if len(g) > 2 else ", ".join(map(str, g)) for g in groups)
    return ", ".join(words)


def _concept(values: dict[str, Any], folder: Path, colour: str, each: int | None) -> Concept:
    figures = []
    for segment in values["segments"][:each]:
        picture = segment["picture"]
        path = folder / PICTURES / Path(picture["file"]).name if picture else None
        if path is not None and path.is_file():
            label = f"{segment['image']} (cosine {segment['cosine']:.2f}, {100 * segment['share']:.3g} % of the image)"
            uri = "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
            figures.append(Figure(uri, label, int(picture["width"]), int(picture["height"])))
    return Concept(
        number=int(values["concept"]),
        colour=colour,
        share=float(values["share"]),
        images=int(values["images"]),
        coherence=values["coherence"],
        coherence_top=values["coherence_top"],
        figures=tuple(figures),
    )
