"""Weights from files of other projects: what may be read, and how they name what we call a backbone.

A file is read into one flat mapping, `{"teacher": {"module.backbone.conv1.weight": ...}}` becoming
`teacher.module.backbone.conv1.weight`. A copy of the backbone is a prefix under which all its tensors are, by timm's
names or in one of `NAMINGS`. So it doesn't matter in what a project wraps it; where there are several copies, `TWINS`
tells which one that project keeps, and without a word there the file is refused unless they are equal.

Known so: DINO (ViT, ResNet), iBOT, DINOv2, DINOv3, MAE, MoCo to v3, SwAV, VISSL, DenseCL (mmseg), BYOL, DetCon, PixPro,
InfoMin, SlotCon, Leopart, MaskContrast, and STEGO, whose backbone is DINO's. A CAUSE file holds heads on one of these
and not the backbone itself: it is refused, and the backbone's own file is what to give.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from selfseg.errors import CheckpointError
from selfseg.models.backbones import nested_name
from selfseg.models.published.files import Tensors
from selfseg.models.published.files import read_weights as read_weights
from selfseg.telling import tell_after


@dataclass(frozen=True)
class Twins:
    """Two copies of the backbone in one file.

    Attributes:
        projects: whose files these are.
        taken: regex of a part (between dots) of the prefix of the copy that the project keeps.
        left: of the other one's.
        word: what the taken one is, for the log.
        sign: regex of a part of some name in the file, where the parts alone could be another project's.
    """

    projects: str
    taken: str
    left: str
    word: str
    sign: str = ""


# SlotCon's names are MoCo's, with the opposite choice; without a sign of one of them such a file is refused.
TWINS = (
    Twins("SlotCon", "encoder_k", "encoder_q", "the teacher", sign=r"grouping_[qk]|projector_[qk]|predictor_slot"),
    Twins("DINO, iBOT, DINOv2", r"teacher\w*", r"student\w*", "the teacher"),
    Twins("Leopart", r"teacher\w*", "model", "the teacher"),
    Twins("MoCo v3", "base_encoder", "momentum_encoder", "the trained encoder"),
    Twins("DenseCL", "backbone", "encoder_[qk]", "the trained encoder"),
    Twins("MoCo", "encoder_q", "encoder_k", "the trained encoder", sign=r"queue\w*"),
    Twins("MaskContrast", "model_q", "model_k", "the trained model"),
    Twins("BYOL, DetCon", r"online\w*", r"target\w*", "the online network"),
    Twins("PixPro", "encoder", "encoder_k", "the trained encoder"),
    Twins("InfoMin", "model", "model_ema", "the trained model"),
    Twins("timm", "state_dict", "state_dict_ema", "the trained model"),
    Twins("VISSL", "base_model", "loss", "the trained model"),
)


@dataclass(frozen=True)
class Naming:
    """How the tensors of one backbone are called.

    Attributes:
        projects: whose names these are.
        renames: regexes of their names, and timm's.
        first: their name of the first convolution, where it isn't timm's.
        word: what else the log should say.
        convert: what else there is to do: (tensors by timm's names, those wanted) to tensors by timm's names.
    """

    projects: str
    renames: tuple[tuple[str, str], ...] = ()
    first: str = ""
    word: str = ""
    convert: Callable[[Tensors, set[str]], Tensors] = lambda found, wanted: found


def _spread_position(found: Tensors, wanted: set[str]) -> Tensors:
    """Official DINOv2 adds a position to the class token, timm's models with registers to patches only."""
    if "reg_token" in found and {"cls_token", "pos_embed"} <= found.keys():
        positions = found["pos_embed"]
        return {**found, "cls_token": found["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}
    return found


def _spread_bias(found: Tensors, wanted: set[str]) -> Tensors:
    """Official DINOv3 has one bias of queries, keys and values, of which that of the keys is masked."""
    spread = dict(found)
    for key in [key for key in found if key.endswith("attn.qkv.bias") and key not in wanted and "reg_token" in found]:
        query, _, value = spread.pop(key).chunk(3)
        stem = key.removesuffix("qkv.bias")
        if f"{stem}q_bias" in wanted:
            spread |= {f"{stem}q_bias": query, f"{stem}v_bias": value}
        elif query.any() or value.any():
            raise CheckpointError(
                f"the file's {key} is not zero, and this backbone has no such bias: take timm's network whose name "
                "ends in _dinov3_qkvb"
            )
    return spread


NAMINGS = (
    Naming("timm, torchvision and whoever builds on them"),
    Naming(
        "DINOv2",  # in chunks of blocks where it was trained with FSDP
        (
            (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
            (r"^register_tokens$", "reg_token"),
            (r"\.mlp\.w12\.", ".mlp.fc1."),
            (r"\.mlp\.w3\.", ".mlp.fc2."),
        ),
        convert=_spread_position,
    ),
    Naming(
        "DINOv3",
        (
            (r"^storage_tokens$", "reg_token"),
            (r"\.ls([12])\.gamma$", r".gamma_\1"),
            (r"\.mlp\.w1\.", ".mlp.fc1_g."),
            (r"\.mlp\.w2\.", ".mlp.fc1_x."),
            (r"\.mlp\.w3\.", ".mlp.fc2."),
        ),
        convert=_spread_bias,
    ),
    Naming(
        "BYOL",  # in ports that keep a ResNet's layers in a Sequential
        ((r"^0\.", "conv1."), (r"^1\.", "bn1."), *((rf"^{n + 3}\.", f"layer{n}.") for n in (1, 2, 3, 4))),
        first="0.weight",
    ),
    Naming(
        "Swin",  # its authors count a merging of patches to the stage before it
        tuple((rf"^layers\.{n}\.downsample\.", f"layers.{n + 1}.downsample.") for n in (2, 1, 0)),
    ),
    Naming("MAE, fine-tuned", ((r"^fc_norm\.", "norm."),), word="the last norm is the file's fc_norm"),
)


@dataclass(frozen=True, eq=False)
class _Copy:
    """A copy of the backbone in a file: tensors by our names, and what was done to the positions."""

    prefix: str
    tensors: Tensors
    resampled: str
    missing: list[str]
    wrong: list[str]
    deeper: list[str]

    @property
    def is_whole(self) -> bool:
        return not self.missing and not self.wrong and not self.deeper


@dataclass(frozen=True, eq=False)
class Found:
    """A backbone in a file.

    Attributes:
        prefix: what the file's names of it begin with.
        tensors: by our names.
        sentence: what was found: under which prefix, which copy of several, whether positions were resampled.
    """

    prefix: str
    tensors: Tensors
    sentence: str


def fill_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], source: object) -> str:
    """Fill a backbone from named tensors; see `find_backbone`.

    Returns:
        A sentence on what was loaded.

    Raises:
        CheckpointError: as `find_backbone`. The backbone is unchanged.
    """
    found = find_backbone(backbone, weights, source)
    backbone.load_state_dict({**backbone.state_dict(), **found.tensors})
    return found.sentence


def find_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], source: object) -> Found:
    """A backbone among named tensors.

    Args:
        backbone: made by `selfseg.models.backbones.make_backbone`; unchanged.
        weights: as `read_weights` gives them, of a project that the top of this file names. Positions of a ViT for
            another grid of patches are resampled (bicubic, as timm does it).
        source: where they are from, for messages.

    Raises:
        CheckpointError: if they are not of this backbone, or hold it several times and nothing tells which one is
            meant.
    """
    wanted = backbone.state_dict()
    nearest: _Copy | None = None
    for naming in NAMINGS:
        copies = list(_copies(backbone, wanted, weights, naming))
        # Those with a hole count too: a file with a damaged teacher must not give its student.
        close = [copy for copy in copies if 2 * len(copy.tensors) >= len(wanted)]
        chosen, words = _choose(close, weights, source)
        if chosen is not None and chosen.is_whole:
            under = f" under {chosen.prefix!r}" if chosen.prefix else ""
            said = [f"{len(chosen.tensors)} tensors of the backbone from {source}{under}", *words]
            words = [", ".join(said), *(word for word in (chosen.resampled, naming.word) if word)]
            return Found(chosen.prefix, chosen.tensors, "; ".join(words))
        for copy in copies if chosen is None else [chosen]:
            if nearest is None or len(copy.tensors) > len(nearest.tensors):
                nearest = copy
    assert nearest is not None  # each naming gives one without a prefix
    missing, wrong, found = nearest.missing, nearest.wrong, nearest.tensors
    example = (missing or wrong or nearest.deeper)[0]
    shapes = f", {example} is {tuple(found[example].shape)} instead of {tuple(wanted[example].shape)}" if wrong else ""
    way_out = "is it another architecture?"
    if nearest.deeper:
        way_out = f"it also has {nearest.deeper[0]}, so it belongs to a deeper network"
    elif {key.removeprefix("model.") for key in missing} <= {"norm.weight", "norm.bias"} and not wrong:
        way_out = "it has no last norm, so set final_norm to False"
    under = f" under {nearest.prefix!r}" if nearest.prefix else ""
    raise CheckpointError(
        f"{source} does not hold this backbone{under}: {len(missing)} of {len(wanted)} tensors missing, {len(wrong)} "
        f"of another shape (first: {example}{shapes}; the file has e.g. {', '.join(list(weights)[:3])}); {way_out}"
    )


