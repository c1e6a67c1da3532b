"""Evaluate a run by the field's protocols and write each number down with all that it depends on.

`evaluate` is for a run's folder; `evaluate_extractors` is the same without files. docs/protocols.md describes the
protocols, the fields of a result and how to compare with published numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from selfseg.collection.inference import choose_device, load
from selfseg.data.labelled.catalog import LabelledImages, check_same_classes, open_labelled
from selfseg.errors import ConfigError, RunError
from selfseg.evaluation.baselines import trivial_extractors, untrained_extractor
from selfseg.evaluation.measure.features import (
    Extractor,
    backbone_extractor,
    embedder_extractor,
    features_extractor,
    positioned,
)
from selfseg.evaluation.measure.reading import Progress
from selfseg.evaluation.measure.results import format_table as format_table
from selfseg.evaluation.measure.results import result_name, write_table
from selfseg.evaluation.protocols.clusters import ClustersConfig
from selfseg.evaluation.protocols.linear import LinearConfig
from selfseg.evaluation.protocols.object_vectors import Finder, ObjectsConfig, mask_finder, saliency_finder
from selfseg.evaluation.protocols.objects import evaluate_objects
from selfseg.evaluation.protocols.prototypes import PrototypesConfig
from selfseg.evaluation.references import is_reference, load_reference, of_reference, parse_reference
from selfseg.evaluation.sheet import DEFAULT_PROTOCOLS, OF_OBJECTS, EvaluationConfig, Protocol, Sheet
from selfseg.models.embedder import Embedder
from selfseg.models.prototypes import load_prototypes
from selfseg.ops.crf import CRFConfig
from selfseg.storage.files import write_json
from selfseg.storage.hashes import run_hash
from selfseg.types import EvalResult


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
    features: bool = False,
    position: float = 0.0,
    device: str | None = None,
    fit_data: Path | str | None = None,
    crop: int | None = None,
    clusters: ClustersConfig | None = None,
    linear: LinearConfig | None = None,
    prototypes: PrototypesConfig | None = None,
    objects: ObjectsConfig | None = None,
    crf: CRFConfig | None = None,
    progress: Progress | None = None,
    out: Path | str | None = None,
) -> list[EvalResult]:
    """Measure a run on a labelled data set.

    Args:
        run: a run's folder, whose `embedder/` is measured and whose `results/` gets one JSON file per protocol, k and
            thing measured, and `table.md` of all that lie there; or `timm:NAME[:WEIGHTS]`
            (`selfseg.evaluation.references`), an embedder or any extractor, and nothing is written but to `out`.
        data: a labelled folder, or NAME:ROOT, see `selfseg.data.labelled.catalog`.
        protocols: any of "clusters", "linear", "prototypes" (of a run or an extractor that has some), "objects" and
            "retrieval" (of an embedder with a saliency head, or with masks).
        k: numbers of clusters; None = the number of classes, and 64, for objects those of MaskContrast. Prototypes are
            as many as they are.
        seeds: how many (0, 1, ...), or which.
        resolution: short side in px that images are resized to; None = the embedder's own, native for baselines, and
            320 for prototypes; with a crop its side. Labels keep their size, or the crop's.
        fit_split: the split that clusters and the linear layer are fitted on; not looked at for prototypes alone.
        split: the split that is measured.
        baselines: also measure raw colour, colour + position and the most frequent class.
        untrained: also measure a network of the same architecture with random weights.
        backbone: also measure what the backbone gives before the decoder (of SlotCon, before the projector).
        features: also measure the decoder's features, before its last linear map: what MaskContrast's probe sees.
        position: above 0, also measure the embedding with the pixel's place appended at this weight
            (`selfseg.collection.clusters.add_position`): what to hold against colour + position.
        device: "auto", "cpu", "cuda", ...; None = "auto" for a run, and where it is for an embedder.
        fit_data: another data set of the same classes, whose `fit_split` is learned from; what the linear layer then
            has is of the protocol "domain".
        crop: measure in a centre square of this many px, as the field does at 320: images and labels of both splits are
            resized to this short side and cropped (`selfseg.data.labelled.catalog.LabelledImages.cropped`).
        clusters: further options of the `clusters` protocol.
        linear: further options of the `linear` protocol.
        prototypes: further options of the `prototypes` protocol.
        objects: options of the protocols `objects` and `retrieval`.
        crf: also measure everything with its probabilities refined by this CRF, as results of their own.
        progress: called after each image as (what, images done, images in all).
        out: folder for the result files, of a run instead of RUN/results.

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
    resolution = resolution or crop
    folder = None if is_reference(run) or not isinstance(run, str | Path) else Path(run)
    source = open_source(run, device)
    of_objects = [name for name in config.protocols if name in OF_OBJECTS]
    of_pixels = tuple(name for name in config.protocols if name not in OF_OBJECTS)
    others = tuple(name for name in of_pixels if name != "prototypes")
    finder, side = _finder(source, objects or ObjectsConfig(), resolution, crop) if of_objects else (None, "native")
    extractors: list[Extractor] = []
    if isinstance(source, Embedder):
        learned = None
        if "prototypes" in config.protocols:
            if folder is None:
                raise ConfigError("an embedder alone has no prototypes; give the run's folder, or leave them out")
            learned = load_prototypes(folder)
        extractors += embedder_extractors(source, others, resolution, position, learned, prototypes)
        if backbone and others:
            extractors.append(replace(backbone_extractor(source, resolution), protocols=others))
        if features and others:
            extractors.append(replace(features_extractor(source, resolution), protocols=others))
        if untrained and others:
            extractors.append(untrained_extractor(source, resolution))
        if is_reference(run):
            extractors = [of_reference(extractor, parse_reference(str(run))) for extractor in extractors]
    else:
        extractors.append(source)
    if baselines and others:
        extractors += trivial_extractors(resolution)

    measured = open_labelled(data, split)
    fit = open_labelled(fit_data or data, fit_split) if others or of_objects else measured
    if crop is not None:
        measured, fit = measured.cropped(crop), fit.cropped(crop)
    made_by = run_hash(folder) if folder else ""
    where = Path(out) if out is not None else None if folder is None else folder / "results"
    results: list[EvalResult] = []

    def keep(made: Sequence[EvalResult]) -> None:
        results.extend(made)
        if where is not None:
            for result in made:
                write_json(where / result_name(result), result.to_dict())

    if of_pixels:
        config = replace(config, protocols=of_pixels)
        # Kept at once: what fails for want of objects must not cost what took an hour.
        keep(evaluate_extractors(extractors, fit, measured, config, baselines, made_by, progress))
    if finder is not None:
        made = evaluate_objects(
            finder, fit, measured, objects, of_objects, k, config.seeds, baselines, side, made_by, progress
        )
        keep([result for result in made if not of_pixels or result.protocol != "constant"])
    if where is not None:
        write_table(where)
    return results


