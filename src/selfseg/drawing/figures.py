"""Pictures with captions, ready to stand in a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from selfseg.drawing.pictures import Picture, data_uri, fit_within


@dataclass(frozen=True)
class Figure:
    """A picture of the page: its data URI, its caption, its size in pixels."""

    uri: str
    label: str
    width: int
    height: int


def figure(picture: Picture, label: str, quality: int = 80) -> Figure:
    """A picture with its caption."""
    return Figure(data_uri(picture, quality), label, picture.shape[1], picture.shape[0])


def stored_figures(run: Path, pattern: str, count: int) -> list[Figure]:
    """The first pictures in RUN/pictures whose names match."""
    found = []
    for path in sorted((run / "pictures").glob(pattern))[:count]:
        read = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if read is not None:
            picture = np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.uint8)
            found.append(figure(fit_within(picture, 1200), path.stem))
    return found
