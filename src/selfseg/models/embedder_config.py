"""What an embedder is made of, and how often it looks at an image. `embedder` has both names, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from tyro.conf import Suppress, arg

from selfseg.errors import CheckpointError, ConfigError
from selfseg.kinds import check_values
from selfseg.models.backbones import check_backbone, is_vit
from selfseg.models.inputs.groups import Group, groups_of
from selfseg.models.start import Colour
from selfseg.ops.channels import Channels
from selfseg.storage.files import read_json

FORMAT = 1


@dataclass(frozen=True)
class EmbedderConfig:
    """What an embedder is made of.

    Attributes:
        backbone: timm's name of a CNN or ViT.
        output_stride: stride of the backbone's last stage, in pixels; below 32 the last stages of a CNN are dilated.
            The stride of a ViT is its patch size, whatever is given.
        decoder: "fpn" (ViCE low-res), "deeplabv3" (MaskContrast), "deeplabv3plus" (ViCE high-res), "linear",
            "projector" (SlotCon), "pyramid" (several stages of a pretrained backbone as they are, see
            `selfseg.models.decoders.Pyramid`), "stego" (STEGO's head), or "none": the backbone's last stage, whose
            channels are then D.
        hidden: channels inside of the projector.
        stages: stages that the pyramid uses, the finest first, counted from the last one, which is -1. In a ViT each
            block is a stage, and all have the patches' stride: (-4, -1) are its fourth-last and its last block, -12 is
            the first of twelve.
        final_norm: for a ViT: whether its last norm is applied to the tokens of each block that is used, as DINO and
            DINOv2 do where they give features. None = yes. The stages of other networks are never normed.
        whiten: how far the deviations of the pyramid's components are made equal: 0 leaves them as they are, 1 makes
            them equal.
        correction: channels inside of the pyramid's learned correction; 0 = none.
        frozen: whether the backbone stays as it is: no gradient, and its BatchNorm keeps its statistics.
        frozen_stages: how many of the backbone's first stages (a ViT's blocks) stay as they are in the same way, with
            what comes before them; 0 = none.
        dim: D, the length of a pixel's vector.
        centred: a BatchNorm without weights after the decoder. From scratch all raw vectors begin near one direction
            (the stages end in ReLUs) and contrasting assignments can't tell them apart; this spreads them. The
            papers have none and begin from ImageNet weights.
        aligned: each stage is moved by a part of a cell to where its cells should look (`cell_centres`), so that
            embeddings lie on what they show. The papers don't do this, and their embeddings lie some pixels too low.
        border: px of mirrored image around it that the backbone sees too and that are cut off again, a multiple of its
            largest stride. Without it the edges of images look alike, because the network sees nothing beyond them.
        smooth: how strongly `embed` makes similar superpixels of an image agree, whose edges the embedding then has
            (`selfseg.ops.regions.smoothing`); 0 = not at all. Training, `forward` and exported networks do not smooth.
        resolution: short side in px that images are resized to before they are embedded; None = as they are.
        saliency: a second linear head beside the decoder's last one, which tells foreground from background.
        mean: mean of R, G and B in [0, 1] that the backbone expects to be subtracted; None = what belongs to its
            weights.
        std: standard deviation that it expects to be divided by; None = what belongs to its weights.
        from_rgb: how RGB weights are used for more than three channels. "groups": the network is shown three channels
            at a time, and the features of all groups lie side by side (`selfseg.models.inputs.groups`). Or the first
            convolution's filters are "repeat"ed (timm's rule: those of R, G, B, R, ... in turn) or their "mean" is
            taken for each channel; both times 3 / C, so that the sum stays as large. "auto": groups of a frozen
            backbone, which can't get used to other filters; else repeat.
        window: side in px of the windows that large images are looked at in, each as if it were an image
            (`selfseg.data.reading.windows`). None = `WINDOW` px, for images that can't be looked at as a whole.
        channels: how measured images are read; a run fills it in when it begins. None = photographs, RGB.
    """

    backbone: str = "resnet18"
    output_stride: Literal[8, 16, 32] = 8
    decoder: Literal["fpn", "deeplabv3", "deeplabv3plus", "linear", "projector", "pyramid", "stego", "none"] = "fpn"
    hidden: int = 4096
    stages: tuple[int, ...] = (-2, -1)
    final_norm: bool | None = None
    whiten: float = 0.5
    correction: int = 0
    frozen: bool = False
    frozen_stages: int = 0
    dim: int = 128
    centred: bool = False
    aligned: bool = False
    border: int = 0
    smooth: float = 0.0
    resolution: int | None = 320
    saliency: bool = False
    mean: Annotated[Colour | None, arg(aliases=["--mean"])] = None
    std: Annotated[Colour | None, arg(aliases=["--std"])] = None
    from_rgb: Literal["auto", "groups", "repeat", "mean"] = "auto"
    window: Annotated[int | None, arg(aliases=["--window"])] = None
    channels: Annotated[Channels | None, Suppress] = None

    # Files from before there was a choice are of ViTs without it.
    WHEN_MISSING: ClassVar[dict[str, Any]] = {"final_norm": False}

    def __post_init__(self) -> None:
        if self.final_norm is not None and not is_vit(self.backbone):
            object.__setattr__(self, "final_norm", None)  # it means nothing: settings with and without it are equal
        if self.border < 0 or not 0 <= self.smooth < math.inf:
            raise ConfigError(f"border and smooth can't be negative: {self.border}, {self.smooth}")
        if self.frozen_stages < 0:
            raise ConfigError(f"frozen_stages must be 0 (none) or more, not {self.frozen_stages}")
        for name in ("dim", "hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.window is not None and self.window < 64:
            raise ConfigError(f"window must be at least 64 px, not {self.window}")
        if self.resolution is not None and self.resolution < 32:
            raise ConfigError(f"resolution must be at least 32 px, not {self.resolution}")
        if self.decoder == "pyramid" and (not self.stages or list(self.stages) != sorted({*self.stages})):
            raise ConfigError(f"a pyramid needs each stage once, the finest first, e.g. (-2, -1), not {self.stages}")
        if not 0 <= self.whiten <= 1 or self.correction < 0:
            raise ConfigError(f"need whiten in [0, 1] and correction >= 0, not {self.whiten} and {self.correction}")
        if self.channels is not None and (self.mean or self.std):
            raise ConfigError("mean and std are for red, green and blue; leave them out for images with other channels")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and (len(value) != 3 or min(value) < 0 or (name == "std" and min(value) == 0)):
                raise ConfigError(f"{name} has a number for each of R, G and B in [0, 1], not {value}")

    def told(self) -> dict[str, Any]:
        """As plain values; what came with measured images is left out where it says nothing, so that hashes stay."""
        values = asdict(self)
        for name, plain in (("from_rgb", "auto"), ("window", None), ("channels", None)):
            if values[name] == plain:
                del values[name]
        return values

    def facts(self, dim: int, stride: float, start: str) -> dict[str, str]:
        """What a model card says of an embedder, name to value.

        Args:
            dim: D; without a decoder it is the last stage's.
            stride: pixels of the looked-at image per vector that `embed` gives.
            start: what the backbone's weights began from, "" if that isn't known.
        """
        size = "as they are" if self.resolution is None else f"resized to a short side of {self.resolution} px"
        decoder = {"none": "none: the backbone's last stage", "pyramid": "pyramid, of several stages"}
        return {
            "backbone": self.backbone,
            "weights began from": start,
            "decoder": decoder.get(self.decoder, self.decoder),
            "numbers in a vector": f"{dim}, of unit length together",
            "one vector for": f"{stride:g} x {stride:g} px of the image that is looked at",
            "smoothed": "over the image's superpixels" if self.smooth else "",
            "images": f"{'RGB' if self.channels is None else f'{self.inputs} channels'}, {size}",
        }

    @property
    def side(self) -> int | None:
        """Of the windows that large images are looked at in, px: as was wished for, else as the run found."""
        return self.window or (self.channels.window if self.channels is not None else None)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of channels that the backbone is shown one after the other; none = all channels at once."""
        wanted = self.from_rgb == "groups" or (self.from_rgb == "auto" and self.frozen)
        if self.channels is None or len(self.channels) <= 3 or not wanted:
            return ()
        return groups_of(self.channels.names)

    @property
    def inputs(self) -> int:
        """How many channels an image has: 3 of photographs."""
        return 3 if self.channels is None else len(self.channels)

    @property
    def rgb(self) -> bool:
        """Whether these channels are red, green and blue."""
        return self.channels is None or self.channels.colour


