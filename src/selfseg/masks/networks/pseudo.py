"""Saliency networks without labels: from the priors' maps to one network, and from that one to a better one.

`learn_from_priors`, after T. Nguyen et al., "DeepUSPS: Deep Robust Unsupervised Saliency Prediction With
Self-Supervision", NeurIPS 2019:
1. each prior's maps are cut into masks (`selfseg.masks.cleaning`), pseudo-labels that are noisy in their own way;
2. a network of its own learns them, and can't learn their noise, which no photograph explains. Its predictions on the
   training images, refined by a CRF, enter a moving average, which is what the next round learns from;
3. one network learns the refined pseudo-labels of all priors at once, by the mean of the losses: what the priors agree
   about wins.

`bootstrap`, after W. Van Gansbeke et al., ICCV 2021, section 4.1: a second, boundary-aware network learns the first
one's predictions on the training images, of those that it is most sure of. Its encoder begins with the first one's
weights: where there are no others, they are the best there are.

`learn_from_masks`: the same boundary-aware network learns from given masks.

Where ours is not as in DeepUSPS
- the priors are ours (the paper's: RBD, DSR, MC, HS), cut at 0.5 instead of 1.5 times the mean: on photographs with
  large objects the mean is no measure of the object.
- networks start from random weights unless `init` names others; the paper's were trained on Cityscapes' labels.
- the moving average is taken after a round instead of an epoch, of predictions of whole images by weights at rest: on
  thousands of images there is hardly an epoch, and nothing depends on the order.
- the loss is 1 - F plus cross entropy: F alone says nothing about where a network is unsure.

    WORK/images.json                       which images are trained on
    WORK/squares/                          prepared images and pseudo-labels; removed at the end
    WORK/{PRIOR}_1, ..., fused, boundary   a training each: log.jsonl, checkpoints/ while it runs, weights.safetensors
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfseg.data.labelled.mask_files import MaskFolder
from selfseg.data.reading.ahead import map_images
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import CheckpointError, EmptyCollection
from selfseg.fitting.stepping import step_seed
from selfseg.masks.cleaning import Cleaning, clean
from selfseg.masks.edges import sharpen
from selfseg.masks.networks.learning import (
    PART,
    Crops,
    Loss,
    NetworkConfig,
    Squares,
    load_network,
    to_square,
    train_network,
)
from selfseg.masks.networks.losses import boundary_loss, cross_entropy_loss, f_measure_loss
from selfseg.masks.networks.network import BoundaryNet, SaliencyNet, predict
from selfseg.masks.priors.by_name import all_priors
from selfseg.masks.priors.scene import Array
from selfseg.storage.files import read_json, write_json
from selfseg.telling.bars import passing

_CUT = Cleaning()  # how maps become pseudo-labels
Network = TypeVar("Network", SaliencyNet, BoundaryNet)

_AHEAD = 16  # images that a network sees at once when it predicts


@dataclass(frozen=True)
class Job:
    """What a training is of.

    Attributes:
        images: candidates to train on.
        work: folder for everything that it needs and leaves.
        config: the settings.
        device: where networks are trained.
        progress: whether to show progress bars.
        max_bad: share of unreadable images that is an error.
    """

    images: ImageCollection
    work: Path
    config: NetworkConfig
    device: torch.device
    progress: bool = True
    max_bad: float = 0.05

    def squares(self, kind: str) -> Squares:
        """The prepared images or maps of a kind."""
        return Squares(self.work / "squares" / kind)

    def weights(self, what: str) -> Path:
        """The file that one of the trainings leaves."""
        return self.work / what / "weights.safetensors"

    def seed(self, what: str) -> int:
        """A seed for one of the trainings."""
        return step_seed(self.config.seed, int.from_bytes(hashlib.blake2b(what.encode(), digest_size=4).digest()))


def learn_from_priors(job: Job) -> SaliencyNet:
    """A network from the priors' pseudo-labels: trained now, gone on with, or read.

    Raises:
        EmptyCollection: if no prior gives a usable pseudo-label.
        TooManyBadImages: if too many images can't be read.
        CheckpointError: if WORK holds other networks, or `init` is not of the backbone.
        Interrupted: after Ctrl-C or SIGTERM, when the state is saved.
        StorageError: if the disk is full.
    """
    config = job.config
    network = _start(job, SaliencyNet, "fused")
    if not job.weights("fused").is_file():
        prepare(job, config.priors, lambda _, image: {str(k): v for k, v in all_priors(image, config.priors).items()})
        refined = [found for prior in config.priors if (found := _refine(job, prior)) is not None]
        if not refined:
            raise EmptyCollection(
                f"none of the {len(job.squares('images'))} images has a usable pseudo-label from "
                f"{', '.join(config.priors)}: nothing stands out, or nearly everything. Give photographs with an "
                "object, e.g. with --train-images"
            )
        _train(job, network, "fused", refined, _usable(refined), prior_loss, config.steps, "all priors")
    load_network(network, job.weights("fused"))
    return network.eval()


def bootstrap(job: Job) -> BoundaryNet:
    """A boundary-aware network from the confident predictions of `learn_from_priors`' on the same images.

    Raises:
        EmptyCollection: if no prediction is a usable mask, and as `learn_from_priors`; its other errors too.
    """
    config = job.config
    network = _start(job, BoundaryNet, "boundary")
    if not job.weights("boundary").is_file():
        teacher = learn_from_priors(job)
        prepare(job, (), lambda _, image: {})
        images, predicted = job.squares("images"), job.squares("predicted")
        _average(teacher, images, None, predicted, 0.0, "predict", job.progress)
        rows = confident_rows(predicted, config.confident)
        if not rows:
            raise EmptyCollection(
                f"the first network finds an object in none of its {len(images)} images; its log and weights are in "
                f"{job.work / 'fused'}. Give photographs with an object, e.g. with --train-images"
            )
        network.encoder.load_state_dict(teacher.encoder.state_dict())
        _train(job, network, "boundary", [predicted], rows, mask_loss, config.boundary_steps, "boundary")
    load_network(network, job.weights("boundary"))
    return network.eval()


def learn_from_masks(job: Job, masks: MaskFolder) -> BoundaryNet:
    """A boundary-aware network from given masks, all objects of an image as one.

    Args:
        job: its images are those that have a usable mask.
        masks: their masks.

    Raises:
        TooManyBadImages: if too many images, or their masks, can't be read.
        CheckpointError: if WORK holds another network, or `init` is not of the backbone.
        Interrupted: after Ctrl-C or SIGTERM, when the state is saved.
        StorageError: if the disk is full.
    """
    network = _start(job, BoundaryNet, "boundary")
    if not job.weights("boundary").is_file():

        def make(name: str, image: NDArray[np.uint8]) -> dict[str, Array]:
            return {"masks": (masks.get(name, *image.shape[:2]) >= 0).astype(np.float32)}

        prepare(job, ("masks",), make)
        given, steps = job.squares("masks"), job.config.boundary_steps
        _train(job, network, "boundary", [given], range(len(given)), mask_loss, steps, "boundary", None)
    load_network(network, job.weights("boundary"))
    return network.eval()


def load_learned(work: Path, config: NetworkConfig, device: torch.device, boundary: bool) -> SaliencyNet | BoundaryNet:
    """A network that one of the trainings left.

    Args:
        work: the trainings' folder.
        config: their settings.
        device: where it shall live.
        boundary: whether it is the boundary-aware one.

    Raises:
        CheckpointError: if it is gone or damaged.
    """
    kind = BoundaryNet if boundary else SaliencyNet
    network = kind(config.backbone, config.width)
    load_network(network, work / ("boundary" if boundary else "fused") / "weights.safetensors")
    return network.to(device).eval()


def tidy(job: Job) -> None:
    """Remove the squares, which only trainings need."""
    shutil.rmtree(job.work / "squares", ignore_errors=True)


def prior_loss(outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
    """What networks minimise on the priors' labels: the mean of (1 - F) + BCE over all targets that have an object.

    Args:
        outputs: one of logits (B, H, W).
        targets: (B, T, H, W) float in [0, 1].
    """
    return f_measure_loss(outputs[0].float().sigmoid(), targets) + cross_entropy_loss(outputs[0], targets)


def mask_loss(outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
    """What boundary-aware networks minimise: `boundary_loss` of outputs (B, H, W) and the one target (B, 1, H, W)."""
    return boundary_loss(outputs, targets[:, 0])


def cut(saliency: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A map as a pseudo-label: its mask as 0 and 255, all 0 if it is rejected.

    Args:
        saliency: (H, W) uint8, 255 is certainly an object.
    """
    found = clean(saliency / np.float32(255), _CUT)
    return (found.mask & (not found.reason)).astype(np.uint8) * np.uint8(255)


