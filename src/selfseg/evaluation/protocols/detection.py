"""Transfer to object detection: Mask R-CNN with FPN on COCO, of torchvision, with the backbone of a run.

K. He et al., "Mask R-CNN", ICCV 2017, by the protocol of SlotCon (X. Wen et al., NeurIPS 2022, arXiv 2205.15288,
appendix A.2): all layers are trained, BatchNorm included, 16 images, SGD at 0.02 with a warm-up of 1000 iterations,
short sides of 640 to 800 px.

The published numbers were made with Detectron2. torchvision's Mask R-CNN is the same design, but not the same program:
don't expect equality. Known differences
- smooth L1 losses of boxes with beta 1/9 where Detectron2 has 0 (plain L1), in the RPN and in the head.
- RoIAlign without the half pixel's shift (aligned=False) and with 2x2 samples a bin; Detectron2 aligns, and takes as
  many samples as fit.
- the RPN keeps 2000 proposals an image in training, Detectron2's 1000.
- masks of the truth are drawn at the image's size and sampled by RoIAlign; Detectron2 draws each polygon in its box.
- the anchors' corners are rounded to whole pixels.
- FPN and heads have no BatchNorm; set-ups with SyncBN often have it there too, the paper does not say.
- timm's ResNet strides in the 3x3 convolution, as in torchvision and in SlotCon's set-up.
- BatchNorm's statistics at the end are the running averages; recomputing them over training images is usual there.
- training images are resized by OpenCV on uint8 and measured ones by torch, bilinear.
- one device: BatchNorm sees the whole batch, which is what SyncBN does over several.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.models.detection import MaskRCNN
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from selfseg.data.loader import Key, StepSampler, iterate, make_loader
from selfseg.data.reading.images import read_image
from selfseg.errors import BadImage, ConfigError, DataError
from selfseg.evaluation.contents import contents_of_files
from selfseg.evaluation.measure.results import package_version, result_name
from selfseg.evaluation.protocols.coco import (
    CocoImages,
    DetectionResult,
    average_precision,
    open_coco,
    require_coco,
    to_coco,
)
from selfseg.evaluation.sources import describe, open_source, own_job
from selfseg.fitting.supervised import FineTuningConfig, fine_tune
from selfseg.models.embedder import Embedder
from selfseg.storage.files import write_json
from selfseg.storage.hashes import run_hash
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD

VERSION = 1
"""Raised whenever the same input would give another number."""

_STRIDES = [4, 8, 16, 32]

Example = tuple[Tensor, dict[str, Tensor]]
"""An image (3, H, W) uint8 and its objects."""


@dataclass(frozen=True)
class DetectionConfig(FineTuningConfig):
    """Transfer to detection; the defaults are the 1x schedule's.

    BatchNorm's parameters have no weight decay, as in Detectron2.

    Attributes:
        short_sides: short sides in px; one of them is drawn for each training image.
        test_side: short side in px of the images that are measured.
        max_side: largest long side in px.
        channels: channels of the FPN.
    """

    fit_split: str = "train2017"
    split: str = "val2017"
    steps: int = 90_000
    lr: float = 0.02
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    warmup: int = 1000
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    test_side: int = 800
    max_side: int = 1333
    channels: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.short_sides or min(*self.short_sides, self.test_side, self.max_side) < 32:
            raise ConfigError(
                f"images need sides of at least 32 px, not short_sides {self.short_sides}, test_side "
                f"{self.test_side}, max_side {self.max_side}"
            )


def coco_1x() -> DetectionConfig:
    """COCO train2017, 90k iterations.

    Paper: AP 41.0 of boxes (AP50 61.1, AP75 45.0), 37.0 of masks (58.3, 39.8) (SlotCon, ResNet-50, 800 epochs of COCO,
    Detectron2). Ours: not run yet.
    """
    return DetectionConfig()


def coco_2x() -> DetectionConfig:
    """COCO train2017, 180k iterations.

    Paper: AP 42.6 of boxes (AP50 62.7, AP75 46.2), 38.2 of masks (59.6, 41.0) (SlotCon, ResNet-50, 800 epochs of COCO,
    Detectron2). Ours: not run yet.
    """
    return DetectionConfig(steps=180_000)


class Pyramid(nn.Module):
    """A backbone with a feature pyramid, as torchvision's detectors want it.

    Args:
        backbone: made by `make_backbone` with output stride 32; its last four stages have strides 4, 8, 16 and 32.
        channels: of every level.

    Raises:
        ConfigError: if the stages have other strides.
    """

    def __init__(self, backbone: nn.Module, channels: int = 256) -> None:
        super().__init__()
        info = cast(Any, backbone.feature_info)
        if list(info.reduction())[-4:] != _STRIDES:
            raise ConfigError(
                f"Mask R-CNN needs a backbone with stages of strides {_STRIDES}, not {list(info.reduction())}; a "
                "ResNet or a ConvNeXt has them"
            )
        self.backbone = backbone
        self.fpn = FeaturePyramidNetwork(list(info.channels())[-4:], channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to levels "0" (stride 4) to "3" (stride 32) and "pool" (64), each (B, channels, h, w)."""
        stages = self.backbone(image)[-4:]
        levels: dict[str, Tensor] = self.fpn(OrderedDict((str(i), stage) for i, stage in enumerate(stages)))
        return levels


