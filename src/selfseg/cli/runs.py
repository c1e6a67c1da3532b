"""The verbs on a trained run: cluster, segment, embed, concepts, report, export; and weights, which makes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from selfseg.cli.console import (
    BatchSize,
    Further,
    ImagesPath,
    Processes,
    RayAddress,
    RunPath,
    batching,
    say,
    where_to_work,
)
from selfseg.errors import ConfigError
from selfseg.storage.remote.places import at_places

if TYPE_CHECKING:
    from selfseg.models.embedder import Looks


@at_places(runs=["run"])
def cluster(
    run: RunPath,
    images: ImagesPath,
    k: Annotated[tuple[int, ...], arg(aliases=["-k"])] = (27,),
    seed: Further[int] = 0,
    points: Further[int] = 200_000,
    position: float = 0.0,
    merge: int | None = None,
    scales: Further[tuple[float, ...]] = (1.0,),
    flip: Further[bool] = False,
    device: str = "auto",
    max_bad: Further[float] = 0.05,
    propose: bool = True,
    batches: Further[int] = 0,
    processes: Processes = None,
    ray: RayAddress = None,
    batch: BatchSize = "auto",
) -> int:
    """Group the pixels of a collection into k clusters; several k from one pass over the images.

    Args:
        run: the trained run.
        images: folder of images, or NAME:ROOT.
        k: numbers of clusters.
        seed: of the sampled pixels and k-means.
        points: pixels that k-means sees.
        position: how much a pixel's place in its image has a say; e.g. 1 for a camera that stands.
        merge: find so many clusters first, e.g. 200, and merge them to each k; segment -k then takes any other number
            too.
        scales: look at each image at these multiples of its size and average, e.g. 1 1.5; slower, and steadier.
        flip: also look at its mirror image.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
        propose: look for a number of clusters to begin with, on which two halves of the images agree.
        batches: go through the points so many times by mini-batches, instead of exactly; for very many points.
        processes: share the work between so many processes of this machine; the files are the same.
        ray: share it on a Ray cluster: its address, auto for the one that RAY_ADDRESS or this machine's files name, or
            local to start one here. --processes is then the number of workers; as many as there is room for if not
            given.
        batch: how many images a GPU looks at together; auto finds out how many its memory holds. A CPU looks at
            images side by side whatever is said here.
    """
    from selfseg.collection.clustering import cluster as run_cluster
    from selfseg.collection.proposal import load_proposal

    paths = run_cluster(
        run,
        images,
        k,
        seed=seed,
        points=points,
        position=position,
        merge=merge,
        looks=_looks(scales, flip),
        device=device,
        max_bad=max_bad,
        propose=propose,
        where=where_to_work(processes, ray),
        batches=batches,
        batch=batching(batch),
    )
    for path in paths:
        say(f"written: {path}")
    proposal = load_proposal(run) if propose else None
    if proposal is not None:
        say(proposal.sentence)
    return 0


@at_places(models=["run"], writes=["out"])
def segment(
    run: RunPath,
    images: ImagesPath,
    out: Path,
    k: Annotated[int | None, arg(aliases=["-k"])] = None,
    scales: Further[tuple[float, ...]] = (1.0,),
    flip: Further[bool] = False,
    window: Further[int | None] = None,
    geojson: bool = False,
    min_area: Further[int] = 0,
    large_as: Further[Literal["tiff", "zarr"]] = "tiff",
    device: str = "auto",
    max_bad: Further[float] = 0.05,
    processes: Processes = None,
    ray: RayAddress = None,
    batch: BatchSize = "auto",
) -> int:
    """Segment every image: an index PNG and a coloured overlay, at the image's own size.

    Args:
        run: the trained and clustered run; or a segmenter's folder, such as finetune --keep
            leaves, whose masks are written as by selfseg apply.
        images: folder of images, or NAME:ROOT.
        out: folder for the results.
        k: which clustering; the largest if not given.
        scales: look at each image at these multiples of its size and average, e.g. 1 1.5; slower, and steadier.
        flip: also look at its mirror image.
        window: look at images with more than twice this side's pixels in windows of this many px; the
            run's own if not given, or 1024 for images that can't be looked at whole.
        geojson: also write the areas as polygons, in map coordinates where an image has some.
        min_area: of the polygons, in px: smaller ones become part of the largest one beside them.
        large_as: what the maps of images that are looked at in windows are written as: tiled TIFF or OME-Zarr.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
        processes: share the work between so many processes of this machine; the files are the same.
        ray: share it on a Ray cluster: its address, auto for the one that RAY_ADDRESS or this machine's files name, or
            local to start one here. --processes is then the number of workers; as many as there is room for if not
            given.
        batch: how many images a GPU looks at together; auto finds out how many its memory holds. A CPU looks at
            images side by side whatever is said here.
    """
    from selfseg.collection.segmenting import segment as run_segment

    options: dict[str, Any] = {"device": device, "max_bad": max_bad, "window": window}
    options |= {"geojson": geojson, "min_area": min_area, "large_as": large_as}
    options |= {"where": where_to_work(processes, ray), "batch": batching(batch)}
    if (run / "segmenter.json").is_file():
        from selfseg.segmenter.applying import apply

        if k is not None or flip or scales != (1.0,):
            raise ConfigError(
                f"{run} is a segmenter, which knows its classes and looks: leave out -k, --scales, --flip"
            )
        made = apply(run, images, out, **options)
        say(f"written: {made}")
        return 0
    made = run_segment(run, images, out, k=k, looks=_looks(scales, flip), **options)
    say(f"written: {made}")
    return 0


@at_places(models=["run"], writes=["out"])
def embed(
    run: RunPath,
    images: ImagesPath,
    out: Path,
    scales: Further[tuple[float, ...]] = (1.0,),
    flip: Further[bool] = False,
    window: Further[int | None] = None,
    device: str = "auto",
    max_bad: Further[float] = 0.05,
    processes: Processes = None,
    ray: RayAddress = None,
    batch: BatchSize = "auto",
) -> int:
    """Write one vector per pixel of every image: memory-mapped float16 with geometry.

    Args:
        run: the trained run.
        images: folder of images, or NAME:ROOT.
        out: folder for the results.
        scales: look at each image at these multiples of its size and average, e.g. 1 1.5; slower, and steadier.
        flip: also look at its mirror image.
        window: look at images with more than twice this side's pixels in windows of this many px; the
            run's own if not given, or 1024 for images that can't be looked at whole.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
        processes: share the work between so many processes of this machine; the files are the same.
        ray: share it on a Ray cluster: its address, auto for the one that RAY_ADDRESS or this machine's files name, or
            local to start one here. --processes is then the number of workers; as many as there is room for if not
            given.
        batch: how many images a GPU looks at together; auto finds out how many its memory holds. A CPU looks at
            images side by side whatever is said here.
    """
    from selfseg.collection.embedding import embed as run_embed

    options: dict[str, Any] = {"where": where_to_work(processes, ray), "batch": batching(batch)}
    made = run_embed(run, images, out, _looks(scales, flip), device, max_bad=max_bad, window=window, **options)
    say(f"written: {made}")
    return 0


@at_places(runs=["run"])
def concepts(
    run: RunPath,
    images: ImagesPath,
    top: int = 10,
    k: Annotated[int | None, arg(aliases=["-k"])] = None,
    resolution: int | None = None,
    crop: Further[int | None] = None,
    min_share: Further[float] = 0.01,
    whole: bool = False,
    device: str = "auto",
    max_bad: Further[float] = 0.05,
) -> int:
    """Show what each concept finds: its best segments over a collection, with counts, as RUN/concepts.html.

    Args:
        run: the trained run.
        images: folder of images, or NAME:ROOT.
        top: segments shown of each concept.
        k: the run's clusters with this k instead of its prototypes.
        resolution: short side in px that images are resized to; the run's own if not given.
        crop: side in px of the centre square that is looked at; the whole image if not given.
        min_share: segments below this share of their image are ranked last.
        whole: take each image as one segment; for pictures of single objects.
        device: auto, cpu or cuda.
        max_bad: share of unreadable images that is an error.
    """
    from selfseg.collection.concepts import concepts as run_concepts

    page = run_concepts(
        run,
        images,
        top=top,
        k=k,
        resolution=resolution,
        crop=crop,
        min_share=min_share,
        whole=whole,
        device=device,
        max_bad=max_bad,
    )
    say(f"written: {page}")
    return 0


@at_places(runs=["run"], models=["beside"])
def report(
    run: RunPath, images: Path | None = None, count: int = 12, beside: Path | None = None, device: str = "auto"
) -> int:
    """Write RUN/report.html, one page that shows what was learned.

    Args:
        run: the run.
        images: folder of images to show; the run's own if not given.
        count: how many of them.
        beside: another run, whose clusters are shown beside this one's; its own start if it is known.
        device: auto, cpu or cuda.
    """
    from selfseg.collection.reporting.report import report as run_report

    say(f"written: {run_report(run, images=images, count=count, device=device, beside=beside)}")
    return 0


@at_places(runs=["run"], writes=["out"])
def export(
    run: RunPath,
    format: str,
    out: Path | None = None,
) -> int:
    """Write what a run has learned in the files that other projects load, each checked by loading it.

    Args:
        run: the trained run.
        format: timm, torchvision, detectron2, mmseg: the backbone, for the last two with configurations that start the
            papers' fine-tuning there; safetensors, onnx: the whole embedder;
            segmenter-onnx, segmenter: what named clusters have become (see name); or one that an installed package
            adds.
        out: the file (for safetensors and segmenter the folder); in RUN/export if not given.
    """
    from selfseg.exporting.export import card_of
    from selfseg.exporting.export import export as run_export

    path = run_export(run, format, out)
    say(f"written: {path}; how to load it: {card_of(path)}")
    return 0


@at_places(reads=["file"], writes=["out"])
def weights(
    file: Annotated[Positional[Path], arg(metavar="FILE")],
    out: Path | None = None,
    backbone: str = "",
    output_stride: Literal[8, 16, 32] | None = None,
    resolution: int | None = None,
    mean: Further[tuple[float, float, float] | None] = None,
    std: Further[tuple[float, float, float] | None] = None,
) -> int:
    """Tell what a file of published weights holds, and write its model as a run; nothing that is in it is run.

    Of SlotCon's, MaskContrast's, ViCE's and PiCIE's files the decoder and the prototypes are taken too, of others the
    backbone alone.

    Args:
        file: a .safetensors or torch file.
        out: the run's folder; if not given, nothing is written.
        backbone: timm's name of the network; if not given it is told from the file, which works for ResNets.
        output_stride: of the backbone's last stage; as the project had it if not given, 32 for a backbone alone.
        resolution: short side in px that images are resized to, 0 = as they are; as the project had it if not given.
        mean: of R, G and B in [0, 1] that the network expects to be subtracted; ImageNet's if not given.
        std: that it expects to be divided by; ImageNet's if not given.
    """
    from selfseg.models.published.importing import import_weights

    made = import_weights(
        file, out, backbone=backbone, output_stride=output_stride, resolution=resolution, mean=mean, std=std
    )
    for sentence in made.sentences:
        say(sentence)
    if made.run is not None:
        say(f"written: {made.run}; next: selfseg evaluate {made.run} DATA, or cluster, segment, transfer, ...")
    return 0


def _looks(scales: tuple[float, ...], flip: bool) -> Looks:
    from selfseg.models.embedder import Looks

    return Looks(scales, flip)
