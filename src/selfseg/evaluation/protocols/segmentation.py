"""Semantic segmentation learned from labelled images: what transfer and the few-label curve share.

Random crops of labelled images, cross entropy at the crop's size, and mIoU on whole images.

Letters: B images, H W pixels, S side of a crop, C classes, h w cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from selfseg.data.labelled.catalog import VOID, LabelledImages, check_same_classes
from selfseg.data.loader import Key, StepSampler, iterate, make_loader
from selfseg.data.reading.images import resize_short_side, scale_to
from selfseg.data.views.augment import photometric_distortion
from selfseg.errors import BadImage, ConfigError, DataError
from selfseg.evaluation.measure.features import Extractor
from selfseg.evaluation.measure.passes import AffineHead, count
from selfseg.evaluation.measure.reading import Progress, Tally
from selfseg.exchange.any_labels import open_labels
from selfseg.fitting.supervised import FineTuningConfig, fine_tune
from selfseg.ops.levels import among_measured, measured, resize
from selfseg.types import IMAGENET_MEAN

Image = NDArray[np.uint8]

_REDRAWN = 10  # crops at most, where one class has too much
_MEAN = tuple(round(255 * value) for value in IMAGENET_MEAN)


@dataclass(frozen=True)
class SegmentationConfig(FineTuningConfig):
    """How a segmenter is fine-tuned.

    Attributes:
        crop: side of the square training crops in px.
        short_side: short side in px that images are resized to before they are scaled, and at which they are measured;
            None = as they are.
        scale: range of the random scaling.
        one_class: largest share of a crop's labelled pixels that one class may have. Where it has more, another crop is
            drawn, at most ten times. 1 = any.
        distort: change the colours (`selfseg.data.views.augment.photometric_distortion`).
    """

    crop: int = 513
    short_side: int | None = 513
    scale: tuple[float, float] = (0.5, 2.0)
    one_class: float = 1.0
    distort: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop < 1:
            raise ConfigError(f"crop must be at least 1, not {self.crop}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale must be a range of factors above 0, not {self.scale}")
        if not 0 < self.one_class <= 1:
            raise ConfigError(f"one_class is a share in (0, 1], not {self.one_class}")
        if self.short_side is not None and self.short_side < 1:
            raise ConfigError(f"short_side must be at least 1 px, not {self.short_side}")


class Segmenter(nn.Module):
    """A network with a 1x1 classifier as its last layer.

    Args:
        width: channels of `features`.
        classes: C.

    Attributes:
        classifier: the last layer; its weights begin as a normal distribution of deviation 0.01, its bias at 0.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.classifier.bias))

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to what the classifier sees, (B, width, h, w)."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to logits (B, C, h, w)."""
        logits: Tensor = self.classifier(self.features(image))
        return logits

    def training_logits(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """What is trained: logits (B, C, h, w), each with the weight of its loss; further heads come after `forward`'s.

        Args:
            image: (B, 3, H, W) RGB in [0, 1].
        """
        return [(1.0, self(image))]


def random_crop(
    image: Image, label: Image, config: SegmentationConfig, rng: np.random.Generator, rgb: bool = True
) -> tuple[Image, Image]:
    """A scaled, cropped and flipped training example.

    Args:
        image: (H, W, 3) uint8 RGB, or (H, W, C) levels.
        label: (H, W) uint8.
        config: `short_side`, `scale`, `crop`, `one_class`, `distort`.
        rng: all chance.
        rgb: whether the image is a photograph; False for levels.

    Returns:
        (crop, crop, 3) uint8 and (crop, crop) uint8; what lies outside of the image has ImageNet's mean colour and the
        label 255. Of levels it is void, and void has the label 255.
    """
    factor, side = rng.uniform(*config.scale), config.crop
    if config.short_side is not None:
        factor *= scale_to(config.short_side, *label.shape)
    height, width = (max(1, round(length * factor)) for length in label.shape)
    rule = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    if rgb:
        image = cv2.resize(image, (width, height), interpolation=rule)
    else:
        image = among_measured(image, lambda part: resize(part, (width, height), rule))
    label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    where = None if rgb else measured(image)
    if where is not None:
        label = np.where(where, label, np.uint8(VOID))
    for _ in range(1 + _REDRAWN):
        top = int(rng.integers(max(height - side, 0) + 1))
        left = int(rng.integers(max(width - side, 0) + 1))
        if config.one_class == 1:
            break
        seen = np.bincount(label[top : top + side, left : left + side].ravel(), minlength=256)[:VOID]
        if np.count_nonzero(seen) > 1 and seen.max() < config.one_class * seen.sum():
            break
    image, label = image[top : top + side, left : left + side], label[top : top + side, left : left + side]
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    if config.distort:
        image = photometric_distortion(np.ascontiguousarray(image), rng, rgb)
    height, width = label.shape
    whole_image = np.full((side, side, image.shape[2]), _MEAN if rgb else 0, np.uint8)
    whole_label = np.full((side, side), VOID, np.uint8)
    whole_image[:height, :width], whole_label[:height, :width] = image, label
    return whole_image, whole_label


class CropDataset(Dataset[tuple[Image, Image]]):
    """A random crop of each labelled image, a pure function of (seed, epoch, index)."""

    def __init__(self, data: LabelledImages, config: SegmentationConfig) -> None:
        self.data = data
        self.config = config

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Key) -> tuple[Image, Image]:
        """The example of `key`, (epoch, index); raises DataError for a pair that can't be read."""
        rng = np.random.Generator(np.random.PCG64([self.config.seed, *key]))
        images = self.data.images
        try:
            image = images.read(key[1])
        except BadImage as error:  # which is made of its parts: torch can't make another one of a sentence
            raise DataError(
                f"an image to learn from can't be read: {error}; repair it, or remove it with its label"
            ) from error
        return random_crop(image, self.data.read_label(key[1]), self.config, rng, images.rgb)


