"""Names and shapes that the other projects expect, written down here from their schemes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from selfseg.errors import ConfigError
from selfseg.exporting.targets import (
    RESNETS,
    Target,
    detectron2_target,
    from_detectron2,
    mmseg_target,
    timm_target,
    to_detectron2,
    torchvision_target,
)
from selfseg.models.backbones import make_backbone
from selfseg.models.embedder import EmbedderConfig

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def backbone_of(name: str, stride: int = 32) -> nn.Module:
    """Random weights and BatchNorms as after training: new ones of timm's ResNets switch the residual branches off."""
    torch.manual_seed(0)
    network = make_backbone(name, stride)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.data.uniform_(0.5, 1)
            module.bias.data.uniform_(-0.1, 0.1)
    return network.eval()


def image(size: tuple[int, int] = (64, 64)) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)


def detectron2_scheme(name: str) -> dict[str, tuple[int, ...]]:
    """Every tensor of detectron2's ResNet: BasicStem, then res2 to res5 of BasicBlock or BottleneckBlock."""
    wide = 4 if name == "resnet50" else 1
    scheme: dict[str, tuple[int, ...]] = {"stem.conv1.weight": (64, 3, 7, 7), **dict(norm("stem.conv1.norm", 64))}
    entering = 64
    for stage, blocks in enumerate(BLOCKS[name]):
        narrow, leaving = 64 << stage, (64 << stage) * wide
        for block in range(blocks):
            at = f"res{stage + 2}.{block}"
            if wide == 4:
                shapes = [(narrow, entering, 1, 1), (narrow, narrow, 3, 3), (leaving, narrow, 1, 1)]
            else:
                shapes = [(narrow, entering, 3, 3), (narrow, narrow, 3, 3)]
            if entering != leaving:
                scheme[f"{at}.shortcut.weight"] = (leaving, entering, 1, 1)
                scheme |= dict(norm(f"{at}.shortcut.norm", leaving))
            for number, shape in enumerate(shapes, 1):
                scheme[f"{at}.conv{number}.weight"] = shape
                scheme |= dict(norm(f"{at}.conv{number}.norm", shape[0]))
            entering = leaving
    return scheme


def mmseg_scheme(name: str) -> dict[str, tuple[int, ...]]:
    """The same network as mmsegmentation names it: layer1 to layer4, norms beside their convolution, their counters."""
    scheme = {}
    for key, shape in detectron2_scheme(name).items():
        at, _, part = key.removeprefix("stem.").rpartition(".")
        if at.startswith("res"):
            at = f"layer{int(at[3]) - 1}{at[4:]}"
        if at.endswith("shortcut.norm"):
            at = at.replace("shortcut.norm", "downsample.1")
        elif at.endswith("shortcut"):
            at = at.replace("shortcut", "downsample.0")
        elif at.endswith(".norm"):
            at = at.removesuffix(".norm").replace("conv", "bn")
        scheme[f"backbone.{at}.{part}"] = shape
        if part == "running_var":
            scheme[f"backbone.{at}.num_batches_tracked"] = ()
    return scheme


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_detectron2_and_mmseg_get_the_names_and_shapes_of_their_resnets(name: str) -> None:
    config = EmbedderConfig(backbone=name, output_stride=32)
    backbone = backbone_of(name)
    for make, scheme in ((detectron2_target, detectron2_scheme(name)), (mmseg_target, mmseg_scheme(name))):
        target = make(backbone, config)
        assert {key: tuple(value.shape) for key, value in target.weights.items()} == scheme
        assert target.notes == ()
    assert torch.equal(
        detectron2_target(backbone, config).weights["res4.1.conv2.norm.running_var"],
        backbone.state_dict()["layer3.1.bn2.running_var"],
    )


@pytest.mark.parametrize("name", sorted(RESNETS))
def test_the_way_to_detectron2_and_back_is_lossless(name: str) -> None:
    with torch.device("meta"):
        names = list(torchvision.models.get_model(name).state_dict())
    kept = [key for key in names if not key.startswith("fc.")]
    assert [from_detectron2(to_detectron2(key)) for key in kept] == kept


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stride"), [("resnet18", 8), ("resnet18", 32), ("resnet50", 16)])
def test_the_networks_of_others_compute_the_same(name: str, stride: int) -> None:
    config = EmbedderConfig(backbone=name, output_stride=stride)
    backbone = backbone_of(name, stride)
    dilated = stride < 32 and name == "resnet50"
    with torch.no_grad():
        for make in (torchvision_target, detectron2_target, mmseg_target, timm_target):
            target = make(backbone, config)
            found = target.last_stage(target.weights, image())
            torch.testing.assert_close(found, target.expected(image()), rtol=1e-5, atol=1e-5)
            if dilated or make is timm_target:
                torch.testing.assert_close(found, backbone(image())[-1], rtol=1e-5, atol=1e-5)
            else:
                assert found.shape[2:] == (2, 2)  # basic blocks can't be dilated there ...
                assert bool(target.notes) == (stride < 32)  # ... and that is said


