"""More than a backbone: the decoder or head that stands on it in a project's file, and the project's prototypes.

    SlotCon        encoder_k, projector_k, grouping_k     the projector and the prototypes, all of the teacher
    MaskContrast   model_q.backbone, model_q.decoder, ... DeepLabV3 by torchvision's names, and the two 1x1 heads
    ViCE           VISSL's trunk, heads                   four 1x1 convolutions (FPN), or DeepLabV3+ by smp's names
    PiCIE          backbone, decoder                      four 1x1 convolutions (FPN), and the first view's clusters

A decoder is taken only if every tensor of it has its place in ours, by the name where a public library gave it one and
by the shape where that can't be mistaken. Else the backbone is taken alone, and the reason is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from selfseg.errors import CheckpointError
from selfseg.models.checkpoints import find_backbone
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.published.files import Tensors, WeightsFile, tell_groups


@dataclass(frozen=True)
class Layout:
    """Where a project keeps what.

    Attributes:
        project: whose files these are.
        backbone: regex of the end of the prefix of the backbone that is kept.
        decoder: where its decoder is, in the place of that end; "" = everything else under what comes before.
        kinds: what its decoder may be.
        apart: regex of names under there that are not of the decoder.
        prototypes: regex of the prototypes' name in the file; "" = it has none.
        prototypes_word: what they are.
        settings: of the embedder, as the project measured it.
    """

    project: str
    backbone: str
    decoder: str
    kinds: tuple[str, ...]
    apart: str = ""
    prototypes: str = ""
    prototypes_word: str = "prototypes"
    settings: Mapping[str, Any] = field(default_factory=dict)


_SMALL = {"output_stride": 32, "resolution": 320}
_LOW, _HIGH = {"output_stride": 8, "resolution": 320}, {"output_stride": 8, "resolution": None}

LAYOUTS = (
    Layout(
        "SlotCon",
        r"encoder_k\.$",
        "projector_k.",
        ("projector",),
        prototypes=r"grouping_k\.slot_embed\.weight$",
        prototypes_word="prototypes of the teacher",
        settings=_SMALL,
    ),
    Layout(
        "PiCIE",
        r"backbone\.$",
        "decoder.",
        ("fpn",),
        prototypes=r"classifier1_state_dict\.(module\.)?weight$",
        prototypes_word="clusters of the first view",
        settings=_SMALL,
    ),
    Layout("MaskContrast", r"backbone\.$", "", ("deeplabv3",), settings=_HIGH),
    Layout(
        "ViCE (VISSL)",
        r"trunk\.(_feature_blocks\.)?$",
        "heads.",
        ("fpn", "deeplabv3plus"),
        apart=r"prototypes\d*\.",
        prototypes=r"heads\..*prototypes\d*\.weight$",
        settings=_LOW,
    ),
)


@dataclass(frozen=True)
class Whole:
    """An embedder out of a file.

    Attributes:
        embedder: filled, in evaluation mode.
        prototypes: (K, D) float32, or None.
        sentences: what the file holds, and what was taken and what not.
    """

    embedder: Embedder
    prototypes: Tensor | None
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class _Decoder:
    """What stands on the backbone, by our names, and the settings of an embedder that has it."""

    words: str
    settings: dict[str, Any]
    tensors: Tensors


def open_whole(file: WeightsFile, source: str, name: str = "", changes: Mapping[str, Any] | None = None) -> Whole:
    """Make an embedder of all that a file holds.

    Args:
        file: as `open_weights` gives it.
        source: what messages call it.
        name: timm's name of the backbone; "" = told from the file, which works for ResNets.
        changes: settings of the embedder that take the place of the layout's.

    Raises:
        CheckpointError: if the backbone can't be told or is not in the file.
    """
    name = name or guess_resnet(file.tensors, source)
    bare = EmbedderConfig(backbone=name, output_stride=32, decoder="none", resolution=None)
    with torch.random.fork_rng(devices=[]):
        plain = Embedder(bare)
    found = find_backbone(plain.backbone, file.tensors, source)
    channels = list(plain.backbone.feature_info.channels())  # type: ignore[union-attr,operator]
    sentences = [file.about, found.sentence]
    used = {key for key in file.tensors if key.startswith(found.prefix)}
    made: Embedder | None = None
    prototypes = None
    for layout in LAYOUTS:
        match = re.search(layout.backbone, found.prefix)
        if match is None:
            continue
        place = found.prefix[: match.start()] + layout.decoder
        inside = {
            key.removeprefix(place): value
            for key, value in file.tensors.items()
            if key.startswith(place) and key not in used
        }
        inside = {key: value for key, value in inside.items() if not (layout.apart and re.search(layout.apart, key))}
        decoder = _read_decoder(inside, channels)
        if decoder is None or decoder.settings["decoder"] not in layout.kinds:
            continue
        high = _HIGH if decoder.settings["decoder"] == "deeplabv3plus" else {}
        settings = replace(bare, **{**layout.settings, **high, **decoder.settings, **(changes or {})})
        made = _make(settings, found.tensors, decoder.tensors)
        if made is None:
            continue
        sentences.append(f"{decoder.words} from {place!r}, by {layout.project}'s layout")
        used |= {place + key for key in inside}
        prototypes, words = _prototypes(file.tensors, layout, decoder.settings["dim"])
        sentences += [words] if words else []
        used |= {key for key in file.tensors if layout.prototypes and re.search(layout.prototypes, key)}
        break
    if made is None:
        sentences.append("taken as a backbone alone, because no decoder that selfseg knows stands on it")
        made = _make(replace(bare, **(changes or {})), found.tensors, {})
        assert made is not None  # the backbone was found
    left = [key for key in file.tensors if key not in used]
    if left:
        sentences.append(f"not taken: {tell_groups(left)}")
    made.start = f"the file {source}"
    return Whole(made, prototypes, tuple(sentences))


def _make(settings: EmbedderConfig, backbone: Tensors, decoder: Tensors) -> Embedder | None:
    """An embedder with these tensors; None unless they are all that its decoder has, and no more."""
    with torch.random.fork_rng(devices=[]):
        embedder = Embedder(settings)
    own = embedder.state_dict()
    wanted = {key for key in own if key.partition(".")[0] in ("decoder", "saliency_head")}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    if decoder.keys() | counters != wanted or any(own[key].shape != value.shape for key, value in decoder.items()):
        return None
    embedder.load_state_dict({**own, **{f"backbone.{key}": value for key, value in backbone.items()}, **decoder})
    return embedder.eval()


def _prototypes(tensors: Mapping[str, Tensor], layout: Layout, dim: int) -> tuple[Tensor | None, str]:
    """(K, D) float32 of the layout, and what to say."""
    names = [key for key in tensors if layout.prototypes and re.search(layout.prototypes, key)]
    if not names:
        return None, ""
    rows = tensors[names[0]].float()
    if rows.ndim > 2 and rows.shape[2:].numel() == 1:
        rows = rows.flatten(1)
    if len(names) > 1 or rows.ndim != 2 or rows.shape[1] != dim:
        return None, f"prototypes not taken: {', '.join(names)}, the first {tuple(tensors[names[0]].shape)}, D = {dim}"
    return torch.nn.functional.normalize(rows, dim=1), f"{len(rows)} {layout.prototypes_word} from {names[0]!r}"


def _read_decoder(inside: Mapping[str, Tensor], channels: list[int]) -> _Decoder | None:
    """A decoder by its tensors, all of which it takes; None if they are of none that is known.

    Args:
        inside: by the names that they have under the decoder's prefix.
        channels: of the backbone's stages, finest first.
    """
    for read in (_projector, _fpn, _deeplabv3, _deeplabv3plus):
        decoder = read(inside, channels)
        if decoder is not None:
            return decoder
    return None


def _projector(inside: Mapping[str, Tensor], channels: list[int]) -> _Decoder | None:
    """SlotCon's: `mlp`, three 1x1 convolutions with BatchNorm between."""
    layers = [inside.get(f"mlp.{place}.weight") for place in (0, 3, 6)]
    names = {key.removeprefix("mlp.").partition(".")[0] for key in inside}
    first, second, third = layers
    if first is None or second is None or third is None or names != {"0", "1", "3", "4", "6"}:
        return None
    if first.shape[1] != channels[-1]:
        return None
    hidden, dim = first.shape[0], third.shape[0]
    tensors = {f"decoder.{key}": _linear(value) for key, value in inside.items()}
    words = f"projector of {hidden} hidden channels, D = {dim}"
    return _Decoder(words, {"decoder": "projector", "hidden": hidden, "dim": dim}, tensors)


