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
    """Measure a run on labelled images, beside baselines that learned nothing.

    Args:
        run: folder of the trained run; or a network of timm: timm:NAME (with timm's weights), timm:NAME:random, or
            timm:NAME:FILE.
        data: images with labels: a folder, a zip, another tool's file, or NAME:ROOT for a data set that `selfseg data`
            lists.
        protocols: how the run is measured. clusters: groups pixels, and names the groups by the labels. linear: trains
            a linear layer with labels. prototypes: for methods that have some. objects, retrieval: for a run with a
            saliency head, or with --objects.masks.
        k: numbers of clusters to measure with. If not given, the number of classes, and 64.
        seeds: how many times k-means is run, each time with another seed.
        split: the split that is measured on.
        fit_split: the split on which clusters and the linear layer are fitted.
        fit_data: other labelled images of the same classes to fit on. Results call this protocol domain.
        val: percentage of the images that are drawn at random for measuring, if the folder has no splits. They become
            the split val.
        label_suffix: what the name of a label has after the name of its image, e.g. _mask. It is found out if not
            given.
        matching: how clusters get the classes' names, one cluster for each class. iou makes the sum of the IoU as large
            as possible; it is taken if you give nothing. pixels makes the number of right pixels as large as possible,
            as PiCIE, IIC and SlotCon do. The results have both figures.
        resolution: short side in px that images are resized to; or native, which leaves them as they are. If not given,
            the run's own, and 320 px for prototypes.
        crop: measure only in a square of this many px in the middle of each image, to which images and labels are
            resized. Papers usually take 320.
        scales: look at each image at each of these multiples of its size and take the mean, e.g. 1 1.5.
        flip: also look at the mirror image of each image, and take the mean.
        baselines: also measure baselines that learned nothing.
        untrained: also measure the same network with random weights.
        backbone: also measure the features of the backbone, before the decoder (for SlotCon, before the projector).
        features: also measure the features of the decoder, before its last linear layer.
        position: if above 0, also measure with each pixel's place in its image added to the embedding, at this weight.
        crf: also measure after a CRF has refined the probabilities. This is much slower, and isn't done for objects.
        clusters: how clusters are fitted and get their names.
        linear: how the linear layer is trained.
        prototypes: how prototypes are applied and get their names.
        objects: how objects become vectors.
        retrieval: how objects are retrieved.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        out: folder for the result files. RUN/results if not given; for a network of timm nothing is written then.
        processes: how many processes of this machine share the looking at images; 1 if not given. The results are the
            same with any number.
        ray: share the work on a Ray cluster: give its address; or auto, to find it through RAY_ADDRESS or this
            machine's files; or local, to start one on this machine. --processes is then the number of workers. If it is
            not given, there are as many as the cluster has room for.
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
    """Measure several runs on the same labelled images, and make one page with the table and their pictures.

    No run is trained further. What was measured in OUT before is not measured again.

    Args:
        runs: the runs, and the data last. A run may be timm:NAME, timm:NAME:random or timm:NAME:FILE, too. Write
            NAME=RUN to choose its name in the table. The data is a folder with labels, or NAME:ROOT, as for `selfseg
            evaluate`.
        out: folder for the page compare.html and all results.
        protocols: how the runs are measured: clusters, linear, or prototypes (for methods that have some).
        k: numbers of clusters to measure with. If not given, the number of classes, and 64.
        seeds: how many times k-means is run, each time with another seed.
        split: the split that is measured on.
        fit_split: the split on which clusters and the linear layer are fitted.
        fit_data: other labelled images of the same classes to fit on. Results call this protocol domain.
        val: percentage of the images that are drawn at random for measuring, if the folder has no splits. They become
            the split val.
        label_suffix: what the name of a label has after the name of its image, e.g. _mask. It is found out if not
            given.
        matching: how clusters get the classes' names, one cluster for each class. iou makes the sum of the IoU as large
            as possible; it is taken if you give nothing. pixels makes the number of right pixels as large as possible,
            as PiCIE, IIC and SlotCon do. The results have both figures.
        resolution: short side in px that images are resized to for all runs; or native, which leaves them as they are.
            If not given, each run's own, and 320 px for prototypes.
        crop: measure only in a square of this many px in the middle of each image, to which images and labels are
            resized.
        scales: look at each image at each of these multiples of its size and take the mean, e.g. 1 1.5.
        flip: also look at the mirror image of each image, and take the mean.
        baselines: also measure baselines that learned nothing.
        untrained: also measure the first run's network with random weights.
        backbone: also measure the features of each backbone, before the decoder.
        features: also measure the features of each decoder, before its last linear layer.
        position: if above 0, also measure with each pixel's place in its image added to the embedding, at this weight.
        clusters: how clusters are fitted and get their names.
        linear: how the linear layer is trained.
        prototypes: how prototypes are applied and get their names.
        count: how many images the page shows.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
    """
    from selfseg.evaluation.comparison import compare as measure
    from selfseg.evaluation.measure.results import format_table
    from selfseg.evaluation.measure.trainings import over_trainings, trainings_table

    if len(runs) < 2:
        raise ConfigError(
            "nothing to compare; write one or more runs and then the data: selfseg compare RUN... DATA --out DIR"
        )
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
    if several := over_trainings(results):
        OUT.print(trainings_table(several))
    _tell_starts(results)
    say(f"written: {page}")
    return 0


def _tell_starts(results: Sequence[EvalResult]) -> None:
    """What was taken of files of weights."""
    for what, start in dict.fromkeys((result.what, str(result.options.get("start", ""))) for result in results):
        if start.startswith("the file "):
            say(f"{what}: {start}")


_TRANSFER = """usage: selfseg transfer PRESET SOURCE DATA --out DIR [OPTIONS]