def _copies(
    backbone: nn.Module, wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], naming: Naming
) -> Iterator[_Copy]:
    """What a file has under each prefix where the backbone could begin."""
    names = {key: _names(key) for key in wanted}
    first = next((key for key, value in wanted.items() if value.ndim == 4), next(iter(wanted)))
    starts = {naming.first} if naming.first else names[first]
    prefixes = {key.removesuffix(start) for key in weights for start in starts if f".{key}".endswith(f".{start}")}
    for prefix in sorted(prefixes | {""}, key=len):
        inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        for pattern, ours in naming.renames:
            inside = {re.sub(pattern, ours, key): value for key, value in inside.items()}
        inside = naming.convert(inside, {name for each in names.values() for name in each})
        found = {
            key: next(inside[name] for name in each if name in inside)
            for key, each in names.items()
            if any(name in inside for name in each)
        }
        found, resampled = _resample_positions(backbone, wanted, found)
        missing = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
        wrong = [key for key in found if found[key].shape != wanted[key].shape]
        yield _Copy(prefix, found, resampled, missing, wrong, _deeper(names, inside))


# A block of a ResNet, of a ViT, of a stage of a ConvNeXt or Swin.
_BLOCK = re.compile(r"((?:layer\d|blocks|(?:stages|layers)\.\d+\.blocks)\.)\d+\.(?:conv1|norm1|conv_dw)\.weight")