def evaluate_extractors(
    extractors: Sequence[Extractor],
    fit: LabelledImages,
    measured: LabelledImages,
    config: EvaluationConfig | None = None,
    most_frequent: bool = True,
    recipe_hash: str = "",
    progress: Progress | None = None,
    filled: Callable[[Sheet], None] | None = None,
) -> list[EvalResult]:
    """The evaluation of pixels without files: one pass over each split per extractor, for all k, seeds and protocols.

    Args:
        extractors: what to measure.
        fit: the split that clusters and the linear layer are fitted on.
        measured: the split that is measured.
        config: what to measure and how.
        most_frequent: also measure the most frequent class.
        recipe_hash: recorded with results of extractors that are not trivial.
        progress: called after each image.
        filled: called with the sheet of each extractor, whose classifiers are there.

    Returns:
        The results, in the extractors' order.

    Raises:
        ConfigError, DataError: as `evaluate`.
    """
    config = config or EvaluationConfig()
    of_objects = [name for name in config.protocols if name in OF_OBJECTS]
    if of_objects:
        raise ConfigError(f"{', '.join(of_objects)} are of objects; call evaluate, or evaluate_objects, for them")
    check_same_classes(fit, measured)
    if "linear" in config.protocols and fit.shares_images(measured):
        raise ConfigError(
            f"a linear layer fitted on {fit.split!r} can't be measured on it; name another fit_split, "
            'or leave "linear" out of the protocols'
        )
    if "prototypes" in config.protocols and all(extractor.prototypes is None for extractor in extractors):
        raise ConfigError("nothing that is measured has prototypes; leave them out of the protocols")
    results: list[EvalResult] = []
    constant: Sheet | None = None  # of the last that looked at the fit split, if any did
    for extractor in extractors:
        sheet = Sheet(extractor, fit, measured, config, recipe_hash if not extractor.trivial else "")
        if sheet.protocols:
            results += sheet.fill(progress)
            if filled is not None:
                filled(sheet)
            if constant is None or sheet.fitted:
                constant = sheet
    if most_frequent and constant is not None:
        results.append(constant.constant())
    return results