def test_names_must_be_complete_and_in_place() -> None:
    target = torchvision_target(backbone_of("resnet18"), EmbedderConfig(output_stride=32))
    weights = dict(target.weights)
    del weights["layer4.1.bn2.weight"]
    with pytest.raises(RuntimeError, match=r"layer4\.1\.bn2\.weight"):
        target.last_stage(weights, image())


@pytest.mark.parametrize(
    ("name", "make", "formats"),
    [
        ("convnext_atto", torchvision_target, "timm, safetensors, onnx"),
        ("resnet18d", detectron2_target, "timm, safetensors, onnx"),
        ("seresnet18", mmseg_target, "timm, safetensors, onnx"),
        ("wide_resnet50_2", mmseg_target, "timm, torchvision, detectron2, safetensors, onnx"),
    ],
)
def test_a_backbone_that_a_format_can_not_hold_is_refused_with_those_that_can(
    name: str, make: Any, formats: str
) -> None:
    with torch.device("meta"):
        backbone = make_backbone(name, 32)
    with pytest.raises(ConfigError, match=f"can't hold the backbone '{name}'.*formats that work for it: {formats}$"):
        make(backbone, EmbedderConfig(backbone=name, output_stride=32))


def rebuilt(target: Target) -> Any:
    """The network that a target's own call makes, filled strictly."""
    network = eval(target.call, {"timm": timm})
    network.load_state_dict(target.weights, strict=True)
    return network.eval()


def test_timm_gets_a_whole_convnext_with_a_new_last_norm() -> None:
    backbone = backbone_of("convnext_atto")
    target = timm_target(backbone, EmbedderConfig(backbone="convnext_atto", output_stride=32))
    assert target.untrained == ("head.norm.weight", "head.norm.bias")
    assert "head.norm.weight, head.norm.bias" in target.notes[-1]
    assert target.weights["head.norm.weight"].eq(1).all()
    network = rebuilt(target)
    with torch.no_grad():
        torch.testing.assert_close(network.forward_features(image()), backbone(image())[-1], rtol=1e-5, atol=1e-5)


def test_timm_gets_no_random_layers_in_place_of_an_efficientnets_head() -> None:
    backbone = backbone_of("efficientnet_b0")
    target = timm_target(backbone, EmbedderConfig(backbone="efficientnet_b0", output_stride=32))
    assert "features_only=True" in target.call
    assert "conv_head.weight" in target.notes[-1]
    assert target.untrained == ()
    assert not any("conv_head" in key for key in target.weights)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(target)(image())[-1], backbone(image())[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_timm_gets_a_whole_vision_transformer() -> None:
    """timm wraps transformers where they return feature maps, and leaves their last norm out."""
    torch.manual_seed(0)
    name = "vit_tiny_patch16_224"
    backbone = timm.create_model(name, features_only=True).eval()
    target = timm_target(backbone, EmbedderConfig(backbone=name, output_stride=16))
    assert target.untrained == ("norm.weight", "norm.bias")
    assert target.image_size == (224, 224)
    network = rebuilt(target)
    with torch.no_grad():
        found = target.last_stage(target.weights, image((224, 224)))
        torch.testing.assert_close(found, backbone(image((224, 224)))[-1], rtol=1e-5, atol=1e-5)
        normed = network.norm(found.flatten(2).transpose(1, 2))
        torch.testing.assert_close(network.forward_features(image((224, 224)))[:, 1:], normed, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm"), [("vit_tiny_patch16_224", True), ("swin_tiny_patch4_window7_224", False), ("levit_128s", False)]
)
def test_timm_gets_whole_transformers_of_every_kind(name: str, norm: bool) -> None:
    """A ViT with its last norm, a Swin, and one that is seen through windows of its size."""
    torch.manual_seed(0)
    backbone = make_backbone(name, 32, final_norm=norm).eval()
    target = timm_target(backbone, EmbedderConfig(backbone=name, output_stride=32))
    network = rebuilt(target)
    pixels = image(target.image_size)
    with torch.no_grad():
        found = target.last_stage(target.weights, pixels)
        torch.testing.assert_close(found, backbone(pixels)[-1], rtol=1e-5, atol=1e-5)
        if norm:
            tokens = network.forward_features(pixels)[:, 1:]
            torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens, rtol=1e-5, atol=1e-5)
            assert target.untrained == ()


def test_a_tag_of_timm_is_no_other_architecture(tmp_path: Path) -> None:
    backbone = backbone_of("resnet18")
    target = torchvision_target(backbone, EmbedderConfig(backbone="resnet18.a1_in1k", output_stride=32))
    assert target.call == "torchvision.models.resnet18(weights=None)"
