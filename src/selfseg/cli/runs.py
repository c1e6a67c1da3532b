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
    """Group the pixels of all images into k clusters, for one or several k.

    Args:
        run: folder of the trained run, which `selfseg train` wrote to --out.
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        k: how many clusters: one number, or several, which all come from one look at the images.
        seed: seed of the random choice of pixels, and of k-means.
        points: how many pixels are drawn for k-means.
        position: how much the place of a pixel in its image counts, beside what it looks like. 0 is not at all; 1 suits
            a camera that does not move.
        merge: find this many small clusters first, e.g. 200, and merge them until k are left. `selfseg segment -k` then
            takes any other number, too.
        scales: look at each image at each of these multiples of its size and take the mean, e.g. 1 1.5. This is slower,
            and the results are steadier.
        flip: also look at the mirror image of each image, and take the mean.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
        propose: look for a good number of clusters to begin with: one at which two halves of the images agree.
        batches: take mini-batches, and go through the points this many times, instead of the exact k-means. For very
            many points.
        processes: how many processes of this machine share the work; 1 if not given. The results are the same with any
            number.
        ray: share the work on a Ray cluster: give its address; or auto, to find it through RAY_ADDRESS or this
            machine's files; or local, to start one on this machine. --processes is then the number of workers. If it is
            not given, there are as many as the cluster has room for.
        batch: how many images a GPU looks at together; auto measures how many its memory holds. On a CPU this changes
            nothing.
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
    """Write which cluster each pixel belongs to: for every image a PNG of numbers, and a coloured picture.

    Both have the image's own size. If you stop it, the same command continues.

    Args:
        run: folder of a trained run that has clusters. Or the folder of a segmenter, such as `selfseg finetune --keep`
            leaves; then masks of its classes are written, as by `selfseg apply`.
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        out: folder for the results.
        k: which of the run's clusterings: the one with this many clusters. The largest if not given.
        scales: look at each image at each of these multiples of its size and take the mean, e.g. 1 1.5. This is slower,
            and the results are steadier.
        flip: also look at the mirror image of each image, and take the mean.
        window: side in px of the overlapping windows in which large images are looked at. Large are images with more
            than twice as many pixels as a window. If not given, the run's own value is taken, or 1024 px for images
            that are too large to be looked at whole. Only files that can be read in parts are cut, such as TIFF and
            Zarr; JPEG and PNG files never are.
        geojson: also write the areas as polygons. They are in map coordinates if the image says where it lies.
        min_area: of the polygons, in px. Smaller areas become part of the largest area beside them.
        large_as: how the maps of images that are looked at in windows are written: as tiled TIFF or as OME-Zarr.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
        processes: how many processes of this machine share the work; 1 if not given. The results are the same with any
            number.
        ray: share the work on a Ray cluster: give its address; or auto, to find it through RAY_ADDRESS or this
            machine's files; or local, to start one on this machine. --processes is then the number of workers. If it is
            not given, there are as many as the cluster has room for.
        batch: how many images a GPU looks at together; auto measures how many its memory holds. On a CPU this changes
            nothing.
    """
    from selfseg.collection.segmenting import segment as run_segment

    options: dict[str, Any] = {"device": device, "max_bad": max_bad, "window": window}
    options |= {"geojson": geojson, "min_area": min_area, "large_as": large_as}
    options |= {"where": where_to_work(processes, ray), "batch": batching(batch)}
    if (run / "segmenter.json").is_file():
        from selfseg.segmenter.applying import apply

        if k is not None or flip or scales != (1.0,):
            raise ConfigError(
                f"{run} is a segmenter, and its classes and settings are fixed; leave out -k, --scales and --flip"
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
    """Write one vector for every place of every image, as .npy files of float16.

    OUT/index.json says which pixels of the image each vector stands for. If you stop it, the same command continues.

    Args:
        run: folder of the trained run, which `selfseg train` wrote to --out.
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        out: folder for the results.
        scales: look at each image at each of these multiples of its size and take the mean, e.g. 1 1.5. This is slower,
            and the results are steadier.
        flip: also look at the mirror image of each image, and take the mean.
        window: side in px of the overlapping windows in which large images are looked at. Large are images with more
            than twice as many pixels as a window. If not given, the run's own value is taken, or 1024 px for images
            that are too large to be looked at whole. Only files that can be read in parts are cut, such as TIFF and
            Zarr; JPEG and PNG files never are.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
        processes: how many processes of this machine share the work; 1 if not given. The results are the same with any
            number.
        ray: share the work on a Ray cluster: give its address; or auto, to find it through RAY_ADDRESS or this
            machine's files; or local, to start one on this machine. --processes is then the number of workers. If it is
            not given, there are as many as the cluster has room for.
        batch: how many images a GPU looks at together; auto measures how many its memory holds. On a CPU this changes
            nothing.
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
    """Make the page RUN/concepts.html, which shows the best segments of each prototype or cluster, and counts them.

    Args:
        run: folder of the trained run, which `selfseg train` wrote to --out.
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        top: how many segments are shown of each concept.
        k: show the run's clusters with this k. If not given, its prototypes are shown.
        resolution: short side in px that images are resized to; the run's own if not given.
        crop: look only at a square of this many px in the middle of each image. If not given, the whole image is looked
            at.
        min_share: segments that are a smaller share of their image than this are ranked last.
        whole: take each image as one segment. For pictures that show one object each.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
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
    """Make the page RUN/report.html, which shows what a run has learned.

    Args:
        run: folder of the run.
        images: the images to show; the run's own if not given.
        count: how many images are shown.
        beside: another run, whose clusters are shown beside this one's. If not given, that is what the run began from,
            if it is known.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
    """
    from selfseg.collection.reporting.report import report as run_report

    say(f"written: {run_report(run, images=images, count=count, device=device, beside=beside)}")
    return 0


@at_places(runs=["run"], writes=["out"])
def export(
    run: RunPath,
    format: str,
    out: Path | None = None,
    push: Annotated[str | None, arg(metavar="USER/NAME")] = None,
    license: str | None = None,
    public: bool = False,
) -> int:
    """Write what a run has learned as a file that other programs load. The file is loaded once, to check it.

    Args:
        run: folder of the trained run, which `selfseg train` wrote to --out.
        format: timm, torchvision, detectron2 or mmseg write the backbone (the last two with a configuration for the
            papers' fine-tuning there). safetensors or onnx write the whole embedder. segmenter or segmenter-onnx write
            the model of the named classes (see `selfseg name`). hub and segmenter-hub write the embedder and that model
            as a folder with a model card, to share them. Installed packages may add others.
        out: the file; for safetensors, segmenter, hub and segmenter-hub a folder. It goes into RUN/export if not given.
        push: also put the folder of hub or segmenter-hub into this repository on the Hugging Face hub. If there is none
            it is made, so that only you can see it. Without this option nothing is sent.
        license: what the model card of hub and segmenter-hub gives as the licence, such as apache-2.0. None if not
            given.
        public: with --push, let everybody see the repository.
    """
    from selfseg.exporting.export import card_of
    from selfseg.exporting.export import export as run_export

    path = run_export(run, format, out, push=push, license=license, public=public)
    say(f"written: {path}; {card_of(path)} says how to load it")
    if push is not None:
        from selfseg.sharing.hub import page_of

        say(f"pushed: {page_of(push)}" + ("" if public else "; nobody can see it whom you don't let in"))
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
    """Make a run of a file of published weights, or only say what is in the file.

    From files of SlotCon, MaskContrast, ViCE and PiCIE the decoder and the prototypes are taken, too; from others only
    the backbone. No code that is in the file is run.

    Args:
        file: a .safetensors file, or one that torch wrote.
        out: folder of the run to write. If not given, nothing is written.
        backbone: timm's name of the network. If not given it is found from the file, which works for ResNets.
        output_stride: how much smaller the last feature map is than the image. If not given, as the project had it, or
            32 for a backbone alone.
        resolution: short side in px that images are resized to; 0 leaves them as they are. As the project had it if not
            given.
        mean: mean of red, green and blue in [0, 1] that the network expects to be subtracted; ImageNet's if not given.
        std: standard deviations of red, green and blue that it expects to be divided by; ImageNet's if not given.
    """
    from selfseg.models.published.importing import import_weights

    made = import_weights(
        file, out, backbone=backbone, output_stride=output_stride, resolution=resolution, mean=mean, std=std
    )
    for sentence in made.sentences:
        say(sentence)
    if made.run is not None:
        say(f"written: {made.run}; you can now use it as a run, e.g. selfseg cluster {made.run} IMAGES -k 27")
    return 0


def _looks(scales: tuple[float, ...], flip: bool) -> Looks:
    from selfseg.models.embedder import Looks

    return Looks(scales, flip)
