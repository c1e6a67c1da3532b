"""The `prototypes` protocol: a method's own prototypes are the classifier, and each is named by the labels.

Nothing is fitted: every labelled pixel gets the prototype that is nearest by cosine (cosines are resized bilinearly to
the label's size, then the largest wins), and prototypes are named by the measured split's labels as clusters are. With
at most as many prototypes as classes each has a class of its own (Hungarian), with more the majority vote names them.
The figure under the other rule is recorded too.

Source: Wen et al., "Self-supervised visual representation learning with semantic grouping" (SlotCon), NeurIPS 2022,
sections 4.4 and A.3: K = 27 = classes, images at 320 px. The paper scores labels at 320 px; ours keep their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from selfseg.errors import ConfigError
from selfseg.evaluation.measure.features import Extractor
from selfseg.evaluation.measure.passes import AffineHead
from selfseg.evaluation.protocols.clusters import MATCHINGS, Matching
from selfseg.ops.matching import Maximise

VERSION = 2  # 1: equal totals of a Hungarian matching might name a class without a pixel


@dataclass(frozen=True)
class Prototypes:
    """How prototypes are applied and named.

    Attributes:
        resolution: short side in px that images are resized to; the paper has 320. None = the embedder's own. If a
            resolution is given for all protocols, that is taken instead.
        matching: how prototypes get the names of classes; None = "hungarian" if there are at most as many prototypes as
            classes, else "majority".
        maximise: what Hungarian matching maximises, the sum of "iou" or "pixels" (PiCIE, IIC, SlotCon); on the command
            line also `--matching`.
    """

    name: ClassVar[Literal["prototypes"]] = "prototypes"

    resolution: int | None = 320
    matching: Matching | None = None
    maximise: Maximise = "iou"

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 32:
            raise ConfigError(f"prototypes need images of at least 32 px, not resolution={self.resolution}")
        if self.matching not in (None, *MATCHINGS):
            raise ConfigError(f"matching must be one of {', '.join(MATCHINGS)}, not {self.matching!r}")

    def matching_for(self, prototypes: int, classes: int) -> Matching:
        """The rule that a result's main metrics are by.

        Example:
            >>> Prototypes().matching_for(27, 27), Prototypes().matching_for(256, 27)
            ('hungarian', 'majority')
        """
        return self.matching or ("hungarian" if prototypes <= classes else "majority")


def prototype_head(extractor: Extractor) -> AffineHead:
    """The prototypes of an extractor as a head with K outputs.

    Args:
        extractor: one that has prototypes.

    Returns:
        A head whose scores are the cosines: the extractor's vectors have unit length, and so have the head's.

    Raises:
        ConfigError: if it has none, or its vectors are not of unit length.
    """
    prototypes = extractor.prototypes
    if prototypes is None or prototypes.ndim != 2 or len(prototypes) == 0:
        found = None if prototypes is None else tuple(prototypes.shape)
        raise ConfigError(f"{extractor.name} has no (K, D) prototypes ({found}); measure it by other protocols")
    if not extractor.normalised:
        raise ConfigError(
            f"{extractor.name} gives vectors of any length, but prototypes need unit vectors; normalise them"
        )
    return AffineHead(F.normalize(prototypes.float(), dim=1), torch.zeros(len(prototypes)))
