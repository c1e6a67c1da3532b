"""The text beside an exported file: what it is, and the lines that load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from selfseg.exporting.measured import levels_card, measured_facts
from selfseg.exporting.targets import Target, resnet_of
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.start import Colours

_PLAIN = "The file is `torch.save` of plain tensors, which loads with `weights_only=True`."
_INPUT = "The network wants RGB in [0, 1], minus `mean`, divided by `std`."


def facts(format: str, whole: bool, embedder: Embedder, recipe: str, weights: str, given: str = "") -> dict[str, str]:
    """What an exported file says of itself; stands in its header.

    Args:
        format: its format.
        whole: whether it holds the whole embedder, or the backbone alone.
        embedder: what is exported.
        recipe: hash of the run's recipe, "" if it has none.
        weights: hash of the run's weights.
        given: what it takes; "" = RGB or levels in [0, 1], for a backbone alone normalised.

    Returns:
        Words to words, because a safetensors header holds nothing else.
    """
    stride = cast(Any, embedder.backbone.feature_info).reduction()[-1]  # a ViT's is its patch's side
    made = {
        "made_by": "selfseg",
        "format": format,
        "architecture": embedder.config.backbone,
        "output_stride": str(stride),
    }
    channels = embedder.config.channels
    what = "RGB in [0, 1]" if channels is None else f"levels in [0, 1] of {len(channels)} channels"
    if channels is not None:
        given = given.replace("RGB (H, W, 3)", f"levels (H, W, {len(channels)})")
        made |= measured_facts(channels)
    if whole:  # mean and std are inside: whoever reads them here would normalise twice
        made["input"] = given or what
    else:
        made["input"] = f"{what}, minus mean, divided by std"
        mean, std = embedder.colours
        made |= {"mean": _numbers(mean), "std": _numbers(std)}
    return {**made, "began_from": embedder.start, "recipe": recipe, "embedder": weights}


def card(name: str, facts: Mapping[str, str], load: str, notes: Sequence[str] = ()) -> str:
    """Markdown: the facts, how to load the file, and what must be known.

    Args:
        name: of the file.
        facts: see `facts`.
        load: see `loading`.
        notes: sentences.
    """
    told = {key: value.replace("|", "\\|") for key, value in facts.items() if value}
    lines = [f"# {name}", "", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in told.items())]
    lines += ["", *(f"- {note}" for note in notes), *([""] if notes else []), "## Load it", "", load]
    return "\n".join(lines).rstrip() + "\n"


def loading(format: str, name: str, config: EmbedderConfig, colours: Colours, target: Target | None = None) -> str:
    """Markdown with the lines that load a file.

    Args:
        format: its format.
        name: of the file.
        config: of the embedder.
        colours: mean and deviation that the backbone expects.
        target: the backbone's target, for formats of a backbone alone.
    """
    if format in ("timm", "torchvision"):
        assert target is not None
        drop = "network.fc = torch.nn.Identity()" if format == "torchvision" else ""
        first = "import torch\nimport torchvision" if format == "torchvision" else "import timm"
        lines = [first, "from safetensors.torch import load_file", "", f"network = {target.call}", drop]
        lines += [f"network.load_state_dict(load_file({name!r}), strict=True)"]
        text = _code("python", [line for at, line in enumerate(lines) if line or at == 2])
        if config.channels is None:
            return f"{text}\n{_INPUT}"
        wants = "The network wants levels / 255, minus `mean`, divided by `std`, as (B, C, H, W)."
        return f"{text}\n{wants}\n\n{levels_card(config.channels)}"
    if format in ("detectron2", "mmseg"):
        return (_detectron2 if format == "detectron2" else _mmseg)(name, config, colours)
    return (_onnx if format == "onnx" else _whole)(name, config)


def _detectron2(name: str, config: EmbedderConfig, colours: Colours) -> str:
    _, arch = resnet_of(config, "detectron2")
    lines = [
        "MODEL:",
        f"  WEIGHTS: {name}",
        f"  PIXEL_MEAN: [{_numbers([255 * value for value in colours[0]], ', ')}]",
        f"  PIXEL_STD: [{_numbers([255 * value for value in colours[1]], ', ')}]",
        "  RESNETS:",
        f"    DEPTH: {arch.depth}",
    ]
    if arch.basic:
        lines.append("    RES2_OUT_CHANNELS: 64")
    else:
        lines.append("    STRIDE_IN_1X1: False  # as in torchvision: the 3x3 convolution has the stride")
    if (arch.groups, arch.width) != (1, 64):
        lines += [f"    NUM_GROUPS: {arch.groups}", f"    WIDTH_PER_GROUP: {arch.width}"]
    if config.output_stride == 16 and not arch.basic:
        lines.append("    RES5_DILATION: 2")
    lines += ["INPUT:", '  FORMAT: "RGB"  # the default is BGR']
    text = (
        f"{_PLAIN} detectron2 freezes BatchNorm and the first stages; `MODEL.RESNETS.NORM: SyncBN` and "
        "`MODEL.BACKBONE.FREEZE_AT: 0` train everything."
    )
    return _code("yaml", lines) + f"\n{text}"


def _mmseg(name: str, config: EmbedderConfig, colours: Colours) -> str:
    _, arch = resnet_of(config, "mmseg")
    kind = "ResNet" if arch.groups == 1 else "ResNeXt"
    lines = ["model = dict(", "    pretrained=None,", "    data_preprocessor=dict("]
    lines += [f"        mean=[{_numbers([255 * value for value in colours[0]], ', ')}],"]
    lines += [f"        std=[{_numbers([255 * value for value in colours[1]], ', ')}],"]
    lines += ["        bgr_to_rgb=True,", "    ),", "    backbone=dict("]
    lines += [
        f"        type={kind!r},  # not the configs' ResNetV1c, which has another stem",
        f"        depth={arch.depth},",
    ]
    if arch.groups > 1:
        lines.append(f"        groups={arch.groups},\n        base_width={arch.width},")
    lines.append("        style='pytorch',")
    if config.output_stride < 32 and not arch.basic:
        strides, dilations = (
            ("(1, 2, 1, 1)", "(1, 1, 2, 4)") if config.output_stride == 8 else ("(1, 2, 2, 1)", "(1, 1, 1, 2)")
        )
        lines += [f"        strides={strides},", f"        dilations={dilations},", "        contract_dilation=True,"]
    else:
        lines += ["        strides=(1, 2, 2, 2),", "        dilations=(1, 1, 1, 1),"]
    lines += [f"        init_cfg=dict(type='Pretrained', checkpoint={name!r}, prefix='backbone.'),", "    ),", ")"]
    return _code("python", lines) + f"\n{_PLAIN}"


def _onnx(name: str, config: EmbedderConfig) -> str:
    lines = ["import onnxruntime", "", f"session = onnxruntime.InferenceSession({name!r})"]
    lines += ["(embedding,) = session.run(None, {'image': image})"]
    what = "(B, 3, H, W) float32 RGB in [0, 1]"
    if config.channels is not None:
        what = f"(B, {config.inputs}, H, W) float32 levels / 255, see below"
    text = (
        f"`image` is {what}, of any size; the graph normalises it. `embedding` is "
        f"(B, {config.dim}, h, w) float32, unit length over the second axis."
    )
    if config.decoder == "deeplabv3plus":
        text += f" H and W must be multiples of {config.output_stride}."
    if config.resolution is not None:
        text += f" The run worked on images whose short side is {config.resolution} px; resizing is left to you."
    if config.smooth:
        text += (
            " selfseg smooths the embedding over the image's superpixels afterwards, which is not in the graph: the "
            "run's clusters fit, and their edges are coarser."
        )
    if config.channels is not None:
        given = ["image = (levels(values).astype(np.float32) / 255).transpose(2, 0, 1)[None]  # (1, C, H, W)"]
        text += f"\n\n{levels_card(config.channels, given)}"
    return _code("python", lines) + f"\n{text}"


def _whole(name: str, config: EmbedderConfig) -> str:
    lines = ["from selfseg import Embedder", "", f"embedder = Embedder.load({name!r})"]
    photo = "photo.jpg" if config.channels is None else "image.tif"
    lines += [f"vectors = embedder.embed({photo!r})  # (D, h, w), unit length over D"]
    text = (
        f"The whole embedder, backbone {config.backbone} and decoder {config.decoder}, without its run: image to "
        f"{config.dim} numbers per pixel. `weights.safetensors` holds every tensor by name, `embedder.json` what the "
        "network is made of."
    )
    if config.channels is not None:
        text += " Files are read as the run read its own, arrays may be values or levels.\n\n"
        text += levels_card(config.channels)
    return _code("python", lines) + f"\n{text}"


def _code(language: str, lines: Sequence[str]) -> str:
    return f"```{language}\n" + "\n".join(lines) + "\n```"


def _numbers(values: Sequence[float], separator: str = " ") -> str:
    return separator.join(f"{value:.6g}" for value in values)
