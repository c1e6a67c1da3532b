"""Transfer to semantic segmentation: the backbone of a run, in a plain FCN, fine-tuned on labelled images.

The protocol of MoCo (K. He et al., CVPR 2020, appendix), as SlotCon uses it (X. Wen et al., NeurIPS 2022, arXiv
2205.15288, appendix A.2): two 3x3 convolutions on the backbone's last stage at stride 16, and a 1x1 classifier.

Where ours differs from what made SlotCon's numbers
- logits and images are resized with align_corners=False, the reference's with True.
- the reference draws crops of the scaled image; so do we, but with OpenCV on uint8 (area where it shrinks).
- `voc12aug` resizes images so that their short side is the crop's before it scales them, and measures at that size,
  as the reference does; the paper says the original size. Labels are measured at their own size in any case.
- conv5 has dilation 2 but in its first block, where it is 1: so in timm, and in the reference.
- `ade20k`: the paper says no more than FCN-8s and MMSegmentation's 80k schedule. We take that one's head, stride and
  sizes, but neither its auxiliary loss, nor its colour distortion, nor its limit of 75 % of a crop for one class.
- one device: BatchNorm sees the whole batch, which is what SyncBN does over several.

`transfer` is for these and for detection (`selfseg.evaluation.detection`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from selfseg.data.catalog import VOID, LabelledImages, open_labelled
from selfseg.data.images import resize_short_side
from selfseg.data.loader import Key, StepSampler, iterate, make_loader
from selfseg.errors import ConfigError
from selfseg.evaluation.coco import DetectionResult
from selfseg.evaluation.confusion import metrics_of
from selfseg.evaluation.detection import DetectionConfig, coco_1x, coco_2x, transfer_to_detection
from selfseg.evaluation.features import Extractor
from selfseg.evaluation.finetuning import FineTuningConfig, claim_folder, describe, fine_tune, open_source
from selfseg.evaluation.passes import AffineHead, Progress, count
from selfseg.evaluation.results import package_version, recipe_hash, result_name
from selfseg.files import write_json
from selfseg.inference import choose_device
from selfseg.nn.embedder import Embedder
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD, EvalResult

Image = NDArray[np.uint8]

VERSION = 1
"""Raised whenever the same input would give another number."""

_MEAN = tuple(round(255 * value) for value in IMAGENET_MEAN)


@dataclass(frozen=True)
class TransferConfig(FineTuningConfig):
    """Transfer to semantic segmentation; the defaults are `voc12aug`'s.

    Attributes:
        crop: side of the square training crops in px.
        short_side: to which images are resized before they are scaled, and at which they are measured; None = as they
            are.
        scale: range of the random scaling.
        output_stride: of the backbone's last stage.
        head_channels: of the two 3x3 convolutions.
        head_dilation: of both.
    """

    crop: int = 513
    short_side: int | None = 513
    scale: tuple[float, float] = (0.5, 2.0)
    output_stride: Literal[8, 16, 32] = 16
    head_channels: int = 256
    head_dilation: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop", "head_channels", "head_dilation"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale must be a range of factors above 0, not {self.scale}")
        if self.short_side is not None and self.short_side < 1:
            raise ConfigError(f"short_side must be at least 1 px, not {self.short_side}")


def voc12aug() -> TransferConfig:
    """PASCAL VOC 2012 with SBD's labels: 30k iterations at 513 px.

    Paper: 71.6 mIoU (SlotCon, ResNet-50, 800 epochs of COCO). Ours: not run yet.
    """
    return TransferConfig()


def cityscapes() -> TransferConfig:
    """Cityscapes train_fine: 90k iterations at 769 px.

    Paper: 76.2 mIoU (SlotCon, ResNet-50, 800 epochs of COCO). Ours: not run yet.
    """
    return TransferConfig(steps=90_000, lr=0.01, crop=769, short_side=None)


def ade20k() -> TransferConfig:
    """ADE20K: 80k iterations at 512 px, polynomial decay.

    Paper: 39.0 mIoU (SlotCon, ResNet-50, 800 epochs of COCO). Ours: not run yet.
    """
    return TransferConfig(
        steps=80_000,
        lr=0.01,
        weight_decay=5e-4,
        decay="poly",
        final_lr=1e-4,
        crop=512,
        short_side=512,
        output_stride=8,
        head_channels=512,
        head_dilation=1,
    )


PRESETS: dict[str, Callable[[], FineTuningConfig]] = {
    "voc12aug": voc12aug,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "coco-1x": coco_1x,
    "coco-2x": coco_2x,
}
"""The papers' settings by name."""


