"""From a saliency map or proposals to the objects of an image, or to the reason why there are none.

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

from selfseg.data.labelled.mask_files import check_areas, check_threshold
from selfseg.errors import ConfigError
from selfseg.masks.priors.scene import otsu

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
                raise ConfigError(
                    f"a threshold is a number above 0 and at most 1, otsu or adaptive, not {self.threshold!r}"
                )
        else:
            check_threshold(self.threshold)
        if not 0 <= self.min_piece < 1:
            raise ConfigError(
                f"min_piece must be a share of the image from 0 to below 1, e.g. 0.01, not {self.min_piece}"
            )
        check_areas(self.min_area, self.max_area)


class Cleaned(NamedTuple):
    """The objects of an image, and whether they are any good.

    Attributes:
        ids: (H, W) int32 without the dropped pieces: 0 = background, objects from 1 on. A saliency map gives one.
        reason: "" or why it is rejected: "empty" (nothing above the threshold, or only pieces that are too small),
            "small", "full" (a single object that leaves no background).
        share: of the image that is in the mask.
        threshold: where the map was cut.
    """

    ids: NDArray[np.int32]
    reason: str
    share: float
    threshold: float

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, all objects."""
        return self.ids > 0

    @property
    def objects(self) -> int:
        """How many there are."""
        return int(self.ids.max())


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
    mask = keep[ids] if count > 1 else np.zeros(above.shape, np.bool_)
    return _judge(mask.astype(np.int32), cleaning, threshold)


def clean_objects(ids: NDArray[np.integer], cleaning: Cleaning | None = None) -> Cleaned:
    """Drop objects that are too small, judge what is left.

    Args:
        ids: (H, W), 0 = background, objects from 1 on, each of one piece.
        cleaning: how; its threshold is of no use here.

    Example:
        >>> ids = np.zeros((20, 20), np.int32)
        >>> ids[0, 0], ids[5:15, 5:10], ids[5:15, 10:15] = 1, 2, 3
        >>> cleaned = clean_objects(ids)
        >>> cleaned.objects, cleaned.share, int(cleaned.ids[0, 0])
        (2, 0.25, 0)
    """
    cleaning = cleaning or Cleaning()
    size = np.bincount(ids.ravel())
    keep = (size > 0) & (size >= cleaning.min_piece * ids.size)
    keep[0] = False
    dense = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return _judge(dense[ids], cleaning, 0.5)


def _judge(ids: NDArray[np.int32], cleaning: Cleaning, threshold: float) -> Cleaned:
    share = float((ids > 0).mean())
    reason = "empty" if share == 0 else "small" if share < cleaning.min_area else ""
    if share > cleaning.max_area and ids.max() == 1:
        reason = "full"
    return Cleaned(ids, reason, share, threshold)


def _threshold(saliency: NDArray[np.floating], threshold: float | Threshold) -> float:
    if threshold == "adaptive":
        return min(2 * float(saliency.mean()), float(saliency.max()))
    if threshold == "otsu":
        return otsu(saliency) + 0.5 / 255  # Otsu's is the last level of the lower class
    return float(threshold)
