"""What the saliency networks share: their settings, their training images as squares on disk, and one training.

A training reads neither photographs nor masks: both are prepared once, as squares of `NetworkConfig.size`, in files of
`PART` images each that appear in one rename. So preparing goes on where it was interrupted, and a file that changes or
goes away meanwhile does no harm. The example of an image in an epoch is a function of (seed, epoch, index), the rest is
`selfseg.fitting.supervised.fine_tune`'s: a training that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from selfseg.data.loader import Key, StepSampler, iterate, make_loader
from selfseg.data.views.augment import jitter
from selfseg.errors import CheckpointError, ConfigError
from selfseg.fitting.supervised import FineTuningConfig, Precision, fine_tune
from selfseg.masks.networks.losses import WINDOW
from selfseg.masks.priors.by_name import Prior, check_prior
from selfseg.storage.files import mark_output, write_atomically
from selfseg.storage.tensors import read_tensors

VERSION = 2
"""Raised whenever the same images and settings would give another network."""

PART = 64
"""Images of a file; also how many an interrupted call has to prepare again at most."""

PRIORS: tuple[Prior, ...] = ("markov", "ranking", "mean")
"""What a network learns from if nothing else is said: the best three beside labels (docs/numbers.md)."""

_JITTER = (0.3, 0.3, 0.3, 0.05)  # brightness, contrast, saturation, hue
_CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class NetworkConfig:
    """How saliency networks are made and trained.

    Attributes:
        backbone: timm's name of the encoder.
        init: its initial weights, a file or a word as `selfseg.models.start.load_backbone` takes; None = random.
        images: the largest number of images that are trained on; they are drawn by `seed`.
        size: side in px of the squares that images are resized to, for training and for prediction.
        crop: smallest side of the crops that are trained on, as a share of the image's, in (0, 1]; they are resized to
            `size`. A network that sees crops which are much smaller than images learns that most of an image is object.
        width: channels of the decoder.
        batch_size: images in a step.
        lr: learning rate of AdamW; it falls to 0 as (1 - progress) ** 0.9.
        weight_decay: weight decay of AdamW.
        priors: the priors from whose maps the networks learn.
        rounds: how many trainings each prior's network has. After each, its refined predictions join the moving
            average, which is the target of the next one.
        round_steps: steps of each of these trainings.
        momentum: share of the moving average that is kept when a round's predictions join it, in [0, 1).
        steps: steps of the network that learns from all priors' refined labels.
        boundary_steps: steps of the boundary-aware network, bootstrapped or supervised.
        confident: share of the training images that the bootstrapped network learns from, in (0, 1]: those of which the
            first network is most sure.
        precision: "32-true" calculates with 32 bits. "bf16-mixed" uses bfloat16 where torch's autocast chooses it.
        seed: seed of new layers, order, crops and colours.

    Raises:
        ConfigError: for a value that can't work.
    """

    backbone: str = "resnet18"
    init: Path | None = None
    images: int = 2000
    size: int = 160
    crop: float = 0.8
    width: int = 64
    batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-4
    priors: tuple[Prior, ...] = PRIORS
    rounds: int = 2
    round_steps: int = 250
    momentum: float = 0.7
    steps: int = 1500
    boundary_steps: int = 2000
    confident: float = 0.8
    precision: Precision = "bf16-mixed"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "width", "batch_size", "rounds", "round_steps", "steps", "boundary_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.size < 2 * WINDOW or not 0 < self.crop <= 1:
            raise ConfigError(
                f"need size >= {2 * WINDOW} px and crop in (0, 1], a share of it, not {self.size} and {self.crop}"
            )
        if self.lr <= 0 or self.weight_decay < 0 or self.seed < 0:
            raise ConfigError(
                f"need lr > 0, weight_decay >= 0 and seed >= 0, not {self.lr}, {self.weight_decay} and {self.seed}"
            )
        if not 0 <= self.momentum < 1 or not 0 < self.confident <= 1:
            raise ConfigError(
                f"need momentum in [0, 1) and confident in (0, 1], not {self.momentum} and {self.confident}"
            )
        if not self.priors or len(set(self.priors)) < len(self.priors):
            raise ConfigError(f"priors must name at least one, each once, not {self.priors}")
        for prior in self.priors:
            check_prior(prior)


class Squares:
    """Equal arrays of many images, (n, S, S) or (n, S, S, 3) uint8, in files of at most `PART`; read without a copy.

    Args:
        folder: where the files are, part_0000.npy and on.

    Example:
        >>> squares = Squares(Path("squares"))  # doctest: +SKIP
        >>> squares.write(0, np.zeros((5, 32, 32), np.uint8))  # doctest: +SKIP
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, part: int) -> Path:
        """The file of a part."""
        return self.folder / f"part_{part:04d}.npy"

    def has(self, part: int) -> bool:
        """Whether a part is there, which means that it is whole."""
        return self.path(part).is_file()

    def write(self, part: int, rows: NDArray[np.uint8]) -> None:
        """Keep a part; it appears in one rename."""
        write_atomically(self.path(part), lambda path: np.save(path, rows, allow_pickle=False))

    def read(self, part: int) -> NDArray[np.uint8]:
        """A part, mapped into memory; raises CheckpointError if the file is damaged."""
        try:
            rows: NDArray[np.uint8] = np.load(self.path(part), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path(part)} is damaged ({error}); remove its folder, and it is made anew"
            ) from error
        return rows

    @cached_property
    def parts(self) -> list[NDArray[np.uint8]]:
        """All parts, in order."""
        found: list[NDArray[np.uint8]] = []
        while self.has(len(found)):
            found.append(self.read(len(found)))
        return found

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self.parts) else 0

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        part = int(np.searchsorted(self._ends, row, side="right"))
        values: NDArray[np.uint8] = self.parts[part][row - (int(self._ends[part - 1]) if part else 0)]
        return values

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Crops(Dataset[tuple[NDArray[np.uint8], NDArray[np.uint8]]]):
    """A crop of each image with its targets: cut, mirrored, its colours changed; a function of (seed, epoch, index).

    Args:
        images: (n, S, S, 3).
        targets: T of (n, S, S); 255 is the object.
        rows: which of the n are trained on.
        crop: least side of a crop, as a share of S.
        seed: of all chance.
        prepare: what is done to each target (S, S) first; None = nothing.
    """

    def __init__(
        self,
        images: Squares,
        targets: Sequence[Squares],
        rows: Sequence[int],
        crop: float,
        seed: int,
        prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
    ) -> None:
        self.images, self.targets, self.rows, self.crop, self.seed = images, tuple(targets), tuple(rows), crop, seed
        self.prepare = prepare or (lambda target: target)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The example of `key`, (epoch, index): (S, S, 3) and (T, S, S) uint8."""
        rng = np.random.Generator(np.random.PCG64([self.seed, *key]))
        row = self.rows[key[1]]
        image, size = self.images[row], self.images[row].shape[0]
        side = round(size * rng.uniform(self.crop, 1))
        top, left = (int(rng.integers(size - side + 1)) for _ in range(2))
        cut = np.s_[top : top + side, left : left + side]
        crop = to_square(image[cut], size)
        targets = np.stack([to_square(self.prepare(target[row])[cut], size) for target in self.targets])
        if rng.random() < 0.5:
            crop, targets = crop[:, ::-1], targets[:, :, ::-1]
        return jitter(np.ascontiguousarray(crop), _JITTER, rng), np.ascontiguousarray(targets)


def collate_crops(samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) uint8 in channels-last memory, and targets (B, T, S, S) uint8."""
    images = torch.from_numpy(np.stack([image for image, _ in samples])).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.stack([targets for _, targets in samples]))


