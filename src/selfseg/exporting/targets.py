"""A backbone under the names of another project, and that project's network to check them with.

timm's and torchvision's networks are built and loaded with `strict=True`. detectron2 and mmsegmentation need not be
installed: their names are those of torchvision rewritten, so their files are checked by the way back.
Names of detectron2 after its tool for torchvision's weights; those of mmsegmentation's `ResNet` are torchvision's.

Letters in shapes: B images, C channels, H W pixels, h w cells of the last stage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
import torchvision
from torch import Tensor, nn

from selfseg.errors import ConfigError
from selfseg.exporting.measured import refuse_measured
from selfseg.models.backbones import make_backbone, nested_name
from selfseg.models.embedder import EmbedderConfig
from selfseg.models.inputs.groups import ChannelGroups

LastStage = Callable[[Mapping[str, Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Target:
    """A backbone as another project knows it.

    Attributes:
        weights: the tensors by that project's names; on the CPU.
        last_stage: (tensors as read from the file, (B, inputs, H, W) normalised image) to (B, C, h, w), computed by the
            network that the names belong to.
        expected: the same of our backbone.
        image_size: (H, W) that both networks take.
        call: the Python expression that builds the network.
        notes: sentences that whoever loads the file must know.
        untrained: names of tensors that the run doesn't have; they hold what a new network has.
    """

    weights: dict[str, Tensor]
    last_stage: LastStage
    expected: Callable[[Tensor], Tensor]
    image_size: tuple[int, int] = (64, 96)
    call: str = ""
    notes: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()


TargetOf = Callable[[nn.Module, EmbedderConfig], Target]


@dataclass(frozen=True)
class Resnet:
    """What detectron2 and mmsegmentation must be told about a ResNet of torchvision.

    Attributes:
        depth: number of layers.
        groups: of the 3x3 convolutions.
        width: channels per group in the first stage.
    """

    depth: int
    groups: int = 1
    width: int = 64

    @property
    def basic(self) -> bool:
        """Two 3x3 convolutions a block; neither torchvision nor detectron2 can dilate these."""
        return self.depth < 50


RESNETS = {
    **{f"resnet{depth}": Resnet(depth) for depth in (18, 34, 50, 101, 152)},
    "resnext50_32x4d": Resnet(50, 32, 4),
    "resnext101_32x8d": Resnet(101, 32, 8),
    "resnext101_64x4d": Resnet(101, 64, 4),
    "wide_resnet50_2": Resnet(50, 1, 128),
    "wide_resnet101_2": Resnet(101, 1, 128),
}


def resnet_of(config: EmbedderConfig, format: str) -> tuple[str, Resnet]:
    """The torchvision name of a backbone, and its numbers.

    Raises:
        ConfigError: if the format can't hold this backbone; names the formats that can.
    """
    name = config.backbone.split(".")[0]  # timm's "resnet50.a1_in1k" is a resnet50
    arch = RESNETS.get(name)
    if arch is None or (format == "mmseg" and name.startswith("wide_")):
        formats = "timm, safetensors, onnx" if arch is None else "timm, torchvision, detectron2, safetensors, onnx"
        known = [each for each in RESNETS if format != "mmseg" or not each.startswith("wide_")]
        raise ConfigError(
            f"the format {format} can't hold the backbone {config.backbone!r}, only {', '.join(known)}; "
            f"formats that work for it: {formats}"
        )
    return name, arch


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's state, contiguous and on the CPU."""
    return {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}


def torchvision_target(backbone: nn.Module, config: EmbedderConfig) -> Target:
    """Torchvision's names: those of `torchvision.models.NAME()` without `fc`.

    Raises:
        ConfigError: if torchvision has no such ResNet.
    """
    refuse_measured(config, "torchvision")
    name, arch = resnet_of(config, "torchvision")
    stride = config.output_stride
    options: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    ours = backbone
    if stride < 32 and arch.basic:
        # The weights fit; only the plain network can be compared.
        ours = make_backbone(config.backbone, 32).eval()
        ours.load_state_dict(tensors_of(backbone))
        notes = (
            f"The run dilated the network to output stride {stride}. torchvision can't dilate a {name}: there the same "
            "weights run at stride 32, on coarser features than the run's.",
        )
    elif stride < 32:
        options["replace_stride_with_dilation"] = [False, stride == 8, True]
        notes = (f"The run dilated the network to output stride {stride}: keep `replace_stride_with_dilation`.",)

    def last_stage(weights: Mapping[str, Tensor], image: Tensor) -> Tensor:
        network: Any = torchvision.models.get_model(name, weights=None, **options)
        network.fc = nn.Identity()
        network.load_state_dict(weights, strict=True)
        network.eval()
        image = network.maxpool(network.relu(network.bn1(network.conv1(image))))
        return cast(Tensor, network.layer4(network.layer3(network.layer2(network.layer1(image)))))

    given = "".join(f", {key}={value}" for key, value in options.items())
    return Target(
        weights=tensors_of(backbone),
        last_stage=last_stage,
        expected=lambda image: _last(ours, image),
        call=f"torchvision.models.{name}(weights=None{given})",
        notes=notes,
    )