class FCN(nn.Module):
    """A backbone with two convolutions and a classifier on its last stage.

    Args:
        backbone: made by `make_backbone`.
        classes: C.
        channels: of the convolutions.
        dilation: of the convolutions.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, classes: int, channels: int = 256, dilation: int = 6) -> None:
        super().__init__()
        self.backbone = backbone
        width = list(cast(Any, backbone.feature_info).channels())[-1]
        layers: list[nn.Module] = []
        for inputs in (width, channels):
            convolution = nn.Conv2d(inputs, channels, 3, padding=dilation, dilation=dilation, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        self.head = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.classifier.bias))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to what the classifier sees, (B, channels, h, w)."""
        features: Tensor = self.head(self.backbone((image - self.mean) / self.std)[-1])
        return features

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to logits (B, C, h, w)."""
        logits: Tensor = self.classifier(self.features(image))
        return logits


def random_crop(image: Image, label: Image, config: TransferConfig, rng: np.random.Generator) -> tuple[Image, Image]:
    """A scaled, cropped and flipped training example.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8.
        config: `short_side`, `scale`, `crop`.
        rng: all chance.

    Returns:
        (crop, crop, 3) uint8 and (crop, crop) uint8; what lies outside of the image has ImageNet's mean colour and the
        label 255.
    """
    factor, side = rng.uniform(*config.scale), config.crop
    if config.short_side is not None:
        factor *= config.short_side / min(label.shape)
    height, width = (max(1, round(length * factor)) for length in label.shape)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    top = int(rng.integers(max(height - side, 0) + 1))
    left = int(rng.integers(max(width - side, 0) + 1))
    image, label = image[top : top + side, left : left + side], label[top : top + side, left : left + side]
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    height, width = label.shape
    whole_image = np.full((side, side, 3), _MEAN, np.uint8)
    whole_label = np.full((side, side), VOID, np.uint8)
    whole_image[:height, :width], whole_label[:height, :width] = image, label
    return whole_image, whole_label


class CropDataset(Dataset[tuple[Image, Image]]):
    """A random crop of each labelled image, a pure function of (seed, epoch, index)."""

    def __init__(self, data: LabelledImages, config: TransferConfig) -> None:
        self.data = data
        self.config = config

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Key) -> tuple[Image, Image]:
        """The example of `key`, (epoch, index); raises BadImage or LabelError for a pair that can't be read."""
        rng = np.random.Generator(np.random.PCG64([self.config.seed, *key]))
        return random_crop(self.data.images.read(key[1]), self.data.read_label(key[1]), self.config, rng)


def collate_crops(samples: Sequence[tuple[Image, Image]]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) uint8 in channels-last memory, and labels (B, S, S) uint8."""
    images = torch.from_numpy(np.stack([image for image, _ in samples])).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.stack([label for _, label in samples]))


def segmentation_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross entropy of the labelled pixels, their logits interpolated bilinearly; 0 if there is none."""
    device = next(model.parameters()).device
    image, label = (tensor.to(device, non_blocking=True) for tensor in batch)
    logits = F.interpolate(model(image.float() / 255).float(), label.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, label.long(), ignore_index=VOID, reduction="sum")
    return total / (label != VOID).sum().clamp(min=1)


def transfer(
    source: Path | str | Embedder,
    data: Path | str,
    config: FineTuningConfig,
    out: Path | str,
    *,
    device: str = "auto",
    workers: int = 4,
    checkpoint_every: int = 1000,
    progress: bool = True,
) -> EvalResult | DetectionResult:
    """Fine-tune a run's backbone on a task with labels, and measure it; or go on with a transfer that was stopped.

    Args:
        source: a run's folder, an embedder, a file in timm's, torchvision's, MoCo's or DINO's naming (whose
            architecture is `config.backbone`), "imagenet" (timm's weights), or "random".
        data: a labelled folder (see `selfseg.data.catalog`); for detection COCO's folder (see
            `selfseg.evaluation.coco`).
        config: a `TransferConfig` or a `DetectionConfig`; `PRESETS` has the papers'.
        out: a folder for weights, checkpoints and `results/`. The same call on an existing one goes on with it.
        device: "auto", "cpu", "cuda", ...
        workers: processes that read and crop.
        checkpoint_every: iterations between checkpoints.
        progress: show a progress bar.

    Returns:
        What was measured on `config.split`, which also lies in OUT/results.

    Raises:
        RunError: if the source is no run with an embedder.
        CheckpointError: if the source holds no such network, or OUT's checkpoints are damaged.
        RecipeMismatch: if OUT holds a transfer with other settings.
        DataError: if the data can't be read.
        NonFiniteLoss: if the loss stops being a number.
        Interrupted: after Ctrl-C or SIGTERM, when the state is saved.

    Example:
        >>> transfer("runs/slotcon", "data/voc", voc12aug(), "runs/slotcon-voc")  # doctest: +SKIP
    """
    if checkpoint_every < 1 or workers < 0:
        raise ConfigError(f"need checkpoint_every >= 1 and workers >= 0, not {checkpoint_every} and {workers}")
    settings: dict[str, Any] = {
        "device": choose_device(device),
        "workers": workers,
        "checkpoint_every": checkpoint_every,
        "progress": progress,
    }
    if isinstance(config, DetectionConfig):
        return transfer_to_detection(source, data, config, Path(out), **settings)
    if isinstance(config, TransferConfig):
        return _transfer_to_segmentation(source, data, config, Path(out), **settings)
    raise ConfigError(f"config must be a TransferConfig or a DetectionConfig, not a {type(config).__name__}")