def _finder(
    source: object, config: ObjectsConfig, resolution: int | None, crop: int | None
) -> tuple[Finder, int | str]:
    """Where objects are found, and the resolution of the images for it."""
    if isinstance(source, Embedder):
        source = source if config.masks is None else embedder_extractor(source, resolution)
    if isinstance(source, Embedder):
        return saliency_finder(source, config, resolution), resolution or source.resolution or "native"
    if isinstance(source, Extractor) and config.masks is not None:
        return mask_finder(source.extract, config.masks, crop), source.resolution
    raise ConfigError("objects of an extractor without a saliency head need masks: ObjectsConfig(masks=FOLDER)")


def open_source(source: Path | str | Embedder | Extractor, device: str | None = None) -> Embedder | Extractor:
    """What is measured: a run's embedder, a reference's (`selfseg.evaluation.references`), or what is given.

    Args:
        source: a run's folder, `timm:NAME[:WEIGHTS]`, an embedder or an extractor.
        device: "auto", "cpu", "cuda", ...; None = "auto" for what is loaded, else where it is.

    Raises:
        RunError, ConfigError, CheckpointError: if it can't be had.
    """
    if isinstance(source, Extractor):
        return source
    if isinstance(source, Embedder):
        return source if device is None else source.to(choose_device(device))
    if is_reference(source):
        return load_reference(parse_reference(str(source))).to(choose_device(device or "auto"))
    if isinstance(source, str | Path):
        return load(source, device or "auto")
    raise ConfigError(f"can't evaluate {source!r}; give a run's folder, timm:NAME, an Embedder or an Extractor")


def embedder_extractors(
    embedder: Embedder,
    protocols: tuple[str, ...],
    resolution: int | None = None,
    position: float = 0.0,
    learned: torch.Tensor | None = None,
    prototypes: PrototypesConfig | None = None,
) -> list[Extractor]:
    """An embedder as what is measured: with its prototypes, if it has some, and beside it with the pixel's place.

    Args:
        embedder: stays on its device.
        protocols: those besides "prototypes" that it is measured by.
        resolution: short side in px that images are resized to instead of the embedder's own.
        position: above 0, also the embedding with the pixel's place appended at this weight.
        learned: (K, D) prototypes to measure, or None.
        prototypes: options of the protocol `prototypes`.

    Raises:
        RunError: if the prototypes are of another embedder.
    """
    plain = embedder_extractor(embedder, resolution)
    found = [plain]
    if learned is not None:
        if learned.shape[1] != embedder.dim:
            raise RunError(f"the run's prototypes have {learned.shape[1]} dimensions, its embedder {embedder.dim}")
        at = embedder_extractor(embedder, resolution or (prototypes or PrototypesConfig()).resolution)
        if at.resolution == plain.resolution or not protocols:  # one extractor, which spares a pass
            found = [replace(at, prototypes=learned)]
        else:
            found = [
                replace(plain, protocols=protocols),
                replace(at, prototypes=learned, protocols=("prototypes",)),
            ]
    if position and protocols:
        found.append(replace(positioned(plain, position), protocols=protocols))
    return found