@dataclass(frozen=True)
class Looks:
    """How often an image is looked at, for a steadier embedding: the unit vectors of all looks are averaged.

    Attributes:
        scales: sizes of the image as multiples of its usual one.
        flip: whether each is looked at mirrored, too.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.scales or not all(0.1 <= scale <= 8 for scale in self.scales):
            raise ConfigError(f"scales are multiples of an image's size from 0.1 to 8, e.g. 1 1.5, not {self.scales}")

    @property
    def name(self) -> str:
        """What files and columns call it; "" for one look at the usual size.

        Example:
            >>> Looks((1.0, 1.5), flip=True).name, Looks().name
            ('-1x1.5x-mirrored', '')
        """
        if self == Looks():
            return ""
        return "-" + "".join(f"{scale:g}x" for scale in self.scales) + ("-mirrored" if self.flip else "")

    def average(self, embed: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """The mean of all looks, of unit length.

        Args:
            embed: (B, 3, H, W) to (B, D, h, w) of unit length over D.
            image: (B, 3, H, W) float.

        Returns:
            (B, D, h, w) on the grid of the largest look.
        """
        if self == Looks():
            return embed(image)
        height, width = image.shape[2:]
        found: list[Tensor] = []
        for scale in sorted(self.scales, reverse=True):
            size = max(32, round(height * scale)), max(32, round(width * scale))
            seen = image
            if size != (height, width):
                seen = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
            views = [embed(seen), embed(seen.flip(3)).flip(3)] if self.flip else [embed(seen)]
            for vectors in views:
                if found and vectors.shape != found[0].shape:
                    grid = found[0].shape[2:]
                    vectors = F.interpolate(vectors, grid, mode="bilinear", align_corners=False)
                found.append(vectors)
        return F.normalize(torch.stack(found).sum(0), dim=1)


# A file of somebody else's must not take all memory by a number.
_BELIEVABLE = {
    "dim": (1, 1 << 16),
    "hidden": (1, 1 << 17),
    "correction": (0, 1 << 16),
    "resolution": (32, 1 << 14),
    "window": (64, 1 << 14),
    "border": (0, 1 << 12),
    "smooth": (0, 1e6),
    "frozen_stages": (0, 1 << 10),
}


def read_config(folder: Path) -> tuple[EmbedderConfig, str]:
    """What the embedder in a folder is made of, and what its weights began from.

    Raises:
        CheckpointError: if its embedder.json is missing, damaged or of another format.
    """
    try:
        values = read_json(folder / "embedder.json")
    except (OSError, ValueError) as error:  # missing, damaged, foreign: the user needs one sentence
        raise CheckpointError(
            f"no readable embedder in {folder} (embedder.json and weights.safetensors): {error}"
        ) from error
    known = {field.name for field in fields(EmbedderConfig)}
    start = str(values.pop("start", "")) if isinstance(values, dict) else ""
    # A setting that a file does not know yet has its default, or WHEN_MISSING: what the file was made with.
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT or not set(values) <= known:
        raise CheckpointError(f"{folder / 'embedder.json'} is not in format {FORMAT} of selfseg's embedders")
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in {**EmbedderConfig.WHEN_MISSING, **values}.items()
    }
    try:
        settings["channels"] = Channels.of_json(settings.get("channels"))
        check_backbone(settings.get("backbone", EmbedderConfig.backbone))
        check_values(EmbedderConfig, settings)
        config = EmbedderConfig(**settings)
        for name, (least, most) in _BELIEVABLE.items():
            value = getattr(config, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} is {value}, but must be from {least} to {most}")
        return _counted_from_the_last(config, "final_norm" in values), start
    except (TypeError, ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{folder / 'embedder.json'} has settings that can't be used: {error}") from error


def _counted_from_the_last(config: EmbedderConfig, all_blocks: bool) -> EmbedderConfig:
    """With a ViT's stages as they are counted now: in older files only its last three blocks were stages."""
    if all_blocks or min(config.stages, default=-1) < 0 or not is_vit(config.backbone):
        return config
    return replace(config, stages=tuple(stage - 3 for stage in config.stages))