def to_detectron2(name: str) -> str:
    """A tensor's name in detectron2.

    Example:
        >>> to_detectron2("layer1.0.downsample.1.weight"), to_detectron2("bn1.bias")
        ('res2.0.shortcut.norm.weight', 'stem.conv1.norm.bias')
    """
    name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
    if not name.startswith("res"):
        name = f"stem.{name}"
    name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def from_detectron2(name: str) -> str:
    """The torchvision name of a tensor of detectron2.

    Example:
        >>> from_detectron2("res2.0.shortcut.norm.weight"), from_detectron2("stem.conv1.norm.bias")
        ('layer1.0.downsample.1.weight', 'bn1.bias')
    """
    name = re.sub(r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}", name.removeprefix("stem."))
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    return re.sub(r"\bconv(\d)\.norm", r"bn\1", name)


def detectron2_target(backbone: nn.Module, config: EmbedderConfig) -> Target:
    """detectron2's names of a ResNet, without a prefix: its loader matches them with `backbone.bottom_up.` by itself.

    Raises:
        ConfigError: if detectron2's ResNets don't cover this backbone.
    """
    refuse_measured(config, "detectron2")
    name, arch = resnet_of(config, "detectron2")
    stride = config.output_stride
    plain = torchvision_target(backbone, config)
    # Its frozen BatchNorm has no counter.
    kept = {key: value for key, value in plain.weights.items() if not key.endswith("num_batches_tracked")}
    notes: tuple[str, ...] = ()
    if stride < 32 and (arch.basic or stride == 8):
        notes = (
            f"The run dilated the network to output stride {stride}. detectron2's `build_resnet_backbone` can't do "
            f"that with a {name}: there the same weights run at stride 32, on coarser features than the run's.",
        )
    elif stride < 32:
        notes = (
            "The run dilated the last stage but for its first block; detectron2's RES5_DILATION dilates that too.",
        )
    return Target(
        weights={to_detectron2(key): value for key, value in kept.items()},
        last_stage=lambda weights, image: plain.last_stage(
            {from_detectron2(key): value for key, value in weights.items()}, image
        ),
        expected=plain.expected,
        notes=notes,
    )


def mmseg_target(backbone: nn.Module, config: EmbedderConfig) -> Target:
    """The names of mmsegmentation's `ResNet` and `ResNeXt`, torchvision's, under `backbone.`.

    Raises:
        ConfigError: if mmsegmentation's ResNets don't cover this backbone.
    """
    refuse_measured(config, "mmseg")
    name, arch = resnet_of(config, "mmseg")
    plain = torchvision_target(backbone, config)
    prefix = "backbone."
    notes: tuple[str, ...] = ()
    if config.output_stride < 32 and arch.basic:
        notes = (
            f"The run dilated the network to output stride {config.output_stride}. mmsegmentation dilates only one of "
            f"the two convolutions of a block of {name}: the lines below leave it at stride 32, coarser than the run.",
        )
    return Target(
        weights={prefix + key: value for key, value in plain.weights.items()},
        last_stage=lambda weights, image: plain.last_stage(
            {key.removeprefix(prefix): value for key, value in weights.items()}, image
        ),
        expected=plain.expected,
        notes=notes,
    )


