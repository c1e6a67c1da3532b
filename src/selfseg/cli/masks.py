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
    """Mine a mask of what stands out in each image, without labels; OUT/masks.html shows them.

    Args:
        images: folder of images, or NAME:ROOT.
        out: folder for the masks; the same command goes on with what is missing there.
        method: features, which learns from your images what their foregrounds have in common, as a pretrained network
            sees them; or one of the saliency priors, five times as fast, for one image after the other; or hierarchy,
            which gives several objects per image; or a network that learns from all priors (network), then again from
            its own predictions (bootstrapped), or from masks (supervised); or what a self-supervised ViT attends to
            (attention) or tells apart (tokencut).
        threshold: from which value on a pixel is the object's; or otsu, or adaptive (twice the map's mean).
        min_piece: smaller pieces are dropped; share of the image.
        min_area: smaller masks are rejected; share of the image.
        max_area: larger masks are rejected; share of the image.
        labels: a labelled folder, or NAME:ROOT, to measure the maps with; class 0 is background.
        split: of the labelled data.
        max_bad: share of unreadable images that is an error.
        window: cut images with more than twice this side's pixels into windows of this many px, as a training with
            the same --window does; 1024 of images that can't be looked at whole if not given.
        train_images: folder of images that features or a network learns from, e.g. simpler ones; IMAGES if not given.
        train_masks: folder of masks that the supervised network learns from.
        features: how features are looked at and learned from.
        network: how networks are trained; attention and tokencut need backbone and init.
        device: auto, cpu or cuda; of networks.
        channels: of measured images, those that are taken, by index from 0 or by name; none given = all.
        pages: of files with several pages, which are images, as of train.
        processes: share the work between so many processes of this machine; the files are the same.
        ray: share it on a Ray cluster: its address, auto for the one that RAY_ADDRESS or this machine's files name, or
            local to start one here. --processes is then the number of workers; as many as there is room for if not
            given.
        batch: how many images a GPU looks at together; auto finds out how many its memory holds. A CPU looks at
            images side by side whatever is said here.
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
