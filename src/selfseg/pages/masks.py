"""A page with images beside their masks, and those that were rejected with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from selfseg.drawing.figures import Figure, figure
from selfseg.drawing.pictures import Picture, borders, fit_within, resize
from selfseg.pages.concepts import draw_segment
from selfseg.pages.shown_path import ShownPath
from selfseg.storage.files import write_text
from selfseg.version import __version__

REASONS = {
    "empty": "nothing stands out enough, or only specks",
    "small": "the mask is too small",
    "full": "nearly all of the image",
}
"""What the reasons of `selfseg.masks.cleaning` mean, in words."""

_LONGEST = 320
_OUTLINE = (255, 214, 10)


@dataclass(frozen=True)
class MaskCard:
    """An image with its map and mask.

    Attributes:
        name: of the image.
        figures: the photograph, its map, its mask.
        share: of the image that is in the mask.
        reason: "", or why the mask was rejected.
        objects: how many are drawn.
    """

    name: str
    figures: tuple[Figure, Figure, Figure]
    share: float
    reason: str
    objects: int


def mask_card(
    name: str, image: Picture, soft: NDArray[np.uint8], ids: NDArray[np.int32], share: float, reason: str
) -> MaskCard:
    """Draw an image, its map and its mask, all reduced.

    Args:
        name: of the image.
        image: (H, W, 3) uint8 RGB.
        soft: (H, W) uint8, the map.
        ids: (H, W) int32, objects from 0 on, -1 = none.
        share: of the image that is in the mask.
        reason: "", or why the mask was rejected.
    """
    small = fit_within(image, _LONGEST)
    size = (small.shape[0], small.shape[1])
    gray = np.repeat(resize(soft, size)[..., None], 3, axis=2)
    ids = np.asarray(cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST), np.int32)
    drawn, objects = draw_segment(small, ids >= 0, _OUTLINE), int(ids.max()) + 1
    drawn[borders(ids) & (ids >= 0)] = _OUTLINE
    words = f"{objects} objects, " if objects > 1 else ""
    words += f"{100 * share:.3g} % of the image" + (f", rejected: {REASONS.get(reason, reason)}" if reason else "")
    return MaskCard(
        name,
        (
            figure(small, name),
            figure(gray, f"{name}: what stands out"),
            figure(drawn, f"{name}: the mask, {words}"),
        ),
        share,
        reason,
        objects,
    )


def write_masks_page(
    out: Path,
    note: dict[str, Any],
    kept: Sequence[MaskCard],
    rejected: Sequence[MaskCard],
    caption: str = "photograph",
) -> Path:
    """Write OUT/masks.html, which loads nothing.

    Args:
        out: the folder of masks.
        note: its masks.json.
        kept: images with a mask.
        rejected: images without.
        caption: what an image is: a photograph, or false colours with their legend.

    Returns:
        The page's path.
    """
    environment = Environment(loader=PackageLoader("selfseg.pages"), autoescape=True, trim_blocks=True)
    page = environment.get_template("masks.html.j2").render(
        title=out.resolve().name,
        note=note,
        groups=[("kept", "Masks", kept, note["kept"]), ("rejected", "Rejected", rejected, note["rejected"])],
        words=REASONS,
        caption=caption,
        version=__version__,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )
    write_text(out / "masks.html", page)
    return ShownPath(out / "masks.html")
