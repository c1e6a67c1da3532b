"""How good saliency maps are beside masks that people drew: F-measure, mean absolute error, IoU.

    f_max       the largest F over 256 thresholds of the mean precision and the mean recall of all images (the curve of
                Achanta et al., CVPR 2009, and of most papers since), beta^2 = 0.3
    f_adaptive  the mean over images of each one's F at twice its map's mean (at most 1)
    mae         the mean over images of the mean |map - truth|
    iou         the mean over images of the object's intersection over union at a threshold

Maps are rounded to 8 bits first, thresholds are t / 255 with t = 0 to 255, and a pixel of at least the threshold counts
as found. Where nothing is found precision is 0. Void pixels count nowhere. An image without any object has no recall:
it counts for the error only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.catalog import VOID, LabelledImages
from selfseg.data.labelled.mask_files import check_threshold
from selfseg.data.reading.images import read_image
from selfseg.errors import BadImage, ConfigError, DataError

BETA_SQUARED = 0.3
"""Weight of precision against recall, as in nearly all of the literature on saliency."""


@dataclass(frozen=True)
class MaskScores:
    """What was measured; see the top of this module.

    Attributes:
        f_max: in [0, 1].
        f_max_at: the threshold of `f_max`, in [0, 1].
        f_adaptive: in [0, 1].
        mae: in [0, 1], 0 is best.
        iou: in [0, 1].
        images: how many were measured.
        without_object: how many of them have no object.
    """

    f_max: float
    f_max_at: float
    f_adaptive: float
    mae: float
    iou: float
    images: int
    without_object: int

    def as_dict(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


class MaskQuality:
    """Adds up image after image; its size does not depend on how many.

    Args:
        threshold: of the IoU, in (0, 1].

    Raises:
        ConfigError: for another threshold.

    Example:
        >>> quality = MaskQuality()
        >>> truth = np.array([[True, True, False, False]])
        >>> quality.add(np.array([[0.9, 0.6, 0.6, 0.0]]), truth)
        >>> scores = quality.scores()
        >>> round(scores.iou, 2), round(scores.f_max, 2)
        (0.67, 0.81)
    """

    def __init__(self, threshold: float = 0.5) -> None:
        check_threshold(threshold)
        self.threshold = threshold
        self._level = math.ceil(threshold * 255 - 1e-9)
        self._precision = np.zeros(256)
        self._recall = np.zeros(256)
        self._adaptive = self._error = self._iou = 0.0
        self._images = self._objects = 0

    def add(
        self, saliency: NDArray[np.floating], truth: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None
    ) -> None:
        """Look at an image.

        Args:
            saliency: (H, W) float in [0, 1].
            truth: (H, W) bool, the object.
            valid: (H, W) bool, pixels that count; None = all.

        Raises:
            ConfigError: if sizes differ or no pixel counts.
        """
        if saliency.shape != truth.shape or (valid is not None and valid.shape != truth.shape):
            raise ConfigError(f"a map of size {saliency.shape} can't be compared with a mask of size {truth.shape}")
        level = np.rint(np.clip(saliency, 0, 1) * 255).astype(np.uint8)
        level, truth = (level.ravel(), truth.ravel()) if valid is None else (level[valid], truth[valid])
        if not level.size:
            raise ConfigError("no pixel of the image counts")
        self._images += 1
        value = level / 255
        self._error += float(np.abs(value - truth).mean())
        positives = int(truth.sum())
        if not positives:
            return
        self._objects += 1
        found = _at_least(level)  # pixels found at each threshold
        right = _at_least(level[truth])
        precision, recall = right / np.maximum(found, 1), right / positives
        self._precision += precision
        self._recall += recall
        t = math.ceil(min(2 * float(value.mean()), 1.0) * 255 - 1e-9)
        self._adaptive += float(_f_measure(precision[t], recall[t]))
        t = self._level
        self._iou += float(right[t] / (positives + found[t] - right[t]))

    def scores(self) -> MaskScores:
        """What was measured so far.

        Raises:
            DataError: if no image with an object was added.
        """
        if not self._objects:
            raise DataError(f"none of the {self._images} labelled images has an object; nothing can be measured")
        curve = _f_measure(self._precision / self._objects, self._recall / self._objects)
        best = int(curve.argmax())
        return MaskScores(
            f_max=float(curve[best]),
            f_max_at=best / 255,
            f_adaptive=self._adaptive / self._objects,
            mae=self._error / self._images,
            iou=self._iou / self._objects,
            images=self._images,
            without_object=self._images - self._objects,
        )


def _at_least(level: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,) how many values are at least t."""
    return np.bincount(level, minlength=256)[::-1].cumsum()[::-1]


def _f_measure(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    weighted = BETA_SQUARED * precision + recall
    f: NDArray[np.float64] = (1 + BETA_SQUARED) * precision * recall / np.where(weighted > 0, weighted, 1)
    return f


def measure_maps(maps: Path | str, data: LabelledImages, objects: tuple[int, ...] | None = None) -> MaskScores:
    """Measure a folder of saliency maps beside labels, one image at a time.

    Args:
        maps: holds NAME.png, 8-bit gray, for each image of `data`; what `selfseg masks` leaves in OUT/soft.
        data: the labelled images.
        objects: the classes that are objects; None = all but class 0.

    Raises:
        DataError: if a map is missing or can't be read, or its size is not the label's.
        LabelError: see `LabelledImages.read_label`.
    """
    quality = MaskQuality()
    for name, truth, valid in labelled_objects(data, objects):
        path = Path(maps) / f"{name}.png"
        try:
            saliency = read_image(path)[..., 0] / np.float32(255)
        except BadImage as error:
            raise DataError(f"can't measure {path}: {error.reason}; make the maps of all labelled images") from error
        if saliency.shape != truth.shape:
            raise DataError(f"{path} is of size {saliency.shape} (H, W), its label {truth.shape}")
        quality.add(saliency, truth, valid)
    return quality.scores()


def labelled_objects(
    data: LabelledImages, objects: tuple[int, ...] | None = None
) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]]:
    """For each image its name, the pixels of objects, and the pixels that are not void; (H, W) bool each."""
    for i, name in enumerate(data.images.names):
        label = data.read_label(i)
        valid = label != VOID
        if valid.any():
            yield name, (np.isin(label, objects) if objects is not None else label != 0) & valid, valid