def _linear(weight: Tensor) -> Tensor:
    """A 1x1 convolution's weight as that of a linear layer."""
    return weight.flatten(1) if weight.ndim == 4 and weight.shape[2:] == (1, 1) else weight


def _fpn(inside: Mapping[str, Tensor], channels: list[int]) -> _Decoder | None:
    """PiCIE's and ViCE's: a 1x1 convolution of each of the last four stages; which is which tells the shape."""
    weights = {key: value for key, value in inside.items() if key.endswith("weight")}
    stages = channels[-4:]
    if len(stages) < 4 or len(set(stages)) < 4 or len(weights) != 4:
        return None
    tensors: Tensors = {}
    dims = {value.shape[0] for value in weights.values()}
    for place, count in enumerate(stages):
        fitting = [key for key, value in weights.items() if value.ndim == 4 and value.shape[1:] == (count, 1, 1)]
        if len(fitting) != 1 or len(dims) != 1:
            return None
        stem = fitting[0].removesuffix("weight")
        tensors[f"decoder.laterals.{place}.weight"] = weights[fitting[0]]
        tensors[f"decoder.laterals.{place}.bias"] = inside.get(f"{stem}bias", torch.zeros(*dims))
    biases = sum(key.endswith("bias") for key in inside)
    if len(inside) != 4 + biases or biases not in (0, 4):
        return None
    (dim,) = dims
    return _Decoder(f"light feature pyramid, D = {dim}", {"decoder": "fpn", "dim": dim}, tensors)