def _transfer_to_segmentation(
    source: Path | str | Embedder,
    data: Path | str,
    config: TransferConfig,
    out: Path,
    device: torch.device,
    workers: int,
    checkpoint_every: int,
    progress: bool,
) -> EvalResult:
    fit, measured = open_labelled(data, config.fit_split), open_labelled(data, config.split)
    if fit.class_names != measured.class_names:
        raise ConfigError(
            f"the splits have other classes: {fit.class_names} and {measured.class_names}; give ROOT/classes.txt"
        )
    start, config = open_source(source, config, config.output_stride)
    claim_folder(out, describe("segmentation", source, start, data, config))
    torch.manual_seed(config.seed)
    model = FCN(start.backbone, len(fit.class_names), config.head_channels, config.head_dilation)
    model.to(device).to(memory_format=torch.channels_last)

    def batches(step: int) -> Iterator[tuple[Tensor, Tensor]]:
        sampler = StepSampler(len(fit), config.batch_size, step, config.steps, config.seed)
        dataset = CropDataset(fit, config)
        return iterate(make_loader(dataset, sampler, workers, device.type == "cuda", collate_fn=collate_crops))

    fine_tune(model, config, segmentation_loss, batches, out, checkpoint_every=checkpoint_every, progress=progress)
    run = Path(source) if isinstance(source, str | Path) else None
    result = measure(
        model,
        measured,
        config,
        what=start.what,
        options={"weights": start.weights, "start": start.sentence},
        recipe_hash=recipe_hash(run) if run else "",
    )
    write_json(out / "results" / result_name(result), result.to_dict())
    return result


def measure(
    model: FCN,
    data: LabelledImages,
    config: TransferConfig,
    what: str = "embedder",
    options: dict[str, Any] | None = None,
    recipe_hash: str = "",
    progress: Progress | None = None,
) -> EvalResult:
    """MIoU of a trained FCN on whole images.

    Args:
        model: on its device.
        data: the split.
        config: what it was trained with; all of it is recorded.
        what: what results call it.
        options: what else to record.
        recipe_hash: of the run that the backbone is from.
        progress: called after each image.

    Returns:
        The result of protocol "transfer".

    Raises:
        DataError: as `selfseg.evaluation.passes.embeddings`.
    """
    device = model.mean.device

    @torch.no_grad()
    def extract(image: Image) -> Tensor:
        if config.short_side is not None:
            image = resize_short_side(image, config.short_side)
        pixels = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16-mixed"):
            features = model.features(pixels.contiguous(memory_format=torch.channels_last))
        return features[0].float()

    model.eval()
    # The classifier is affine, so that its logits, and not the features, are interpolated, in bands of little memory.
    weight, bias = model.classifier.weight.detach(), cast(Tensor, model.classifier.bias).detach()
    head = AffineHead(weight.flatten(1).float(), bias.float())
    resolution: int | str = config.short_side or "native"
    (counts,), tally = count(Extractor(what, extract, resolution=resolution), data, [head], progress)
    confusion = counts.T
    metrics = metrics_of(confusion)
    absent = [name for name, value in zip(data.class_names, metrics.class_iou, strict=True) if value is None]
    return EvalResult(
        protocol="transfer",
        protocol_version=VERSION,
        what=what,
        dataset=data.root.resolve().name,
        split=data.split,
        fit_split=config.fit_split,
        metrics={"miou": metrics.miou, "accuracy": metrics.accuracy},
        class_names=data.class_names,
        class_iou=metrics.class_iou,
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        matching="none",
        k=None,
        resolution=resolution,
        crop="none",
        crf=False,
        seeds=(config.seed,),
        counts={"images": tally.images, "pixels": tally.pixels, "void": tally.void, "skipped": tally.skipped},
        options={**asdict(config), **(options or {}), "absent_classes": absent},
        recipe_hash=recipe_hash,
        package_version=package_version(),
    )
