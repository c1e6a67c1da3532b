"""Evaluate a run by the field's protocols and write each number down with all that it depends on.

`evaluate` is for a run's folder; `evaluate_extractors` is the same without files. docs/protocols.md describes the
protocols, the fields of a result and how to compare with published numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.data.catalog import LabelledImages, open_labelled
from selfseg.errors import ConfigError
from selfseg.evaluation.baselines import MOST_FREQUENT, constant_confusion, trivial_extractors, untrained_extractor
from selfseg.evaluation.clusters import MATCHINGS, ClustersConfig, fit_clusters, name_clusters
from selfseg.evaluation.clusters import VERSION as CLUSTERS_VERSION
from selfseg.evaluation.confusion import Metrics, mean_class_iou, metrics_of
from selfseg.evaluation.features import Extractor, embedder_extractor
from selfseg.evaluation.linear import VERSION as LINEAR_VERSION
from selfseg.evaluation.linear import LinearConfig, fit_linear
from selfseg.evaluation.passes import AffineHead, Progress, Tally, count, sample
from selfseg.evaluation.results import format_table as format_table
from selfseg.evaluation.results import recipe_hash, result_name
from selfseg.files import write_json
from selfseg.nn.embedder import Embedder
from selfseg.types import EvalResult

Protocol = Literal["clusters", "linear"]
PROTOCOLS: tuple[Protocol, ...] = ("clusters", "linear")
LINEAR_SEEDS = 3  # of a convex problem: further ones only repeat


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured, and how.

    Attributes:
        protocols: any of "clusters", "linear".
        k: numbers of clusters; None = the number of classes, and 64.
        seeds: k-means seeds that the mean is over; the linear layer takes the first three of them.
        clusters: how clusters are fitted and named.
        linear: how the linear layer is trained.
    """

    protocols: tuple[Protocol, ...] = PROTOCOLS
    k: tuple[int, ...] | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    clusters: ClustersConfig = field(default_factory=ClustersConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)

    def __post_init__(self) -> None:
        unknown = [name for name in self.protocols if name not in PROTOCOLS]
        if unknown or not self.protocols:
            raise ConfigError(f"protocols must be some of {', '.join(PROTOCOLS)}, not {', '.join(unknown) or 'none'}")
        if not self.seeds:
            raise ConfigError("an evaluation needs at least 1 seed")
        if self.k is not None and (not self.k or min(self.k) < 1):
            raise ConfigError(f"k must name numbers of clusters of at least 1, not {self.k}")


