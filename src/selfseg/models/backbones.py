"""timm backbones as multi-scale feature extractors."""

from __future__ import annotations

from typing import Any, cast

import timm
import torch
from torch import nn

from selfseg.errors import ConfigError


def make_backbone(name: str, output_stride: int) -> nn.Module:
    """A timm network that returns its stages' feature maps, finest first.

    Args:
        name: any timm network with feature extraction: "resnet18" to "resnet152", "convnext_tiny", "efficientnet_b0",
            "vit_small_patch16_224", ...
        output_stride: stride of a CNN's last stage, 8, 16 or 32; below 32 the last stages are dilated instead of
            strided. A ViT has the stride of its patches in all stages, whatever is given; it takes images of any size.

    Returns:
        Module: (B, 3, H, W) to a list of (B, C_i, h_i, w_i); `feature_info` tells channels and strides. Weights are
        random.

    Raises:
        ConfigError: if timm has no such network or it can't be built at that stride.
    """
    try:
        # 32 is a CNN's own; not all of them can be given another, or even that one.
        options: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
        if _is_vit(name):
            options = {"dynamic_img_size": True, "dynamic_img_pad": True}
        return cast(nn.Module, timm.create_model(name, pretrained=False, features_only=True, **options))
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


# timm's modules of transformers that take images of any size: ViTs with DINOv2's, DeiTs, EVAs with DINOv3's, hybrids.
_VITS = ("vision_transformer", "deit", "eva", "vision_transformer_hybrid")


def _is_vit(name: str) -> bool:
    """Whether timm builds the network by its VisionTransformer or one like it."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        return False
    module: str = timm.models.model_entrypoint(architecture).__module__
    return module.rpartition(".")[2] in _VITS


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
    centres: dict[int, float] = {}
    seen: list[tuple[nn.Module, int]] = []
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [
        module.register_forward_pre_hook(lambda module, given: seen.append((module, given[0].shape[-1])))
        for module in backbone.modules()
        if isinstance(module, kinds) and _first(module.stride) > 1
    ]
    training, device = backbone.training, next(backbone.parameters()).device
    side = 64
    try:
        backbone.eval()(torch.zeros(1, 3, side, side, device=device))
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


def nested_name(key: str) -> str:
    """A tensor's name in the whole network; timm calls "stages.0.weight" "stages_0.weight" where stages are returned.

    Example:
        >>> nested_name("stages_0.blocks.0.gamma"), nested_name("layer1.0.conv1.weight")
        ('stages.0.blocks.0.gamma', 'layer1.0.conv1.weight')
    """
    first, dot, rest = key.partition(".")
    return ".".join(first.rsplit("_", 1)) + dot + rest
