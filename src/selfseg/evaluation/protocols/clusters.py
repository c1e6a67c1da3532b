"""The `clusters` protocol: k-means without labels, then each cluster is named by the labels.

k-means runs on embedding cells of the fit split (by default train; MaskContrast used the evaluated one), which are
drawn without looking at labels. With k = number of classes each cluster gets its own class (Hungarian); with any other
k the majority vote names clusters. Both look at the evaluated split's labels, as everybody in the field does: the
number says how well clusters agree with classes, not how well somebody could name them beforehand.

Source: Ji et al., "Invariant information clustering", ICCV 2019 (Hungarian); ViCE (many clusters, majority vote).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tyro.conf import Suppress

from selfseg.errors import ConfigError
from selfseg.evaluation.measure.confusion import Metrics, map_clusters, metrics_of
from selfseg.evaluation.measure.passes import AffineHead
from selfseg.ops.kmeans import affine_scores, kmeans
from selfseg.ops.matching import Maximise, match_hungarian, match_majority

VERSION = 2  # 1: equal totals of a Hungarian matching might name a class without a pixel

Matching = Literal["hungarian", "majority"]
MATCHINGS: tuple[Matching, ...] = ("hungarian", "majority")
Rule = TypeVar("Rule", bound=str)


@dataclass(frozen=True)
class Clusters:
    """How clusters are fitted and named.

    Attributes:
        k: numbers of clusters; None = the number of classes, and 64.
        merge: find this many clusters first, and then merge them to each k (`selfseg.ops.merging`). None = k-means with
            k clusters, as in the papers.
        points: about how many embedding cells k-means is fitted on, drawn from all images of the fit split alike, or
            "all" of them. The same points for every k and seed; a seed changes k-means' own seeding. N cells of D
            dimensions take 4 N D bytes, and k-means as much again: "all" is refused where that is not free.
        iterations: the largest number of Lloyd iterations.
        tolerance: k-means stops when the centroids move less than this share of the points' spread.
        spherical: whether distances are those of cosines instead of Euclid's; None = if the embedding is normalised.
        matching: how clusters get the names of classes; None = "hungarian" if k is the number of classes, else
            "majority".
        maximise: what Hungarian matching maximises, the sum of "iou" or "pixels" (PiCIE, IIC, SlotCon); on the command
            line also `--matching`.
    """

    name: ClassVar[Literal["clusters"]] = "clusters"

    k: Suppress[Sequence[int] | None] = None  # of all protocols on the command line
    merge: int | None = None
    points: int | Literal["all"] = 100_000
    iterations: int = 100
    tolerance: float = 1e-4
    spherical: bool | None = None
    matching: Matching | None = None
    maximise: Maximise = "iou"

    def __post_init__(self) -> None:
        check_numbers(self.k)
        if self.merge is not None and self.merge < max(self.k or (2,)):
            raise ConfigError(f"merge={self.merge} clusters can't be merged to k={max(self.k or (2,))}; raise merge")
        if self.points != "all" and (not isinstance(self.points, int) or self.points < 1):
            raise ConfigError(f'k-means needs at least 1 point, or "all", not points={self.points!r}')
        if self.iterations < 1 or not self.tolerance >= 0:
            raise ConfigError(
                f"k-means needs iterations >= 1 and tolerance >= 0, not {self.iterations} and {self.tolerance}"
            )
        if self.matching not in (None, *MATCHINGS):
            raise ConfigError(f"matching must be one of {', '.join(MATCHINGS)}, not {self.matching!r}")

    def numbers(self, classes: int) -> tuple[int, ...]:
        """The numbers of clusters, each once, for a data set of so many classes."""
        return tuple(dict.fromkeys(self.k or (classes, 64)))

    def matching_for(self, k: int, classes: int) -> Matching:
        """The rule that a result's main metrics are by."""
        return self.matching or ("hungarian" if k == classes else "majority")


def check_numbers(k: Sequence[int] | None) -> None:
    """Raise ConfigError unless k is None or names numbers of clusters of at least 1."""
    if k is not None and (isinstance(k, int | str) or not k or min(k) < 1):
        raise ConfigError(f"k must name numbers of clusters of at least 1, such as (11, 64), not {k!r}")


def fit_clusters(cells: Tensor, k: int, seed: int, spherical: bool, config: Clusters) -> AffineHead:
    """k-means as a head.

    Args:
        cells: (N, D) float32.
        k: number of clusters.
        seed: of k-means' seeding.
        spherical: cosine or Euclid.
        config: iterations and tolerance are used.

    Returns:
        A head with k outputs; the largest is the nearest centroid.

    Raises:
        ConfigError: as `kmeans`.
    """
    found = kmeans(cells, k, seed, config.iterations, spherical, config.tolerance)
    return AffineHead(*affine_scores(found.centroids, spherical))


@dataclass(frozen=True)
class NamedClusters:
    """One k-means under one matching rule.

    Attributes:
        classes: (k,) int64, the class of each cluster; -1 = none.
        confusion: (C, C + 1) int64, rows = truth, last column = clusters without a class.
        metrics: of it.
    """

    classes: NDArray[np.int64]
    confusion: NDArray[np.int64]
    metrics: Metrics


def name_clusters(counts: NDArray[np.int64], matching: Matching, maximise: Maximise = "iou") -> NamedClusters:
    """Name clusters by a rule and measure them.

    Args:
        counts: (k, C) labelled pixels of class c in cluster j.
        matching: the rule.
        maximise: what Hungarian matching maximises.
    """
    mapping = match_hungarian(counts, maximise) if matching == "hungarian" else match_majority(counts)
    confusion = map_clusters(counts, mapping)
    return NamedClusters(mapping, confusion, metrics_of(confusion))


def other_rules(matching: str, maximise: Maximise, rules: Sequence[Rule]) -> dict[str, tuple[Rule, Maximise]]:
    """The rules that a result's figures are recorded by besides its own, each under what its metrics begin with.

    Args:
        matching: the result's own rule.
        maximise: what its Hungarian matching maximises.
        rules: all of the protocol's, the Hungarian one first.

    Returns:
        By prefix the rule, and what it maximises if it is Hungarian.

    Example:
        >>> list(other_rules("hungarian", "iou", MATCHINGS)), list(other_rules("majority", "pixels", MATCHINGS))
        (['majority_', 'hungarian_pixels_'], ['hungarian_', 'hungarian_iou_'])
    """
    found = {f"{rule}_": (rule, maximise) for rule in rules if rule != matching}
    other: Maximise = "iou" if maximise == "pixels" else "pixels"
    found[f"{rules[0]}_{other}_"] = (rules[0], other)
    return found