def confident_rows(maps: Squares, share: float) -> list[int]:
    """The maps that are usable masks and most certain, ascending.

    A map p is as certain as it overlaps with its own mask m: sum(p m) / sum(p + m - p m), 1 for a map of 0 and 1.

    Args:
        maps: (n, S, S).
        share: of the usable ones, in (0, 1]; at least one of them is taken.
    """
    certain: dict[int, float] = {}
    for row in range(len(maps)):
        mask = cut(maps[row]) > 0
        if mask.any():
            p = maps[row] / np.float32(255)
            certain[row] = float(p[mask].sum() / (mask.sum() + p[~mask].sum()))
    best = sorted(certain, key=lambda row: (-certain[row], row))
    return sorted(best[: math.ceil(share * len(best))])


def prepare(job: Job, kinds: Sequence[str], make: Callable[[str, NDArray[np.uint8]], Mapping[str, Array]]) -> None:
    """Write the squares of all images that can be read, and of their maps; goes on where it was interrupted.

    Args:
        job: whose.
        kinds: names of the maps.
        make: from an image's name and pixels to its maps, (H, W) in [0, 1], by kind; may raise BadImage. Called in
            several threads at once.

    Raises:
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.
    """
    marker = job.work / "squares" / "prepared.json"
    if marker.is_file() and set(kinds) <= set(_prepared(marker)):
        return
    images, size, names = _chosen(job), job.config.size, ("images", *kinds)
    squares = {name: job.squares(name) for name in names}
    count = -(-len(images) // PART)
    waiting = [part for part in range(count) if not all(square.has(part) for square in squares.values())]
    indices = [i for part in waiting for i in range(part * PART, min((part + 1) * PART, len(images)))]
    rows: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in names}

    def flush(until: int) -> None:
        while waiting and waiting[0] < until:
            part = waiting.pop(0)
            for name, square in squares.items():
                shape = (0, size, size, 3) if name == "images" else (0, size, size)
                square.write(part, np.stack(rows[name]) if rows[name] else np.zeros(shape, np.uint8))
                rows[name] = []

    def make_squares(i: int, image: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        maps = make(images.names[i], image)
        made = {name: np.rint(255 * np.clip(to_square(maps[name], size), 0, 1)).astype(np.uint8) for name in kinds}
        return {"images": to_square(image, size), **made}

    log = SkipLog(job.work / "skipped.jsonl", len(images), job.max_bad)
    with closing(map_images(images, indices, make_squares, log, "prepare", job.progress)) as found:
        for i, made in found:
            flush(i // PART)
            for name in names:
                rows[name].append(made[name])
    flush(count)
    write_json(marker, list(kinds))


def _prepared(marker: Path) -> list[str]:
    try:
        return [str(kind) for kind in read_json(marker)]
    except (ValueError, TypeError):  # damaged: what is missing is made, what is there is kept
        return []


def _chosen(job: Job) -> ImageCollection:
    """The images that are trained on: drawn at the start, and kept."""
    record = job.work / "images.json"
    if not record.is_file():
        order = np.random.Generator(np.random.PCG64([job.config.seed])).permutation(len(job.images))
        drawn = job.images.subset(sorted(order[: job.config.images].tolist()))
        write_json(record, {name: str(path) for name, path in zip(drawn.names, drawn.paths, strict=True)})
    try:
        files = {str(name): Path(path) for name, path in read_json(record).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{record} is damaged ({error}); remove its folder to train anew") from error
    places = {name: place for place, name in enumerate(job.images.names)}
    if all(name in places for name in files):
        return job.images.subset([places[name] for name in files])
    here = dict(zip(job.images.names, job.images.paths, strict=True))  # the folder may have moved
    return ImageCollection(job.images.root, tuple(here.get(name, files[name]) for name in files), tuple(files))


def _refine(job: Job, prior: str) -> Squares | None:
    """All rounds of one prior: the moving average of its network's predictions, None if there is nothing to learn."""
    config, images = job.config, job.squares("images")
    stages = [job.squares(prior), *(job.squares(f"{prior}_{number}") for number in range(1, config.rounds + 1))]
    last = len(images.parts) - 1
    done = max((number for number in range(1, config.rounds + 1) if stages[number].has(last)), default=0)
    network: SaliencyNet | None = None
    for number in range(done + 1, config.rounds + 1):
        before, average = stages[number - 1], stages[number]
        rows = _usable([before])
        if not rows:
            return None
        if network is None:
            network = _start(job, SaliencyNet, prior)
            if number > 1:
                load_network(network, job.weights(f"{prior}_{number - 1}"))
        title = f"{prior} {number}/{config.rounds}"
        _train(job, network, f"{prior}_{number}", [before], rows, prior_loss, config.round_steps, title)
        old = before if number > 1 else None
        _average(network, images, old, average, config.momentum, f"refine {title}", job.progress)
        before.remove()  # as all before it: a call that goes on begins with the newest that is whole
    return stages[-1] if _usable(stages[-1:]) else None


def _train(
    job: Job,
    network: nn.Module,
    what: str,
    targets: Sequence[Squares],
    rows: Sequence[int],
    loss: Loss,
    steps: int,
    title: str,
    label: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = cut,
) -> None:
    """Let a network learn rows of the targets, each made a label first, or go on with it; in WORK/`what`."""
    crops = Crops(job.squares("images"), targets, rows, job.config.crop, job.seed(what), label)
    train_network(network, crops, loss, steps, job.config, job.work / what, title, job.progress)


def _average(
    network: nn.Module,
    images: Squares,
    before: Squares | None,
    after: Squares,
    momentum: float,
    what: str = "",
    progress: bool = False,
) -> None:
    """Let refined predictions of all images join a moving average; the first ones begin it."""
    missing = [part for part in range(len(images.parts)) if not after.has(part)]
    for part in passing(missing, what, progress):
        pixels = images.parts[part]
        rows = np.zeros(pixels.shape[:3], np.uint8)
        for start in range(0, len(pixels), _AHEAD):
            some = np.array(pixels[start : start + _AHEAD])
            for i, found in enumerate(predict(network, torch.from_numpy(some)).numpy(), start):
                values = sharpen(found, some[i - start])
                if before is not None:
                    values = momentum * before.parts[part][i] / np.float32(255) + (1 - momentum) * values
                rows[i] = np.rint(255 * values)
        after.write(part, rows)


def _usable(maps: Sequence[Squares]) -> list[int]:
    """The rows in which at least one of the maps is a usable pseudo-label."""
    return [row for row in range(len(maps[0])) if any(cut(each[row]).any() for each in maps)]


def _start(job: Job, kind: type[Network], what: str) -> Network:
    """A network with its first weights, a function of the seed and of what it is for, on its device."""
    torch.manual_seed(job.seed(what))
    network = kind(job.config.backbone, job.config.width)
    if job.config.init is not None:
        network.encoder.begin_from(job.config.init, job.config.backbone)
    return network.to(job.device)