def make_detector(
    backbone: nn.Module,
    classes: int,
    config: DetectionConfig,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> nn.Module:
    """Torchvision's Mask R-CNN on a backbone; all of its parameters are trained.

    Args:
        backbone: made by `make_backbone` with output stride 32.
        classes: C, without the background.
        config: `channels`, `test_side`, `max_side`.
        mean: of R, G and B in [0, 1] that the backbone expects to be subtracted.
        std: that it expects to be divided by.

    Returns:
        The network; it takes images in [0, 1]. Training images come resized; others it resizes itself.
    """
    network: nn.Module = MaskRCNN(
        Pyramid(backbone, config.channels),
        num_classes=classes + 1,
        min_size=config.test_side,
        max_size=config.max_side,
        image_mean=list(mean),
        image_std=list(std),
        _skip_resize=True,
    )
    return network


class ExampleDataset(Dataset[Example]):
    """A resized, perhaps mirrored image with its objects, a pure function of (seed, epoch, index)."""

    def __init__(self, data: CocoImages, config: DetectionConfig) -> None:
        self.data = data
        self.config = config
        self.used = data.with_objects()
        if not self.used:
            raise DataError(
                f"no image of {data.annotations} has an object that isn't a crowd; there is nothing to learn"
            )

    def __len__(self) -> int:
        return len(self.used)

    def __getitem__(self, key: Key) -> Example:
        """The example of `key`, (epoch, index); raises DataError for one that can't be used."""
        rng = np.random.Generator(np.random.PCG64([self.config.seed, *key]))
        short_side = self.config.short_sides[int(rng.integers(len(self.config.short_sides)))]
        flip = bool(rng.random() < 0.5)
        try:
            return self.data.example(self.used[key[1]], short_side, self.config.max_side, flip=flip)
        except BadImage as error:  # torch can't make another one of a sentence
            raise DataError(f"an image to learn from can't be read: {error}; repair or remove it") from error


def collate_examples(samples: Sequence[Example]) -> list[Example]:
    """Images have different sizes: they stay a list, which the network pads."""
    return list(samples)


def detection_loss(model: nn.Module, batch: list[Example]) -> Tensor:
    """The sum of the five losses: RPN objectness and boxes, head classes, boxes and masks."""
    device = next(model.parameters()).device
    images = [image.to(device, non_blocking=True).float() / 255 for image, _ in batch]
    targets = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for _, target in batch]
    losses: dict[str, Tensor] = model(images, targets)
    return torch.stack([value.float() for value in losses.values()]).sum()


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """For the optimiser: BatchNorm's parameters have no weight decay."""
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False)
    }
    return [
        {"params": [p for p in model.parameters() if id(p) not in norms]},
        {"params": [p for p in model.parameters() if id(p) in norms], "weight_decay": 0.0},
    ]


def transfer_to_detection(
    source: Path | str | Embedder,
    data: Path | str,
    config: DetectionConfig,
    out: Path,
    device: torch.device,
    workers: int,
    checkpoint_every: int,
    progress: bool,
) -> DetectionResult:
    """What `selfseg.evaluation.protocols.transfer.transfer` does for detection.

    Raises:
        MissingExtra: without pycocotools.
        As `transfer`.
    """
    require_coco()
    fit, measured = open_coco(data, config.fit_split), open_coco(data, config.split)
    if fit.category_ids != measured.category_ids:
        raise ConfigError(f"{fit.annotations} and {measured.annotations} have other categories")
    start, config = open_source(source, config, output_stride=32)
    if start.channels is not None:
        raise ConfigError("detectors are fine-tuned on photographs; this run learned from measured images")
    dataset = ExampleDataset(fit, config)
    files = contents_of_files(fit.annotations, measured.annotations)
    with own_job(out, describe("detection", source, start, data, files, config)):
        torch.manual_seed(config.seed)
        model = make_detector(start.backbone, len(fit.class_names), config, start.mean, start.std).to(device)

        def batches(step: int) -> Iterator[list[Example]]:
            sampler = StepSampler(len(dataset), config.batch_size, step, config.steps, config.seed)
            return iterate(make_loader(dataset, sampler, workers, device.type == "cuda", collate_fn=collate_examples))

        fine_tune(
            model,
            config,
            detection_loss,
            batches,
            out,
            groups=parameter_groups(model),
            checkpoint_every=checkpoint_every,
            progress=progress,
            held=True,
        )
        results = detect(model, measured, config)
        run = Path(source) if isinstance(source, str | Path) else None
        result = DetectionResult(
            protocol="detection",
            protocol_version=VERSION,
            what=start.what,
            dataset=measured.root.resolve().name,
            split=measured.split,
            fit_split=fit.split,
            metrics=average_precision(measured.annotations, results),
            class_names=measured.class_names,
            counts={"images": len(measured), "detections": len(results), "fit_images": len(dataset)},
            options={**asdict(config), "weights": start.weights, "start": start.sentence},
            recipe_hash=run_hash(run) if run else "",
            package_version=package_version(),
        )
        write_json(out / "results" / result_name(result), result.to_dict())
    return result


@torch.no_grad()
def detect(model: nn.Module, data: CocoImages, config: DetectionConfig) -> list[dict[str, Any]]:
    """A trained detector on every image of a split.

    Args:
        model: of `make_detector`, on its device.
        data: the split.
        config: `precision`.

    Returns:
        COCO's results, for `average_precision`.

    Raises:
        BadImage: if an image can't be read: COCO's average is over all of them.
    """
    device = next(model.parameters()).device
    model.eval()
    results: list[dict[str, Any]] = []
    for path, image_id in zip(data.paths, data.ids, strict=True):
        image = torch.from_numpy(read_image(path)).to(device).permute(2, 0, 1).float() / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16-mixed"):
            prediction = model([image])[0]
        results += to_coco(prediction, image_id, data.category_ids)
    return results
