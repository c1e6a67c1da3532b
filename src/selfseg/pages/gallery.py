"""Pages of rows of pictures: nearest objects, predictions beside labels, probabilities, a film of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader

from selfseg.drawing.figures import Figure
from selfseg.pages.shown_path import ShownPath
from selfseg.storage.files import write_text
from selfseg.version import __version__


@dataclass(frozen=True)
class Shown:
    """A picture and what stands under it.

    Attributes:
        figure: its label is what the enlarged picture says.
        caption: a few words; "" = none.
        marked: whether it is the one that a row begins with, set apart from the others.
    """

    figure: Figure
    caption: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Row:
    """Pictures beside each other.

    Attributes:
        heading: "" = none.
        pictures: as many in every row of a part, or fewer.
        note: small words beside the heading.
    """

    heading: str
    pictures: tuple[Shown, ...]
    note: str = ""


@dataclass(frozen=True)
class Part:
    """A section of the page.

    Attributes:
        heading: of the section.
        lead: a sentence or two on what is seen.
        rows: its pictures.
        columns: beside each other on a wide screen; on a narrow one two are.
        legend: names and "#rrggbb" of colours in the pictures.
    """

    heading: str
    lead: str
    rows: tuple[Row, ...]
    columns: int
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Gallery:
    """A page.

    Attributes:
        brand: what kind of page it is.
        title: of the run or what is shown.
        facts: (name, value) below the title.
        lead: how to read the page, and what it can't tell.
        notes: warnings.
        parts: its sections.
        source: the images, for the foot of the page.
    """

    brand: str
    title: str
    facts: tuple[tuple[str, str], ...]
    lead: tuple[str, ...]
    parts: tuple[Part, ...]
    source: str
    notes: Sequence[str] = ()


def write_gallery(path: Path, gallery: Gallery) -> Path:
    """Write a page; one file that loads nothing.

    Returns:
        Its path.

    Raises:
        StorageError: if it can't be written.
    """
    environment = Environment(loader=PackageLoader("selfseg.pages"), autoescape=True, trim_blocks=True)
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    write_text(path, environment.get_template("gallery.html.j2").render(page=gallery, version=__version__, made=made))
    return ShownPath(path)