def _deeper(names: Mapping[str, tuple[str, ...]], inside: Mapping[str, Tensor]) -> list[str]:
    """Blocks that a file has beyond ours: all of a ResNet-18's tensors are in a ResNet-34's file, too."""
    ours = {name for each in names.values() for name in each}
    found = [match for match in map(_BLOCK.fullmatch, inside) if match and match[0] not in ours]
    return [match[0] for match in found if any(name.startswith(match[1]) for name in ours)]


def _names(key: str) -> tuple[str, ...]:
    """What a tensor of ours is called in a file, without the wrappers that make feature maps; timm renames stages."""
    for wrapper in ("windowed.", "model.", "body."):
        key = key.removeprefix(wrapper)
    first, dot, rest = key.partition(".")
    return tuple(dict.fromkeys((key, nested_name(key), first.replace("_", ".", 1) + dot + rest)))


def _resample_positions(backbone: nn.Module, wanted: Mapping[str, Tensor], found: Tensors) -> tuple[Tensors, str]:
    """Positions of patches for the network's grid, where the file has them for another square one."""
    key = next((key for key in wanted if key.split(".")[-1] == "pos_embed"), None)
    network: Any = getattr(backbone, "model", backbone)
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if key not in found or grid is None:
        return found, ""
    ours, theirs = wanted[key].shape, found[key].shape
    if ours == theirs or len(ours) != 3 or len(theirs) != 3 or ours[2] != theirs[2]:
        return found, ""
    before = ours[1] - grid[0] * grid[1]  # class and register tokens
    side = math.isqrt(max(theirs[1] - before, 0))
    if before < 0 or not side or side * side + before != theirs[1]:
        return found, ""
    resampled = resample_abs_pos_embed(found[key], list(grid), [side, side], num_prefix_tokens=before)
    return {**found, key: resampled}, f"positions resampled from {side} x {side} patches to {grid[0]} x {grid[1]}"


def _choose(copies: list[_Copy], weights: Mapping[str, Tensor], source: object) -> tuple[_Copy | None, list[str]]:
    """The copy that the file's project keeps, and in words which one that is, if there are others."""
    words = []
    parts = {part for key in weights for part in key.split(".")}
    for twins in TWINS:
        if twins.sign and not any(re.fullmatch(twins.sign, part) for part in parts):
            continue
        taken = [copy for copy in copies if _has(copy, twins.taken) and not _has(copy, twins.left)]
        left = [copy for copy in copies if _has(copy, twins.left) and not _has(copy, twins.taken)]
        if taken and left:
            copies = [copy for copy in copies if copy not in left]
            words.append(f"{twins.word}, not the other copy under {left[0].prefix!r}")
    if not copies:
        return None, []
    first, *others = [copy for copy in copies if copy.is_whole] or copies[:1]
    for other in others:
        if not all(torch.equal(value, other.tensors[key]) for key, value in first.tensors.items()):
            raise CheckpointError(
                f"{source} holds this backbone {len(others) + 1} times, under "
                f"{', '.join(repr(copy.prefix) for copy in (first, *others))}, and they differ; save the one "
                "that you mean in a file of its own"
            )
    return first, words


def _has(copy: _Copy, pattern: str) -> bool:
    return any(re.fullmatch(pattern, part) for part in copy.prefix.split("."))


def timm_weights(name: str) -> Tensors:
    """What timm downloads for a network, once.

    Raises:
        CheckpointError: if it can't be had.
    """
    sentence = f"still fetching ImageNet weights of {name!r} through timm; without a network this fails after a minute"
    try:
        with tell_after(sentence):
            model = timm.create_model(name, pretrained=True)
    except Exception as error:  # network, hub and name errors of many libraries
        raise CheckpointError(
            f"can't get ImageNet weights of {name!r} through timm ({_first_line(error)}); without a network, fetch "
            f"model.safetensors of the model timm/{name} from the Hugging Face hub elsewhere, copy it here, and give "
            "it as --init FILE"
        ) from error
    return dict(model.state_dict())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"
