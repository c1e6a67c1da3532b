"""Several runs under one protocol, and one page that shows them: nothing is trained.

    OUT/compare.html                 the table, and the same images as each of them sees them
    OUT/compare.md                   the table alone
    OUT/rows/NAME/row.json           what the row was measured by, and its pictures; written last
    OUT/rows/NAME/results/           its results
    OUT/rows/NAME/pictures/          its embeddings and predictions of the shown images

A row that is there, of the same weights, files of data and settings, is not measured again: the same command goes on
with a stopped one, and one that names another run besides adds that run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from selfseg.collection.false_colours import painter_of
from selfseg.collection.opening import choose_device
from selfseg.data.labelled.catalog import LabelledImages
from selfseg.data.labelled.coloured import ColouredCodes
from selfseg.data.reading.images import ImageCollection, spread_indices
from selfseg.drawing.pictures import pca_picture, write_image
from selfseg.errors import BadImage, ConfigError
from selfseg.evaluation.baselines import trivial_extractors, untrained_like
from selfseg.evaluation.evaluator import evaluate_extractors
from selfseg.evaluation.measure.features import Extractor, embedder_extractor, positioned_name
from selfseg.evaluation.measure.reading import Progress
from selfseg.evaluation.measure.results import TRIVIAL, Results, markdown_table, package_version, result_name
from selfseg.evaluation.measure.trainings import as_training, over_trainings, trainings_markdown
from selfseg.evaluation.references import is_reference, load_reference, parse_reference
from selfseg.evaluation.settings import Beside, Reading
from selfseg.evaluation.sheet import DEFAULT_PROTOCOLS, VERSIONS, EvaluationConfig, Protocol, Sheet, names_of
from selfseg.evaluation.subjects import embedder_extractors, open_run
from selfseg.models.embedder import Embedder
from selfseg.models.prototypes import has_prototypes
from selfseg.ops.channels import Channels
from selfseg.ops.pca import fit_pca
from selfseg.pages.comparison import Drawing, Shown, write_comparison_page
from selfseg.storage.files import mark_output, read_json, write_json, write_text
from selfseg.storage.hashes import run_hash, training_of
from selfseg.storage.outputs.claiming import check_output, own_output
from selfseg.storage.remote.places import at_places
from selfseg.types import EvalResult

BASELINES = "baselines"
UNTRAINED = "random network"


@dataclass(frozen=True)
class Row:
    """One of those that are compared.

    Attributes:
        name: what the table calls it.
        source: a run's folder or `timm:NAME[:WEIGHTS]`, as given.
    """

    name: str
    source: str


def parse_rows(sources: Sequence[Path | str]) -> tuple[Row, ...]:
    """Sources, each SOURCE or NAME=SOURCE; one without a name gets its folder's, with parents where needed.

    Raises:
        ConfigError: for none, two of one name, or one that stands for something else in tables.

    Example:
        >>> [row.name for row in parse_rows(["a/vice", "b/vice", "slots=c/slotcon", "timm:resnet18:random"])]
        ['a/vice', 'b/vice', 'slots', 'resnet18, random']
    """
    given: list[tuple[str, str]] = []
    for source in map(str, sources):
        name, equals, rest = source.partition("=")
        named = equals and not is_reference(source) and not Path(source).exists()
        given.append((name, rest) if named else ("", source))
    rows = [Row(name or _own_name(source, 1), source) for name, source in given]
    for depth in range(2, 10):
        twice = {name for name, count in Counter(row.name for row in rows).items() if count > 1}
        rows = [
            Row(_own_name(row.source, depth), row.source) if row.name in twice and not name else row
            for row, (name, _) in zip(rows, given, strict=True)
        ]
    names = [row.name for row in rows]
    taken = {BASELINES, UNTRAINED, "embedder", *TRIVIAL, *(positioned_name(name) for name in names)}
    wrong = sorted({name for name in names if names.count(name) > 1 or name in taken or not name})
    if wrong or not rows:
        raise ConfigError(
            f"rows need names that nothing else in the tables has, not {', '.join(map(repr, wrong))}; write NAME=RUN"
            if wrong
            else "nothing to compare; give one or more runs, or timm:NAME"
        )
    return tuple(rows)


def _own_name(source: str, depth: int) -> str:
    if is_reference(source):
        return parse_reference(source).name
    return "/".join(Path(source).resolve().parts[-depth:])


@at_places(models=["runs"], reads=["data"], writes=["out"])
def compare(
    runs: Sequence[Path | str],
    data: Path | str,
    out: Path | str,
    protocols: Sequence[Protocol] = DEFAULT_PROTOCOLS,
    *,
    reading: Reading | None = None,
    beside: Beside | None = None,
    seeds: int | Sequence[int] = 5,
    count: int = 6,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Path, Results]:
    """Measure several runs by one protocol and write a page with the table and the same images side by side.

    Args:
        runs: folders of runs, or `timm:NAME[:WEIGHTS]` (`selfseg.evaluation.references`); NAME=RUN says what the table
            calls it.
        data: a labelled folder, or NAME:ROOT, see `selfseg.data.labelled.catalog`.
        out: the folder to write.
        protocols: any of `Clusters`, `Linear`, `Prototypes` (a run without prototypes has a gap there).
        reading: which images and labels are read, and at which size; the defaults if None.
        beside: what is measured beside the runs; the trivial baselines if None. The untrained network is like the first
            run's.
        seeds: how many seeds (0, 1, ...), or which.
        count: how many images of the measured split to show, evenly spread over it.
        device: "auto", "cpu", "cuda", ...
        progress: called after each image as (what, images done, images in all), and likewise after each fit of
            clusters and layers.

    Returns:
        The page's path, and all results; their `what` is the row's name.

    Raises:
        ConfigError: for options that can't work, or two rows of one name.
        RunError: if a run holds no embedder, or another process writes to OUT. All are opened before any is measured.
        DataError: see `selfseg.evaluate`.
        StorageError: if the disk is full.

    Example:
        >>> compare(["runs/vice", "runs/slotcon"], "data/camvid", "comparison")  # doctest: +SKIP
    """
    config = EvaluationConfig(tuple(protocols), seeds)
    reading, beside = reading or Reading(), beside or Beside()
    if config.of_objects or count < 1:
        wrong = ", ".join(names_of(config.of_objects))
        raise ConfigError(
            f"{wrong} can't be compared here, since only protocols of pixels can; use selfseg evaluate"
            if wrong
            else f"count is {count}; give how many images to show, 1 or more"
        )
    rows, out, where = parse_rows(runs), Path(out), choose_device(device)
    check_output(out, "comparison")
    fit, measured = reading.open(data, bool(config.fitted))
    # What is missing fails before anything is measured.
    contestants = [_contestant(row, config, reading, beside) for row in rows]
    if beside.untrained and config.fitted:
        like = contestants[0].embedder
        assert like is not None  # only baselines have none
        fresh = untrained_like(like)
        extractor = replace(embedder_extractor(fresh, reading.side, name=UNTRAINED), trivial=True)
        contestants.append(_Contestant(UNTRAINED, (extractor,), fresh, {"network": asdict(like.config)}))
    if beside.baselines and config.fitted:
        contestants.append(_Contestant(BASELINES, trivial_extractors(reading.side), None, {}))
    with own_output(out, "comparison"):
        return _fill(out, rows, contestants, (fit, measured), config, reading, count, where, progress)


def _fill(
    out: Path,
    rows: Sequence[Row],
    contestants: Sequence[_Contestant],
    splits: tuple[LabelledImages, LabelledImages],
    config: EvaluationConfig,
    reading: Reading,
    count: int,
    device: torch.device,
    progress: Progress | None,
) -> tuple[Path, Results]:
    """Measure the rows that are not there yet, and write the page."""
    fit, measured = splits
    first = contestants[0].channels
    shown = _choose(measured.measured(first), count)
    data = [_data_digest(fit), _data_digest(measured)]
    results = Results()
    drawings: list[Drawing] = []
    for contestant in contestants:
        folder = out / "rows" / file_name(contestant.name)
        settings = {
            "name": contestant.name,
            **contestant.identity,
            "resolution": reading.side,
            "crop": measured.crop,
            "data": data,
            "splits": [fit.split, measured.split],
            "classes": list(measured.class_names),
            "shown": [image.name for image in shown],
            "config": config.record(),
            "version": package_version(),
            "protocols": VERSIONS,
        }
        settings = json.loads(json.dumps(settings))
        if not _is_done(out, folder, settings):
            if contestant.embedder is not None:  # one at a time: together they may not fit on a GPU
                contestant.embedder.to(device)
            # Runs may read the same files in different ways; the baselines see what the first run sees.
            channels = first if contestant.embedder is None else contestant.channels
            seen = shown if channels == first else _choose(measured.measured(channels), count)
            splits = fit.measured(channels), measured.measured(channels)
            _measure(contestant, *splits, config, seen, folder, settings, progress)
            if contestant.embedder is not None:
                contestant.embedder.to("cpu")
        row = read_json(folder / "row.json")
        results.extend(EvalResult.from_dict(read_json(folder / "results" / name)) for name in row["results"])
        drawings += [Drawing(**drawing) for drawing in row["drawings"]]
    sources = {row.name: row.source for row in rows}
    write_text(out / "compare.md", markdown_table(results) + trainings_markdown(over_trainings(results)))
    page = write_comparison_page(out, sources, results, shown, drawings, measured.class_names)
    return page, results


@dataclass(frozen=True)
class _Contestant:
    """What is measured for a row.

    Attributes:
        name: the row's.
        extractors: what is measured.
        embedder: theirs, if they have one.
        identity: what they depend on besides data and settings.
        recipe_hash: of its run.
    """

    name: str
    extractors: tuple[Extractor, ...]
    embedder: Embedder | None
    identity: Mapping[str, Any]
    recipe_hash: str = ""

    @property
    def channels(self) -> Channels | None:
        """How its embedder reads measured images; None = photographs."""
        return None if self.embedder is None else self.embedder.config.channels


def _contestant(row: Row, config: EvaluationConfig, reading: Reading, beside: Beside) -> _Contestant:
    reference = parse_reference(row.source) if is_reference(row.source) else None
    learned, told, training = None, {}, dict[str, Any]()
    if reference is None:
        asked = config.prototypes is not None and has_prototypes(row.source)
        embedder, weights, learned = open_run(Path(row.source), asked, "cpu")
        told, training = {"embedder": weights}, training_of(Path(row.source))
    else:
        embedder, told = load_reference(reference), asdict(reference)
    if learned is None and not config.fitted:
        raise ConfigError(f"{row.source} has no prototypes; leave it out, or add another protocol")
    extractors = [
        replace(
            extractor,
            name=_named(extractor.name, row),
            options={**extractor.options, **told, **as_training(training, extractor.name)},
        )
        for extractor in embedder_extractors(embedder, config, reading, beside, learned)
    ]
    digests = [_digest(embedder.config.told(), embedder.state_dict())]
    if learned is not None:
        digests.append(_digest({}, {"prototypes": learned}))
    identity = {"weights": digests, "beside": asdict(beside), **as_training(training, "embedder")}
    made_by = "" if reference else run_hash(Path(row.source))
    return _Contestant(row.name, tuple(extractors), embedder, identity, made_by)


def _named(what: str, row: Row) -> str:
    """What a row's table calls something that is measured of it."""
    return what.replace("embedder", row.name, 1) if what.startswith("embedder") else f"{row.name}, {what}"


