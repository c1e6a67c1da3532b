"""`selfseg masks` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from selfseg.cli.console import (
    BatchSize,
    Further,
    ImagesPath,
    Processes,
    RayAddress,
    batching,
    say,
    where_to_work,
)
from selfseg.masks.cleaning import Cleaning
from selfseg.masks.mining import Method, mine_masks
from selfseg.masks.networks.features import FeaturesConfig
from selfseg.masks.networks.learning import NetworkConfig
from selfseg.masks.sources import Training
from selfseg.storage.remote.places import at_places

_FEATURES, _NETWORK = FeaturesConfig(), NetworkConfig()


@at_places(reads=["labels", "train_masks"], writes=["out"])
def masks(
    images: ImagesPath,
    out: Path,
    method: Method = "features",
    threshold: float | Literal["otsu", "adaptive"] = 0.5,
    min_piece: Further[float] = 0.01,
    min_area: Further[float] = 0.01,
    max_area: Further[float] = 0.95,
    labels: Path | None = None,
    split: Further[str] = "train",
    max_bad: Further[float] = 0.05,
    window: Further[int | None] = None,
    train_images: Further[Path | None] = None,
    train_masks: Path | None = None,
    features: Further[FeaturesConfig] = _FEATURES,
    network: Further[NetworkConfig] = _NETWORK,
    device: str = "auto",
    channels: tuple[str, ...] = (),
    pages: Further[str] = "auto",
    processes: Processes = None,
    ray: RayAddress = None,
    batch: BatchSize = "auto",
) -> int:
    """Find a mask of what stands out in each image, without labels. The page OUT/masks.html shows them.

    Args:
        images: the images: a folder, a zip, one image, a .txt list of paths, or NAME:ROOT for a data set that `selfseg
            data` lists.
        out: folder for the masks. If some are there already, the same command makes those that are missing.
        method: how masks are found. features: learns from your images what their foregrounds have in common, as a
            pretrained network sees them. A saliency prior: five times as fast, and looks at each image by itself.
            hierarchy: several objects per image. network: a network that learns from all priors. bootstrapped: one that
            then learns from its own predictions. supervised: one that learns from masks. attention, tokencut: what a
            self-supervised transformer attends to, or tells apart.
        threshold: pixels with at least this value belong to the object. Or otsu, or adaptive (twice the mean of the
            map).
        min_piece: pieces of a mask that are a smaller share of the image than this are dropped.
        min_area: masks that are a smaller share of the image than this are rejected.
        max_area: masks that are a larger share of the image than this are rejected.
        labels: labelled images to measure the masks with: a folder, or NAME:ROOT. Class 0 is the background.
        split: which split of the labelled images is measured.
        max_bad: share of the images that may be unreadable. They are left out. If there are more, the command stops
            with an error. 0.05 is one image in twenty.
        window: side in px of the windows that large images are cut into, each an image of its own. Give the same value
            as in the training. Large are images with more than twice as many pixels as a window. If not given, only
            images that are too large to be looked at whole are cut, into windows of 1024 px. JPEG and PNG files are
            never cut.
        train_images: folder of other images that features or a network learns from, e.g. simpler ones. If not given, it
            learns from IMAGES.
        train_masks: folder of the masks that the supervised network learns from.
        features: settings of the method features.
        network: settings of the networks. attention and tokencut need backbone and init.
        device: where the network runs: cpu, cuda (a GPU), or auto, which takes a GPU if there is one.
        channels: for images with many channels or bits: which channels are taken, by number from 0 or by name. All if
            not given.
        pages: for files with several pages: which of them are images, as for `selfseg train`.
        processes: how many processes of this machine share the work; 1 if not given. The results are the same with any
            number.
        ray: share the work on a Ray cluster: give its address; or auto, to find it through RAY_ADDRESS or this
            machine's files; or local, to start one on this machine. --processes is then the number of workers. If it is
            not given, there are as many as the cluster has room for.
        batch: how many images a GPU looks at together; auto measures how many its memory holds. On a CPU this changes
            nothing.
    """
    cleaning = Cleaning(threshold, min_piece, min_area, max_area)
    training = Training(network, train_images, train_masks, device, features)
    page = mine_masks(
        images,
        out,
        method,
        cleaning,
        labels=labels,
        split=split,
        max_bad=max_bad,
        training=training,
        channels=channels,
        pages=pages,
        window=window,
        where=where_to_work(processes, ray),
        batch=batching(batch),
    )
    say(f"written: {page}")
    return 0
