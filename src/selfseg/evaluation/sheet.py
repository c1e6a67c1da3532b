"""What is measured by which protocols, and the results of one extractor: every protocol that has a vector per pixel."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selfseg.data.labelled.catalog import LabelledImages
from selfseg.errors import ConfigError
from selfseg.evaluation.baselines import MOST_FREQUENT, constant_confusion
from selfseg.evaluation.measure.confusion import VOID
from selfseg.evaluation.measure.features import Extractor
from selfseg.evaluation.measure.passes import AffineHead, RefinedHead, count, predict, sample
from selfseg.evaluation.measure.reading import Progress, Tally
from selfseg.evaluation.measure.results import column_of, result_of, split_name, summary
from selfseg.evaluation.protocols.clusters import MATCHINGS, ClustersConfig, Matching, fit_clusters, name_clusters
from selfseg.evaluation.protocols.clusters import VERSION as CLUSTERS_VERSION
from selfseg.evaluation.protocols.linear import VERSION as LINEAR_VERSION
from selfseg.evaluation.protocols.linear import LinearConfig, LinearHead, fit_linear
from selfseg.evaluation.protocols.prototypes import VERSION as PROTOTYPES_VERSION
from selfseg.evaluation.protocols.prototypes import matching_for, prototype_head
from selfseg.ops.crf import ALGORITHM_VERSION as CRF_VERSION
from selfseg.ops.crf import MOST_CLASSES, CRFConfig
from selfseg.types import EvalResult

Protocol = Literal["clusters", "linear", "prototypes", "objects", "retrieval"]
PROTOCOLS: tuple[Protocol, ...] = ("clusters", "linear", "prototypes", "objects", "retrieval")
OF_OBJECTS = ("objects", "retrieval")  # a vector per object; the others have one per pixel
DEFAULT_PROTOCOLS: tuple[Protocol, ...] = ("clusters", "linear")
VERSIONS: dict[Protocol, int] = {
    "clusters": CLUSTERS_VERSION,
    "linear": LINEAR_VERSION,
    "prototypes": PROTOTYPES_VERSION,
}
LINEAR_SEEDS = 3  # of a convex problem: further ones only repeat


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured, and how.

    Attributes:
        protocols: any of "clusters", "linear", "prototypes" (and, for `evaluate`, "objects", "retrieval").
        k: numbers of clusters; None = the number of classes, and 64.
        seeds: k-means seeds that the mean is over; the linear layer takes the first three of them, the first with
            L-BFGS, which draws nothing.
        clusters: how clusters are fitted and named; prototypes are named by it too.
        linear: how the linear layer is trained.
        crf: also measure every protocol of pixels with its probabilities refined by this CRF; None = without alone.
        temperature: what scores are divided by to be the CRF's logits, unless they are a linear layer's: cosines, or
            minus half of squared distances (for unit vectors the same up to a constant).
    """

    protocols: tuple[Protocol, ...] = DEFAULT_PROTOCOLS
    k: tuple[int, ...] | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    clusters: ClustersConfig = field(default_factory=ClustersConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)
    crf: CRFConfig | None = None
    temperature: float = 0.1

    def __post_init__(self) -> None:
        unknown = [name for name in self.protocols if name not in PROTOCOLS]
        if unknown or not self.protocols:
            raise ConfigError(f"protocols must be some of {', '.join(PROTOCOLS)}, not {', '.join(unknown) or 'none'}")
        if not self.seeds:
            raise ConfigError("an evaluation needs at least 1 seed")
        if self.k is not None and (not self.k or min(self.k) < 1):
            raise ConfigError(f"k must name numbers of clusters of at least 1, not {self.k}")
        if self.crf is not None and max(self.k or (64,)) > MOST_CLASSES:
            raise ConfigError(f"a CRF takes at most {MOST_CLASSES} clusters, not {max(self.k or ())}; leave one out")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be above 0, not {self.temperature}")


