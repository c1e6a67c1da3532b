"""`selfseg masks` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from selfseg.masks.mining import Method, mine_masks
from selfseg.masks.postprocess import Cleaning


def masks(
    images: Positional[Path],
    out: Path,
    method: Method = "mean",
    threshold: float | Literal["otsu", "adaptive"] = 0.5,
    min_piece: float = 0.01,
    min_area: float = 0.01,
    max_area: float = 0.95,
    labels: Path | None = None,
    split: str = "train",
    max_bad: float = 0.05,
) -> Path:
    """Mine a mask of what stands out in each image, without labels; OUT/masks.html shows them.

    Args:
        images: folder of images.
        out: folder for the masks; the same command goes on with what is missing there.
        method: the saliency prior; or hierarchy, which gives several objects per image.
        threshold: from which value on a pixel is the object's; or otsu, or adaptive (twice the map's mean).
        min_piece: smaller pieces are dropped; share of the image.
        min_area: smaller masks are rejected; share of the image.
        max_area: larger masks are rejected; share of the image.
        labels: a labelled folder to measure the maps with; class 0 is background.
        split: of the labelled folder.
        max_bad: share of unreadable images that is an error.
    """
    cleaning = Cleaning(threshold, min_piece, min_area, max_area)
    return mine_masks(images, out, method, cleaning, labels=labels, split=split, max_bad=max_bad)