def check_sizes(config: EmbedderConfig, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError if the weights know nothing of a large size in the config: it would only take memory."""
    sizes = {size for value in weights.values() for size in value.shape}
    for name in ("dim", "hidden", "correction"):
        value, used = getattr(config, name), name == "dim" or config.decoder in ("projector", "pyramid")
        if used and value > 4096 and value not in sizes and config.decoder != "none":
            raise ValueError(f"no weight has the size of {name} = {value}")


def facts_of(embedder: Any) -> list[tuple[str, str]]:
    """What an `Embedder` says of itself where it is shown, as (name, value)."""
    config = embedder.config
    count = sum(parameter.numel() for parameter in embedder.parameters())
    taught = sum(parameter.numel() for parameter in embedder.parameters() if parameter.requires_grad)
    side = "as images are" if embedder.resolution is None else f"{embedder.resolution} px"
    told = [
        ("backbone", config.backbone),
        ("decoder", config.decoder),
        ("dim", str(embedder.dim)),
        ("stride", f"{embedder.looked_stride:g} px"),
        ("resolution", side),
        ("parameters", _counted(count) + ("" if taught == count else f", {_counted(taught)} of them trainable")),
    ]
    if config.channels is not None:
        told.append(("channels", ", ".join(config.channels.names)))
    told.append(("began from", embedder.start or "not known, perhaps random weights"))
    return [*told, ("learned with", embedder.learned_with or "not known")]


def _counted(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 10_000 else f"{number:,}"
