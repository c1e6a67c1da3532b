"""The verbs that measure on labelled folders: evaluate, compare, finetune, transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from selfseg.cli.console import (
    HELP,
    OUT,
    DataPath,
    Further,
    Processes,
    RayAddress,
    RunPath,
    parse_settings,
    passes,
    say,
    where_to_work,
)
from selfseg.data.labelled.catalog import with_options
from selfseg.errors import ConfigError
from selfseg.evaluation import Beside, Clusters, Linear, Objects, Prototypes, Reading, Retrieval
from selfseg.evaluation.measure.features import Resolution
from selfseg.evaluation.sheet import Protocol
from selfseg.models.embedder import Looks
from selfseg.ops.crf import CRFConfig
from selfseg.storage.remote.places import at_places
from selfseg.types import EvalResult

Settings = TypeVar("Settings")
Name = Literal["clusters", "linear", "prototypes", "objects", "retrieval"]
OfPixels = Literal["clusters", "linear", "prototypes"]
Matching = Literal["iou", "pixels"]

_CLUSTERS, _LINEAR, _PROTOTYPES, _OBJECTS, _RETRIEVAL = Clusters(), Linear(), Prototypes(), Objects(), Retrieval()


@at_places(runs=["run"], reads=["data", "fit_data"], writes=["out"])
def evaluate(
    run: RunPath,
    data: DataPath,
    protocols: tuple[Name, ...] = ("clusters", "linear"),
    k: Annotated[tuple[int, ...], arg(aliases=["-k"])] = (),
    seeds: int = 5,
    split: str = "val",
    fit_split: Further[str] = "train",
    fit_data: Further[Path | None] = None,
    val: float | None = None,
    label_suffix: Further[str | None] = None,
    matching: Matching | None = None,
    resolution: Further[Resolution] = None,
    crop: int | None = None,
    scales: Further[tuple[float, ...]] = (1.0,),
    flip: Further[bool] = False,
    baselines: Further[bool] = True,
    untrained: bool = False,
    backbone: Further[bool] = False,
    features: Further[bool] = False,
    position: Further[float] = 0.0,
    crf: bool = False,
    clusters: Further[Clusters] = _CLUSTERS,
    linear: Further[Linear] = _LINEAR,
    prototypes: Further[Prototypes] = _PROTOTYPES,
    objects: Further[Objects] = _OBJECTS,
    retrieval: Further[Retrieval] = _RETRIEVAL,
    device: str = "auto",
    out: Path | None = None,
    processes: Processes = None,
    ray: RayAddress = None,
) -> int:
    """Measure a run on a labelled folder, beside trivial baselines.

    Args:
        run: the trained run; or any timm backbone: timm:NAME (with timm's weights), timm:NAME:random, timm:NAME:FILE.
        data: NAME:ROOT of the catalog (selfseg data), or a folder, zip or file with images and labels.
        protocols: clusters, linear, prototypes (of a run whose method has some), objects and retrieval (of a run with a
            saliency head, or with --objects.masks).
        k: numbers of clusters; the number of classes and 64 if not given.
        seeds: how many seeds k-means is run with.
        split: the split that is measured.
        fit_split: the split that clusters and the linear layer are fitted on.
        fit_data: other labelled data of the same classes to fit on: the protocol domain.
        val: percent of the images that are drawn as val where a folder isn't divided into splits.
        label_suffix: what labels' names have behind their images', e.g. _mask; found out if not given.
        matching: what naming clusters one to one maximises: the sum of iou (if not given), or pixels, as PiCIE, IIC and
            SlotCon do. Results have both figures.
        resolution: short side in px that images are resized to, or native: as they are, also for a run that has a size
            of its own. If not given the run's own, and 320 for prototypes.
        crop: measure in a centre square of this many px, images and labels resized to it; 320 is the field's.
        scales: look at each image at these multiples of its size and average, e.g. 1 1.5.
        flip: also look at its mirror image.
        baselines: also measure the trivial baselines.
        untrained: also measure the same network with random weights.
        backbone: also measure what the backbone gives before the decoder (of SlotCon, before the projector).
        features: also measure the decoder's features, before its last linear map.
        position: above 0, also measure the embedding with the pixel's place in the image appended at this weight.
        crf: also measure everything but objects with its probabilities refined by a CRF (much slower).
        clusters: how clusters are fitted and named.
        linear: how the linear layer is trained.
        prototypes: how prototypes are applied and named.
        objects: how objects become vectors.
        retrieval: how objects are retrieved.
        device: auto, cpu or cuda.
        out: folder for the result files; RUN/results if not given, nowhere for a timm backbone.
        processes: share the looking at images between so many processes of this machine; the results are the same.
        ray: share it on a Ray cluster: its address, auto for the one that RAY_ADDRESS or this machine's files name, or
            local to start one here. --processes is then the number of workers; as many as there is room for if not
            given.
    """
    from selfseg.evaluation.evaluator import evaluate as measure
    from selfseg.evaluation.measure.results import format_table

    if matching is not None:
        clusters, prototypes = replace(clusters, maximise=matching), replace(prototypes, maximise=matching)
        objects = replace(objects, maximise=matching)
    asked: dict[str, Protocol] = {
        "clusters": replace(clusters, k=k or None),
        "linear": linear,
        "prototypes": prototypes,
        "objects": replace(objects, k=k or None),
        "retrieval": replace(retrieval, objects=objects),
    }
    with passes() as progress:
        results = measure(
            run,
            with_options(data, label_suffix, val),
            [asked[name] for name in protocols],
            reading=Reading(split, fit_split, fit_data, resolution, crop, Looks(scales, flip)),
            beside=Beside(baselines, untrained, backbone, features, position),
            seeds=seeds,
            crf=CRFConfig() if crf else None,
            device=device,
            progress=progress,
            out=out,
            where=where_to_work(processes, ray),
        )
    OUT.print(format_table(results))
    _tell_starts(results)
    return 0


@at_places(models=["runs"], reads=["fit_data"], writes=["out"])
def compare(
    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN... DATA")],
    out: Path,
    protocols: tuple[OfPixels, ...] = ("clusters", "linear"),
    k: Annotated[tuple[int, ...], arg(aliases=["-k"])] = (),
    seeds: int = 5,
    split: str = "val",
    fit_split: Further[str] = "train",
    fit_data: Further[Path | None] = None,
    val: float | None = None,
    label_suffix: Further[str | None] = None,
    matching: Matching | None = None,
    resolution: Resolution = None,
    crop: int | None = None,
    scales: Further[tuple[float, ...]] = (1.0,),
    flip: Further[bool] = False,
    baselines: Further[bool] = True,
    untrained: Further[bool] = False,
    backbone: Further[bool] = False,
    features: Further[bool] = False,
    position: Further[float] = 0.0,
    clusters: Further[Clusters] = _CLUSTERS,
    linear: Further[Linear] = _LINEAR,
    prototypes: Further[Prototypes] = _PROTOTYPES,
    count: int = 6,
    device: str = "auto",
) -> int:
    """Measure several runs on a labelled folder by one protocol; one page has the table and their pictures.

    Nothing is trained, and what is in OUT already is not measured again.

    Args:
        runs: RUN... DATA: the runs, or timm:NAME, timm:NAME:random, timm:NAME:FILE; NAME=RUN says what the table calls
            it. The last one is the data: a folder with {train,val}/{images,labels}, classes.txt, or NAME:ROOT.
        out: folder for the page compare.html and all results.
        protocols: clusters, linear, prototypes (of runs whose method has some).
        k: numbers of clusters; the number of classes and 64 if not given.
        seeds: how many seeds k-means is run with.
        split: the split that is measured.
        fit_split: the split that clusters and the linear layer are fitted on.
        fit_data: other labelled data of the same classes to fit on: the protocol domain.
        val: percent of the images that are drawn as val where a folder isn't divided into splits.
        label_suffix: what labels' names have behind their images', e.g. _mask; found out if not given.
        matching: what naming clusters one to one maximises: the sum of iou (if not given), or pixels, as PiCIE, IIC and
            SlotCon do. Results have both figures.
        resolution: short side in px that all resize images to, or native: as they are. Each its own if not given, and
            320 for prototypes.
        crop: measure in a centre square of this many px, to which images and labels are resized.
        scales: look at each image at these multiples of its size and average, e.g. 1 1.5.
        flip: also look at its mirror image.
        baselines: also measure the trivial baselines.
        untrained: also measure the first run's network with random weights.
        backbone: also measure what each backbone gives before the decoder.
        features: also measure each decoder's features, before its last linear map.
        position: above 0, also measure each with the pixel's place in the image appended at this weight.
        clusters: how clusters are fitted and named.
        linear: how the linear layer is trained.
        prototypes: how prototypes are applied and named.
        count: how many images of the measured split to show.
        device: auto, cpu or cuda.
    """
    from selfseg.evaluation.comparison import compare as measure
    from selfseg.evaluation.measure.results import format_table

    if len(runs) < 2:
        raise ConfigError("selfseg compare RUN... DATA --out DIR: give at least one run, and the data last")
    if matching is not None:
        clusters, prototypes = replace(clusters, maximise=matching), replace(prototypes, maximise=matching)
    asked: dict[str, Protocol] = {
        "clusters": replace(clusters, k=k or None),
        "linear": linear,
        "prototypes": prototypes,
    }
    with passes() as progress:
        page, results = measure(
            runs[:-1],
            with_options(runs[-1], label_suffix, val),
            out,
            [asked[name] for name in protocols],
            reading=Reading(split, fit_split, fit_data, resolution, crop, Looks(scales, flip)),
            beside=Beside(baselines, untrained, backbone, features, position),
            seeds=seeds,
            count=count,
            device=device,
            progress=progress,
        )
    OUT.print(format_table(results))
    _tell_starts(results)
    say(f"written: {page}")
    return 0


def _tell_starts(results: Sequence[EvalResult]) -> None:
    """What was taken of files of weights."""
    for what, start in dict.fromkeys((result.what, str(result.options.get("start", ""))) for result in results):
        if start.startswith("the file "):
            say(f"{what}: {start}")


def transfer(words: list[str]) -> int:
    """Fine-tune a backbone by a preset."""
    from selfseg.evaluation.protocols.transfer import PRESETS
    from selfseg.evaluation.protocols.transfer import transfer as run_transfer

    if not words or words[0] in HELP:
        say("selfseg transfer PRESET RUN|FILE|imagenet|random DATA --out DIR [settings]; the presets:\n")
        for name, preset in PRESETS.items():
            OUT.print(f"[bold]{name:12}[/]{(preset.__doc__ or '').splitlines()[0]}", highlight=False, soft_wrap=True)
        return 0 if words else ConfigError.exit_code
    if words[0] not in PRESETS:
        raise ConfigError(f"no preset {words[0]!r}; there are {', '.join(PRESETS)}")
    default: Any = _TransferJob(tyro.MISSING, tyro.MISSING, tyro.MISSING, PRESETS[words[0]]())
    settings: Any = _TransferJob[type(default.config)]  # type: ignore[misc]
    about = PRESETS[words[0]].__doc__
    shown = ("source", "data", "out", "val", "device")
    job = parse_settings(settings, default, shown, words[1:], f"selfseg transfer {words[0]}", about)
    result = run_transfer(
        job.source,
        with_options(job.data, job.label_suffix, job.val),
        job.config,
        job.out,
        device=job.device,
        workers=job.workers,
        checkpoint_every=job.checkpoint_every,
    )
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items() if "_std" not in name)
    say(f"began from {result.options['start']}")
    say(f"{result.what} on {result.dataset} {result.split}: {numbers}; written: {job.out}")
    return 0


@dataclass(frozen=True)
class _TransferJob(Generic[Settings]):
    """The options of `selfseg transfer PRESET`.

    Attributes:
        source: a run; or a file of weights, "imagenet:TAG" or "random", for which --backbone tells the architecture.
        data: NAME:ROOT of the catalog (selfseg data), or a labelled folder; coco:ROOT for detection.
        out: folder for weights, checkpoints and results; the same command goes on with a stopped transfer.
        config: the preset's settings.
        val: percent of the images that are drawn as val where a folder isn't divided into splits.
        label_suffix: what labels' names have behind their images', e.g. _mask; found out if not given.
        device: auto, cpu or cuda.
        workers: processes that read images.
        checkpoint_every: iterations between checkpoints.
    """

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    data: DataPath
    out: Path
    config: OmitArgPrefixes[Settings]
    val: float | None = None
    label_suffix: str | None = None
    device: str = "auto"
    workers: int = 4
    checkpoint_every: int = 1000


def finetune(words: list[str]) -> int:
    """The few-label curve."""
    from selfseg.evaluation.measure.results import format_table
    from selfseg.evaluation.protocols.few_labels import FewLabelsConfig, curve_folder
    from selfseg.evaluation.protocols.few_labels import finetune as run_curve

    default: Any = _CurveJob(tyro.MISSING, tyro.MISSING, FewLabelsConfig())
    about = (
        "Fine-tune the whole network on shares of the labels, from the run's weights and from those that it began "
        "from, and plot the curve. The same command goes on with a stopped one; further shares and splits are added."
    )
    settings: Any = _CurveJob[FewLabelsConfig]
    shown = ("run", "data", "labels", "splits", "keep", "out", "val", "device")
    job = parse_settings(settings, default, shown, words, "selfseg finetune", about)
    results = run_curve(
        job.run,
        with_options(job.data, job.label_suffix, job.val),
        labels=job.labels,
        splits=job.splits,
        config=job.config,
        out=job.out,
        init=job.init,
        keep=job.keep,
        device=job.device,
        workers=job.workers,
        checkpoint_every=job.checkpoint_every,
    )
    OUT.print(format_table(results))
    say(f"the plot: selfseg report {job.run}")
    if job.keep:
        place = curve_folder(job.run, job.out, results[0].dataset)
        say(
            f"written: {place / 'predictions.html'}; masks: "
            f"selfseg segment {place}/cells/CELL/segmenter IMAGES --out DIR"
        )
    return 0


@dataclass(frozen=True)
class _CurveJob(Generic[Settings]):
    """The options of `selfseg finetune`.

    Attributes:
        run: the trained run.
        data: NAME:ROOT of the catalog (selfseg data), or a folder, zip or file with images and labels.
        config: how the cells are trained.
        labels: shares of the labelled images in percent; at least one image is taken.
        splits: random subsets for each share, the same for both networks.
        out: folder for the work; RUN/finetune/DATA if not given.
        init: what the run began from (a file, imagenet:TAG, random); what its recipe says if not given.
        keep: keep the networks, for segment, apply and export, and show what they predict on a page.
        val: percent of the images that are drawn as val where a folder isn't divided into splits.
        label_suffix: what labels' names have behind their images', e.g. _mask; found out if not given.
        device: auto, cpu or cuda.
        workers: processes that read images.
        checkpoint_every: iterations between checkpoints.
    """

    run: RunPath
    data: DataPath
    config: OmitArgPrefixes[Settings]
    labels: tuple[float, ...] = (1.0, 2.0, 5.0, 12.5, 100.0)
    splits: int = 3
    out: Path | None = None
    init: str | None = None
    keep: bool = False
    val: float | None = None
    label_suffix: str | None = None
    device: str = "auto"
    workers: int = 2
    checkpoint_every: int = 1000
