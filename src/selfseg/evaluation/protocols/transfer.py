"""Transfer to semantic segmentation: the backbone of a run, in a plain FCN, fine-tuned on labelled images.

The protocol of MoCo (K. He et al., CVPR 2020, appendix), as SlotCon uses it (X. Wen et al., NeurIPS 2022, arXiv
2205.15288, appendix A.2): two 3x3 convolutions on the backbone's last stage at stride 16, and a 1x1 classifier.

Where ours differs from what made SlotCon's numbers
- logits and images are resized with align_corners=False, the reference's with True.
- the reference draws crops of the scaled image; so do we, but with OpenCV on uint8 (area where it shrinks).
- `voc12aug` resizes images so that their short side is the crop's before it scales them, and measures at that size,
  as the reference does; the paper says the original size. Labels are measured at their own size in any case.
- conv5 has dilation 2 but in its first block, where it is 1: so in timm, and in the reference.
- `ade20k`: the paper says no more than FCN-8s and MMSegmentation's 80k schedule, which we take for its FCN at stride 8:
  its heads, the auxiliary one with .4 of the loss on the third stage, sizes, colour distortion, and at most 75 % of a
  crop for one class. Its network has another stem there (ResNetV1c); the run's stays as it is.
- one device: BatchNorm sees the whole batch, which is what SyncBN does over several.

`transfer` is for these and for detection (`selfseg.evaluation.protocols.detection`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from selfseg.collection.opening import choose_device
from selfseg.errors import ConfigError
from selfseg.evaluation.contents import check_labels, contents_of, images_in_both
from selfseg.evaluation.measure.results import Question, result_name, result_of
from selfseg.evaluation.protocols.coco import DetectionResult
from selfseg.evaluation.protocols.detection import DetectionConfig, coco_1x, coco_2x, transfer_to_detection
from selfseg.evaluation.protocols.segmentation import (
    SegmentationConfig,
    Segmenter,
    count_segmenter,
    open_splits,
    train_segmenter,
)
from selfseg.evaluation.sources import describe, open_source, own_job
from selfseg.fitting.supervised import FineTuningConfig
from selfseg.models.embedder import Embedder
from selfseg.storage.files import write_json
from selfseg.storage.hashes import run_hash
from selfseg.storage.remote.places import at_places
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD, EvalResult

VERSION = 1
"""Raised whenever the same input would give another number."""


@dataclass(frozen=True)
class TransferConfig(SegmentationConfig):
    """Transfer to semantic segmentation; the defaults are `voc12aug`'s.

    Attributes:
        output_stride: stride of the backbone's last stage.
        head_channels: channels of the head's two 3x3 convolutions.
        head_dilation: dilation of both.
        head_concat: whether the last stage is laid beside what they give, and a third convolution brings both together.
        dropout: dropout of whole channels before each classifier.
        auxiliary: weight of the loss of a second head, which stands on the third of four stages: a 3x3 convolution of
            256 channels and a classifier. It is left out when measuring. 0 = none.
    """

    output_stride: Literal[8, 16, 32] = 16
    head_channels: int = 256
    head_dilation: int = 6
    head_concat: bool = False
    dropout: float = 0.0
    auxiliary: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("head_channels", "head_dilation"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1 or self.auxiliary < 0:
            raise ConfigError(f"need dropout in [0, 1) and auxiliary >= 0, not {self.dropout} and {self.auxiliary}")


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
    """ADE20K: 80k iterations at 512 px, polynomial decay, an auxiliary head.

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
        head_concat=True,
        dropout=0.1,
        auxiliary=0.4,
        one_class=0.75,
        distort=True,
    )


PRESETS: dict[str, Callable[[], FineTuningConfig]] = {
    "voc12aug": voc12aug,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "coco-1x": coco_1x,
    "coco-2x": coco_2x,
}
"""The papers' settings by name."""


