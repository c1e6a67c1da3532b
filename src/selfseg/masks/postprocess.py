"""From a saliency map to a mask, or to the reason why there is none.

After Van Gansbeke et al., "Unsupervised Semantic Segmentation by Contrasting Object Mask Proposals", ICCV 2021: cut at
0.5, drop connected components under 1 % of the image, reject an image whose mask is under 1 %. Nearly full masks are
rejected too: they leave no background to tell the object from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError
from selfseg.masks.scene import otsu

Threshold = Literal["otsu", "adaptive"]


@dataclass(frozen=True)
class Cleaning:
    """How a saliency map becomes a mask.

    Attributes:
        threshold: pixels of at least this value in (0, 1] are the object's; or "otsu", the map's own threshold between
            two classes; or "adaptive", twice the map's mean (at most its largest value).
        min_piece: smaller 8-connected pieces are dropped; share of the image, in [0, 1).
        min_area: a smaller mask is rejected; share of the image, in [0, 1).
        max_area: a larger mask is rejected; share of the image, in (0, 1].

    Raises:
        ConfigError: for a value that can't work.
    """

    threshold: float | Threshold = 0.5
    min_piece: float = 0.01
    min_area: float = 0.01
    max_area: float = 0.95

    def __post_init__(self) -> None:
        if isinstance(self.threshold, str):
            if self.threshold not in ("otsu", "adaptive"):
                raise ConfigError(f"no threshold {self.threshold!r}; give a number in (0, 1], otsu or adaptive")
        elif not 0 < self.threshold <= 1:
            raise ConfigError(f"a threshold of {self.threshold} parts nothing; give a number in (0, 1], e.g. 0.5")
        if not 0 <= self.min_piece < 1:
            raise ConfigError(f"min_piece {self.min_piece} is no share of an image; give one in [0, 1), e.g. 0.01")
        if not 0 <= self.min_area < self.max_area <= 1:
            raise ConfigError(
                f"min_area {self.min_area} and max_area {self.max_area} leave no mask; both are shares of the image, "
                "e.g. 0.01 and 0.95"
            )


class Cleaned(NamedTuple):
    """A mask and whether it is any good.

    Attributes:
        mask: (H, W) bool, without the dropped pieces.
        reason: "" or why it is rejected: "empty" (nothing above the threshold, or only pieces that are too small),
            "small", "full".
        share: of the image that is in the mask.
        threshold: where the map was cut.
    """

    mask: NDArray[np.bool_]
    reason: str
    share: float
    threshold: float


def clean(saliency: NDArray[np.floating], cleaning: Cleaning | None = None) -> Cleaned:
    """Cut a saliency map, drop specks, judge what is left.

    Args:
        saliency: (H, W) float in [0, 1].
        cleaning: how; the defaults if None.

    Example:
        >>> saliency = np.zeros((20, 20), np.float32)
        >>> saliency[5:15, 5:15] = 0.8
        >>> saliency[0, 0] = 0.9  # a speck of 1/400
        >>> clean(saliency)[1:]
        ('', 0.25, 0.5)
    """
    cleaning = cleaning or Cleaning()
    threshold = _threshold(saliency, cleaning.threshold)
    above = (saliency >= threshold) & (saliency > 0)
    count, ids, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= cleaning.min_piece * above.size
    keep[0] = False  # what is not above
    mask: NDArray[np.bool_] = keep[ids] if count > 1 else np.zeros(above.shape, np.bool_)
    share = float(mask.mean())
    reason = "empty" if share == 0 else "small" if share < cleaning.min_area else ""
    return Cleaned(mask, "full" if share > cleaning.max_area else reason, share, threshold)


def _threshold(saliency: NDArray[np.floating], threshold: float | Threshold) -> float:
    if threshold == "adaptive":
        return min(2 * float(saliency.mean()), float(saliency.max()))
    if threshold == "otsu":
        return otsu(saliency) + 0.5 / 255  # Otsu's is the last level of the lower class
    return float(threshold)