def evaluate(
    run: Path | str | Embedder | Extractor,
    data: Path | str,
    protocols: Sequence[Protocol] = PROTOCOLS,
    k: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 5,
    resolution: int | None = None,
    fit_split: str = "train",
    split: str = "val",
    baselines: bool = True,
    untrained: bool = False,
    device: str | None = None,
    clusters: ClustersConfig | None = None,
    linear: LinearConfig | None = None,
    progress: Progress | None = None,
) -> list[EvalResult]:
    """Measure a run on a labelled data set.

    Args:
        run: a run's folder, whose `embedder/` is measured and whose `results/` gets one JSON file per protocol, k and
            thing measured; or an embedder or any extractor, and nothing is written.
        data: the data set's folder, see `selfseg.data.catalog`.
        protocols: any of "clusters", "linear".
        k: numbers of clusters; None = the number of classes, and 64.
        seeds: how many (0, 1, ...), or which.
        resolution: short side in px that images are resized to; None = the embedder's own, native for baselines.
            Labels always keep their size.
        fit_split: the split that clusters and the linear layer are fitted on.
        split: the split that is measured.
        baselines: also measure raw colour, colour + position and the most frequent class.
        untrained: also measure a network of the same architecture with random weights.
        device: where the network runs, e.g. "cuda"; None = CUDA where there is one.
        clusters: further options of the `clusters` protocol.
        linear: further options of the `linear` protocol.
        progress: called after each image as (what, images done, images in all).

    Returns:
        The results, the run's before the baselines'.

    Raises:
        ConfigError: for options that can't work, e.g. more clusters than points, or a linear layer that would be
            measured on the split it learned from.
        CheckpointError: if the run holds no embedder.
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
    )
    folder = Path(run) if isinstance(run, str | Path) else None
    source = Embedder.load(folder / "embedder") if folder is not None else run
    extractors: list[Extractor] = []
    if isinstance(source, Embedder):
        if folder is not None:
            source.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        elif device is not None:
            source.to(device)
        extractors.append(embedder_extractor(source, resolution))
        if untrained:
            extractors.append(untrained_extractor(source, resolution))
    elif isinstance(source, Extractor):
        extractors.append(source)
    else:
        raise ConfigError(f"can't evaluate {source!r}; give a run's folder, an Embedder or an Extractor")
    if baselines:
        extractors += trivial_extractors(resolution)

    fit, measured = open_labelled(Path(data), fit_split), open_labelled(Path(data), split)
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
    results: list[EvalResult] = []
    for extractor in extractors:
        sheet = _Sheet(extractor, fit, measured, config, recipe_hash if not extractor.trivial else "")
        results += sheet.fill(progress)
        if most_frequent and extractor is extractors[-1]:
            results.append(sheet.constant())
    return results


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

    def fill(self, progress: Progress | None) -> list[EvalResult]:
        """Both passes, then every protocol."""
        config, classes = self.config, len(self.names)
        with_clusters, with_linear = "clusters" in config.protocols, "linear" in config.protocols
        drawn = sample(
            self.extractor,
            self.fit,
            cells=config.clusters.points if with_clusters else 0,
            pixels=config.linear.pixels if with_linear else 0,
            seed=config.seeds[0],
            progress=progress,
        )
        self.fit_tally = drawn.tally
        spherical = self.extractor.normalised if config.clusters.spherical is None else config.clusters.spherical
        heads: dict[tuple[int | None, int], AffineHead] = {}  # by k (None = linear) and seed
        ks = tuple(dict.fromkeys(config.k or (classes, 64))) if with_clusters else ()
        for k in ks:
            for seed in config.seeds:
                heads[k, seed] = fit_clusters(drawn.cells, k, seed, spherical, config.clusters)
        linear_seeds = config.seeds[:LINEAR_SEEDS] if with_linear else ()
        for seed in linear_seeds:
            heads[None, seed] = fit_linear(drawn.pixels, drawn.labels, classes, config.linear, seed)
        totals, self.tally = count(self.extractor, self.measured, list(heads.values()), progress)
        counts = dict(zip(heads, totals, strict=True))

        fitted = {"points": len(drawn.cells), "spherical": spherical}
        results = [self._clusters(k, [counts[k, seed] for seed in config.seeds], fitted) for k in ks]
        if with_linear:
            confusions = [counts[None, seed].T for seed in linear_seeds]
            options = {**asdict(config.linear), "pixels": len(drawn.pixels)}
            results.append(
                self._result("linear", LINEAR_VERSION, confusions, linear_seeds, options=options, matching="none")
            )
        return results

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

    def _clusters(self, k: int, counts: list[NDArray[np.int64]], fitted: dict[str, Any]) -> EvalResult:
        config = self.config.clusters
        matching = config.matching_for(k, len(self.names))
        further: dict[str, float] = {}
        for rule in MATCHINGS:
            if rule != matching:
                other = [name_clusters(table, rule, config).metrics for table in counts]
                further = {f"{rule}_{name}": value for name, value in _summary(other).items()}
        return self._result(
            "clusters",
            CLUSTERS_VERSION,
            [name_clusters(table, matching, config).confusion for table in counts],
            self.config.seeds,
            options={**asdict(config), "matching": matching, "matched_on": self.measured.split, **fitted},
            matching=matching,
            k=k,
            further=further,
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
    ) -> EvalResult:
        classes = len(self.names)
        metrics = [metrics_of(confusion) for confusion in confusions]
        class_iou = mean_class_iou(metrics)
        absent = [name for name, value in zip(self.names, class_iou, strict=True) if value is None]
        return EvalResult(
            protocol=protocol,
            protocol_version=protocol_version,
            what=what or self.extractor.name,
            dataset=self.measured.root.resolve().name,
            split=self.measured.split,
            fit_split=self.fit.split,
            metrics={**_summary(metrics), **(further or {})},
            class_names=self.names,
            class_iou=class_iou,
            confusion=tuple(tuple(int(value) for value in row) for row in confusions[0][:, :classes]),
            matching=matching,
            k=k,
            resolution=resolution or self.extractor.resolution,
            crop="none",
            crf=False,
            seeds=seeds,
            counts={
                "images": self.tally.images,
                "pixels": self.tally.pixels,
                "void": self.tally.void,
                "skipped": self.tally.skipped,
                "unassigned": int(confusions[0][:, classes:].sum()),
                "fit_images": self.fit_tally.images,
                "fit_skipped": self.fit_tally.skipped,
            },
            options={**options, "absent_classes": absent},
            recipe_hash=self.recipe_hash if recipe_hash is None else recipe_hash,
            package_version=_package_version(),
        )


def _summary(metrics: Sequence[Metrics]) -> dict[str, float]:
    """Means over seeds, and standard deviations (of a sample; 0 for one seed)."""
    result = {}
    for name, values in (("miou", [m.miou for m in metrics]), ("accuracy", [m.accuracy for m in metrics])):
        result[name] = float(np.mean(values))
        result[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return result


def _package_version() -> str:
    try:
        return version("selfseg")
    except PackageNotFoundError:  # run from a source tree that was not installed
        return ""
