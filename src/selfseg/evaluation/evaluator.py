"""Evaluate a run by the field's protocols and write each number down with all that it depends on.

`evaluate` is for a run's folder; `evaluate_extractors` is the same without files. docs/protocols.md describes the
protocols, the fields of a result and how to compare with published numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from selfseg.data.labelled.catalog import LabelledImages, check_same_classes
from selfseg.errors import ConfigError
from selfseg.evaluation.contents import fingerprint_of, images_in_both
from selfseg.evaluation.measure.features import Extractor
from selfseg.evaluation.measure.reading import Progress
from selfseg.evaluation.measure.results import Results, check_same_data, result_name, write_table
from selfseg.evaluation.measure.results import format_table as format_table
from selfseg.evaluation.measure.sharing import Alone, Shared
from selfseg.evaluation.measure.trainings import as_training
from selfseg.evaluation.protocols.objects import evaluate_objects
from selfseg.evaluation.settings import Beside, Reading
from selfseg.evaluation.sheet import DEFAULT_PROTOCOLS, EvaluationConfig, Protocol, Sheet, names_of
from selfseg.evaluation.subjects import Subjects
from selfseg.models.embedder import Embedder
from selfseg.ops.crf import CRFConfig
from selfseg.storage.files import check_writable, write_json
from selfseg.storage.hashes import run_hash, training_of
from selfseg.storage.outputs.claiming import check_results
from selfseg.storage.remote.places import at_places
from selfseg.types import EvalResult
from selfseg.workers.hiring import hire
from selfseg.workers.plan import HERE, Where


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
    where: Where = HERE,
) -> Results:
    """Measure a run on a labelled data set.

    Args:
        run: a run's folder, whose `embedder/` is measured. Its `results/` gets a JSON file for each protocol, k and
            thing measured, and `table.md` of all that lie there. Or `timm:NAME[:WEIGHTS]`
            (`selfseg.evaluation.references`), an embedder, or any extractor; then nothing is written except to `out`.
        data: a labelled folder, or NAME:ROOT, see `selfseg.data.labelled.catalog`.
        protocols: any of `Clusters`, `Linear`, `Prototypes` (for a run or an extractor that has some), `Objects` and
            `Retrieval` (for an embedder with a saliency head, or with masks), each with its settings.
        reading: which images and labels are read, and at which size; the defaults if None.
        beside: what is measured beside the embedding; the trivial baselines if None.
        seeds: seeds of k-means and of the linear layer: how many (0, 1, ...), or which.
        crf: also measure everything after this CRF has refined the probabilities, as further results.
        device: "auto", "cpu", "cuda", ...; None = "auto" for a run; an embedder stays where it is.
        progress: called after each image as (what, images done, images in all), and likewise after each fit of
            clusters and layers.
        out: folder for the result files; RUN/results if None.
        where: where the images are looked at; what is fitted is fitted in this process. The results are equal to the
            bit. If that is not this process, an embedder or extractor must be one that can be pickled.

    Returns:
        The results, the run's before the baselines': a list, which a notebook shows as a table.

    Raises:
        ConfigError: for options that can't work, e.g. more clusters than points, or a linear layer that would be
            measured on the split it learned from; if `out` holds something else than results, or RUN/results those
            of other images whose folder has the same name.
        RunError: if there is no such run, it holds no embedder, or prototypes are asked for and it has none.
        DataError: if the data set is not readable as one (see `open_labelled`), or a label is outside the classes.
        StorageError: if a result can't be written.

    Example:
        >>> evaluate("runs/vice", "data/camvid", [Clusters(k=(11, 64)), Linear(solver="lbfgs")])  # doctest: +SKIP
    """
    config = EvaluationConfig(tuple(protocols), seeds, crf)
    reading, beside = reading or Reading(), beside or Beside()
    subjects = Subjects(run, config, reading, beside, device)
    if out is not None:
        check_results(Path(out))
    if not where.here:
        subjects.check_portable()
    folder = subjects.folder
    source, subjects = subjects.opened()
    finder, side = subjects.finder(source) if config.of_objects else (None, "native")
    extractors = subjects.extractors(source)
    fit, measured = reading.open(data, bool(config.fitted or config.of_objects))
    if isinstance(source, Embedder):
        fit, measured = fit.measured(source.config.channels), measured.measured(source.config.channels)
    made_by = run_hash(folder) if folder else ""
    weights = {"embedder": subjects.weights} if folder else {}
    training = training_of(folder) if folder else {}
    kept = Path(out) if out is not None else None if folder is None else folder / "results"
    if kept is not None:
        check_writable(kept)
        data_of = fingerprint_of(measured)
        check_same_data(kept, measured, data_of)
    results = Results()

    def keep(made: Sequence[EvalResult]) -> None:
        # What is of the run's own network; a baseline stays what it is when the run goes on.
        known = [
            replace(result, options={**result.options, **weights, **as_training(training, result.what)})
            if result.recipe_hash or result.what.startswith("embedder")
            else result
            for result in made
        ]
        results.extend(known)
        if kept is not None:
            for result in known:
                told = replace(result, options={**result.options, "data": data_of})
                write_json(kept / result_name(result), told.to_dict())

    with hire(where, "evaluate", progress=False, device=device or "auto") as workers:
        shared = None if where.here else Shared(workers, where, subjects)
        if config.of_pixels:
            pixels = replace(config, protocols=config.of_pixels)
            # Kept at once: what fails for want of objects must not cost what took an hour.
            keep(
                evaluate_extractors(
                    extractors, fit, measured, pixels, beside.baselines, made_by, progress, shared=shared
                )
            )
        if finder is not None:
            made = evaluate_objects(
                finder,
                fit,
                measured,
                config.of_objects,
                config.each_seed,
                beside.baselines,
                side,
                made_by,
                progress,
                shared,
            )
            keep([result for result in made if not config.of_pixels or result.protocol != "constant"])
    if kept is not None:
        write_table(kept, folder)
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
    shared: Shared | None = None,
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
        shared: who looks at the images in place of this process, of the same extractors.

    Returns:
        The results, in the extractors' order.

    Raises:
        ConfigError, DataError: as `evaluate`.
    """
    config = config or EvaluationConfig()
    if config.of_objects:
        wrong = ", ".join(names_of(config.of_objects))
        raise ConfigError(f"{wrong} measure objects; call evaluate or evaluate_objects for them")
    check_same_classes(fit, measured)
    if config.linear is not None and fit.shares_images(measured):
        raise ConfigError(
            f"a linear layer fitted on {fit.split!r} can't be measured on it; name another fit_split, "
            "or leave the linear layer out of the protocols"
        )
    if config.prototypes is not None and all(extractor.prototypes is None for extractor in extractors):
        raise ConfigError("nothing that is measured has prototypes; leave them out of the protocols")
    in_both = images_in_both(fit, measured) if config.linear is not None else {}
    results: list[EvalResult] = []
    constant: Sheet | None = None  # of the last that looked at the fit split, if any did
    for number, extractor in enumerate(extractors):
        made_by = recipe_hash if not extractor.trivial else ""
        passes = Alone(extractor) if shared is None else shared.passes(number, extractor)
        sheet = Sheet(extractor, fit, measured, config, made_by, passes)
        if not sheet.empty:
            results += [
                replace(made, options={**made.options, **in_both}) if made.protocol in ("linear", "domain") else made
                for made in sheet.fill(progress)
            ]
            if filled is not None:
                filled(sheet)
            if constant is None or sheet.fitted:
                constant = sheet
    if most_frequent and constant is not None:
        results.append(constant.constant())
    return results
