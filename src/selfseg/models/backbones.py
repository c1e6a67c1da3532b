"""timm backbones as multi-scale feature extractors of images of any size.

How a network takes an image that isn't of the size it was made for:

    CNNs                  as they are
    ViTs (`VITS`)         the image is filled up to whole patches on the right and below, with zeros, which are the mean
                          colour; positions are interpolated (rotary ones are worked out for any grid)
    Swins (`SWINS`)       filled up likewise; windows are laid over the larger grid, and every second block shifts them
                          wherever there is more than one, as timm builds it for that size
    other fixed ones      `Windows`: overlapping windows of the network's own size, whose features are blended

Filling up never adds a cell: stages have ceil(size / stride) of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from selfseg.errors import ConfigError
from selfseg.models.inputs.groups import ChannelGroups, Group
from selfseg.models.inputs.widening import inputs_of

# timm's modules of transformers that take images of any size: ViTs with DINOv2's, DeiTs, EVAs with DINOv3's, hybrids.
VITS = ("vision_transformer", "deit", "eva", "vision_transformer_hybrid")
SWINS = ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr")
# They fail on an image that isn't whole patches, or drop the rest.
_WHOLE_PATCHES = ("vision_transformer_hybrid", "deepseek_vit", "qwen3_vit")
# Those that timm marks as of a fixed size although their features are not.
_FREE = ("crossvit", "efficientvit_msra", "mvitv2", "sequencer", "swiftformer", "twins", "xcit")


def make_backbone(
    name: str,
    output_stride: int,
    final_norm: bool = False,
    all_blocks: bool = False,
    inputs: int = 3,
    groups: Sequence[Group] = (),
) -> nn.Module:
    """A timm network that returns its stages' feature maps, finest first; it takes images of any size.

    Args:
        name: any timm network with feature extraction: "resnet18" to "resnet152", "convnext_tiny", "efficientnet_b0",
            "vit_small_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "swin_tiny_...", ...
        output_stride: stride of a CNN's last stage, 8, 16 or 32; below 32 the last stages are dilated instead of
            strided. Of no meaning to transformers: a ViT has the stride of its patches in all stages.
        final_norm: of ViTs: their last norm is applied to the tokens of each block that is a stage, as in DINO's and
            DINOv2's `get_intermediate_layers`. Without it blocks give their residual stream as it is. Other networks'
            stages are never normed.
        all_blocks: of ViTs: each block is a stage, the first one first; else the last three are.
        inputs: channels C of an image; 3 with groups.
        groups: of channels that the network is shown one after the other (`ChannelGroups`); none = all at once.

    Returns:
        Module: (B, C, H, W), normalised, to a list of (B, C_i, ceil(H / s_i), ceil(W / s_i)); `feature_info` tells
        channels C_i and strides s_i. (Some CNNs drop what is less than a cell instead.) Weights are random.

    Raises:
        ConfigError: if timm has no such network or it can't be built at that stride.

    Example:
        >>> network = make_backbone("vit_tiny_patch16_224", 16, final_norm=True).eval()
        >>> [tuple(stage.shape) for stage in network(torch.rand(1, 3, 64, 90))]
        [(1, 192, 4, 6), (1, 192, 4, 6), (1, 192, 4, 6)]
    """
    check_backbone(name)
    module = _module(name)
    try:
        if module in VITS:
            network = _make_vit(name, final_norm, all_blocks, inputs)
        elif module in SWINS:
            network = _make_swin(name, module, inputs)
        else:
            # 32 is a CNN's own; not all of them can be given another, or even that one.
            options: dict[str, Any] = {"in_chans": inputs}
            options |= {} if output_stride == 32 else {"output_stride": output_stride}
            network = timm.create_model(name, pretrained=False, features_only=True, **options)
    except (
        RuntimeError,
        NotImplementedError,
        AssertionError,
        TypeError,
        AttributeError,
        ValueError,
    ) as error:
        import difflib

        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=4)) or "see timm.list_models()"
        raise ConfigError(
            f"can't build backbone {name!r} with output stride {output_stride}: {error}; near names: {near}"
        ) from error
    if module in _WHOLE_PATCHES:
        network.register_forward_pre_hook(partial(_fill_up, max(cast(Any, network.feature_info).reduction())))
    settings = timm.models.get_pretrained_cfg(name)
    free = module in (*VITS, *SWINS, *_FREE)
    if settings is not None and settings.fixed_input_size and not free:
        network = Windows(network, cast(tuple[int, int], tuple(settings.input_size[1:])))
    return ChannelGroups(network, groups) if groups else network


def check_backbone(name: str) -> None:
    """Raise ConfigError for what isn't the name of a network: timm would ask a hub for it, or open a folder."""
    if not isinstance(name, str) or re.fullmatch(r"[A-Za-z0-9_.\-]{1,200}", name) is None:
        raise ConfigError(
            f"the backbone {name!r:.80} is not the name of one of timm's networks, such as resnet18; a backbone is "
            "never fetched from an address or opened from a folder"
        )