class FCN(Segmenter):
    """A backbone with two convolutions and a classifier on its last stage, maybe with an auxiliary head.

    Args:
        backbone: made by `make_backbone`.
        classes: C.
        channels: of the convolutions.
        dilation: of the convolutions.
        mean: of R, G and B in [0, 1] that the backbone expects to be subtracted.
        std: that it expects to be divided by.
        concat: whether the last stage is laid beside what the convolutions give, and a third one follows.
        dropout: of whole channels before each classifier, in training.
        auxiliary: weight of the loss of a head on the stage before the last one; 0 = there is none.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        channels: int = 256,
        dilation: int = 6,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        concat: bool = False,
        dropout: float = 0.0,
        auxiliary: float = 0.0,
    ) -> None:
        *_, third, width = list(cast(Any, backbone.feature_info).channels())
        layers = [*_convolution(width, channels, dilation), *_convolution(channels, channels, dilation)]
        super().__init__(channels, classes)
        self.backbone = backbone
        self.head = nn.Sequential(*layers)
        self.join = nn.Sequential(*_convolution(width + channels, channels)) if concat else None
        self.dropout = nn.Dropout2d(dropout)
        self.auxiliary_weight = auxiliary
        self.auxiliary = _Auxiliary(third, classes, dropout) if auxiliary else None
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to what the classifier sees, (B, channels, h, w)."""
        return self._features(self._stages(image)[-1])

    def training_logits(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """The classifier's, and the auxiliary head's if there is one; as of every `Segmenter`."""
        *_, third, last = self._stages(image)
        logits: list[tuple[float, Tensor]] = [(1.0, self.classifier(self._features(last)))]
        return logits if self.auxiliary is None else [*logits, (self.auxiliary_weight, self.auxiliary(third))]

    def _stages(self, image: Tensor) -> Sequence[Tensor]:
        stages: Sequence[Tensor] = self.backbone((image - self.mean) / self.std)
        return stages

    def _features(self, last: Tensor) -> Tensor:
        features: Tensor = self.head(last)
        if self.join is not None:
            features = self.join(torch.cat([last, features], dim=1))
        dropped: Tensor = self.dropout(features)
        return dropped


class _Auxiliary(Segmenter):
    """A head that helps training: (B, C, h, w) of a stage to logits."""

    def __init__(self, width: int, classes: int, dropout: float, channels: int = 256) -> None:
        super().__init__(channels, classes)
        self.head = nn.Sequential(*_convolution(width, channels), nn.Dropout2d(dropout))

    def features(self, image: Tensor) -> Tensor:
        """(B, width, h, w) of the stage to what the classifier sees."""
        features: Tensor = self.head(image)
        return features


def _convolution(inputs: int, outputs: int, dilation: int = 1) -> list[nn.Module]:
    """3x3 without bias that keeps the size, BatchNorm, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


@at_places(models=["source"], reads=["data"], writes=["out"])
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
    """Fine-tune a run's backbone on a task with labels, and measure it; or continue a transfer that was stopped.

    Args:
        source: a run's folder, an embedder, a file in timm's, torchvision's, MoCo's or DINO's naming (whose
            architecture is `config.backbone`), "imagenet" or "imagenet:TAG" (timm's weights), or "random".
        data: a labelled folder or NAME:ROOT (see `selfseg.data.labelled.catalog`); for detection COCO's folder, or
            coco:ROOT (see `selfseg.evaluation.protocols.coco`).
        config: a `TransferConfig` or a `DetectionConfig`; `PRESETS` has the papers'.
        out: a folder for weights, checkpoints and `results/`. If it exists, the same call continues there.
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
    fit, measured = open_splits(data, config)
    start, config = open_source(source, config, config.output_stride)
    fit, measured = fit.measured(start.channels), measured.measured(start.channels)
    check_labels(fit, measured)
    with own_job(out, describe("segmentation", source, start, data, contents_of((fit, measured)), config)):
        in_both = images_in_both(fit, measured)
        torch.manual_seed(config.seed)
        classes = len(fit.class_names)
        model = FCN(
            start.backbone,
            classes,
            config.head_channels,
            config.head_dilation,
            start.mean,
            start.std,
            config.head_concat,
            config.dropout,
            config.auxiliary,
        )
        train_segmenter(
            model,
            fit,
            config,
            out,
            device=device,
            workers=workers,
            checkpoint_every=checkpoint_every,
            progress=progress,
            held=True,
        )
        confusion, tally = count_segmenter(model, measured, config)
        question = Question(
            protocol="transfer",
            protocol_version=VERSION,
            what=start.what,
            fit_split=fit.split,
            resolution=config.short_side or "native",
            seeds=(config.seed,),
            recipe_hash=run_hash(Path(source)) if isinstance(source, str | Path) else "",
        )
        options = {
            **asdict(config),
            "weights": start.weights,
            "start": start.sentence,
            **in_both,
        }
        result = result_of(question, [confusion], tally, measured, options)
        write_json(out / "results" / result_name(result), result.to_dict())
    return result