def timm_target(backbone: nn.Module, config: EmbedderConfig) -> Target:
    """Timm's names: those of the whole network without a classifier, where the run has all it needs.

    A norm after the last stage is no part of our backbones but for ViTs (`EmbedderConfig.final_norm`); the file gets a
    new one, which scales by 1 and adds 0.
    Where the whole network has more than that after its last stage (EfficientNet's `conv_head`), random weights would
    pass for trained ones: then the names are those of timm's `features_only` network.

    Raises:
        ConfigError: if timm can't build the network for these weights.
    """
    name, stride, count = config.backbone, config.output_stride, config.inputs
    grouped: tuple[str, ...] = ()
    if isinstance(backbone, ChannelGroups):
        told = ", ".join(str(list(group)) for group in backbone.groups)
        backbone, count = backbone.grouped, 3
        grouped = (f"The run shows this network three channels at a time, {told}; all features lie side by side.",)
    ours = tensors_of(cast(nn.Module, getattr(backbone, "windowed", backbone)))
    inputs = {"in_chans": count} if count != 3 else {}
    options: dict[str, Any] = {**({"output_stride": stride} if stride < 32 else {}), **inputs}
    try:
        full, options = _timm_network(name, options)
    except (RuntimeError, ValueError, AssertionError, NotImplementedError, TypeError) as error:
        raise ConfigError(
            f"timm can't build {name!r} as a whole network: {error}; formats that work for it: safetensors, onnx"
        ) from error
    fresh = tensors_of(full)
    names = {key: _name_in(fresh, key) for key in ours}
    weights = {found: ours[key] for key, found in names.items() if found}
    untrained = tuple(key for key in fresh if key not in weights)
    size: Any = (64, 96)
    settings: dict[str, Any] = getattr(full, "pretrained_cfg", None) or {}
    if settings.get("fixed_input_size"):
        size = tuple(settings["input_size"][1:])
    given = "".join(f", {key}={value}" for key, value in options.items())
    dilated = f"The run dilated the network to output stride {stride}: keep `output_stride`."
    notes: tuple[str, ...] = (*grouped, *((dilated,) if "output_stride" in options else ()))
    fits = len(weights) == len(ours) and all(weights[key].shape == fresh[key].shape for key in weights)
    if fits and all(_is_norm(full, key) for key in untrained):
        if untrained:
            notes += (f"The run has no {', '.join(untrained)}: the file holds a new norm there (scale 1, shift 0).",)
        return Target(
            weights={key: weights.get(key, value) for key, value in fresh.items()},
            last_stage=lambda read, image: _timm_last(
                _loaded(_timm_network(name, options)[0], read), image, norm="norm.weight" in weights
            ),
            expected=lambda image: _last(backbone, image),
            image_size=size,
            call=f"timm.create_model({name!r}, num_classes=0{given})",
            notes=notes,
            untrained=untrained,
        )
    reason = (
        f"The whole network has layers that the run doesn't have ({', '.join(untrained[:3])}, ...)"
        if fits
        else ("The run's backbone is built in another way than timm's whole network")
    )
    return Target(
        weights=ours,
        last_stage=lambda read, image: _last(_loaded(make_backbone(name, stride, inputs=count), read), image),
        expected=lambda image: _last(backbone, image),
        image_size=size,
        call=f"timm.create_model({name!r}, features_only=True{given})",
        notes=(*notes, f"{reason}: the names are those of timm's `features_only` network."),
    )


def _timm_network(name: str, options: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Timm's whole network without a classifier, and the options that it took."""
    try:
        return cast(nn.Module, timm.create_model(name, pretrained=False, num_classes=0, **options)), options
    except TypeError:  # transformers have no output stride: theirs is the patch
        options = {key: value for key, value in options.items() if key != "output_stride"}
        return cast(nn.Module, timm.create_model(name, pretrained=False, num_classes=0, **options)), options


def _name_in(wanted: Mapping[str, Tensor], key: str) -> str:
    """The whole network's name of a tensor of our backbone; "" if it has none."""
    candidates = (key, nested_name(key), key.partition(".")[2])  # the last: transformers are wrapped, "model.norm"
    return next((name for name in candidates if name in wanted), "")


def _is_norm(network: nn.Module, key: str) -> bool:
    return "Norm" in type(network.get_submodule(key.rpartition(".")[0])).__name__


def _loaded(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    network.load_state_dict(weights, strict=True)
    return network.eval()


def _last(backbone: nn.Module, image: Tensor) -> Tensor:
    return cast(Tensor, backbone(image)[-1])


def _timm_last(network: Any, image: Tensor, norm: bool) -> Tensor:
    """The last stage of a whole network, after or before the norm that follows it."""
    if not hasattr(network, "forward_intermediates"):
        return cast(Tensor, network.forward_features(image))
    stages = network.forward_intermediates(image, indices=1, norm=norm, output_fmt="NCHW", intermediates_only=True)
    return cast(Tensor, stages[-1])