Loss = Callable[[tuple[Tensor, ...], Tensor], Tensor]
"""Of a network's outputs, logits (B, H, W) each, and the targets (B, T, H, W) float in [0, 1]."""


def train_network(
    network: nn.Module,
    crops: Crops,
    loss: Loss,
    steps: int,
    config: NetworkConfig,
    out: Path,
    what: str,
    progress: bool,
) -> None:
    """Train a network in OUT, or go on with it, or take what was trained there; afterwards it has the last weights.

    Args:
        network: on its device.
        crops: what it learns from.
        loss: what it minimises.
        steps: how many.
        config: batch size, rate and decay.
        out: its folder: checkpoints while it is trained, log.jsonl, weights.safetensors at the end.
        what: what the progress bar says.
        progress: whether to show one.

    Raises:
        CheckpointError: if OUT holds another network.
        NonFiniteLoss: if the loss stops being a number.
        Interrupted: after Ctrl-C or SIGTERM, when the state is saved.
        StorageError: if the disk is full.
    """
    weights = out / "weights.safetensors"
    if not weights.is_file():
        mark_output(out)
        settings = FineTuningConfig(
            steps=steps,
            batch_size=config.batch_size,
            lr=config.lr,
            weight_decay=config.weight_decay,
            decay="poly",
            warmup=min(20, steps // 10),
            precision=config.precision,
            seed=crops.seed,
        )
        network.to(memory_format=torch.channels_last)

        def batches(step: int) -> Iterator[Any]:
            sampler = StepSampler(len(crops), config.batch_size, step, steps, crops.seed)
            # Cutting squares takes a hundredth of a step: no processes.
            return iterate(make_loader(crops, sampler, collate_fn=collate_crops))

        def of_batch(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            device = next(model.parameters()).device
            images, targets = (tensor.to(device).float() / 255 for tensor in batch)
            outputs: tuple[Tensor, ...] = model(images)
            # SSIM's variances are differences of near equals: nothing of them is left in bfloat16.
            with torch.autocast(device.type, enabled=False):
                return loss(tuple(output.float() for output in outputs), targets)

        fine_tune(
            network,
            settings,
            of_batch,
            batches,
            out,
            checkpoint_every=_CHECKPOINT_EVERY,
            progress=progress,
            optimizer=lambda groups: torch.optim.AdamW(groups, config.lr, weight_decay=config.weight_decay),
            what=what,
        )
        shutil.rmtree(out / "checkpoints", ignore_errors=True)  # the weights are there
    load_network(network, weights)


def load_network(network: nn.Module, path: Path) -> None:
    """Fill a network from what `train_network` left; raises CheckpointError if it does not fit."""
    try:
        network.load_state_dict(read_tensors(path))
    except Exception as error:  # safetensors' and torch's kinds; all mean that it is another file
        raise CheckpointError(
            f"{path} does not hold this network ({error}); remove its folder to train anew"
        ) from error


def to_square(image: NDArray[Any], size: int) -> NDArray[Any]:
    """An image or map, (H, W, 3) or (H, W), resized to size x size."""
    shrinks = image.shape[0] >= size and image.shape[1] >= size
    resized: NDArray[Any] = cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return resized