def collate_crops(samples: Sequence[tuple[Image, Image]]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) uint8 in channels-last memory, and labels (B, S, S) uint8."""
    images = torch.from_numpy(np.stack([image for image, _ in samples])).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.stack([label for _, label in samples]))


def segmentation_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross entropy of the labelled pixels, their logits interpolated bilinearly, of all heads; 0 without a label."""
    device = next(model.parameters()).device
    image, label = (tensor.to(device, non_blocking=True) for tensor in batch)
    count = (label != VOID).sum().clamp(min=1)
    losses = []
    for weight, small in cast(Segmenter, model).training_logits(image.float() / 255):
        logits = F.interpolate(small.float(), label.shape[1:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(logits, label.long(), ignore_index=VOID, reduction="sum")
        losses.append(weight * (total / count))
    return torch.stack(losses).sum()


def open_splits(data: Path | str, config: FineTuningConfig) -> tuple[LabelledImages, LabelledImages]:
    """The split that is trained on and the one that is measured.

    Raises:
        DataError: as `selfseg.exchange.any_labels.open_labels`.
        ConfigError: if they have other classes, or images in common.
    """
    fit, measured = open_labels(data, config.fit_split), open_labels(data, config.split)
    check_same_classes(fit, measured)
    if fit.shares_images(measured):
        raise ConfigError(
            f"a network trained on {config.fit_split!r} can't be measured on {config.split!r}, which has images of it; "
            "name another split"
        )
    return fit, measured


def train_segmenter(
    model: Segmenter,
    fit: LabelledImages,
    config: SegmentationConfig,
    out: Path,
    *,
    device: torch.device,
    workers: int,
    checkpoint_every: int,
    progress: bool,
    groups: list[dict[str, Any]] | None = None,
    what: str = "transfer",
    keep_weights: bool = True,
    held: bool = False,
) -> None:
    """Fine-tune a segmenter in OUT, or go on with it.

    Args:
        model: with the weights to start from; afterwards on the device, with those of the last iteration.
        fit: what it learns from.
        config: how.
        out: the job's folder, see `selfseg.evaluation.sources.own_job`.
        device: where.
        workers: processes that read and crop.
        checkpoint_every: iterations between checkpoints.
        progress: show a progress bar.
        groups: of parameters, see `fine_tune`.
        what: what the progress bar says.
        keep_weights: write OUT/weights.safetensors at the end.
        held: as of `fine_tune`.

    Raises:
        As `fine_tune`.
    """
    model.to(device).to(memory_format=torch.channels_last)

    def batches(step: int) -> Iterator[tuple[Tensor, Tensor]]:
        sampler = StepSampler(len(fit), config.batch_size, step, config.steps, config.seed)
        dataset = CropDataset(fit, config)
        return iterate(make_loader(dataset, sampler, workers, device.type == "cuda", collate_fn=collate_crops))

    fine_tune(
        model,
        config,
        segmentation_loss,
        batches,
        out,
        groups,
        checkpoint_every,
        progress,
        what,
        keep_weights,
        held=held,
    )


def count_segmenter(
    model: Segmenter,
    data: LabelledImages,
    config: SegmentationConfig,
    progress: Progress | None = None,
) -> tuple[NDArray[np.int64], Tally]:
    """A trained segmenter on whole images.

    Args:
        model: on its device.
        data: the split.
        config: `short_side` and `precision`.
        progress: called after each image.

    Returns:
        The confusion (C, C) int64, rows = truth, and what was met.

    Raises:
        DataError: as `selfseg.evaluation.measure.reading.embeddings`.
    """
    device = next(model.parameters()).device

    @torch.no_grad()
    def extract(image: Image) -> Tensor:
        if config.short_side is not None:
            image = resize_short_side(image, config.short_side, data.images.channels is not None)
        pixels = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16-mixed"):
            features = model.features(pixels.contiguous(memory_format=torch.channels_last))
        return features[0].float()

    model.eval()
    # The classifier is affine, so that its logits, and not the features, are interpolated, in bands of little memory.
    weight, bias = model.classifier.weight.detach(), cast(Tensor, model.classifier.bias).detach()
    head = AffineHead(weight.flatten(1).float(), bias.float())
    (counts,), tally = count(Extractor("segmenter", extract), data, [head], progress)
    return counts.T, tally