# torchvision's DeepLabHead: 0 is ASPP, then a 3x3 convolution and its norm, and a 1x1 convolution.
_TORCHVISION = (
    (r"0\.convs\.([0-3])\.([01])\.", r"branches.\1.\2."),
    (r"0\.convs\.4\.1\.", "pooled.0."),
    (r"0\.convs\.4\.2\.", "pooled.1."),
    (r"0\.project\.([01])\.", r"merge.0.\1."),
    (r"1\.", "merge.1.0."),
    (r"2\.", "merge.1.1."),
)


def _deeplabv3(inside: Mapping[str, Tensor], channels: list[int]) -> _Decoder | None:
    """MaskContrast's: torchvision's head up to its 3x3 convolution, and the two 1x1 convolutions on it."""
    start = next((key.removesuffix("0.convs.0.0.weight") for key in inside if key.endswith("0.convs.0.0.weight")), None)
    if start is None or start.endswith("aspp."):
        return None
    tensors: Tensors = {}
    rest: Tensors = {}
    for key, value in inside.items():
        name = key.removeprefix(start) if key.startswith(start) else ""
        for pattern, ours in _TORCHVISION:
            if name and re.match(pattern, name):
                renamed = re.sub(f"^{pattern}", ours, name)
                tensors[f"decoder.{renamed}"] = _linear(value) if renamed.startswith("pooled.0") else value
                break
        else:
            rest[key] = value
    return _with_heads(tensors, rest, "deeplabv3", "DeepLabV3 head", "decoder.project")


def _deeplabv3plus(inside: Mapping[str, Tensor], channels: list[int]) -> _Decoder | None:
    """ViCE's at high resolution: segmentation_models_pytorch's decoder, and a 1x1 convolution to D."""
    mark = "aspp.0.convs.0.0.weight"
    start = next((key.removesuffix(mark) for key in inside if key.endswith(mark)), None)
    if start is None:
        return None
    parts = ("aspp.", "block1.", "block2.")
    of_decoder = {key for key in inside if key.startswith(start) and key.removeprefix(start).startswith(parts)}
    tensors = {f"decoder.decoder.{key.removeprefix(start)}": inside[key] for key in of_decoder}
    rest = {key: value for key, value in inside.items() if key not in of_decoder}
    return _with_heads(tensors, rest, "deeplabv3plus", "DeepLabV3+ decoder", "decoder.project")


def _with_heads(tensors: Tensors, rest: Tensors, decoder: str, words: str, project: str) -> _Decoder | None:
    """With the 1x1 convolutions behind it: of an embedding, and of a saliency logit if there is one."""
    heads = {key.removesuffix("weight"): value for key, value in rest.items() if key.endswith("weight")}
    if any(value.ndim != 4 or value.shape[1:] != (256, 1, 1) for value in heads.values()):
        return None
    embeddings = [stem for stem, value in heads.items() if value.shape[0] > 1]
    logits = [stem for stem, value in heads.items() if value.shape[0] == 1]
    known = {stem + kind for stem in heads for kind in ("weight", "bias")}
    if len(embeddings) != 1 or len(logits) > 1 or not rest.keys() <= known:
        return None
    for ours, stems in ((project, embeddings), ("saliency_head", logits)):
        for stem in stems:
            weight = rest[f"{stem}weight"]
            tensors |= {f"{ours}.weight": weight, f"{ours}.bias": rest.get(f"{stem}bias", torch.zeros(len(weight)))}
    dim = len(heads[embeddings[0]])
    settings = {"decoder": decoder, "dim": dim, "saliency": bool(logits), "output_stride": 8}
    said = " and a saliency head" if logits else ""
    return _Decoder(f"{words}, D = {dim}{said}", settings, tensors)


_DEPTHS = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}


def guess_resnet(tensors: Mapping[str, Tensor], source: str) -> str:
    """The timm name of the ResNet in a file, by its blocks.

    Raises:
        CheckpointError: if there is none, or another one.
    """
    for first in (key for key in tensors if re.search(r"(^|\.)layer1\.0\.conv1\.weight$", key)):
        prefix = first.removesuffix("layer1.0.conv1.weight")
        blocks = [
            sum(bool(re.fullmatch(rf"{re.escape(prefix)}layer{stage}\.\d+\.conv1\.weight", key)) for key in tensors)
            for stage in (1, 2, 3, 4)
        ]
        name = _DEPTHS.get((f"{prefix}layer1.0.conv3.weight" in tensors, (blocks[0], blocks[1], blocks[2], blocks[3])))
        if name:
            return name
    raise CheckpointError(
        f"can't tell which network {source} holds: it is no ResNet-18, 34, 50, 101 or 152 by torchvision's names, but "
        f"{tell_groups(tensors)}; give the network's name in timm with --backbone"
    )