def _digest(settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for key, value in tensors.items():
        digest.update(key.encode("utf-8", "surrogateescape"))
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _choose(measured: LabelledImages, count: int) -> list[Shown]:
    """Images evenly spread over a split; one that can't be read gives its place to the next."""
    chosen: dict[int, Shown] = {}
    painter = painter_of(measured.images)
    for start in spread_indices(len(measured), count):
        for index in range(start, len(measured)):
            if index in chosen:
                continue
            try:
                image = measured.images.read(index)
            except BadImage:
                continue
            drawn = None if painter.rgb else painter(image)
            name, label = measured.images.names[index], measured.read_label(index)
            chosen[index] = Shown(name, index, image, label, drawn, painter.legend)
            break
    return [chosen[index] for index in sorted(chosen)]


def _is_done(out: Path, folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a row was measured by these settings, and all that was written of it is still there and readable."""
    try:
        row = read_json(folder / "row.json")
        for name in row["results"]:
            EvalResult.from_dict(read_json(folder / "results" / name))
        pictures = [out / file for drawing in row["drawings"] for file in drawing["files"]]
        return bool(row["settings"] == settings) and all(path.is_file() for path in pictures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _data_digest(data: LabelledImages) -> str:
    """Of the names, sizes and times of a split's images and labels, and of what colours in labels mean."""
    digest = hashlib.blake2b(str(data.root.resolve()).encode("utf-8", "surrogateescape"), digest_size=16)
    labels = ImageCollection(data.root, data.labels)
    if isinstance(data.codes, ColouredCodes):  # whose colours may change their meaning
        digest.update(repr(data.codes.colours).encode())
    for i, name in enumerate(data.images.names):
        digest.update(f"{name} {data.images.version(i)} {labels.version(i)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _measure(
    contestant: _Contestant,
    fit: LabelledImages,
    measured: LabelledImages,
    config: EvaluationConfig,
    shown: Sequence[Shown],
    folder: Path,
    settings: Mapping[str, Any],
    progress: Progress | None,
) -> None:
    """Measure a row and draw what it makes of the shown images; `row.json` last."""
    for kind, pattern in (("", "row.json"), ("results", "*.json"), ("pictures", "*.png")):
        for old in (folder / kind).glob(pattern):
            old.unlink()
    mark_output(folder / "pictures")
    drawings: list[Drawing] = []
    has_some = any(extractor.prototypes is not None for extractor in contestant.extractors)

    def draw(sheet: Sheet) -> None:
        # A row with prototypes may have two extractors, of two resolutions: one picture of the embedding will do.
        drawn = any(drawing.what == sheet.extractor.name for drawing in drawings)
        drawings.extend(_draw(sheet, shown, folder, embedding=not drawn))

    results = evaluate_extractors(
        contestant.extractors,
        fit,
        measured,
        config if has_some else replace(config, protocols=config.fitted),
        most_frequent=contestant.name == BASELINES,
        recipe_hash=contestant.recipe_hash,
        progress=progress,
        filled=draw,
    )
    for result in results:
        write_json(folder / "results" / result_name(result), result.to_dict())
    row = {"settings": settings, "results": [result_name(result) for result in results]}
    write_json(folder / "row.json", {**row, "drawings": [asdict(drawing) for drawing in drawings]})


def _draw(sheet: Sheet, shown: Sequence[Shown], folder: Path, embedding: bool) -> list[Drawing]:
    """Every classifier's prediction of the shown images and, if asked for, the embedding's principal components."""
    name = sheet.extractor.name
    embeddings = [sheet.extractor.extract(image.image).cpu() for image in shown]
    sizes = [(image.label.shape[0], image.label.shape[1]) for image in shown]
    pictures = {
        kind: [classifier.predict(values, size) for values, size in zip(embeddings, sizes, strict=True)]
        for kind, classifier in sheet.classifiers.items()
    }
    if embedding:
        vectors = torch.cat([values.flatten(1).T for values in embeddings])
        basis = fit_pca(vectors[:: max(1, len(vectors) // 50_000)], n=min(3, vectors.shape[1]))
        pictures["embedding"] = [pca_picture(v, basis, size) for v, size in zip(embeddings, sizes, strict=True)]
    drawings = []
    for kind, drawn in pictures.items():
        paths = [folder / "pictures" / f"{file_name(name)}-{file_name(kind)}-{image.index}.png" for image in shown]
        for path, picture in zip(paths, drawn, strict=True):
            write_image(path, picture)
        drawings.append(Drawing(name, kind, tuple(path.relative_to(folder.parents[1]).as_posix() for path in paths)))
    return drawings


def file_name(name: str) -> str:
    """A name as that of a file; two names that differ stay different."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-")
    return (
        plain
        if plain == name
        else f"{plain}-{hashlib.blake2b(name.encode('utf-8', 'surrogateescape'), digest_size=2).hexdigest()}"
    )
