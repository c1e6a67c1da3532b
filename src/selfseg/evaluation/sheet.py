"""What is measured by which protocols, and the results of one extractor: every protocol that has a vector per pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selfseg.data.labelled.catalog import LabelledImages
from selfseg.errors import ConfigError
from selfseg.evaluation.baselines import MOST_FREQUENT, constant_confusion
from selfseg.evaluation.measure.confusion import VOID
from selfseg.evaluation.measure.features import Extractor
from selfseg.evaluation.measure.passes import AffineHead, Draw, RefinedHead, predict
from selfseg.evaluation.measure.reading import Progress, Tally
from selfseg.evaluation.measure.results import Question, column_of, result_of, split_name, summary
from selfseg.evaluation.measure.sharing import Alone, Passes
from selfseg.evaluation.protocols.clusters import (
    MATCHINGS,
    Clusters,
    Matching,
    fit_clusters,
    name_clusters,
    other_rules,
)
from selfseg.evaluation.protocols.clusters import VERSION as CLUSTERS_VERSION
from selfseg.evaluation.protocols.linear import VERSION as LINEAR_VERSION
from selfseg.evaluation.protocols.linear import Linear, LinearHead, fit_linear
from selfseg.evaluation.protocols.object_vectors import Objects, Retrieval
from selfseg.evaluation.protocols.prototypes import VERSION as PROTOTYPES_VERSION
from selfseg.evaluation.protocols.prototypes import Prototypes, prototype_head
from selfseg.ops.crf import ALGORITHM_VERSION as CRF_VERSION
from selfseg.ops.crf import MOST_CLASSES, CRFConfig
from selfseg.ops.matching import Maximise
from selfseg.ops.merging import cut_tree, merge_tree
from selfseg.types import EvalResult

OfPixels = Clusters | Linear | Prototypes
"""Protocols of a vector per pixel."""
OfObjects = Objects | Retrieval
"""Those of a vector per object."""
Protocol = OfPixels | OfObjects
Kind = TypeVar("Kind", bound=Protocol)
T = TypeVar("T")

DEFAULT_PROTOCOLS: tuple[Protocol, ...] = (Clusters(), Linear())
VERSIONS: dict[str, int] = {
    Clusters.name: CLUSTERS_VERSION,
    Linear.name: LINEAR_VERSION,
    Prototypes.name: PROTOTYPES_VERSION,
}
LINEAR_SEEDS = 3  # of a convex problem: further ones only repeat


def find(protocols: Sequence[Protocol], kind: type[Kind]) -> Kind | None:
    """The protocol of a kind, if it is among them."""
    return next((protocol for protocol in protocols if isinstance(protocol, kind)), None)


def names_of(protocols: Sequence[Protocol]) -> tuple[str, ...]:
    """What protocols are called in results."""
    return tuple(protocol.name for protocol in protocols)


_MOST_SEEDS = 10_000


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured, and how.

    Attributes:
        protocols: at most one of each kind.
        seeds: how many k-means seeds the mean is over (0, 1, ...), or which; the linear layer takes the first three of
            them, the first with L-BFGS, which draws nothing.
        crf: also measure every protocol of pixels with its probabilities refined by this CRF; None = without alone.
        temperature: what scores are divided by to be the CRF's logits, unless they are a linear layer's: cosines, or
            minus half of squared distances (for unit vectors the same up to a constant).
    """

    protocols: Sequence[Protocol] = DEFAULT_PROTOCOLS
    seeds: int | Sequence[int] = 5
    crf: CRFConfig | None = None
    temperature: float = 0.1

    def __post_init__(self) -> None:
        kinds = (Clusters, Linear, Prototypes, Objects, Retrieval)
        wrong = [protocol for protocol in self.protocols if not isinstance(protocol, kinds)]
        if wrong or not self.protocols:
            known = ", ".join(f"{kind.__name__}()" for kind in kinds)
            raise ConfigError(f"protocols must be some of {known}, not {wrong[0] if wrong else 'none'!r}")
        names = names_of(self.protocols)
        if len(set(names)) < len(names):
            raise ConfigError(f"each protocol can be measured once, not {', '.join(names)}; call again for the other")
        count = self.seeds if isinstance(self.seeds, int) else len(self.seeds)
        if not 1 <= count <= _MOST_SEEDS:
            raise ConfigError(f"an evaluation takes 1 to {_MOST_SEEDS:,} seeds, not {count:,}")
        k = max(self.clusters.k or (64,)) if self.clusters else 0
        if self.crf is not None and k > MOST_CLASSES:
            raise ConfigError(f"a CRF takes at most {MOST_CLASSES} clusters, not {k}; leave one out")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be above 0, not {self.temperature}")

    @property
    def each_seed(self) -> tuple[int, ...]:
        """The seeds themselves."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)

    @property
    def clusters(self) -> Clusters | None:
        """The protocol `clusters`, if it is measured."""
        return find(self.protocols, Clusters)

    @property
    def linear(self) -> Linear | None:
        """The protocol `linear`, if it is measured."""
        return find(self.protocols, Linear)

    @property
    def prototypes(self) -> Prototypes | None:
        """The protocol `prototypes`, if it is measured."""
        return find(self.protocols, Prototypes)

    @property
    def of_pixels(self) -> tuple[OfPixels, ...]:
        """The protocols of a vector per pixel."""
        return tuple(protocol for protocol in self.protocols if isinstance(protocol, OfPixels))

    @property
    def of_objects(self) -> tuple[OfObjects, ...]:
        """The protocols of a vector per object."""
        return tuple(protocol for protocol in self.protocols if isinstance(protocol, OfObjects))

    @property
    def fitted(self) -> tuple[OfPixels, ...]:
        """The protocols of pixels that fit something on the fit split."""
        return tuple(protocol for protocol in self.of_pixels if not isinstance(protocol, Prototypes))

    def record(self) -> dict[str, Any]:
        """As plain values."""
        protocols = {protocol.name: asdict(protocol) for protocol in self.protocols}
        if self.linear is not None and not self.linear.hidden:  # rows of `compare` that were measured before it was
            del protocols[Linear.name]["hidden"]
        return {**asdict(self), "protocols": protocols}


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


def _grouped(counts: NDArray[np.int64], groups: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Counts (M, C) of clusters that are merged to k: (k, C)."""
    merged = np.zeros((k, counts.shape[1]), np.int64)
    np.add.at(merged, groups, counts)
    return merged


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
        passes: Passes | None = None,
    ) -> None:
        self.passes = passes or Alone(extractor)
        self.extractor, self.fit, self.measured = extractor, fit, measured
        self.names = measured.class_names
        self.recipe_hash = recipe_hash
        self.classifiers: dict[str, Classifier] = {}
        self.trees: list[NDArray[np.float64]] = []  # of each seed, if clusters are merged
        self.fit_tally, self.tally = Tally(), Tally()
        self.seeds, self.crf, self.temperature = config.each_seed, config.crf, config.temperature
        able = extractor.protocols
        possible = [protocol for protocol in config.of_pixels if able is None or protocol.name in able]
        self.clusters, self.linear = find(possible, Clusters), find(possible, Linear)
        self.prototypes = find(possible, Prototypes) if extractor.prototypes is not None else None

    @property
    def fitted(self) -> bool:
        """Whether a protocol looks at the fit split."""
        return self.clusters is not None or self.linear is not None

    @property
    def empty(self) -> bool:
        """Whether none of the protocols is one for this extractor."""
        return not self.fitted and self.prototypes is None

    def fill(self, progress: Progress | None) -> list[EvalResult]:
        """Both passes, then every protocol."""
        heads: dict[tuple[int | str, int], AffineHead] = {}  # by k or protocol, and seed
        options: dict[str, dict[str, Any]] = {}
        if self.prototypes is not None:  # what can't work fails before the passes
            heads["prototypes", 0] = prototype_head(self.extractor)
        if self.fitted:
            self._fit(heads, options, progress)
        refined: list[RefinedHead] = []
        if self.crf is not None:
            refined = [RefinedHead(head, self._temperature(name), self.crf) for (name, _), head in heads.items()]
        totals, self.tally = self.passes.count(self.measured, [*heads.values(), *refined], progress)
        if not self.fitted:
            self.fit, self.fit_tally = self.measured, self.tally
        results = []
        for crf in (False, True) if refined else (False,):
            counts = dict(zip(heads, totals[len(heads) :] if crf else totals, strict=False))
            results += self._results(heads, counts, options, crf)
        return results

    def _fit(
        self,
        heads: dict[tuple[int | str, int], AffineHead],
        options: dict[str, dict[str, Any]],
        progress: Progress | None,
    ) -> None:
        """One pass over the fit split, and what is fitted on it: adds the heads, and how they were made."""
        drawn = self.passes.sample(  # up to 1 GiB
            self.fit,
            Draw(
                len(self.fit),
                cells=self.clusters.points if self.clusters else 0,
                pixels=self.linear.pixels if self.linear else 0,
                seed=self.seeds[0],
            ),
            progress,
        )
        self.fit_tally = drawn.tally
        if self.clusters is not None:
            normalised = self.extractor.normalised
            spherical = normalised if self.clusters.spherical is None else self.clusters.spherical
            merge = self.clusters.merge
            numbers = self.clusters.numbers(len(self.names)) if merge is None else (merge,)
            for k, seed in self._told("clusters", list(product(numbers, self.seeds)), progress):
                heads[k, seed] = fit_clusters(drawn.cells, k, seed, spherical, self.clusters)
            if merge is not None:
                self.trees = [merge_tree(heads[merge, seed].weight, spherical) for seed in self.seeds]
            how = {**asdict(self.clusters), "points": len(drawn.cells), "spherical": spherical}
            del how["k"]  # each result has its own
            options["clusters"] = {**how, "cells": drawn.cells_seen}  # as many as points: all of them
        if self.linear is not None:
            images, classes = max(drawn.tally.images, 1), len(self.names)
            layers: dict[str, list[LinearHead]] = {name: [] for name in self._layers()}
            todo = list(product(self._layers().items(), self._linear_seeds()))
            for (name, filters), seed in self._told("linear", todo, progress):
                made = fit_linear(drawn.pixels, drawn.labels, classes, self.linear, seed, images, filters)
                layers[name].append(made)
                heads[name, seed] = made
            for name, filters in self._layers().items():
                options[name] = {**self.linear.record(filters), "pixels": len(drawn.pixels)}
                options[name] |= {
                    f"first_{key}": getattr(layers[name][0], key) for key in ("loss", "gradient", "steps")
                }

    def _told(self, what: str, fits: Sequence[T], progress: Progress | None) -> Iterator[T]:
        """The fits, while `progress` hears of them: some take longer than a pass over images."""
        for done, fit in enumerate(fits):
            if progress is not None:
                progress(f"fit {what}, {self.extractor.name}", done, len(fits))
            yield fit
        if progress is not None and fits:
            progress(f"fit {what}, {self.extractor.name}", len(fits), len(fits))

    def _layers(self) -> dict[str, int | None]:
        """The filters of each linear model, by what it is called here; None = one layer."""
        hidden = self.linear.hidden if self.linear else ()
        return {f"linear {filters}": filters for filters in hidden} or {"linear": None}

    def _linear_seeds(self) -> tuple[int, ...]:
        return self.seeds[: LINEAR_SEEDS if self.linear and self.linear.seeded else 1]

    def _results(
        self,
        heads: dict[tuple[int | str, int], AffineHead],
        counts: dict[tuple[int | str, int], NDArray[np.int64]],
        options: dict[str, dict[str, Any]],
        crf: bool,
    ) -> list[EvalResult]:
        """Every protocol's results of what a pass has counted."""
        classes, results = len(self.names), []
        if self.clusters is not None:
            for k in self.clusters.numbers(classes):
                found = self.clusters.merge or k
                groups = [cut_tree(tree, k) for tree in self.trees] or [np.arange(k) for _ in self.seeds]
                tables = [_grouped(counts[found, seed], own, k) for seed, own in zip(self.seeds, groups, strict=True)]
                matching, maximise = self.clusters.matching_for(k, classes), self.clusters.maximise
                question = self._question("clusters", CLUSTERS_VERSION, self.seeds, matching, k, crf)
                results.append(self._named(question, tables, matching, maximise, options["clusters"]))
                named = name_clusters(tables[0], matching, maximise)
                self._keep(results[-1], heads[found, self.seeds[0]], named.classes[groups[0]])
        if self.linear is not None:
            probe = "linear" if self.fit.root == self.measured.root else "domain"
            question = self._question(probe, LINEAR_VERSION, self._linear_seeds(), crf=crf)
            for name in self._layers():
                confusions = [counts[name, seed].T for seed in question.seeds]
                results.append(self._result(question, confusions, options[name]))
                self._keep(results[-1], heads[name, question.seeds[0]], np.arange(classes))
        if self.prototypes is not None:
            table = counts["prototypes", 0]
            matching, maximise = self.prototypes.matching_for(len(table), classes), self.prototypes.maximise
            question = self._question("prototypes", PROTOTYPES_VERSION, (), matching, len(table), crf)
            how = {"maximise": maximise, "dead": int((table.sum(1) == 0).sum())}
            results.append(self._named(replace(question, fit_split="none"), [table], matching, maximise, how))
            self._keep(results[-1], heads["prototypes", 0], name_clusters(table, matching, maximise).classes)
        return results

    def _keep(self, result: EvalResult, head: AffineHead, classes: NDArray[np.int64]) -> None:
        if not result.crf:
            self.classifiers[column_of(result)] = Classifier(head, classes)

    def _temperature(self, what: int | str) -> float:
        return 1.0 if str(what).startswith(("linear", "domain")) else self.temperature

    def constant(self) -> EvalResult:
        """The most frequent class."""
        winner, confusion = constant_confusion(self.fit_tally.labels, self.tally.labels)
        question = Question("constant", 1, MOST_FREQUENT, split_name(self.fit, self.measured), "native")
        return self._result(question, [confusion], {"class": self.names[winner]})

    def _question(
        self,
        protocol: str,
        version: int,
        seeds: tuple[int, ...],
        matching: str = "none",
        k: int | None = None,
        crf: bool = False,
    ) -> Question:
        return Question(
            protocol=protocol,
            protocol_version=version,
            what=self.extractor.name,
            fit_split=split_name(self.fit, self.measured),
            resolution=self.extractor.resolution,
            seeds=seeds,
            matching=matching,
            k=k,
            crf=crf,
            recipe_hash=self.recipe_hash,
        )

    def _named(
        self,
        question: Question,
        counts: list[NDArray[np.int64]],
        matching: Matching,
        maximise: Maximise,
        options: dict[str, Any],
    ) -> EvalResult:
        """Clusters or prototypes under `matching`, with the figures under the other rules."""
        further: dict[str, float] = {}
        for prefix, (rule, gain) in other_rules(matching, maximise, MATCHINGS).items():
            further |= summary([name_clusters(table, rule, gain).metrics for table in counts], prefix)
        confusions = [name_clusters(table, matching, maximise).confusion for table in counts]
        options = {**options, "matching": matching, "matched_on": self.measured.split}
        return self._result(question, confusions, options, further)

    def _result(
        self,
        question: Question,
        confusions: list[NDArray[np.int64]],
        options: dict[str, Any],
        further: dict[str, float] | None = None,
    ) -> EvalResult:
        if question.crf and self.crf is not None:
            temperature = self._temperature(question.protocol)
            settings = {**asdict(self.crf), "temperature": temperature, "version": CRF_VERSION}
            options = {**options, "crf": settings}
        own = self.extractor.options if question.what == self.extractor.name else {}
        looked = question.fit_split != "none"
        return result_of(
            question,
            confusions,
            self.tally,
            self.measured,
            options={**options, **own},
            further=further,
            counts={
                "unassigned": int(confusions[0][:, len(self.names) :].sum()),
                "fit_images": self.fit_tally.images if looked else 0,
                "fit_skipped": self.fit_tally.skipped if looked else 0,
            },
        )
