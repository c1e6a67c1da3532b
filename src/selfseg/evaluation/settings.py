"""What an evaluation is asked beside its protocols: which images it reads and how, and what stands beside the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfseg.collection.clusters import MOST_POSITION
from selfseg.data.labelled.catalog import LabelledImages
from selfseg.errors import ConfigError
from selfseg.evaluation.measure.features import Resolution
from selfseg.exchange.any_labels import open_labels
from selfseg.models.embedder import Looks


@dataclass(frozen=True)
class Reading:
    """Which images and labels are read, and at which size.

    Attributes:
        split: the split that is measured.
        fit_split: the split that clusters and the linear layer are fitted on. It isn't needed for prototypes alone.
        fit_data: another data set of the same classes, whose `fit_split` is learned from. Results of the linear layer
            then have the protocol "domain".
        resolution: short side in px that images are resized to. "native" = as they are, even if the embedder would
            resize them. None = the embedder's own, native for baselines, and 320 for prototypes; with a crop, the
            crop's side. Labels keep their size, or the crop's.
        crop: measure in a centre square of this many px, as the field does at 320: images and labels of both splits are
            resized to this short side and cropped (`selfseg.data.labelled.catalog.LabelledImages.cropped`).
        looks: how often an embedder looks at each image (`selfseg.models.embedder.Looks`); baselines look once.
    """

    split: str = "val"
    fit_split: str = "train"
    fit_data: Path | str | None = None
    resolution: Resolution = None
    crop: int | None = None
    looks: Looks = Looks()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        known = self.resolution is None or self.resolution == "native"
        if not known and not (isinstance(self.resolution, int) and self.resolution >= 1):
            raise ConfigError(f"resolution is a short side in px or 'native', not {self.resolution!r}")

    @property
    def side(self) -> Resolution:
        """The short side that images, or their crops, are resized to, if not each extractor's own."""
        return self.resolution or self.crop

    def open(self, data: Path | str, fitted: bool = True) -> tuple[LabelledImages, LabelledImages]:
        """The split that is fitted on and the one that is measured.

        Args:
            data: a labelled folder, or NAME:ROOT, see `selfseg.data.labelled.catalog`.
            fitted: whether anything is fitted; if not, the first is the second.

        Raises:
            DataError: if one is not there or can't be read.
        """
        measured = open_labels(data, self.split)
        fit = open_labels(self.fit_data or data, self.fit_split) if fitted else measured
        if self.crop is not None:
            return fit.cropped(self.crop), measured.cropped(self.crop)
        return fit, measured


@dataclass(frozen=True)
class Beside:
    """What is measured beside the embedding.

    Attributes:
        baselines: also raw colour, colour + position and the most frequent class.
        untrained: also a network of the same architecture with random weights.
        backbone: also what the backbone gives before the decoder (for SlotCon, before the projector).
        features: also the decoder's features, before its last linear map. MaskContrast's linear layer learns from
            these.
        position: above 0: also the embedding with the pixel's place appended at this weight
            (`selfseg.collection.clusters.add_position`), to compare with colour + position.
    """

    baselines: bool = True
    untrained: bool = False
    backbone: bool = False
    features: bool = False
    position: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.position <= MOST_POSITION:
            raise ConfigError(f"position must be a weight from 0 to {MOST_POSITION:g}, not {self.position}")