@dataclass(frozen=True)
class Classifier:
    """A head whose outputs are named.

    Attributes:
        head: n outputs.
        classes: (n,) int64, the class of each output; -1 = none.
    """

    head: AffineHead
    classes: NDArray[np.int64]

    def predict(self, embedding: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The class of every pixel.

        Args:
            embedding: (D, h, w) float32.
            size: (H, W) of the result.

        Returns:
            (H, W) uint8 in [0, C), or 255 = none.
        """
        outputs = predict(embedding, self.head, size).cpu().numpy()
        table: NDArray[np.uint8] = np.where(self.classes < 0, VOID, self.classes).astype(np.uint8)
        return np.asarray(table[outputs])


class Sheet:
    """The results of one extractor.

    Attributes:
        classifiers: of each protocol and k, named as the results' columns are, the first seed's; there once filled.
    """

    def __init__(
        self,
        extractor: Extractor,
        fit: LabelledImages,
        measured: LabelledImages,
        config: EvaluationConfig,
        recipe_hash: str,
    ) -> None:
        self.extractor, self.fit, self.measured, self.config = extractor, fit, measured, config
        self.names = measured.class_names
        self.recipe_hash = recipe_hash
        self.classifiers: dict[str, Classifier] = {}
        self.fit_tally, self.tally = Tally(), Tally()
        self.protocols = tuple(
            name
            for name in config.protocols
            if (extractor.protocols is None or name in extractor.protocols)
            and (name != "prototypes" or extractor.prototypes is not None)
        )

    def fill(self, progress: Progress | None) -> list[EvalResult]:
        """Both passes, then every protocol."""
        config, classes = self.config, len(self.names)
        with_clusters, with_linear = "clusters" in self.protocols, "linear" in self.protocols
        heads: dict[tuple[int | Protocol, int], AffineHead] = {}  # by k or protocol, and seed
        probes: list[LinearHead] = []
        if "prototypes" in self.protocols:  # what can't work fails before the passes
            heads["prototypes", 0] = prototype_head(self.extractor)
        ks: tuple[int, ...] = ()
        linear_seeds = config.seeds[: LINEAR_SEEDS if config.linear.seeded else 1] if with_linear else ()
        spherical = self.extractor.normalised if config.clusters.spherical is None else config.clusters.spherical
        options: dict[str, dict[str, Any]] = {"clusters": {}, "linear": {}}
        if with_clusters or with_linear:
            drawn = sample(
                self.extractor,
                self.fit,
                cells=config.clusters.points if with_clusters else 0,
                pixels=config.linear.pixels if with_linear else 0,
                seed=config.seeds[0],
                progress=progress,
            )
            self.fit_tally = drawn.tally
            ks = tuple(dict.fromkeys(config.k or (classes, 64))) if with_clusters else ()
            for k in ks:
                for seed in config.seeds:
                    heads[k, seed] = fit_clusters(drawn.cells, k, seed, spherical, config.clusters)
            for seed in linear_seeds:
                heads["linear", seed] = layer = fit_linear(
                    drawn.pixels, drawn.labels, classes, config.linear, seed, max(drawn.tally.images, 1)
                )
                probes.append(layer)
            options["clusters"] = {**asdict(config.clusters), "points": len(drawn.cells), "spherical": spherical}
            options["clusters"]["cells"] = drawn.cells_seen  # as many as points: all of them
            options["linear"] = {**asdict(config.linear), "pixels": len(drawn.pixels)}
            for figure in ("loss", "gradient", "steps") if probes else ():
                options["linear"][f"first_{figure}"] = getattr(probes[0], figure)
            del drawn  # up to 1 GiB
        refined: list[RefinedHead] = []
        if config.crf is not None:
            refined = [RefinedHead(head, self._temperature(name), config.crf) for (name, _), head in heads.items()]
        totals, self.tally = count(self.extractor, self.measured, [*heads.values(), *refined], progress)
        if not self.fitted:
            self.fit, self.fit_tally = self.measured, self.tally

        results = []
        for crf in (False, True) if refined else (False,):
            counts = dict(zip(heads, totals[len(heads) :] if crf else totals, strict=False))
            for k in ks:
                tables = [counts[k, seed] for seed in config.seeds]
                matching = config.clusters.matching_for(k, classes)
                clusters = options["clusters"]
                results.append(self._named("clusters", CLUSTERS_VERSION, tables, matching, clusters, config.seeds, crf))
                self._keep(
                    results[-1], heads[k, config.seeds[0]], name_clusters(tables[0], matching, config.clusters).classes
                )
            if with_linear:
                confusions = [counts["linear", seed].T for seed in linear_seeds]
                how = options["linear"]
                probe = "linear" if self.fit.root == self.measured.root else "domain"
                results.append(self._result(probe, LINEAR_VERSION, confusions, linear_seeds, how, "none", crf=crf))
                self._keep(results[-1], heads["linear", linear_seeds[0]], np.arange(classes))
            if "prototypes" in self.protocols:
                table = counts["prototypes", 0]
                matching = matching_for(len(table), classes, config.clusters)
                named = {"maximise": config.clusters.maximise, "dead": int((table.sum(1) == 0).sum())}
                results.append(
                    self._named("prototypes", PROTOTYPES_VERSION, [table], matching, named, (), crf, fit_split="none")
                )
                self._keep(results[-1], heads["prototypes", 0], name_clusters(table, matching, config.clusters).classes)
        return results

    def _keep(self, result: EvalResult, head: AffineHead, classes: NDArray[np.int64]) -> None:
        if not result.crf:
            self.classifiers[column_of(result)] = Classifier(head, classes)

    def _temperature(self, what: int | str) -> float:
        return 1.0 if what == "linear" else self.config.temperature

    @property
    def fitted(self) -> bool:
        """Whether a protocol looked at the fit split."""
        return "clusters" in self.protocols or "linear" in self.protocols

    def constant(self) -> EvalResult:
        """The most frequent class."""
        winner, confusion = constant_confusion(self.fit_tally.labels, self.tally.labels)
        return self._result(
            "constant",
            1,
            [confusion],
            (),
            options={"class": self.names[winner]},
            matching="none",
            what=MOST_FREQUENT,
            resolution="native",
            recipe_hash="",
        )

    def _named(
        self,
        protocol: Protocol,
        protocol_version: int,
        counts: list[NDArray[np.int64]],
        matching: Matching,
        options: dict[str, Any],
        seeds: tuple[int, ...],
        crf: bool,
        fit_split: str | None = None,
    ) -> EvalResult:
        """Clusters or prototypes under `matching`, with the figures under the other rule."""
        config = self.config.clusters
        further: dict[str, float] = {}
        for rule in MATCHINGS:
            if rule != matching:
                other = [name_clusters(table, rule, config).metrics for table in counts]
                further = summary(other, f"{rule}_")
        return self._result(
            protocol,
            protocol_version,
            [name_clusters(table, matching, config).confusion for table in counts],
            seeds,
            options={**options, "matching": matching, "matched_on": self.measured.split},
            matching=matching,
            k=len(counts[0]),
            further=further,
            fit_split=fit_split,
            crf=crf,
        )

    def _result(
        self,
        protocol: str,
        protocol_version: int,
        confusions: list[NDArray[np.int64]],
        seeds: tuple[int, ...],
        options: dict[str, Any],
        matching: str,
        k: int | None = None,
        further: dict[str, float] | None = None,
        what: str | None = None,
        resolution: int | str | None = None,
        recipe_hash: str | None = None,
        fit_split: str | None = None,
        crf: bool = False,
    ) -> EvalResult:
        classes = len(self.names)
        if crf and self.config.crf is not None:
            temperature = self._temperature("linear" if protocol == "domain" else protocol)
            settings = {**asdict(self.config.crf), "temperature": temperature, "version": CRF_VERSION}
            options = {**options, "crf": settings}
        return result_of(
            confusions,
            self.tally,
            self.measured,
            protocol=protocol,
            protocol_version=protocol_version,
            what=what or self.extractor.name,
            fit_split=fit_split or split_name(self.fit, self.measured),
            resolution=resolution or self.extractor.resolution,
            seeds=seeds,
            options={**options, **(self.extractor.options if what is None else {})},
            matching=matching,
            k=k,
            further=further,
            counts={
                "unassigned": int(confusions[0][:, classes:].sum()),
                "fit_images": self.fit_tally.images if fit_split is None else 0,
                "fit_skipped": self.fit_tally.skipped if fit_split is None else 0,
            },
            recipe_hash=self.recipe_hash if recipe_hash is None else recipe_hash,
            crf=crf,
        )