Fine-tune a backbone on a task with labels, as papers do it, and measure it. SOURCE is a run, a file of weights,
imagenet or random. `selfseg transfer PRESET --help` explains the options. The presets:
"""


def transfer(words: list[str]) -> int:
    """Fine-tune a backbone by a preset."""
    from selfseg.evaluation.protocols.transfer import PRESETS
    from selfseg.evaluation.protocols.transfer import transfer as run_transfer

    if not words or words[0] in HELP:
        say(_TRANSFER)
        for name, preset in PRESETS.items():
            OUT.print(f"[bold]{name:12}[/]{(preset.__doc__ or '').splitlines()[0]}", highlight=False, soft_wrap=True)
        return 0 if words else ConfigError.exit_code
    if words[0] not in PRESETS:
        raise ConfigError(f"there is no preset {words[0]!r}; the presets are {', '.join(PRESETS)}")
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
    say(f"the fine-tuning began from {result.options['start']}")
    say(f"{result.what} on {result.dataset} {result.split}: {numbers}; written: {job.out}")
    return 0


@dataclass(frozen=True)
class _TransferJob(Generic[Settings]):
    """The options of `selfseg transfer PRESET`.

    Attributes:
        source: a run. Or a file of weights, imagenet:TAG or random; then --backbone says which network it is.
        data: images with labels: a folder, a zip, another tool's file, or NAME:ROOT for a data set that `selfseg data`
            lists. For detection coco:ROOT.
        out: folder for weights, checkpoints and results. If you stop a transfer, the same command continues it.
        config: the preset's settings.
        val: percentage of the images that are drawn at random for measuring, if the folder has no splits. They become
            the split val.
        label_suffix: what the name of a label has after the name of its image, e.g. _mask. It is found out if not
            given.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        workers: how many processes read images.
        checkpoint_every: how many iterations lie between two checkpoints.
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
        "Measure what a run is worth where few images have labels. The whole network is fine-tuned on some of the "
        "labelled images, once from the run's weights and once from those that the run began from. The results are a "
        "curve. If you stop it, the same command continues it; it also adds further percentages and splits."
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
    say(f"to see the curve: selfseg report {job.run}")
    if job.keep:
        place = curve_folder(job.run, job.out, results[0].dataset)
        say(
            f"written: {place / 'predictions.html'}; to write masks: "
            f"selfseg segment {place}/cells/CELL/segmenter IMAGES --out DIR"
        )
    return 0


@dataclass(frozen=True)
class _CurveJob(Generic[Settings]):
    """The options of `selfseg finetune`.

    Attributes:
        run: folder of the trained run, which `selfseg train` wrote to --out.
        data: images with labels: a folder, a zip, another tool's file, or NAME:ROOT for a data set that `selfseg data`
            lists.
        config: how the cells are trained.
        labels: which percentages of the labelled images are used, one point of the curve each. At least one image is
            taken.
        splits: how many random subsets are drawn for each percentage. Both networks get the same ones.
        out: folder for the work; RUN/finetune/DATA if not given.
        init: what the run began from: a file, imagenet:TAG or random. If not given, what its recipe says.
        keep: keep the networks, for `selfseg segment`, `apply` and `export`, and make a page of what they predict.
        val: percentage of the images that are drawn at random for measuring, if the folder has no splits. They become
            the split val.
        label_suffix: what the name of a label has after the name of its image, e.g. _mask. It is found out if not
            given.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        workers: how many processes read images.
        checkpoint_every: how many iterations lie between two checkpoints.
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
