"""Evaluate a run by the field's protocols and write each number down with all that it depends on.

`evaluate` is for a run's folder; `evaluate_extractors` is the same without files. docs/protocols.md describes the
protocols, the fields of a result and how to compare with published numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.clustering import load_prototypes
from selfseg.data.catalog import LabelledImages, open_labelled
from selfseg.errors import ConfigError, RunError
from selfseg.evaluation.baselines import MOST_FREQUENT, constant_confusion, trivial_extractors, untrained_extractor
from selfseg.evaluation.clusters import MATCHINGS, ClustersConfig, Matching, fit_clusters, name_clusters
from selfseg.evaluation.clusters import VERSION as CLUSTERS_VERSION
from selfseg.evaluation.confusion import Metrics, mean_class_iou, metrics_of
from selfseg.evaluation.features import Extractor, backbone_extractor, embedder_extractor, positioned
from selfseg.evaluation.linear import VERSION as LINEAR_VERSION
from selfseg.evaluation.linear import LinearConfig, fit_linear
from selfseg.evaluation.passes import AffineHead, Progress, RefinedHead, Tally, count, sample
from selfseg.evaluation.prototypes import VERSION as PROTOTYPES_VERSION
from selfseg.evaluation.prototypes import PrototypesConfig, matching_for, prototype_head
from selfseg.evaluation.results import format_table as format_table
from selfseg.evaluation.results import package_version, recipe_hash, result_name
from selfseg.files import write_json
from selfseg.inference import choose_device, load
from selfseg.nn.embedder import Embedder
from selfseg.ops.crf import ALGORITHM_VERSION as CRF_VERSION
from selfseg.ops.crf import MOST_CLASSES, CRFConfig
from selfseg.types import EvalResult

Protocol = Literal["clusters", "linear", "prototypes"]
PROTOCOLS: tuple[Protocol, ...] = ("clusters", "linear", "prototypes")
DEFAULT_PROTOCOLS: tuple[Protocol, ...] = ("clusters", "linear")
LINEAR_SEEDS = 3  # of a convex problem: further ones only repeat


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured, and how.

    Attributes:
        protocols: any of "clusters", "linear", "prototypes".
        k: numbers of clusters; None = the number of classes, and 64.
        seeds: k-means seeds that the mean is over; the linear layer takes the first three of them.
        clusters: how clusters are fitted and named; prototypes are named by it too.
        linear: how the linear layer is trained.
        crf: also measure every protocol with its probabilities refined by this CRF; None = without alone.
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


def evaluate(
    run: Path | str | Embedder | Extractor,
    data: Path | str,
    protocols: Sequence[Protocol] = DEFAULT_PROTOCOLS,
    k: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 5,
    resolution: int | None = None,
    fit_split: str = "train",
    split: str = "val",
    baselines: bool = True,
    untrained: bool = False,
    backbone: bool = False,
    position: float = 0.0,
    device: str | None = None,
    clusters: ClustersConfig | None = None,
    linear: LinearConfig | None = None,
    prototypes: PrototypesConfig | None = None,
    crf: CRFConfig | None = None,
    progress: Progress | None = None,
) -> list[EvalResult]:
    """Measure a run on a labelled data set.

    Args:
        run: a run's folder, whose `embedder/` is measured and whose `results/` gets one JSON file per protocol, k and
            thing measured; or an embedder or any extractor, and nothing is written.
        data: the data set's folder, see `selfseg.data.catalog`.
        protocols: any of "clusters", "linear", "prototypes"; the last for a run or an extractor that has some.
        k: numbers of clusters; None = the number of classes, and 64. Prototypes are as many as they are.
        seeds: how many (0, 1, ...), or which.
        resolution: short side in px that images are resized to; None = the embedder's own, native for baselines, and
            320 for prototypes. Labels always keep their size.
        fit_split: the split that clusters and the linear layer are fitted on; not looked at for prototypes alone.
        split: the split that is measured.
        baselines: also measure raw colour, colour + position and the most frequent class.
        untrained: also measure a network of the same architecture with random weights.
        backbone: also measure what the backbone gives before the decoder (of SlotCon, before the projector).
        position: above 0, also measure the embedding with the pixel's place appended at this weight
            (`selfseg.clustering.add_position`): what to hold against colour + position.
        device: "auto", "cpu", "cuda", ...; None = "auto" for a run, and where it is for an embedder.
        clusters: further options of the `clusters` protocol.
        linear: further options of the `linear` protocol.
        prototypes: further options of the `prototypes` protocol.
        crf: also measure everything with its probabilities refined by this CRF, as results of their own.
        progress: called after each image as (what, images done, images in all).

    Returns:
        The results, the run's before the baselines'.

    Raises:
        ConfigError: for options that can't work, e.g. more clusters than points, or a linear layer that would be
            measured on the split it learned from.
        RunError: if there is no such run, it holds no embedder, or prototypes are asked for and it has none.
        DataError: if the data set is not readable as one (see `open_labelled`), or a label is outside the classes.
        StorageError: if a result can't be written.

    Example:
        >>> evaluate("runs/vice", "data/camvid", k=[11, 64])  # doctest: +SKIP
    """
    config = EvaluationConfig(
        protocols=tuple(protocols),
        k=None if k is None else tuple(k),
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        clusters=clusters or ClustersConfig(),
        linear=linear or LinearConfig(),
        crf=crf,
    )
    folder = Path(run) if isinstance(run, str | Path) else None
    source = load(folder, device or "auto") if folder is not None else run
    others = tuple(name for name in config.protocols if name != "prototypes")
    extractors: list[Extractor] = []
    if isinstance(source, Embedder):
        if folder is None and device is not None:
            source.to(choose_device(device))
        extractors.append(embedder_extractor(source, resolution))
        if "prototypes" in config.protocols:
            if folder is None:
                raise ConfigError("an embedder alone has no prototypes; give the run's folder, or leave them out")
            wanted = resolution or (prototypes or PrototypesConfig()).resolution
            extractors += _prototyped(extractors.pop(), source, load_prototypes(folder), wanted, others)
        if position and others:
            plain = embedder_extractor(source, resolution)
            extractors.append(replace(positioned(plain, position), protocols=others))
        if backbone and others:
            extractors.append(replace(backbone_extractor(source, resolution), protocols=others))
        if untrained and others:
            extractors.append(untrained_extractor(source, resolution))
    elif isinstance(source, Extractor):
        extractors.append(source)
    else:
        raise ConfigError(f"can't evaluate {source!r}; give a run's folder, an Embedder or an Extractor")
    if baselines and others:
        extractors += trivial_extractors(resolution)

    measured = open_labelled(Path(data), split)
    fit = open_labelled(Path(data), fit_split) if others else measured
    results = evaluate_extractors(
        extractors, fit, measured, config, baselines, recipe_hash(folder) if folder else "", progress
    )
    if folder is not None:
        for result in results:
            write_json(folder / "results" / result_name(result), result.to_dict())
    return results


def evaluate_extractors(
    extractors: Sequence[Extractor],
    fit: LabelledImages,
    measured: LabelledImages,
    config: EvaluationConfig | None = None,
    most_frequent: bool = True,
    recipe_hash: str = "",
    progress: Progress | None = None,
) -> list[EvalResult]:
    """The evaluation without files: one pass over each split per extractor, for all k, seeds and protocols.

    Args:
        extractors: what to measure.
        fit: the split that clusters and the linear layer are fitted on.
        measured: the split that is measured.
        config: what to measure and how.
        most_frequent: also measure the most frequent class.
        recipe_hash: recorded with results of extractors that are not trivial.
        progress: called after each image.

    Returns:
        The results, in the extractors' order.

    Raises:
        ConfigError, DataError: as `evaluate`.
    """
    config = config or EvaluationConfig()
    names = measured.class_names
    if fit.class_names != names:
        raise ConfigError(f"the splits have other classes: {fit.class_names} and {names}; give ROOT/classes.txt")
    if "linear" in config.protocols and fit.root == measured.root and fit.split == measured.split:
        raise ConfigError(
            f"a linear layer fitted on {fit.split!r} can't be measured on it; name another fit_split, "
            'or leave "linear" out of the protocols'
        )
    if "prototypes" in config.protocols and all(extractor.prototypes is None for extractor in extractors):
        raise ConfigError("nothing that is measured has prototypes; leave them out of the protocols")
    results: list[EvalResult] = []
    constant: _Sheet | None = None  # of the last that looked at the fit split, if any did
    for extractor in extractors:
        sheet = _Sheet(extractor, fit, measured, config, recipe_hash if not extractor.trivial else "")
        if sheet.protocols:
            results += sheet.fill(progress)
            if constant is None or sheet.fitted:
                constant = sheet
    if most_frequent and constant is not None:
        results.append(constant.constant())
    return results


def _prototyped(
    extractor: Extractor, embedder: Embedder, prototypes: torch.Tensor, resolution: int | None, others: tuple[str, ...]
) -> list[Extractor]:
    """The embedder with its prototypes: where the resolution is the same one extractor, which spares a pass."""
    if prototypes.shape[1] != embedder.dim:
        raise RunError(f"the run's prototypes have {prototypes.shape[1]} dimensions, its embedder {embedder.dim}")
    at = embedder_extractor(embedder, resolution)
    if at.resolution == extractor.resolution or not others:
        return [replace(at, prototypes=prototypes)]
    return [replace(extractor, protocols=others), replace(at, prototypes=prototypes, protocols=("prototypes",))]


class _Sheet:
    """The results of one extractor."""

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
        if "prototypes" in self.protocols:  # what can't work fails before the passes
            heads["prototypes", 0] = prototype_head(self.extractor)
        ks: tuple[int, ...] = ()
        linear_seeds = config.seeds[:LINEAR_SEEDS] if with_linear else ()
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
                heads["linear", seed] = fit_linear(drawn.pixels, drawn.labels, classes, config.linear, seed)
            options["clusters"] = {**asdict(config.clusters), "points": len(drawn.cells), "spherical": spherical}
            options["linear"] = {**asdict(config.linear), "pixels": len(drawn.pixels)}
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
            if with_linear:
                confusions = [counts["linear", seed].T for seed in linear_seeds]
                how = options["linear"]
                results.append(self._result("linear", LINEAR_VERSION, confusions, linear_seeds, how, "none", crf=crf))
            if "prototypes" in self.protocols:
                table = counts["prototypes", 0]
                matching = matching_for(len(table), classes, config.clusters)
                named = {"maximise": config.clusters.maximise, "dead": int((table.sum(1) == 0).sum())}
                results.append(
                    self._named("prototypes", PROTOTYPES_VERSION, [table], matching, named, (), crf, fit_split="none")
                )
        return results

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
                further = {f"{rule}_{name}": value for name, value in _summary(other).items()}
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
        metrics = [metrics_of(confusion) for confusion in confusions]
        class_iou = mean_class_iou(metrics)
        if crf and self.config.crf is not None:
            settings = {**asdict(self.config.crf), "temperature": self._temperature(protocol), "version": CRF_VERSION}
            options = {**options, "crf": settings}
        absent = [name for name, value in zip(self.names, class_iou, strict=True) if value is None]
        return EvalResult(
            protocol=protocol,
            protocol_version=protocol_version,
            what=what or self.extractor.name,
            dataset=self.measured.root.resolve().name,
            split=self.measured.split,
            fit_split=fit_split or self.fit.split,
            metrics={**_summary(metrics), **(further or {})},
            class_names=self.names,
            class_iou=class_iou,
            confusion=tuple(tuple(int(value) for value in row) for row in confusions[0][:, :classes]),
            matching=matching,
            k=k,
            resolution=resolution or self.extractor.resolution,
            crop="none",
            crf=crf,
            seeds=seeds,
            counts={
                "images": self.tally.images,
                "pixels": self.tally.pixels,
                "void": self.tally.void,
                "skipped": self.tally.skipped,
                "unassigned": int(confusions[0][:, classes:].sum()),
                "fit_images": self.fit_tally.images if fit_split is None else 0,
                "fit_skipped": self.fit_tally.skipped if fit_split is None else 0,
            },
            options={**options, **(self.extractor.options if what is None else {}), "absent_classes": absent},
            recipe_hash=self.recipe_hash if recipe_hash is None else recipe_hash,
            package_version=package_version(),
        )


def _summary(metrics: Sequence[Metrics]) -> dict[str, float]:
    """Means over seeds, and standard deviations (of a sample; 0 for one seed)."""
    result = {}
    for name, values in (("miou", [m.miou for m in metrics]), ("accuracy", [m.accuracy for m in metrics])):
        result[name] = float(np.mean(values))
        result[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return result