def class_token(backbone: nn.Module, image: Tensor) -> Tensor | None:
    """What a ViT makes of a whole image: its class token after the last block, normed if its stages are.

    Args:
        backbone: made by `make_backbone`.
        image: (B, 3, H, W), normalised.

    Returns:
        (B, C); None of a network without a class token, for which nothing is computed.

    Example:
        >>> token = class_token(make_backbone("vit_tiny_patch16_224", 16, final_norm=True), torch.rand(2, 3, 64, 64))
        >>> token.shape, class_token(make_backbone("resnet18", 32), torch.rand(2, 3, 64, 64))
        (torch.Size([2, 192]), None)
    """
    model: Any = getattr(backbone, "model", None)
    if not isinstance(backbone, FeatureGetterNet) or getattr(model, "cls_token", None) is None:
        return None
    ((_, prefix),) = model.forward_intermediates(
        image, indices=1, return_prefix_tokens=True, norm=backbone.norm, intermediates_only=True
    )
    return cast(Tensor, prefix[:, 0])


def is_vit(name: str) -> bool:
    """Whether timm builds the network by its VisionTransformer or one like it.

    Example:
        >>> is_vit("vit_small_patch16_dinov3"), is_vit("resnet50")
        (True, False)
    """
    return _module(name) in VITS


