"""Evaluate a run by the field's protocols and write each number down with all that it depends on.

`evaluate` is for a run's folder; `evaluate_extractors` is the same without files. docs/protocols.md describes the
protocols, the fields of a result and how to compare with published numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from selfseg.collection.opening import choose_device, load
from selfseg.data.labelled.catalog import LabelledImages, check_same_classes
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
from selfseg.evaluation.protocols.object_vectors import Finder, mask_finder, saliency_finder
from selfseg.evaluation.protocols.objects import evaluate_objects, object_settings
from selfseg.evaluation.protocols.prototypes import Prototypes
from selfseg.evaluation.references import is_reference, load_reference, of_reference, parse_reference
from selfseg.evaluation.settings import Beside, Reading
from selfseg.evaluation.sheet import DEFAULT_PROTOCOLS, EvaluationConfig, OfObjects, Protocol, Sheet, names_of
from selfseg.models.embedder import Embedder
from selfseg.models.prototypes import load_prototypes
from selfseg.ops.crf import CRFConfig
from selfseg.storage.files import write_json
from selfseg.storage.hashes import run_hash
from selfseg.storage.remote.places import at_places
from selfseg.types import EvalResult


@at_places(runs=["run"], reads=["data"], writes=["out"])
def evaluate(
    run: Path | str | Embedder | Extractor,
    data: Path | str,
    protocols: Sequence[Protocol] = DEFAULT_PROTOCOLS,
    *,
    reading: Reading | None = None,
    beside: Beside | None = None,
    seeds: int | Sequence[int] = 5,
    crf: CRFConfig | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    out: Path | str | None = None,
) -> list[EvalResult]:
    """Measure a run on a labelled data set.

    Args:
        run: a run's folder, whose `embedder/` is measured and whose `results/` gets one JSON file per protocol, k and
            thing measured, and `table.md` of all that lie there; or `timm:NAME[:WEIGHTS]`
            (`selfseg.evaluation.references`), an embedder or any extractor, and nothing is written but to `out`.
        data: a labelled folder, or NAME:ROOT, see `selfseg.data.labelled.catalog`.
        protocols: any of `Clusters`, `Linear`, `Prototypes` (of a run or an extractor that has some), `Objects` and
            `Retrieval` (of an embedder with a saliency head, or with masks), each with its settings.
        reading: which images and labels are read, and at which size; the defaults if None.
        beside: what is measured beside the embedding; the trivial baselines if None.
        seeds: of k-means and the linear layer: how many (0, 1, ...), or which.
        crf: also measure everything with its probabilities refined by this CRF, as results of their own.
        device: "auto", "cpu", "cuda", ...; None = "auto" for a run, and where it is for an embedder.
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
        >>> evaluate("runs/vice", "data/camvid", [Clusters(k=(11, 64)), Linear(solver="lbfgs")])  # doctest: +SKIP
    """
    config = EvaluationConfig(tuple(protocols), seeds, crf)
    reading, beside = reading or Reading(), beside or Beside()
    folder = None if is_reference(run) or not isinstance(run, str | Path) else Path(run)
    source = open_source(run, device)
    finder, side = _finder(source, config.of_objects, reading) if config.of_objects else (None, "native")
    extractors: list[Extractor] = []
    if isinstance(source, Embedder):
        learned = None
        if config.prototypes is not None:
            if folder is None:
                raise ConfigError("an embedder alone has no prototypes; give the run's folder, or leave them out")
            learned = load_prototypes(folder)
        extractors += embedder_extractors(source, config, reading, beside, learned)
        if beside.untrained and config.fitted:
            extractors.append(untrained_extractor(source, reading.side))
        if is_reference(run):
            extractors = [of_reference(extractor, parse_reference(str(run))) for extractor in extractors]
    else:
        extractors.append(source)
    if beside.baselines and config.fitted:
        extractors += trivial_extractors(reading.side)

    fit, measured = reading.open(data, bool(config.fitted or config.of_objects))
    if isinstance(source, Embedder):
        fit, measured = fit.measured(source.config.channels), measured.measured(source.config.channels)
    made_by = run_hash(folder) if folder else ""
    where = Path(out) if out is not None else None if folder is None else folder / "results"
    results: list[EvalResult] = []

    def keep(made: Sequence[EvalResult]) -> None:
        results.extend(made)
        if where is not None:
            for result in made:
                write_json(where / result_name(result), result.to_dict())

    if config.of_pixels:
        pixels = replace(config, protocols=config.of_pixels)
        # Kept at once: what fails for want of objects must not cost what took an hour.
        keep(evaluate_extractors(extractors, fit, measured, pixels, beside.baselines, made_by, progress))
    if finder is not None:
        made = evaluate_objects(
            finder, fit, measured, config.of_objects, config.each_seed, beside.baselines, side, made_by, progress
        )
        keep([result for result in made if not config.of_pixels or result.protocol != "constant"])
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
    if config.of_objects:
        wrong = ", ".join(names_of(config.of_objects))
        raise ConfigError(f"{wrong} are of objects; call evaluate, or evaluate_objects, for them")
    check_same_classes(fit, measured)
    if config.linear is not None and fit.shares_images(measured):
        raise ConfigError(
            f"a linear layer fitted on {fit.split!r} can't be measured on it; name another fit_split, "
            "or leave the linear layer out of the protocols"
        )
    if config.prototypes is not None and all(extractor.prototypes is None for extractor in extractors):
        raise ConfigError("nothing that is measured has prototypes; leave them out of the protocols")
    results: list[EvalResult] = []
    constant: Sheet | None = None  # of the last that looked at the fit split, if any did
    for extractor in extractors:
        sheet = Sheet(extractor, fit, measured, config, recipe_hash if not extractor.trivial else "")
        if not sheet.empty:
            results += sheet.fill(progress)
            if filled is not None:
                filled(sheet)
            if constant is None or sheet.fitted:
                constant = sheet
    if most_frequent and constant is not None:
        results.append(constant.constant())
    return results


def _finder(source: object, protocols: Sequence[OfObjects], reading: Reading) -> tuple[Finder, int | str]:
    """Where objects are found, and the resolution of the images for it."""
    config = object_settings(protocols)
    if isinstance(source, Embedder) and config.masks is not None:
        source = embedder_extractor(source, reading.side)
    if isinstance(source, Embedder):
        return saliency_finder(source, config, reading.side), reading.side or source.resolution or "native"
    if isinstance(source, Extractor) and config.masks is not None:
        return mask_finder(source.extract, config.masks, reading.crop), source.resolution
    raise ConfigError("objects of an extractor without a saliency head need masks: Objects(masks=FOLDER)")


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
    config: EvaluationConfig,
    reading: Reading,
    beside: Beside,
    learned: torch.Tensor | None = None,
) -> list[Extractor]:
    """An embedder as what is measured: with its prototypes, if it has some, and what is asked for beside it.

    Args:
        embedder: stays on its device.
        config: says by what it is measured.
        reading: says the size of the images.
        beside: `position`, `backbone` and `features`.
        learned: (K, D) prototypes to measure, or None.

    Raises:
        RunError: if the prototypes are of another embedder.
    """
    side, others = reading.side, names_of(config.fitted)
    plain = embedder_extractor(embedder, side, looks=reading.looks)
    found = [plain]
    if learned is not None:
        if learned.shape[1] != embedder.dim:
            raise RunError(f"the run's prototypes have {learned.shape[1]} dimensions, its embedder {embedder.dim}")
        own = side or (config.prototypes or Prototypes()).resolution
        at = embedder_extractor(embedder, own, looks=reading.looks)
        if at.resolution == plain.resolution or not others:  # one extractor, which spares a pass
            found = [replace(at, prototypes=learned)]
        else:
            found = [replace(plain, protocols=others), replace(at, prototypes=learned, protocols=("prototypes",))]
    if beside.position and others:
        found.append(replace(positioned(plain, beside.position), protocols=others))
    if beside.backbone and others:
        found.append(replace(backbone_extractor(embedder, side), protocols=others))
    if beside.features and others:
        found.append(replace(features_extractor(embedder, side), protocols=others))
    return found