def _module(name: str) -> str:
    """Timm's module of a network, "" if there is no such network."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        return ""
    module: str = timm.models.model_entrypoint(architecture).__module__
    return module.rpartition(".")[2]


def _make_vit(name: str, final_norm: bool, all_blocks: bool, inputs: int) -> nn.Module:
    options = {"dynamic_img_size": True, "dynamic_img_pad": True, "in_chans": inputs}
    network: Any = timm.create_model(name, pretrained=False, num_classes=0, **options)
    count = len(network.blocks) if all_blocks else min(3, len(network.blocks))
    return cast(nn.Module, FeatureGetterNet(network, out_indices=count, norm=final_norm))


def _make_swin(name: str, module: str, inputs: int) -> nn.Module:
    options: dict[str, Any] = {"strict_img_size": False, "features_only": True, "in_chans": inputs}
    if not module.endswith("_cr"):  # the others' maps are (B, h, w, C) otherwise
        options["feature_cls"] = "getter"
    network = cast(nn.Module, timm.create_model(name, pretrained=False, **options))
    patch = cast(Any, getattr(network, "model", network)).patch_embed.patch_size[0]
    network.register_forward_pre_hook(partial(_fill_up, patch))
    for block in network.modules():
        if hasattr(block, "target_shift_size"):
            block.register_forward_pre_hook(_shift_where_there_are_windows)
    return network


def _fill_up(unit: int, network: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    image = given[0]
    return (F.pad(image, (0, -image.shape[3] % unit, 0, -image.shape[2] % unit)),)


def _shift_where_there_are_windows(block: Any, given: tuple[Tensor]) -> None:
    """Before a Swin's block, with its cells (B, h, w, C).

    timm decides it when it builds the network, for the size it builds it for: at 224 px the last stage is one window,
    which has nothing to be shifted against. In a larger image it would stay so, and windows would never meet.
    """
    block.shift_size = tuple(
        0 if side <= window else min(shift, window // 2)
        for side, window, shift in zip(given[0].shape[1:3], block.window_size, block.target_shift_size, strict=True)
    )


class Windows(nn.Module):
    """A network of a fixed size on images of any size: overlapping windows of its size, whose features are blended.

    Windows overlap by half or more. Where several of them have a cell, its features are averaged, with weights that
    fall linearly from a window's middle to its edge. An image below the network's size is filled up with zeros, which
    are the mean colour. No window sees beyond itself: what the network makes of a place does not depend on what is
    further away than its own size.

    Args:
        network: (B, 3, *size) to a list of maps of ceil(size / stride) cells, with `feature_info`.
        size: height and width in px that it takes.

    Raises:
        ConfigError: (when it runs) if its maps have other sizes, which can't be put together.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.windowed, self.size = network, size
        self.feature_info = network.feature_info
        # Embedders from before there were windows have the network's own names.
        self.register_load_state_dict_pre_hook(_name_windowed)  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to its stages, finest first: (B, C_i, ceil(H / s_i), ceil(W / s_i))."""
        if image.shape[2:] == self.size:
            return list(self.windowed(image))
        info = cast(Any, self.feature_info)
        strides: list[int] = list(info.reduction())
        rows, columns = (
            window_starts(length, window, max(strides))
            for length, window in zip(image.shape[2:], self.size, strict=True)
        )
        high, wide = self.size
        filled = F.pad(image, (0, columns[-1] + wide - image.shape[3], 0, rows[-1] + high - image.shape[2]))
        corners = [(top, left) for top in rows for left in columns]
        seen = self.windowed(torch.cat([filled[:, :, top : top + high, left : left + wide] for top, left in corners]))
        stages = []
        for maps, stride, channels in zip(seen, strides, info.channels(), strict=True):
            cells = -(-high // stride), -(-wide // stride)
            if maps.shape[1:] != (channels, *cells):
                raise ConfigError(
                    f"the network gives maps of {tuple(maps.shape[1:])} for images of {high} x {wide} px where "
                    f"{(channels, *cells)} were expected, so it only takes images of one size; take another backbone"
                )
            weight = tent(cells[0])[:, None] * tent(cells[1])
            weight = weight.to(maps)
            grid = [-(-length // stride) for length in filled.shape[2:]]
            total, weights = maps.new_zeros(len(image), channels, *grid), maps.new_zeros(grid)
            for (top, left), window in zip(corners, maps.split(len(image)), strict=True):
                place = slice(top // stride, top // stride + cells[0]), slice(left // stride, left // stride + cells[1])
                total[:, :, place[0], place[1]] += window * weight
                weights[place] += weight
            blended = total / weights
            stages.append(blended[:, :, : -(-image.shape[2] // stride), : -(-image.shape[3] // stride)])
        return stages


def _name_windowed(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    inside = f"{prefix}windowed."
    for key in [key for key in state if key.startswith(prefix) and not key.startswith(inside)]:
        state[inside + key.removeprefix(prefix)] = state.pop(key)


def window_starts(length: int, window: int, unit: int) -> list[int]:
    """Where windows begin that cover a length and overlap by half or more, in multiples of `unit`.

    Example:
        >>> window_starts(200, 224, 32), window_starts(512, 224, 32)
        ([0], [0, 96, 192, 288])
    """
    last = -(-max(length - window, 0) // unit)
    step = max(window // 2 // unit, 1)
    count = -(-last // step) + 1
    return [round(last * index / max(count - 1, 1)) * unit for index in range(count)]


def tent(cells: int) -> Tensor:
    """Weights (cells,) float32 that fall linearly from the middle to the edges.

    Example:
        >>> tent(4)
        tensor([0.5000, 1.5000, 1.5000, 0.5000])
    """
    place = torch.arange(cells) + 0.5
    return torch.minimum(place, cells - place)


@torch.no_grad()
def cell_centres(backbone: nn.Module) -> dict[int, float]:
    """Where the cells of each stride look.

    A strided convolution with the usual padding of k // 2 looks around the first of the pixels that its cell stands
    for, not around their middle: of a ResNet the cells of stride 32 lie 15.5 px up and left of where a resize puts
    them.

    Args:
        backbone: made by `make_backbone`.

    Returns:
        By stride in px, the centre of the first cell's field of view in px from the image's edge; stride / 2 would be
        its middle. Strides that come about without a convolution or pooling layer are left out.

    Example:
        >>> cell_centres(make_backbone("resnet18", 32))
        {2: 0.5, 4: 0.5, 8: 0.5, 16: 0.5, 32: 0.5}
    """
    if isinstance(backbone, ChannelGroups):
        backbone = backbone.grouped
    centres: dict[int, float] = {}
    seen: list[tuple[nn.Module, int]] = []
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [
        module.register_forward_pre_hook(lambda module, given: seen.append((module, given[0].shape[-1])))
        for module in backbone.modules()
        if isinstance(module, kinds) and _first(module.stride) > 1
    ]
    training, device = backbone.training, next(backbone.parameters()).device
    side = backbone.size[0] if isinstance(backbone, Windows) else 64
    try:
        backbone.eval()(torch.zeros(1, inputs_of(backbone), side, side, device=device))
    finally:
        backbone.train(training)
        for hook in hooks:
            hook.remove()
    stride, centre = 1, 0.5
    for module, size in seen:
        if size * stride != side:  # beside the main path: a shortcut, an attention
            continue
        step, kernel = _first(module.stride), _first(module.kernel_size)
        reach = (kernel - 1) * _first(getattr(module, "dilation", 1))
        before = _first(module.padding)
        if type(module).__name__.endswith("Same"):  # timm's, which pad as TensorFlow does: less before than after
            before = max((-(-size // step) - 1) * step + reach + 1 - size, 0) // 2
        centre += (reach / 2 - before) * stride
        stride *= step
        centres[stride] = centre
    return centres


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def depths(backbone: nn.Module) -> dict[str, int]:
    """How far from the image each parameter is, counted in blocks of a ViT or stages of a CNN.

    Args:
        backbone: made by `make_backbone`.

    Returns:
        By the parameter's name: 0 for what comes before the first block or stage, 1 for that one, and so on. All are 0
        if timm's names of the stages are not those of modules.

    Example:
        >>> found = depths(make_backbone("resnet18", 32))
        >>> found["conv1.weight"], found["layer1.0.conv1.weight"], found["layer4.1.bn2.bias"]
        (0, 1, 4)
    """
    # In the order of the forward pass; by the names of the whole network, as timm's list of stages has them.
    parameters = [(name, nested_name(name.removeprefix("model.")), p.ndim) for name, p in backbone.named_parameters()]
    begins: list[int] = []
    ends: list[int] = []
    for stage in cast(Any, backbone.feature_info).info:
        inside = [i for i, (_, name, _) in enumerate(parameters) if name.startswith(f"{stage['module']}.")]
        # A stage that timm names by an activation or a norm ends the stem, and is none of its own.
        if any(parameters[i][2] >= 2 for i in inside):
            begins.append(inside[0])
            ends.append(inside[-1])
    found = {}
    for i, (name, _, _) in enumerate(parameters):
        # What lies between two listed stages belongs to the later one, what comes after the last to the last.
        before = not begins or i < begins[0]
        found[name] = 0 if before else min(1 + sum(end < i for end in ends), len(ends))
    return found


def freeze(backbone: nn.Module, stages: int | None) -> tuple[str, ...]:
    """Let the first stages of a backbone, and what comes before them, have no gradient.

    Args:
        backbone: made by `make_backbone`; changed in place.
        stages: so many stages of a CNN, or blocks of a ViT; None = the whole backbone.

    Returns:
        The names of the modules that must stay in eval mode, or their BatchNorms' statistics would still move.

    Raises:
        ConfigError: if it has fewer stages, or they are not known.

    Example:
        >>> network = make_backbone("resnet18", 32)
        >>> still = freeze(network, 1)
        >>> still[:2], network.layer1[0].conv1.weight.requires_grad, network.layer2[0].conv1.weight.requires_grad
        (('conv1', 'bn1'), False, True)
    """
    if stages is None:
        backbone.requires_grad_(False)
        return ("",)
    if stages == 0:
        return ()
    depth = depths(backbone)
    if stages > max(depth.values()):
        raise ConfigError(
            f"only {max(depth.values())} stages of the backbone are known, so {stages} can't be frozen; lower "
            "frozen_stages, or freeze all of it (frozen)"
        )
    parameters = dict(backbone.named_parameters())
    for name, place in depth.items():
        parameters[name].requires_grad_(place > stages)
    own = {name: list(module.parameters(recurse=False)) for name, module in backbone.named_modules()}
    return tuple(name for name, held in own.items() if held and not any(p.requires_grad for p in held) and name)


def nested_name(key: str) -> str:
    """A tensor's name in the whole network; timm calls "stages.0.weight" "stages_0.weight" where stages are returned.

    Example:
        >>> nested_name("stages_0.blocks.0.gamma"), nested_name("layer1.0.conv1.weight")
        ('stages.0.blocks.0.gamma', 'layer1.0.conv1.weight')
    """
    first, dot, rest = key.partition(".")
    return ".".join(first.rsplit("_", 1)) + dot + rest
